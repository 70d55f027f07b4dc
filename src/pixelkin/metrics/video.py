"""Video object segmentation: region similarity J and boundary accuracy F of DAVIS (Perazzi et al., CVPR 2016)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

Mask = npt.NDArray[np.bool_]
Frame = tuple[Callable[[], npt.NDArray[Any] | None], Callable[[], npt.NDArray[Any]]]
"""One frame to judge: functions that read the predicted map (None when there is none) and the true one."""

TOLERANCE = 0.008
"""How far a contour may be off, as a share of the image diagonal."""

VOID = 255
"""In a truth with several objects: pixels not judged. In one with 0 and 255 only, 255 is the object."""


def region_similarity(pred: Mask, truth: Mask) -> float:
    """J: intersection over union of two (H, W) masks, 0 to 1; two empty masks agree fully."""
    union = np.count_nonzero(pred | truth)
    return np.count_nonzero(pred & truth) / union if union else 1.0


def contour(mask: Mask) -> Mask:
    """(H, W) bool, true on pixels that differ from their right, lower or lower right neighbour.

    One pixel wide, on the upper left of each edge; the image's own border is no edge.
    """
    out = np.zeros_like(mask)
    out[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    out[:-1] |= mask[:-1] != mask[1:]
    out[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return out


def boundary_accuracy(pred: Mask, truth: Mask, *, tolerance: float = TOLERANCE) -> float:
    """F: harmonic mean of how much of the predicted contour is near the true one, and the other way round, 0 to 1.

    Near means within ``tolerance`` times the image diagonal, rounded up to whole pixels (8 at 854x480). Two masks
    without contour agree fully; one without gives 0.
    """
    radius = _radius(pred.shape, tolerance)
    return _boundary_accuracy(_Edge(pred, radius), _Edge(truth, radius))


def judge_sequence(frames: Sequence[Frame]) -> dict[str, Any]:
    """J and F of one sequence in percent.

    The first and last frame are not counted, as in DAVIS (its first was given to semi-supervised methods), unless fewer
    than three are annotated. With one true object over the sequence, all predicted ids together are compared to it
    (DAVIS 2016). With several, predicted ids are assigned to true ones, one to one for the whole sequence, so that the
    mean of J and F is highest (DAVIS 2017, unsupervised), and the objects are averaged; a frame without prediction is
    empty.

    Args:
        frames: the sequence's annotated frames in order.

    Returns:
        ``{"J", "F", "frames", "objects"}``: frames counted, true objects.

    Raises:
        ValueError: a prediction and its truth differ in size.
    """
    counted = frames[1:-1] if len(frames) > 2 else frames
    ids = sorted({int(i) for _, truth in counted for i in np.unique(truth()) if i})
    if len(ids) > 1 and VOID in ids:
        ids.remove(VOID)
    if len(ids) > 1:
        similarity, accuracy = _judge_pairs(counted, ids)
        rows, columns = linear_sum_assignment(-(similarity + accuracy))
        j, f = similarity[rows, columns].sum() / len(ids), accuracy[rows, columns].sum() / len(ids)
    else:
        j, f = np.mean([_judge_foreground(pred(), truth(), ids) for pred, truth in counted], axis=0)
    return {"J": 100 * float(j), "F": 100 * float(f), "frames": len(counted), "objects": len(ids)}


def _judge_foreground(pred: npt.NDArray[Any] | None, truth: npt.NDArray[Any], ids: list[int]) -> tuple[float, float]:
    there = np.isin(truth, ids)
    found = np.zeros_like(there) if pred is None else (_same_size(pred, truth) != 0) & (there | (truth != VOID))
    return region_similarity(found, there), boundary_accuracy(found, there)


def _judge_pairs(frames: Sequence[Frame], ids: list[int]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean J and F over the frames of every (predicted id, true id) pair; the first row stands for predicting nothing.

    Absent ids are empty masks in their frames, so every pair is judged on every frame; unpredicted objects can be
    assigned the empty rows, one of which there is for each true object.
    """
    predicted: dict[int, int] = {}  # id -> row
    sums = np.zeros((0, 2, len(ids)))
    empty = np.zeros((2, len(ids)))  # what a mask that is empty so far would have got
    for load_pred, load_truth in frames:
        truth = load_truth()
        pred = load_pred()
        pred = np.zeros_like(truth) if pred is None else np.where(truth == VOID, 0, _same_size(pred, truth))
        radius = _radius(truth.shape, TOLERANCE)
        truths = [truth == i for i in ids]
        true_edges = [_Edge(mask, radius) for mask in truths]
        for i in np.unique(pred):
            if i and int(i) not in predicted:
                predicted[int(i)] = len(sums)
                sums = np.concatenate([sums, empty[None]])
        nothing = _judge_mask(np.zeros(truth.shape, dtype=bool), truths, true_edges, radius)
        present = set(np.unique(pred).tolist())
        for i, row in predicted.items():
            sums[row] += _judge_mask(pred == i, truths, true_edges, radius) if i in present else nothing
        empty += nothing
    table = np.concatenate([np.repeat(empty[None], len(ids), axis=0), sums]) / len(frames)
    return table[:, 0], table[:, 1]


def _judge_mask(mask: Mask, truths: list[Mask], true_edges: list[_Edge], radius: int) -> npt.NDArray[np.float64]:
    """(2, objects): J and F of one predicted mask against every true object of a frame."""
    edge = _Edge(mask, radius)
    return np.array(
        [
            [region_similarity(mask, truth) for truth in truths],
            [_boundary_accuracy(edge, other) for other in true_edges],
        ]
    )


class _Edge:
    """A mask's contour and what lies within ``radius`` pixels of it."""

    def __init__(self, mask: Mask, radius: int) -> None:
        self.line = contour(mask)
        self.length = np.count_nonzero(self.line)
        if self.length:
            distance = cv2.distanceTransform((~self.line).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            self.near: Mask = distance * distance < radius * radius + 0.5  # whole squares: half guards against rounding
        else:
            self.near = self.line


def _boundary_accuracy(pred: _Edge, truth: _Edge) -> float:
    if not pred.length and not truth.length:
        return 1.0
    if not pred.length or not truth.length:
        return 0.0
    precision = np.count_nonzero(pred.line & truth.near) / pred.length
    recall = np.count_nonzero(truth.line & pred.near) / truth.length
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _radius(shape: tuple[int, ...], tolerance: float) -> int:
    return int(np.ceil(tolerance * float(np.hypot(shape[0], shape[1]))))


def _same_size(pred: npt.NDArray[Any], truth: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if pred.shape != truth.shape:
        raise ValueError(
            f"the prediction is {pred.shape}, the truth {truth.shape} (height, width): give both the same size"
        )
    return pred
