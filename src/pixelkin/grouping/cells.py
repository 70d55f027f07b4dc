"""Segments on the cells of a field to segments of the image's pixels."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage


def cells_to_pixels(
    labels: npt.NDArray[Any], inside: npt.NDArray[np.bool_], stride: int, *, most: float = 3.0
) -> npt.NDArray[np.int32]:
    """Give the pixels of a mask to the segments of their cells, with smooth borders.

    A pixel goes to the segment whose cells around it weigh most, bilinearly. Where no cell around it has a segment, it
    goes to the nearest one within ``most`` cells.

    Args:
        labels: (h, w) integers, 0 none, else segments 1..N. Cell (i, j) covers the pixels from (stride i, stride j).
        inside: (H, W) the pixels to give away, with ceil(H / stride) = h and ceil(W / stride) = w.
        stride: pixels per cell.
        most: cells that a pixel may be away from its segment.

    Returns:
        (H, W) int32 segments, 0 outside and where nothing is near.

    Raises:
        ValueError: shapes that do not fit.
    """
    size = inside.shape
    if tuple(-(-side // stride) for side in size) != labels.shape:
        raise ValueError(f"cells are {labels.shape}, the mask {size}: at stride {stride} they do not fit")
    height, width = labels.shape[0] * stride, labels.shape[1] * stride
    best = np.zeros((height, width), np.float32)
    owner = np.zeros((height, width), np.int32)
    for number, place in enumerate(ndimage.find_objects(labels.astype(np.int32)), start=1):
        if place is None:
            continue
        top, left = (max(part.start - 1, 0) for part in place)
        bottom, right = (min(part.stop + 1, side) for part, side in zip(place, labels.shape, strict=True))
        mine = np.pad((labels[top:bottom, left:right] == number).astype(np.float32), 1, mode="edge")
        grown = cv2.resize(mine, None, fx=stride, fy=stride, interpolation=cv2.INTER_LINEAR)[
            stride:-stride, stride:-stride
        ]
        window = (slice(top * stride, bottom * stride), slice(left * stride, right * stride))
        better = grown > best[window]
        best[window][better] = grown[better]
        owner[window][better] = number
    owner = owner[: size[0], : size[1]] * inside
    lonely = inside & (owner == 0)
    if lonely.any() and labels.any():
        distance, nearest = ndimage.distance_transform_edt(labels == 0, return_indices=True)
        rows, columns = np.nonzero(lonely)
        cells = (rows // stride, columns // stride)
        close = distance[cells] <= most
        found = labels[nearest[0][cells], nearest[1][cells]]
        owner[rows[close], columns[close]] = found[close]
    return owner.astype(np.int32)
