"""Which true instances are hard: crowded ones, that no component of their class holds alone, and divided ones."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from pixelkin.data import Instances

_EIGHT = np.ones((3, 3), dtype=np.uint8)
_PAIRWISE = 3000
"""With more instances than this, comparing every two boxes costs more than it saves."""


def crowded(truth: Instances) -> npt.NDArray[np.bool_]:
    """(N,) bool: the instance shares an 8-connected component of its class's mask with another instance.

    The class's mask is the union of its instances; crowd regions (``truth.crowd``) belong to none and are never marked.
    A component with several instances can only be entered from one instance by a step onto another, so it is enough to
    look for neighbouring or shared pixels. One dense mask and one map of owners are held at a time.
    """
    out = np.zeros(len(truth), dtype=bool)
    boxes = truth.boxes
    for label in np.unique(truth.labels[~truth.crowd]):
        members = np.flatnonzero((truth.labels == label) & ~truth.crowd & (boxes[:, 2] > boxes[:, 0]))
        members = members[_boxes_meet(boxes[members])]
        if len(members):
            out[members] = _touching(truth, members, boxes[members])
    return out


def divided(truth: Instances) -> npt.NDArray[np.bool_]:
    """(N,) bool: the mask lies in several 8-connected pieces; crowd regions are never marked."""
    out = np.zeros(len(truth), dtype=bool)
    for i, (x0, y0, x1, y1) in enumerate(truth.boxes):
        if not truth.crowd[i] and x1 > x0:
            mask = truth.mask(i)[y0:y1, x0:x1].astype(np.uint8)
            out[i] = cv2.connectedComponents(mask, connectivity=8)[0] > 2
    return out


def _boxes_meet(boxes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """(N,) bool: the box touches or overlaps that of another, corners included. (N, 4) x0, y0, x1, y1."""
    if len(boxes) > _PAIRWISE:
        return np.ones(len(boxes), dtype=bool)
    low, high = boxes[:, :2], boxes[:, 2:]
    meet = (low[:, None] <= high[None]).all(axis=-1)
    return np.asarray((meet & meet.T).sum(axis=1) > 1)  # every box meets itself


def _touching(truth: Instances, members: npt.NDArray[np.int64], boxes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """(M,) bool: the member shares a pixel with another, or is beside one, corners included."""
    out = np.zeros(len(members) + 1, dtype=bool)
    left, top = boxes[:, :2].min(axis=0)
    right, bottom = boxes[:, 2:].max(axis=0)
    owner = np.zeros((bottom - top, right - left), dtype=np.float32)  # OpenCV's filters know no 32-bit integers
    for number, (i, (x0, y0, x1, y1)) in enumerate(zip(members, boxes, strict=True), start=1):
        mask = truth.mask(int(i))[y0:y1, x0:x1]
        window = owner[y0 - top : y1 - top, x0 - left : x1 - left]
        below = window[mask]
        if below.any():
            out[number] = True  # who is painted over is crowded by then, and so is whoever touches it there
            out[below.astype(np.int64)] = True
        window[mask] = number
    inside = owner > 0
    for numbers in (owner, np.where(inside, len(members) + 1 - owner, 0)):
        beside_a_higher = inside & (cv2.dilate(numbers, _EIGHT) > numbers)  # of two neighbours one is, each way round
        out[owner[beside_a_higher].astype(np.int64)] = True
    return out[1:]
