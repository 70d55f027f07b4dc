"""The whole of what depth saw in part: noise pierces objects, and takes away what of them is near the ground.

Our own design. No threshold on height can tell a wheel from the road in noisy depth. But where an object is as near as
the ground at its foot is known from all of its depth: pixels below it at which the ground would be farther off than the
object are covered by it.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pixelkin.cues.geometry import Ground

Map = npt.NDArray[np.float32]
Objects = npt.NDArray[np.int32]


AIR = -0.5
"""Below such a vote (-1: as far as the ground, 1: as near as the object) there is air under an object."""

SURE = 0.15
"""Root of the summed squares of relative gaps between object and ground from which a column has a vote."""


def full_extent(
    objects: npt.NDArray[Any],
    inverse: Map,
    ground: Ground | None,
    *,
    closing: float = 0.15,
    hidden: float = 0.5,
    smallest: int = 100,
) -> tuple[Objects, Map]:
    """Objects with their holes closed, reaching down to where the ground is as near as they are.

    What is nobody's is given away, and crumbs; what belongs to another object stays. Where several reach, the one that
    comes first has it. Where depth says that the ground is seen below an object, as under a motorcycle, it does not
    grow.

    Args:
        objects: (H, W) integers, 0 none.
        inverse: (H, W) inverse depth, NaN unknown.
        ground: see :func:`~pixelkin.cues.geometry.find_ground`; None: holes are closed only.
        closing: gaps up to this share of an object's shorter side are closed.
        hidden: what is farther from the ground than this share of its height hangs, and does not grow; by columns.
        smallest: objects of fewer pixels are crumbs, which do not grow.

    Returns:
        (H, W) int32 objects, and (H, W) their inverse depth in the pixels they won; ``inverse`` elsewhere.
    """
    out = np.array(objects, np.int32)
    depth = np.array(inverse, np.float32)
    areas = np.bincount(out.ravel())
    free = (areas < smallest)[out]
    free[out == 0] = True
    large = [
        (n, place)
        for n, place in enumerate(ndimage.find_objects(out), start=1)
        if place is not None and areas[n] >= smallest
    ]
    for number, place in large:
        mine = out[place] == number
        won = _closed(mine, closing) & free[place]
        known = inverse[place][mine & np.isfinite(inverse[place])]
        out[place][won], free[place][won] = number, False
        depth[place][won] = np.median(known) if len(known) else np.nan
    if ground is not None:
        for number, place in large:
            _stand(out, depth, free, number, place, inverse, ground, hidden)
    return out, depth


def _closed(mask: npt.NDArray[np.bool_], share: float) -> npt.NDArray[np.bool_]:
    side = max(5, int(share * min(mask.shape))) | 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    padded = np.pad(mask.astype(np.uint8), side)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, kernel)[side:-side, side:-side]
    return np.asarray(ndimage.binary_fill_holes(closed), bool)


def _stand(
    out: Objects,
    depth: Map,
    free: npt.NDArray[np.bool_],
    number: int,
    place: tuple[slice, slice],
    inverse: Map,
    ground: Ground,
    hidden: float,
) -> None:
    """Let one object reach the ground, column by column, in place."""
    height = out.shape[0]
    top, left = place[0].start, place[1].start
    mine = out[place] == number
    near = _column_medians(np.where(mine, inverse[place], np.nan))
    reach: dict[int, slice] = {}
    votes = np.zeros((2, mine.shape[1]))
    for column in np.flatnonzero(mine.any(axis=0) & np.isfinite(near)).tolist():
        rows = np.flatnonzero(mine[:, column])
        x, low = left + column, top + int(rows[-1])
        foot = (near[column] - ground.a * x - ground.c) / ground.b  # where the ground is as near
        if foot - low > max(3.0, hidden * (rows[-1] - rows[0] + 1)):  # it hangs, or its depth is wrong
            continue
        below = slice(low + 1, max(int(min(np.ceil(foot - 1e-3), height)), low + 1))
        taken = np.flatnonzero(~free[below, x])
        reach[column] = slice(below.start, below.start + int(taken[0])) if len(taken) else below
        plane = ground.a * x + ground.b * np.arange(height)[below] + ground.c
        votes[:, column] = _vote(inverse[below, x], near[column], plane)
    against, weight = ndimage.uniform_filter1d(votes, max(5, mine.shape[1] // 5) | 1, axis=1, mode="constant")
    for column, below in reach.items():
        if votes[1, column] < SURE**2 or against[column] >= AIR * weight[column]:
            x = left + column
            out[below, x], free[below, x], depth[below, x] = number, False, near[column]


def _vote(seen: Map, near: float, plane: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Whether pixels below an object are as near as it or as far as the ground there, and how much they can tell.

    The first over the second is 1 for the object and -1 for the ground: a log-likelihood ratio for Gaussian noise.
    """
    gap = 1 - plane / near
    known = np.isfinite(seen) & (gap > 0)
    return float((gap * (2 * seen / near - 2 + gap))[known].sum()), float(np.square(gap[known]).sum())


def _column_medians(values: Map) -> npt.NDArray[np.float64]:
    """The median of each column's known values, smoothed along the columns by a median over a third of them."""
    known = np.isfinite(values)
    middle = np.full(values.shape[1], np.nan)
    for column in np.flatnonzero(known.any(axis=0)).tolist():
        middle[column] = np.median(values[known[:, column], column])
    if not np.isfinite(middle).any():
        return middle
    middle[~np.isfinite(middle)] = np.nanmedian(middle)
    return np.asarray(ndimage.median_filter(middle, size=max(9, len(middle) // 3) | 1, mode="nearest"))
