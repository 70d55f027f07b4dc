"""One call for every protocol: open predictions and truth, match images, count, and say exactly what was counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelkin.data import Dataset, Instances
from pixelkin.metrics import pairing
from pixelkin.metrics.average_precision import AveragePrecision
from pixelkin.metrics.pairing import Matched, Opened, Source
from pixelkin.metrics.semantic import MeanIoU
from pixelkin.metrics.video import judge_sequence
from pixelkin.metrics.voc import VOCAveragePrecision

PROTOCOLS = ("coco", "voc", "agnostic", "semantic", "video")

Progress = Callable[[int, int], None]
"""Called with how many images (sequences, for video) are counted and how many there are."""

_COLUMNS: dict[str, tuple[str, ...]] = {
    "coco": ("AP", "AP50", "AP75", "AR", "crowd_AR"),
    "agnostic": ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR", "crowd_AR", "split_AR"),
    "voc": ("AP", "AP25", "AP50", "AP70", "AP75", "AR", "ABO", "crowd_AR"),
    "semantic": ("mIoU", "accuracy"),
    "video": ("J", "F"),
}
_PARTS = {"semantic": ("IoU",), "video": ("J", "F")}


@dataclass(frozen=True)
class Result:
    """What an evaluation found.

    Attributes:
        protocol: one of PROTOCOLS.
        scores: name to percent, None where there was nothing to find (e.g. no large object in the truth).
        parts: the same for every class, or for every sequence of a video evaluation.
        counts: sizes: of the set, of the truth, of what was left out.
        protocol_line: one line that says what was compared and how.
    """

    protocol: str
    scores: dict[str, float | None]
    parts: dict[str, dict[str, Any]]
    counts: dict[str, Any]
    protocol_line: str
    _part_name: str = field(default="class", repr=False)

    def to_json(self) -> dict[str, Any]:
        """Protocol, scores, ``per_class`` or ``per_sequence``, the protocol line and the counts, for ``json.dump``."""
        return {
            "protocol": self.protocol,
            **self.scores,
            f"per_{self._part_name}": self.parts,
            "protocol_line": self.protocol_line,
            **self.counts,
        }

    @property
    def columns(self) -> list[str]:
        """Headers of the table."""
        return [self._part_name, *_COLUMNS[self.protocol]]

    @property
    def rows(self) -> list[list[str]]:
        """The table: a row for all, then one for each class or sequence that has a truth; one decimal, "-" for none."""
        columns = _COLUMNS[self.protocol]
        rows = [["all", *(_cell(self.scores.get(column)) for column in columns)]]
        of_parts = _PARTS.get(self.protocol, columns)
        blanks = [""] * (len(columns) - len(of_parts))
        for name, part in self.parts.items():
            if part.get(of_parts[0]) is not None:
                rows.append([name, *(_cell(part[c]) if c in part else "" for c in of_parts), *blanks])
        return rows


def evaluate(
    pred: Source,
    truth: Source,
    *,
    protocol: str = "coco",
    max_detections: int = 1000,
    progress: Progress | None = None,
) -> Result:
    """Compare predictions with the truth. Masks of one image at a time are held.

    Images match by the same path below the source, else by file stem. Images without truth are left out; truths without
    prediction count as empty. Classes match by id. Of a folder of label PNG, which has one class, it is class 1, and a
    run of a single class counts for it whatever that one's id.

    Args:
        pred: run folder, COCO JSON, list of COCO results, or a dataset with instances; for ``semantic`` a run with
            ``semantic/`` or a folder of class PNG; for ``video`` a run with ``masks/CLIP/FRAME.png``, a folder
            of those, or a COCO JSON with ``track_id``.
        truth: COCO JSON, VOC devkit folder, folder of label PNG, or a dataset; for ``semantic`` a folder of class PNG
            too; for ``video`` DAVIS annotations or a COCO JSON with ``track_id``.
        protocol: ``coco`` (:class:`~pixelkin.metrics.average_precision.AveragePrecision`), ``agnostic`` (the same,
            classes forgotten), ``voc`` (:class:`~pixelkin.metrics.voc.VOCAveragePrecision`), ``semantic``
            (:class:`~pixelkin.metrics.semantic.MeanIoU`) or ``video`` (:func:`~pixelkin.metrics.video.judge_sequence`,
            averaged over sequences).
        max_detections: most detections of one class in one image that count.
        progress: called after every image, or sequence.

    Raises:
        ValueError: one line: what does not fit and how to mend it.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}: choose one of {', '.join(PROTOCOLS)}")
    if max_detections < 1:
        raise ValueError(f"max_detections must be at least 1, got {max_detections}")
    if protocol == "video":
        return _evaluate_video(pred, truth, progress)
    opened_truth = pairing.open_truth(truth, semantic=protocol == "semantic")
    opened_pred = pairing.open_predictions(pred, semantic=protocol == "semantic", truth=truth)
    matched = pairing.match(opened_pred.dataset, opened_truth.dataset)
    place = _place(truth, opened_truth.dataset)
    if protocol == "semantic":
        return _evaluate_semantic(opened_pred, opened_truth, matched, place, progress)
    return _evaluate_instances(opened_pred, opened_truth, matched, place, protocol, max_detections, progress)


