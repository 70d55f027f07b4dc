"""Displacement grouping: pixels that walk to the same centre are one instance.

As in IRNet (Ahn, Cho, Kwak, CVPR 2019, arXiv 1904.05044), but a pixel that has arrived stops.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Leftover = Literal["nearest", "own", "drop"]


def group_by_displacement(
    field: npt.NDArray[np.floating[Any]],
    *,
    foreground: npt.NDArray[np.bool_] | None = None,
    weak: float = 2.5,
    leftover: Leftover = "nearest",
    max_steps: int = 300,
    tolerance: float = 1e-4,
) -> npt.NDArray[np.int32]:
    """Instance of every pixel: the centre its displacement leads to. Knows no classes.

    Args:
        field: (2, h, w) displacement (dy, dx) in field pixels, pointing to the centre.
        foreground: (h, w) bool; only these pixels are grouped. Centres may lie outside. Default: every pixel.
        weak: a centre is a 4-connected component of pixels whose displacement is shorter than this.
        leftover: what becomes of pixels that end on no centre: ``"nearest"`` joins them to the centre nearest to
            their end, ``"own"`` makes them one more instance (as published), ``"drop"`` gives them 0.
        max_steps: at most so many steps.
        tolerance: a pixel stops once its step is shorter than this on both axes.

    Returns:
        (h, w) int32: 0 outside the foreground, else 1..M without gaps.

    Raises:
        ValueError: a field that is not (2, h, w), a foreground of another size or an unknown ``leftover``.
    """
    if leftover not in ("nearest", "own", "drop"):
        raise ValueError(f"leftover cannot be {leftover!r}: use 'nearest', 'own' or 'drop'")
    y, x = follow(field, foreground=foreground, max_steps=max_steps, tolerance=tolerance)
    centres, count = weak_components(field, weak)
    groups: npt.NDArray[np.int32] = centres[np.rint(y).astype(np.intp), np.rint(x).astype(np.intp)]
    if leftover == "own":
        groups[groups == 0] = count + 1
    elif leftover == "nearest" and count and not groups.all():
        near_y, near_x = ndimage.distance_transform_edt(centres == 0, return_distances=False, return_indices=True)
        lost = groups == 0
        end = np.rint(y[lost]).astype(np.intp), np.rint(x[lost]).astype(np.intp)
        groups[lost] = centres[near_y[end], near_x[end]]
    inside = np.ones(field.shape[1:], dtype=bool) if foreground is None else np.asarray(foreground, dtype=bool)
    out = np.zeros(field.shape[1:], dtype=np.int32)
    if leftover == "nearest" and not count:
        return inside.astype(np.int32)  # no centre anywhere: nothing speaks for more than one instance
    kept = inside & (groups > 0)
    out[kept] = np.unique(groups[kept], return_inverse=True)[1] + 1
    return out


def follow(
    field: npt.NDArray[np.floating[Any]],
    *,
    foreground: npt.NDArray[np.bool_] | None = None,
    max_steps: int = 300,
    tolerance: float = 1e-4,
) -> npt.NDArray[np.float32]:
    """Where each pixel ends when it follows the field: p <- clip(p + D(p)) with D read bilinearly.

    A pixel that no longer moves costs nothing more, so the time is that of the steps needed, not of ``max_steps``.

    Args:
        field: (2, h, w) displacement (dy, dx) in field pixels.
        foreground: (h, w) bool; the others stay where they are. Default: all move.
        max_steps: at most so many steps.
        tolerance: a pixel stops once its step is shorter than this on both axes.

    Returns:
        (2, h, w) float32 end positions (y, x), inside the grid.

    Raises:
        ValueError: a field that is not (2, h, w), or a foreground of another size.
    """
    if field.ndim != 3 or field.shape[0] != 2:
        raise ValueError(f"a displacement field must be (2, h, w), got shape {field.shape}")
    h, w = field.shape[1:]
    if foreground is not None and foreground.shape != (h, w):
        raise ValueError(f"the foreground is {foreground.shape}, the field {(h, w)}: give both the same size")
    ends = np.indices((h, w), dtype=np.float32)
    if h * w == 0:
        return ends
    # One complex number a pixel, so that one gather reads both channels; a row and a column more, so that the right and
    # lower neighbours always exist.
    flat = np.pad((field[0] + 1j * field[1]).astype(np.complex64), ((0, 1), (0, 1)), mode="edge").ravel()
    moving = np.arange(h * w) if foreground is None else np.flatnonzero(foreground)
    y, x = ends[0].ravel()[moving], ends[1].ravel()[moving]
    end_y, end_x = ends[0].reshape(-1), ends[1].reshape(-1)
    for _ in range(max_steps):
        row, column = y.astype(np.intp), x.astype(np.intp)
        corner = row * (w + 1) + column
        fy, fx = y - row.astype(np.float32), x - column.astype(np.float32)
        upper, lower = flat.take(corner), flat.take(corner + (w + 1))
        upper += (flat.take(corner + 1) - upper) * fx
        lower += (flat.take(corner + (w + 2)) - lower) * fx
        step = upper + (lower - upper) * fy
        new_y, new_x = np.clip(y + step.real, 0, h - 1), np.clip(x + step.imag, 0, w - 1)
        active = np.maximum(np.abs(new_y - y), np.abs(new_x - x)) >= tolerance
        end_y[moving], end_x[moving] = new_y, new_x
        if not active.any():
            break
        if active.all():
            y, x = new_y, new_x
        else:
            moving, y, x = moving[active], new_y[active], new_x[active]
    return ends


def weak_components(field: npt.NDArray[np.floating[Any]], weak: float = 2.5) -> tuple[npt.NDArray[np.int32], int]:
    """Centres: 4-connected components of the pixels whose displacement is shorter than ``weak`` field pixels.

    Returns:
        (h, w) int32 map, 0 where the displacement is longer, else 1..count; and the count.
    """
    short = np.hypot(field[0], field[1]) < weak
    labels, count = ndimage.label(short, output=np.int32)  # its default structure is the 4-connected one
    return labels, int(count)
