"""Objects in several pieces: joins of components of one class across the gaps between them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

MOST = 200
"""More components of a class in an image are a texture, not one object in pieces."""


class Join(NamedTuple):
    """Components that may be one object: their numbers, and the last gap closed, in sides of the larger part."""

    members: frozenset[int]
    gap: float


def join_across_gaps(boxes: npt.NDArray[Any], areas: npt.NDArray[Any], *, most: float = 1.0) -> list[Join]:
    """Join the two nearest parts again and again, as long as the gap is small for their size.

    Something in front of an object cuts it into pieces that a semantic map shows apart.

    Args:
        boxes: (N, 4) of the components, (y0, x0, y1, x1).
        areas: (N,) in pixels.
        most: largest distance between boxes, as a share of the side (square root of the area) of the larger part.

    Returns:
        The joins from the first to the last, each with at least two of the components 0..N-1.
    """
    if not 2 <= len(boxes) <= MOST:
        return []
    box, area = np.asarray(boxes, dtype=np.float64).copy(), np.asarray(areas, dtype=np.float64).copy()
    members = [frozenset([i]) for i in range(len(box))]
    joins: list[Join] = []
    while len(members) > 1:
        between = np.maximum(
            np.maximum(box[:, None, :2], box[None, :, :2]) - np.minimum(box[:, None, 2:], box[None, :, 2:]), 0
        )
        gaps = np.hypot(between[..., 0], between[..., 1]) / np.sqrt(np.maximum(area[:, None], area[None]))
        np.fill_diagonal(gaps, np.inf)
        a, b = sorted(int(i) for i in np.unravel_index(int(gaps.argmin()), gaps.shape))
        if gaps[a, b] > most:
            break
        joins.append(Join(members[a] | members[b], float(gaps[a, b])))
        members[a] = joins[-1].members
        box[a] = [*np.minimum(box[a, :2], box[b, :2]), *np.maximum(box[a, 2:], box[b, 2:])]
        area[a] += area[b]
        del members[b]
        box, area = np.delete(box, b, axis=0), np.delete(area, b)
    return joins
