"""How far each peak of a field stands out: what must be crossed from it to a higher one."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt


def saddles(
    heat: npt.NDArray[np.floating[Any]], mask: npt.NDArray[np.bool_], tops: npt.NDArray[np.integer[Any]]
) -> npt.NDArray[np.float32]:
    """The highest that the lowest place of a way from each peak to a higher one can be.

    Ways stay in the mask and go over edges and corners. Of two equal peaks the first counts as the higher one.

    Args:
        heat: (h, w).
        mask: (h, w).
        tops: (N, 2) rows and columns of the peaks, in the mask.

    Returns:
        (N,) float32; minus infinity where no way leads to a higher peak.

    Raises:
        ValueError: a peak outside the mask.
    """
    tops = np.asarray(tops, np.int64).reshape(-1, 2)
    if not mask[tops[:, 0], tops[:, 1]].all():
        raise ValueError("a peak lies outside the mask: give peaks of the mask alone")
    if len(tops) < 2:
        return np.full(len(tops), -np.inf, np.float32)
    values = np.asarray(heat, np.float32)
    cells = np.flatnonzero(mask)
    order = cells[np.argsort(-values.ravel()[cells], kind="stable")]
    return np.asarray(_flood(values, order, tops[:, 0] * mask.shape[1] + tops[:, 1]), np.float32)


@numba.njit(cache=True)
def _flood(heat: Any, order: Any, tops: Any) -> Any:
    """Cells from high to low; basins that meet become one, which keeps the higher peak of both."""
    height, width = heat.shape
    values = heat.ravel()
    parent = np.full(values.size, -1, np.int64)
    peak = np.full(values.size, -1, np.int64)
    for k in range(len(tops) - 1, -1, -1):
        peak[tops[k]] = k
    found = np.full(len(tops), -np.inf, np.float32)
    for cell in order:
        parent[cell] = cell
        y, x = cell // width, cell % width
        for i in range(max(y - 1, 0), min(y + 2, height)):
            for j in range(max(x - 1, 0), min(x + 2, width)):
                other = i * width + j
                if parent[other] < 0 or other == cell:
                    continue
                a, b = _root(parent, cell), _root(parent, other)
                if a == b:
                    continue
                mine, its = peak[a], peak[b]
                if mine >= 0 and its >= 0:
                    high, low = values[tops[mine]], values[tops[its]]
                    if high < low or (high == low and its < mine):
                        mine, its = its, mine
                    found[its] = values[cell]
                parent[b] = a
                peak[a] = max(mine, its) if mine < 0 or its < 0 else mine
    return found


@numba.njit(cache=True)
def _root(parent: Any, cell: int) -> int:
    while parent[cell] != cell:
        parent[cell] = parent[parent[cell]]
        cell = parent[cell]
    return cell
