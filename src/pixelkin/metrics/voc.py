"""The PASCAL VOC protocol for masks: average precision as area under the precision-recall curve, and best overlaps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from pixelkin.data import RLE, Instances, encode_mask
from pixelkin.metrics.crowding import crowded

IOUS = np.array([25, *range(50, 100, 5)]) / 100
"""The overlaps judged: 0.25, and COCO's 0.50:0.05:0.95, which hold VOC's 0.5, 0.7 and 0.75."""

_COCO_RANGE = slice(1, None)
_REPORTED = {"AP25": 0, "AP50": 1, "AP70": 5, "AP75": 6}

_WRONG, _RIGHT, _NEITHER = 0, 1, 2


class VOCAveragePrecision:
    """Feed images with :meth:`update`, read percentages with :meth:`compute`.

    Per class, detections in the order of their scores look at the truth they overlap most; with enough overlap the
    first to come is right, and every later one wrong, as each truth is matched once (the VOC devkit's rule: unlike
    COCO's, a second detection does not move on to the next best truth). AP is the area under the precision-recall curve
    after making precision fall monotonically, at all points (VOC 2010 on), not at 11.

    Void pixels (255 in VOC's masks, along object contours and on unclear things) are ignored: predictions lose them
    before overlaps are taken. A crowd truth is nothing to find, and detections lying in it by the overlap asked are not
    judged.

    Args:
        classes: class id to name; predictions of other classes are left out.
        max_detections: the most detections of one class in one image that count, best scores first.
    """

    def __init__(self, classes: Mapping[int, str], *, max_detections: int = 1000) -> None:
        if max_detections < 1:
            raise ValueError(f"max_detections must be at least 1, got {max_detections}")
        self.classes = dict(classes)
        self.max_detections = max_detections
        self.images = self.truths = self.detections = self.crowded_truths = 0
        self._crowded_found = 0.0
        self._scores: dict[int, list[npt.NDArray[np.float32]]] = defaultdict(list)
        self._outcomes: dict[int, list[npt.NDArray[np.int8]]] = defaultdict(list)
        self._best: dict[int, list[npt.NDArray[np.float64]]] = defaultdict(list)

    def update(self, pred: Instances, truth: Instances, *, void: npt.NDArray[np.bool_] | None = None) -> None:
        """Count one image.

        Args:
            pred: the predicted instances with scores.
            truth: the true ones.
            void: (H, W) bool, true where nothing is judged.

        Raises:
            ValueError: image sizes differ, or a truth of a class that is not among ``classes``.
        """
        if pred.size != truth.size or (void is not None and void.shape != truth.size):
            raise ValueError(
                f"predictions are {pred.size}, the truth {truth.size} (height, width): give both the same size"
            )
        if strangers := set(truth.labels.tolist()) - set(self.classes):
            raise ValueError(f"true instances of unnamed classes {sorted(strangers)}: add them to the classes")
        pred = pred[np.isin(pred.labels, list(self.classes))]
        self.images += 1
        self.truths += int((~truth.crowd).sum())
        self.detections += len(pred)
        together = crowded(truth)
        self.crowded_truths += int(together.sum())
        judged = None if void is None or not void.any() else encode_mask(~void)
        for label in np.union1d(pred.labels, truth.labels[~truth.crowd]).tolist():
            self._update_class(label, pred[pred.labels == label], truth, together, judged)

    def _update_class(
        self, label: int, pred: Instances, truth: Instances, together: npt.NDArray[np.bool_], judged: RLE | None
    ) -> None:
        pred = pred[np.argsort(-pred.scores, kind="stable")[: self.max_detections]]
        rles = list(pred.rles)
        if judged is not None:
            rles = [coco_mask.merge([rle, judged], intersect=True) for rle in rles]
        of_class = truth.labels == label
        wanted = of_class & ~truth.crowd
        overlaps = _overlaps(rles, truth[wanted])
        outcomes, found = _match(overlaps)
        in_crowd = _overlaps(rles, truth[of_class & truth.crowd]).max(axis=1, initial=0.0)
        outcomes[(outcomes == _WRONG) & (in_crowd[:, None] >= IOUS)] = _NEITHER
        self._scores[label].append(pred.scores)
        self._outcomes[label].append(outcomes)
        self._best[label].append(overlaps.max(axis=0, initial=0.0))
        self._crowded_found += float(found[together[wanted]][:, _COCO_RANGE].mean(axis=1).sum())

    def compute(self) -> dict[str, Any]:
        """The numbers so far, in percent, averaged over the classes that have truths; None without any.

        Returns:
            ``AP25``, ``AP50``, ``AP70``, ``AP75``; ``AP`` (mean over IoU 0.50:0.05:0.95, each by this protocol); ``AR``
            (mean recall over the same); ``ABO`` (the best overlap any prediction of its class has with a truth,
            averaged over the truths of a class, then over classes); ``crowd_AR`` (recall as in ``AR`` over the crowded
            truths, pooled over instances, see :class:`~pixelkin.metrics.average_precision.AveragePrecision`); and
            ``per_class``: name to the same without ``crowd_AR``.
        """
        per_class: dict[str, dict[str, Any]] = {}
        for label, name in sorted(self.classes.items()):
            best = np.concatenate([np.zeros(0), *self._best[label]])
            row: dict[str, Any] = dict.fromkeys(("AP", *_REPORTED, "AR", "ABO"))
            if best.size:
                scores = np.concatenate(self._scores[label])
                outcomes = np.concatenate(self._outcomes[label])[np.argsort(-scores, kind="stable")]
                aps = 100 * np.array([average_precision(outcomes[:, t], best.size) for t in range(len(IOUS))])
                recalls = 100 * (outcomes == _RIGHT).sum(axis=0) / best.size
                row["AP"], row["AR"] = float(aps[_COCO_RANGE].mean()), float(recalls[_COCO_RANGE].mean())
                row |= {key: float(aps[t]) for key, t in _REPORTED.items()}
                row["ABO"] = 100 * float(best.mean())
            per_class[name] = {"id": label, **row}
        present = [row for row in per_class.values() if row["AP"] is not None]
        keys = ("AP", *_REPORTED, "AR", "ABO")
        out: dict[str, Any] = {key: float(np.mean([row[key] for row in present])) if present else None for key in keys}
        out["crowd_AR"] = 100 * self._crowded_found / self.crowded_truths if self.crowded_truths else None
        out["per_class"] = per_class
        return out


def average_precision(outcomes: npt.NDArray[np.int8], truths: int) -> float:
    """Area under the precision-recall curve, 0 to 1.

    Args:
        outcomes: (N,) 1 right, 0 wrong, 2 not judged; best score first.
        truths: how many there were to find, at least 1.
    """
    judged = outcomes[outcomes != _NEITHER] == _RIGHT
    right = np.cumsum(judged)
    precision = np.maximum.accumulate((right / np.arange(1, len(judged) + 1))[::-1])[::-1]
    return float(precision[judged].sum() / truths)  # every right detection adds 1/truths of recall


def _overlaps(rles: list[RLE], truth: Instances) -> npt.NDArray[np.float64]:
    """(D, G) overlaps: IoU, or the share of the detection that is covered where the truths are crowds."""
    if not rles or not len(truth):
        return np.zeros((len(rles), len(truth)))
    return np.asarray(coco_mask.iou(rles, list(truth.rles), truth.crowd.astype(np.uint8)), dtype=np.float64)


def _match(overlaps: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.bool_]]:
    """Outcomes (D, T) of detections in falling order of score, and which truths are found (G, T)."""
    outcomes = np.full((overlaps.shape[0], len(IOUS)), _WRONG, dtype=np.int8)
    found = np.zeros((overlaps.shape[1], len(IOUS)), dtype=bool)
    if overlaps.shape[1]:
        for d, g in enumerate(overlaps.argmax(axis=1)):
            right = (overlaps[d, g] >= IOUS) & ~found[g]
            outcomes[d, right] = _RIGHT
            found[g] |= right
    return outcomes, found
