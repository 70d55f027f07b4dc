"""Peaks of class activation: one point for what should be one object, as in BESTIE (CVPR 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pixelkin.cues.activation import normalise
from pixelkin.data.sample import UNKNOWN

KEPT = 0.1
"""Least confidence of a peak worth writing down, as published."""

OPERATIVE = 0.7
"""Confidence above which a peak counts, as published: see :func:`confident_peaks`."""

TIE = 1e-6
"""Activations that differ by less are equal: rounding must not make many peaks of one flat top."""

Peaks = npt.NDArray[np.float64]
"""(N, 4): y, x in image pixels (pixel centres at .0), class id, confidence; by class, the surest first."""


def average_views(views: Sequence[npt.NDArray[np.floating[Any]]]) -> npt.NDArray[np.float32]:
    """The mean of several views of one activation, each class of each view over its own largest value.

    The mean is not divided again: where the views disagree, the highest peak is below 1.

    Args:
        views: (K, h, w) each, all over the same grid: mirror images turned back.

    Raises:
        ValueError: no view, or views of different shapes.
    """
    shapes = {view.shape for view in views}
    if len(shapes) != 1:
        raise ValueError(f"views of shapes {sorted(shapes)} have no mean: give at least one, all of one shape")
    return np.asarray(np.mean([normalise(view) for view in views], axis=0), dtype=np.float32)


def find_peaks(
    activation: npt.NDArray[np.floating[Any]],
    ids: Sequence[int] | npt.NDArray[np.integer[Any]],
    size: tuple[int, int],
    *,
    smoothing: int = 3,
    kernel: int = 15,
    top: int = 25,
    threshold: float = KEPT,
) -> Peaks:
    """Local maxima of smoothed class activation.

    A pixel is a peak where nothing within the kernel is higher. Equal peaks within reach of each other, such as a flat
    top, are one: the pixel of them nearest to their middle.

    Args:
        activation: (K, h, w), of the classes present only, 0 to 1, over the whole image: at image resolution as
            published, or on a coarser grid.
        ids: the K class ids.
        size: (height, width) of the image.
        smoothing: side of the mean filter in image pixels; pixels beyond the image do not count. 1: none.
        kernel: side of the window of local maxima, in image pixels. On a coarser grid both sides are brought to the
            nearest odd number of cells, the kernel's to 3 at least.
        top: at most so many peaks a class, the surest.
        threshold: least confidence, which is the smoothed activation.

    Raises:
        ValueError: other than one id a class, ids that cannot be a class, activation that is not finite, or settings
            out of range.
    """
    activation = np.asarray(activation)
    names = np.asarray(ids, dtype=np.int64).ravel()
    if activation.ndim != 3 or len(activation) != len(names):
        raise ValueError(f"activation of shape {activation.shape} for {len(names)} classes: give (classes, h, w)")
    if ((names <= 0) | (names == UNKNOWN)).any():
        raise ValueError(f"class ids are {names.tolist()}: 0 is background, {UNKNOWN} unknown; renumber")
    if min(size) < 1 or min(activation.shape[1:]) < 1:
        raise ValueError(f"activation of {activation.shape[1:]} for an image of {size}: neither may be empty")
    if smoothing < 1 or kernel < 3 or smoothing % 2 == 0 or kernel % 2 == 0:
        raise ValueError(f"smoothing {smoothing} and kernel {kernel} must be odd, at least 1 and 3: change them")
    if top < 1:
        raise ValueError(f"top is {top}: keep at least 1 peak a class")
    if not np.isfinite(activation).all():
        raise ValueError("the activation holds values that are not finite: look for a training that diverged")
    cells = [side / pixels for side, pixels in zip(activation.shape[1:], size, strict=True)]
    blur, window = [_odd(smoothing * c, 1) for c in cells], [_odd(kernel * c, 3) for c in cells]
    found = []
    for class_map, name in zip(activation, names, strict=True):
        smooth = _mean(np.asarray(class_map, dtype=np.float64), blur)
        y, x = _local_maxima(smooth, window, threshold)
        sure = smooth[y, x]
        first = np.lexsort((x, y, -sure))[:top]
        row, column = ((at[first] + 0.5) / c - 0.5 for at, c in zip((y, x), cells, strict=True))
        # Where cells are finer than pixels, the first one's middle lies before that of the first pixel.
        row, column = np.clip(row, 0, size[0] - 1), np.clip(column, 0, size[1] - 1)
        found.append(np.stack([row, column, np.full(len(first), float(name)), sure[first]], axis=1))
    return np.concatenate([np.zeros((0, 4)), *(found[i] for i in np.argsort(names, kind="stable"))])


def confident_peaks(peaks: Peaks, threshold: float = OPERATIVE) -> Peaks:
    """The peaks whose confidence is above ``threshold``, in their order."""
    return peaks[peaks[:, 3] > threshold]


def _odd(cells: float, least: int) -> int:
    """The odd number nearest to a length in cells."""
    return max(least, 2 * round((cells - 1) / 2) + 1)


def _mean(values: npt.NDArray[np.float64], sides: Sequence[int]) -> npt.NDArray[np.float64]:
    """The mean over the part of a window that is on the grid."""
    if max(sides) == 1:
        return values
    rows, columns = sides

    def total(of: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        summed = cv2.boxFilter(of, cv2.CV_64F, (columns, rows), normalize=False, borderType=cv2.BORDER_CONSTANT)
        return np.asarray(summed, dtype=np.float64)

    return total(values) / total(np.ones_like(values))


def _local_maxima(
    values: npt.NDArray[np.float64], window: Sequence[int], threshold: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(y, x) of each local maximum above 0, at least ``threshold``; equal ones in reach of each other are one."""
    highest = cv2.dilate(values, np.ones(tuple(window), np.uint8))
    tied = (values >= highest - TIE) & (values >= max(threshold, TIE))
    # Two pixels are in each other's window exactly where boxes of the window's half side on them touch.
    reach = np.ones([max(side // 2, 1) for side in window], np.uint8)
    _, groups = cv2.connectedComponents(cv2.dilate(tied.astype(np.uint8), reach), connectivity=8)
    y, x = np.nonzero(tied)
    _, group, count = np.unique(groups[y, x], return_inverse=True, return_counts=True)
    if not len(count):
        return y, x
    middle = [np.bincount(group, weights=at) / count for at in (y, x)]
    away = (y - middle[0][group]) ** 2 + (x - middle[1][group]) ** 2
    order = np.lexsort((x, y, np.round(away, 6), group))
    nearest = order[np.unique(group[order], return_index=True)[1]]
    return y[nearest], x[nearest]