def _evaluate_instances(
    pred: Opened,
    truth: Opened,
    matched: Matched,
    place: str,
    protocol: str,
    max_detections: int,
    progress: Progress | None,
) -> Result:
    classes = truth.dataset.classes or _classes_used(truth.dataset)
    relabel = None
    if truth.kind == "label-png":
        classes = _one_class(pred.dataset, classes)
        relabel = next(iter(classes)) if len(pred.dataset.classes) <= 1 else None
    elif protocol != "agnostic":
        _require_common(pred.dataset.classes, classes)
    classes = _distinct(classes)
    coco = AveragePrecision(classes, max_detections=max_detections, agnostic=protocol == "agnostic")
    voc = VOCAveragePrecision(classes, max_detections=max_detections)
    counter: AveragePrecision | VOCAveragePrecision = voc if protocol == "voc" else coco
    for done, (predicted, true) in enumerate(matched.pairs, start=1):
        instances = true.instances or Instances.empty(true.size)
        found = (predicted.instances if predicted is not None else None) or Instances.empty(instances.size)
        if relabel is not None:
            found = Instances(found.size, found.rles, labels=np.full(len(found), relabel), scores=found.scores)
        try:
            if protocol == "voc":
                voc.update(found, instances, void=true.ignore)
            else:
                coco.update(found, instances, areas=truth.areas_of(true, instances))
        except ValueError as error:
            raise ValueError(f"{true.name}: {error}") from None
        if progress is not None:
            progress(done, len(matched.pairs))
    scores = counter.compute()
    parts = scores.pop("per_class")
    counts = {
        **_counts(matched, place),
        "classes": len(classes),
        "max_detections": max_detections,
        "truths": counter.truths,
        "crowded_truths": counter.crowded_truths,
        "detections": counter.detections,
        **({"split_truths": coco.split_truths} if protocol == "agnostic" else {}),
    }
    classes_said = "classes ignored" if protocol == "agnostic" else _number(len(classes), "class", "classes")
    void = ", void pixels ignored" if protocol == "voc" else ""
    line = (
        f"{protocol}: {_images_said(counts, place)}, {classes_said}, {_number(counter.truths, 'true instance')}"
        f" ({counter.crowded_truths} crowded), {_number(counter.detections, 'detection')},"
        f" at most {max_detections} an image{'' if protocol == 'agnostic' else ' and class'}{void}"
    )
    return Result(protocol, scores, {} if protocol == "agnostic" else parts, counts, line)


def _evaluate_semantic(pred: Opened, truth: Opened, matched: Matched, place: str, progress: Progress | None) -> Result:
    counter = MeanIoU(_distinct({**pred.dataset.classes, **truth.dataset.classes}))
    for done, (predicted, true) in enumerate(matched.pairs, start=1):
        wanted = pairing.semantic_map(true)
        if wanted is None:
            raise ValueError(f"{true.name}: no mask in the truth: give a semantic mask or instances")
        found = pairing.semantic_map(predicted) if predicted is not None else None
        try:
            counter.update(np.zeros_like(wanted) if found is None else found, wanted)
        except ValueError as error:
            raise ValueError(f"{true.name}: {error}") from None
        if progress is not None:
            progress(done, len(matched.pairs))
    scores = counter.compute()
    parts = scores.pop("per_class")
    in_truth = sum(part["IoU"] is not None for part in parts.values())
    counts = {**_counts(matched, place), "classes": in_truth}
    drawn = "" if pred.kind == "semantic" else ", predicted instances drawn smaller over larger"
    line = (
        f"semantic: {_images_said(counts, place)}, {_number(in_truth, 'class', 'classes')} that the truth"
        f" holds, background among them, pixels of 255 ignored{drawn}"
    )
    return Result("semantic", scores, parts, counts, line)


