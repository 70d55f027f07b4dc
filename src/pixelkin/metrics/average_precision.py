"""COCO average precision and recall for masks, one image at a time, in percent; matching by hotcoco."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from hotcoco import COCO, COCOeval, Params, StreamingEval

from pixelkin.data import Instances
from pixelkin.metrics.crowding import crowded, divided

ANY_CLASS = 1
"""The one class id of a class-agnostic evaluation."""

_AREAS = {"all": [0.0, 1e10], "small": [0.0, 32.0**2], "medium": [32.0**2, 96.0**2], "large": [96.0**2, 1e10]}


class AveragePrecision:
    """The COCO protocol for masks: feed images with :meth:`update`, read percentages with :meth:`compute`.

    As pycocotools counts them, except that every AP and AR allows ``max_detections`` an image and class (pycocotools'
    own AP uses its last ``maxDets`` too, 100 by default). Crowd truths are ignore regions. Each image's masks are
    dropped as soon as they are matched.

    ``crowd_AR`` is recall over the true instances that share an 8-connected component of their class's mask with
    another (:func:`pixelkin.metrics.crowding.crowded`), matched in the full evaluation (all truths, all areas),
    averaged over the IoU thresholds 0.50:0.05:0.95 and pooled over instances: every crowded instance weighs the same,
    whatever its class. With ``agnostic`` there is ``split_AR`` too, the same over the true instances whose mask lies in
    several pieces (:func:`pixelkin.metrics.crowding.divided`), mostly because something stands before them.

    Args:
        classes: class id to name; predictions of other classes are left out.
        max_detections: the most detections of one class in one image that count, best scores first.
        agnostic: forget the classes: one detection, one object.
    """

    def __init__(self, classes: Mapping[int, str], *, max_detections: int = 1000, agnostic: bool = False) -> None:
        if max_detections < 1:
            raise ValueError(f"max_detections must be at least 1, got {max_detections}")
        self.classes = {ANY_CLASS: "any"} if agnostic else dict(classes)
        self.agnostic = agnostic
        self.max_dets = sorted({*(n for n in (1, 10, 100) if n < max_detections), max_detections})
        self.images = self.truths = self.detections = self.crowded_truths = self.split_truths = 0
        categories = [{"id": int(i), "name": name} for i, name in self.classes.items()]
        self._stream = StreamingEval(categories, "segm", params=_params(self.max_dets, _AREAS))
        self._crowded_found = self._split_found = 0.0
        self._next_truth = 1

    def update(self, pred: Instances, truth: Instances, *, areas: npt.ArrayLike | None = None) -> None:
        """Count one image.

        Args:
            pred: the predicted instances with scores.
            truth: the true ones; those with ``crowd`` set are ignore regions.
            areas: (N,) areas that sort the truths into small, medium and large, where an annotation says other than the
                mask (COCO's polygon areas). Default: the mask areas.

        Raises:
            ValueError: image sizes differ, or a truth of a class that is not among ``classes``.
        """
        if pred.size != truth.size:
            raise ValueError(
                f"predictions are {pred.size}, the truth {truth.size} (height, width): give both the same size"
            )
        if self.agnostic:
            pred, truth = _one_class(pred), _one_class(truth)
        if strangers := set(truth.labels.tolist()) - set(self.classes):
            raise ValueError(f"true instances of unnamed classes {sorted(strangers)}: add them to the classes")
        pred = pred[np.isin(pred.labels, list(self.classes))]
        self.images += 1
        self.truths += int((~truth.crowd).sum())
        self.detections += len(pred)
        truths = self._truth_records(truth, truth.areas if areas is None else np.asarray(areas, dtype=np.float64))
        image = {"id": self.images, "height": truth.size[0], "width": truth.size[1]}
        detections = [
            {"image_id": self.images, "category_id": int(label), "segmentation": rle, "score": float(score)}
            for rle, label, score in zip(pred.rles, pred.labels, pred.scores, strict=True)
        ]
        self._stream.update([image], truths, detections)
        together = crowded(truth)
        apart = divided(truth) if self.agnostic else np.zeros(len(truth), dtype=bool)
        if together.any() or apart.any():
            self.crowded_truths += int(together.sum())
            self.split_truths += int(apart.sum())
            wanted = np.flatnonzero(together | apart)
            found = self._matched(image, truths, detections, {truths[i]["id"] for i in wanted})
            self._crowded_found += sum(found.get(truths[i]["id"], 0.0) for i in np.flatnonzero(together))
            self._split_found += sum(found.get(truths[i]["id"], 0.0) for i in np.flatnonzero(apart))

    def compute(self) -> dict[str, Any]:
        """The numbers so far, in percent; None where there was nothing to find.

        Returns:
            ``AP`` (mean over IoU 0.50:0.05:0.95 and classes), ``AP50``, ``AP75``, ``AP_small``, ``AP_medium``,
            ``AP_large``, ``AR``, ``AR@1``, ``AR@10``, ``AR@100``, ``AR@<max_detections>``, ``AR_small``,
            ``AR_medium``, ``AR_large``, ``crowd_AR``, with ``agnostic`` ``split_AR``, and ``per_class``: name to
            ``{"id", "AP", "AP50", "AP75", "AR"}``.
        """
        done = copy.deepcopy(self._stream).finalize()  # finalize() empties the stream: keep it open for more images
        done.accumulate()
        curves: dict[str, Any] = done.eval or {}
        precision, recall = curves["precision"], curves["recall"]  # (T, R, K, A, M) and (T, K, A, M)
        out: dict[str, Any] = {
            "AP": _percent(precision[..., 0, -1]),
            "AP50": _percent(precision[0, ..., 0, -1]),
            "AP75": _percent(precision[5, ..., 0, -1]),
            "AR": _percent(recall[..., 0, -1]),
            "crowd_AR": 100 * self._crowded_found / self.crowded_truths if self.crowded_truths else None,
        }
        if self.agnostic:
            out["split_AR"] = 100 * self._split_found / self.split_truths if self.split_truths else None
        for a, name in enumerate(_AREAS):
            if name != "all":
                out[f"AP_{name}"] = _percent(precision[..., a, -1])
                out[f"AR_{name}"] = _percent(recall[..., a, -1])
        out |= {f"AR@{n}": _percent(recall[..., 0, m]) for m, n in enumerate(self.max_dets)}
        out["per_class"] = {
            name: {
                "id": label,
                "AP": _percent(precision[:, :, k, 0, -1]),
                "AP50": _percent(precision[0, :, k, 0, -1]),
                "AP75": _percent(precision[5, :, k, 0, -1]),
                "AR": _percent(recall[:, k, 0, -1]),
            }
            for k, (label, name) in enumerate(sorted(self.classes.items()))
        }
        return out

    def _truth_records(self, truth: Instances, areas: npt.NDArray[Any]) -> list[dict[str, Any]]:
        """COCO annotations with ids unique over all images, as 0 would mean "not matched"."""
        first = self._next_truth
        self._next_truth += len(truth)
        return [
            {
                "id": first + i,
                "image_id": self.images,
                "category_id": int(truth.labels[i]),
                "segmentation": truth.rles[i],
                "area": float(areas[i]),
                "iscrowd": int(truth.crowd[i]),
            }
            for i in range(len(truth))
        ]

    def _matched(
        self, image: dict[str, Any], truths: list[dict[str, Any]], detections: list[dict[str, Any]], ids: set[int]
    ) -> dict[int, float]:
        """At what share of the IoU thresholds each of the truths ``ids`` of one image is found."""
        classes = {record["category_id"] for record in truths if record["id"] in ids}
        found = [record for record in detections if record["category_id"] in classes]
        if not found:
            return {}
        true = COCO(
            {
                "images": [image],
                "annotations": [record for record in truths if record["category_id"] in classes],
                "categories": [{"id": label, "name": self.classes[label]} for label in classes],
            }
        )
        evaluation = COCOeval(true, true.load_res(found), "segm")
        evaluation.params = _params(self.max_dets[-1:], {"all": _AREAS["all"]})
        evaluation.evaluate()
        shares: dict[int, float] = {}
        for group in evaluation.eval_imgs:
            if group is not None:
                matched = np.asarray(group["gtMatched"]).mean(axis=0)
                shares.update((id_, float(share)) for id_, share in zip(group["gtIds"], matched, strict=True))
        return {id_: shares.get(id_, 0.0) for id_ in ids}


def _params(max_dets: list[int], areas: Mapping[str, list[float]]) -> Params:
    params = Params("segm")
    params.max_dets = max_dets
    params.area_rng = list(areas.values())
    params.area_rng_lbl = list(areas)
    return params


def _one_class(instances: Instances) -> Instances:
    columns = {"scores": instances.scores, "sources": instances.sources.tolist(), "crowd": instances.crowd}
    return Instances(
        instances.size, instances.rles, labels=np.full(len(instances), ANY_CLASS), ids=instances.ids, **columns
    )


def _percent(values: npt.NDArray[np.float64]) -> float | None:
    """Mean of the defined entries (COCO marks undefined by -1), times 100."""
    defined = values[values > -1]
    return 100 * float(defined.mean()) if defined.size else None
