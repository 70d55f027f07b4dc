"""Division by the shortest path: every pixel joins the source that the cheapest walk over the mask leads to.

A step costs its length, more where it crosses an edge of the image, and more where the two pixels vote for places that
are apart. Straight lines to points (nearest point) cut through arms and legs; paths that shun edges go around them.
"""

from __future__ import annotations

import heapq
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from scipy import ndimage

NEIGHBOURS = np.array([(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)])


def geodesic_groups(
    mask: npt.NDArray[np.bool_],
    sources: npt.ArrayLike,
    *,
    cost: npt.NDArray[np.floating[Any]] | None = None,
    votes: npt.NDArray[np.floating[Any]] | None = None,
) -> npt.NDArray[np.int32]:
    """For every pixel of a mask, the source with the cheapest path to it.

    A step between two of the eight neighbours costs its length times (1 + their mean ``cost``), and on top the distance
    between their ``votes``. A source beside the mask starts at the nearest pixel of it, having walked straight there.

    Args:
        mask: (h, w) bool; paths stay on it, and the other pixels get 0.
        sources: (N, 2) (y, x) in pixels of this grid.
        cost: (h, w) of a pixel's edge, at least 0; None: 0.
        votes: (2, h, w) (y, x) place that each pixel takes for the middle of its object; None: all the same.

    Returns:
        (h, w) int32: 0 outside the mask, k + 1 for source k. Pieces of the mask that hold no source go, pixel by pixel,
        to the source nearest in a straight line. Of equally cheap ones it is always the same.

    Raises:
        ValueError: sizes that do not fit, or a cost below 0 or not a number.
    """
    mask = np.ascontiguousarray(mask, dtype=bool)
    places = np.asarray(sources, dtype=np.float64).reshape(-1, 2)
    price = np.zeros(mask.shape, np.float32) if cost is None else np.ascontiguousarray(cost, dtype=np.float32)
    aim = np.zeros((2, *mask.shape), np.float32) if votes is None else np.ascontiguousarray(votes, dtype=np.float32)
    if price.shape != mask.shape or aim.shape != (2, *mask.shape):
        raise ValueError(f"a mask of {mask.shape}, cost {price.shape}, votes {aim.shape}: make the sizes equal")
    if not (price[mask] >= 0).all():
        raise ValueError("a cost below 0 or not a number has no shortest path: clip it")
    if not len(places) or not mask.any():
        return np.zeros(mask.shape, np.int32)
    starts, walked = _onto(mask, places)
    groups = _flood(mask, price, aim, starts, walked)
    lost = np.argwhere(mask & (groups == 0))
    if len(lost):
        distance = ((lost[:, None] - places[None]) ** 2).sum(axis=2)
        groups[lost[:, 0], lost[:, 1]] = distance.argmin(axis=1) + 1
    return groups


def _onto(
    mask: npt.NDArray[np.bool_], places: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """(N, 2) pixels of the mask to start at, and the straight way to them where a source lies beside the mask."""
    cells = np.clip(np.floor(places + 0.5), 0, np.array(mask.shape) - 1).astype(np.int64)
    beside = ~mask[cells[:, 0], cells[:, 1]]
    walked = np.zeros(len(places))
    if beside.any():
        ways, near = ndimage.distance_transform_edt(~mask, return_indices=True)
        walked[beside] = ways[tuple(cells[beside].T)]
        cells[beside] = near[:, cells[beside, 0], cells[beside, 1]].T
    return cells, walked


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _flood(
    mask: npt.NDArray[np.bool_],
    price: npt.NDArray[np.float32],
    aim: npt.NDArray[np.float32],
    starts: npt.NDArray[np.int64],
    walked: npt.NDArray[np.float64],
) -> npt.NDArray[np.int32]:
    """Dijkstra from all sources at once; an entry of the heap is (way so far, source, pixel)."""
    height, width = mask.shape
    least = np.full(mask.shape, np.inf)
    groups = np.zeros(mask.shape, np.int32)
    done = np.zeros(mask.shape, np.bool_)
    heap = [(np.float64(0.0), np.int64(0), np.int64(0)) for _ in range(0)]
    for k in range(len(starts)):
        y, x = starts[k]
        if walked[k] < least[y, x]:
            least[y, x] = walked[k]
            groups[y, x] = k + 1
        heapq.heappush(heap, (walked[k], np.int64(k), y * width + x))
    while len(heap):
        way, k, pixel = heapq.heappop(heap)
        y, x = pixel // width, pixel % width
        if done[y, x]:
            continue
        done[y, x] = True
        groups[y, x] = k + 1
        for n in range(8):
            v, u = y + NEIGHBOURS[n, 0], x + NEIGHBOURS[n, 1]
            if not (0 <= v < height and 0 <= u < width) or not mask[v, u] or done[v, u]:
                continue
            length = 1.0 if v == y or u == x else 1.4142135623730951
            step = length * (1.0 + 0.5 * (price[y, x] + price[v, u]))
            dy, dx = aim[0, y, x] - aim[0, v, u], aim[1, y, x] - aim[1, v, u]
            onward = way + step + np.sqrt(dy * dy + dx * dx)
            if onward < least[v, u]:
                least[v, u] = onward
                heapq.heappush(heap, (onward, k, v * width + u))
    return groups
