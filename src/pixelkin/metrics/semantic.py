"""Semantic segmentation: intersection over union of every class, in percent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelkin.data.sample import UNKNOWN

_MAX_IDS = 4096


class MeanIoU:
    """Counts pixels over a whole set; feed maps with :meth:`update`, read percentages with :meth:`compute`.

    Pixels whose truth is 255 are ignored. A predicted 255 says "nobody knows" and finds nothing: it counts against the
    true class, for no class. The mean goes over the classes that occur in the truth, background among them; what is
    predicted of any other class costs the class that is there.

    Args:
        classes: class id to name, for the report; others are named by their number.
    """

    def __init__(self, classes: Mapping[int, str] | None = None) -> None:
        self.classes = {0: "background", **(classes or {})}
        self.images = 0
        self._confusion = np.zeros((UNKNOWN + 1, UNKNOWN + 1), dtype=np.int64)

    def update(self, pred: npt.NDArray[Any], truth: npt.NDArray[Any]) -> None:
        """Count one image.

        Args:
            pred: (H, W) integer class ids, 0 background.
            truth: (H, W) the same, 255 unknown.

        Raises:
            ValueError: shapes differ, or ids that cannot be class ids.
        """
        if pred.shape != truth.shape:
            raise ValueError(
                f"the prediction is {pred.shape}, the truth {truth.shape} (height, width): give both the same size"
            )
        highest = max(int(pred.max(initial=0)), int(truth.max(initial=0)))
        if highest >= _MAX_IDS or min(pred.min(initial=0), truth.min(initial=0)) < 0:
            raise ValueError(f"class ids must be 0 to {_MAX_IDS - 1}, found {highest}: is this a map of instances?")
        n = max(len(self._confusion), highest + 1)
        self._confusion = np.pad(self._confusion, (0, n - len(self._confusion)))
        known = truth != UNKNOWN
        pairs = truth[known].astype(np.int64) * n + pred[known]
        self._confusion += np.bincount(pairs, minlength=n * n).reshape(n, n)
        self.images += 1

    def compute(self) -> dict[str, Any]:
        """``mIoU``, ``accuracy`` (share of known pixels that are right) and ``per_class``: name to ``{"id", "IoU"}``.

        All in percent, None where there is nothing to count: also the IoU of a class that is only predicted.
        """
        right = np.diag(self._confusion).astype(np.float64)
        true, predicted = self._confusion.sum(axis=1), self._confusion.sum(axis=0)
        predicted[UNKNOWN] = 0
        iou = 100 * right / np.maximum(1, true + predicted - right)
        return {
            "mIoU": float(iou[true > 0].mean()) if true.any() else None,
            "accuracy": 100 * float(right.sum() / true.sum()) if true.any() else None,
            "per_class": {
                self.classes.get(int(i), str(i)): {"id": int(i), "IoU": float(iou[i]) if true[i] else None}
                for i in np.flatnonzero(true + predicted)
            },
        }