def _evaluate_video(pred: Source, truth: Source, progress: Progress | None) -> Result:
    true = pairing.clips_of(truth) if isinstance(truth, Dataset) else pairing.read_clips(truth, "truth")
    found = pairing.clips_of(pred) if isinstance(pred, Dataset) else pairing.read_clips(pred, "prediction")
    common = sum(len(true[clip].keys() & found.get(clip, {}).keys()) for clip in true)
    if not common:
        raise ValueError(
            f"predictions and truth have no frame in common (clips {min(found)!r}, ... and {min(true)!r}, ...):"
            " clip folders and file stems must agree"
        )
    parts = {}
    for done, (clip, frames) in enumerate(sorted(true.items()), start=1):
        mine = found.get(clip, {})
        try:
            parts[clip] = judge_sequence([(mine.get(name, _nothing), load) for name, load in frames.items()])
        except ValueError as error:
            raise ValueError(f"clip {clip}: {error}") from None
        if progress is not None:
            progress(done, len(true))
    scores: dict[str, float | None] = {
        key: float(np.mean([part[key] for part in parts.values()])) for key in ("J", "F")
    }
    scores["J&F"] = (scores["J"] + scores["F"]) / 2  # type: ignore[operator]
    total = sum(len(frames) for frames in true.values())
    place = _place(truth, truth if isinstance(truth, Dataset) else None)
    counts = {
        "set": place,
        "sequences": len(true),
        "sequences_without_prediction": len(true.keys() - found.keys()),
        "images": total,
        "images_without_prediction": total - common,
        "predictions_without_truth": sum(len(frames) for frames in found.values()) - common,
        "frames_counted": sum(part["frames"] for part in parts.values()),
    }
    line = (
        f"video: {_number(len(true), 'sequence')}, {_images_said(counts, place, 'frame')},"
        f" first and last frame of a sequence not counted ({counts['frames_counted']} are),"
        f" mean over sequences, contours within 0.8 % of the diagonal"
    )
    return Result("video", scores, parts, counts, line, "sequence")


def _nothing() -> npt.NDArray[Any] | None:
    return None


def _one_class(pred: Dataset, classes: Mapping[int, str]) -> dict[int, str]:
    """The class of a folder of label PNG: named as the predictions name their only class, or their class 1."""
    names = (
        list(pred.classes.values()) if len(pred.classes) == 1 else [pred.classes.get(1, next(iter(classes.values())))]
    )
    return {next(iter(classes)): names[0]}


def _classes_used(dataset: Dataset) -> dict[int, str]:
    """Names for the class ids of a dataset that names none; goes through all its masks."""
    used: set[int] = set()
    for sample in dataset:
        instances = sample.instances
        used |= set() if instances is None else set(instances.labels.tolist())
    return {label: f"class {label}" for label in sorted(used)}


def _distinct(classes: Mapping[int, str]) -> dict[int, str]:
    """The classes with their ids added to names that several share, as the report goes by name."""
    names = list(classes.values())
    return {label: f"{name} ({label})" if names.count(name) > 1 else name for label, name in classes.items()}


def _require_common(pred: Mapping[int, str], truth: Mapping[int, str]) -> None:
    if pred and truth and not pred.keys() & truth.keys():
        raise ValueError(
            f"predictions and truth have no class id in common ({min(pred)} {pred[min(pred)]!r}, ... and"
            f" {min(truth)} {truth[min(truth)]!r}, ...): use the same ids, or protocol agnostic"
        )


def _counts(matched: Matched, place: str) -> dict[str, Any]:
    return {
        "set": place,
        "images": len(matched.pairs),
        "images_without_prediction": matched.unpredicted,
        "predictions_without_truth": matched.left_out,
    }


def _images_said(counts: Mapping[str, Any], place: str, noun: str = "image") -> str:
    return (
        f"{_number(counts['images'], noun)} of {place}"
        f" ({counts['images_without_prediction']} without prediction count as empty,"
        f" {counts['predictions_without_truth']} predicted without truth left out)"
    )


def _place(source: Source, dataset: Dataset | None) -> str:
    if not isinstance(source, Dataset):
        return "/".join(Path(source).absolute().parts[-2:])
    return (dataset.name if dataset is not None else "") or "a dataset"


def _number(n: int, noun: str, nouns: str = "") -> str:
    return f"{n} {noun if n == 1 else nouns or noun + 's'}"


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.1f}"
