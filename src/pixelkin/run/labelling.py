"""Label a dataset into a run folder: one image at a time in memory, each safe on the disk before the next."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import pixelkin
from pixelkin.data import ALTERNATIVE, Dataset, Sample
from pixelkin.formats import annotation_record, image_record, write_coco, write_label_png
from pixelkin.formats.coco_video import number_clips, video_records
from pixelkin.formats.davis import write_frame
from pixelkin.methods.base import Method, versions
from pixelkin.run.films import film_of, write_films
from pixelkin.run.fitting import Recipe, fit_into
from pixelkin.run.folder import continued, locked, write_json
from pixelkin.run.images import SKIPPED, Failure, Labelled, label_image
from pixelkin.run.linking import link_clips
from pixelkin.run.records import Records
from pixelkin.run.spool import Spool
from pixelkin.training.progress import track
from pixelkin.viz import GalleryEntry, with_tracks, write_gallery

Say = Callable[[str], None]

SHOWN_FAILURES = 10


@dataclass
class RunSummary:
    """What a run has to show. Counts are of images unless they say otherwise."""

    folder: Path
    method: str
    images: int = 0
    done: int = 0
    failed: int = 0
    skipped: int = 0
    continued: int = 0
    """Of those done, how many were already there when the run started."""
    instances: int = 0
    alternatives: int = 0
    """Of the instances, how many are other ways to divide what surer ones already have."""
    per_class: dict[int, int] = field(default_factory=dict)
    """Instances of each class id, alternatives left out."""
    classes: dict[int, str] = field(default_factory=dict)
    baselines: dict[str, int] = field(default_factory=dict)
    """Instances the baselines find in the semantic maps of the images done."""
    films: int = 0
    """Clips shown in ``overlays/CLIP.mp4``."""
    first_failures: list[Failure] = field(default_factory=list)


def label_into(
    folder: Path, dataset: Dataset, recipe: Recipe, *, image_ids: Mapping[str, int | str] | None = None, say: Say
) -> RunSummary:
    """Fit if there is no model yet, label every image that is not done yet, and write the results.

    Args:
        folder: the run.
        dataset: what to label.
        recipe: how.
        image_ids: sample name to the image id to write. Default: 1..N in the dataset's order.
        say: takes a line for the user.

    Raises:
        RunError: another process writes the folder, or it was made by another request.
        ValueError: the method cannot learn from this dataset.
    """
    with locked(folder):
        record = continued(folder / "run.json", recipe.request)
        timings: dict[str, float] = record.get("timings", {})
        head = {
            "status": "running",
            "method": recipe.name,
            "why": recipe.why,
            "request": recipe.request,
            "seed": recipe.seed,
            "device": recipe.device,
            "classes": _text_keys(dataset.classes),
            "versions": versions(),
        }
        write_json(folder / "run.json", head | {"timings": timings})
        started = time.monotonic()
        fitted = fit_into(folder / "model", dataset, recipe, say=say)
        if fitted.now:
            timings["fit_s"] = round(time.monotonic() - started, 2)
            write_json(folder / "run.json", head | {"timings": timings})
        run = _Run(folder, dataset, recipe, image_ids or {})
        try:
            run.label(fitted.method, fitted.failures)
            if fitted.method is not None and fitted.method.links:
                started = time.monotonic()
                link_clips(folder, dataset, run.images, run.links)
                timings["link_s"] = round(time.monotonic() - started, 2)
            summary, seconds = run.finish(fitted.method)
            summary.films = write_films(folder, dataset, run.records, say)
        finally:
            run.close()
        timings["label_s"] = round(seconds, 2)
        timings["image_s"] = round(seconds / max(summary.done, 1), 4)
        counts = {
            key: getattr(summary, key) for key in ("images", "done", "failed", "skipped", "instances", "alternatives")
        }
        tail = {
            "classes": _text_keys(summary.classes),
            "counts": counts | {"per_class": _text_keys(summary.per_class)},
            "baselines": summary.baselines,
            "trained_on": {} if fitted.method is None else fitted.method.trained_on,
            "timings": timings,
        }
        write_json(folder / "run.json", head | tail | {"status": "done"})
        return summary


class _Run:
    """The spools of a run folder and what is made of them."""

    def __init__(self, folder: Path, dataset: Dataset, recipe: Recipe, image_ids: Mapping[str, int | str]) -> None:
        self.folder, self.dataset, self.recipe, self.image_ids = folder, dataset, recipe, image_ids
        self.images = Spool(folder / ".spool" / "images.jsonl")
        self.gallery = Spool(folder / ".spool" / "gallery.jsonl")
        self.links = Spool(folder / ".spool" / "links.jsonl")
        self.records = Records(self.images, self.links)
        self.continued = sum(sample.name in self.images for sample in dataset)
        self.counts: Counter[str] = Counter()
        self.changed: set[str] = set()
        self.clips = number_clips(dataset)
        self.first_failures: list[Failure] = []
        self.errors = (folder / "errors.jsonl").open("w")  # those of an earlier try are tried again

    def close(self) -> None:
        for file in (self.images, self.gallery, self.links, self.errors):
            file.close()

    def label(self, method: Method | None, known: Mapping[str, Failure]) -> None:
        """Label what is not done; ``known`` are failures already met, the only thing there is without a method."""
        for sample in track(self.dataset, "label"):
            if sample.name in self.images:
                continue
            if method is None:
                result: Labelled | Failure = known.get(sample.name) or Failure(
                    sample.name, SKIPPED, "no labels to learn from"
                )
            else:
                result = label_image(method, sample)
            if isinstance(result, Failure):
                self._failed(result)
            else:
                self._done(sample, result)

    def _done(self, sample: Sample, made: Labelled) -> None:
        instances = made.instances
        if made.semantic is not None:
            write_label_png(self.folder / "semantic" / f"{sample.name}.png", made.semantic)
        if sample.clip is not None:
            write_frame(self.folder / "masks", sample, instances)
            if sample.clip not in self.changed:
                film_of(self.folder, sample.clip).unlink(missing_ok=True)  # a kill must not leave an old one
                self.changed.add(sample.clip)
        # the gallery first: the record in images is what says that all of it is there
        self.gallery.append(sample.name, made.gallery)
        of_clip = sample.clip is not None
        record = {
            "image": image_record(sample, 0, self.clips.get(sample.clip or "")),
            "annotations": [annotation_record(instances, i, 0, 0, identity=of_clip) for i in range(len(instances))],
            "baselines": made.baselines,
            "seconds": round(made.seconds, 4),
        }
        self.images.append(sample.name, record)

    def _failed(self, failure: Failure) -> None:
        self.counts[SKIPPED if failure.stage == SKIPPED else "failed"] += 1
        if len(self.first_failures) < SHOWN_FAILURES:
            self.first_failures.append(failure)
        self.errors.write(json.dumps(asdict(failure)) + "\n")
        self.errors.flush()

    def finish(self, method: Method | None) -> tuple[RunSummary, float]:
        """Write instances.json and gallery.html from the spools; the summary and the seconds spent on labelling."""
        known = method.classes if method is not None else {}
        classes = self.dataset.classes or known
        summary = RunSummary(
            self.folder,
            self.recipe.name,
            images=len(self.dataset),
            failed=self.counts["failed"],
            skipped=self.counts[SKIPPED],
            continued=self.continued,
            first_failures=self.first_failures,
        )
        tally = _Tally()
        for sample in self.dataset:
            if sample.name in self.images:
                tally.add(self.records.get(sample.name))
        summary.done, summary.instances, summary.alternatives = tally.images, tally.instances, tally.alternatives
        summary.per_class, summary.baselines = dict(sorted(tally.per_class.items())), dict(tally.baselines)
        named = {i: classes.get(i) or known.get(i, f"class {i}") for i in {*classes, *tally.labels}}
        summary.classes = dict(sorted(named.items()))
        info = {"description": f"instances by pixelkin {pixelkin.__version__}, {self.recipe.name}"}
        videos = video_records(self.dataset)
        write_coco(self.folder / "instances.json", self._records(), summary.classes, info=info, videos=videos)
        counts = {"done": summary.done, "failed": summary.failed, "skipped": summary.skipped}
        title = f"{self.dataset.name or 'pixelkin'}, {self.recipe.name}"
        errors = [(failure.name, failure.reason) for failure in self.first_failures]
        write_gallery(
            self.folder / "gallery.html",
            self._entries(),
            classes=summary.classes,
            title=title,
            summary={**counts, "errors": errors},
        )
        return summary, tally.seconds

    def _entries(self) -> Iterator[GalleryEntry]:
        """What the gallery shows of every image done, in the order of the dataset."""
        for sample in self.dataset:
            if sample.name in self.images:
                entry = cast("GalleryEntry", self.gallery.get(sample.name))
                tracks = self.records.tracks(sample.name)
                yield entry if tracks is None else with_tracks(entry, tracks)

    def _records(self) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """(image record, annotation records) of every image done, in the order of the dataset."""
        annotation_id = 0
        for number, sample in enumerate(self.dataset, start=1):
            if sample.name not in self.images:
                continue
            record = self.records.get(sample.name)
            image_id = self.image_ids.get(sample.name, number)
            annotations = []
            for annotation in record["annotations"]:
                annotation_id += 1
                annotations.append(annotation | {"id": annotation_id, "image_id": image_id})
            yield record["image"] | {"id": image_id}, annotations


class _Tally:
    """Sums over the records of the images done."""

    def __init__(self) -> None:
        self.images = self.instances = self.alternatives = 0
        self.labels: set[int] = set()
        self.seconds = 0.0
        self.per_class: Counter[int] = Counter()
        self.baselines: Counter[str] = Counter()

    def add(self, record: dict[str, Any]) -> None:
        self.images += 1
        self.seconds += record["seconds"]
        for annotation in record["annotations"]:
            self.instances += 1
            self.labels.add(annotation["category_id"])
            if annotation["source"].endswith(ALTERNATIVE):
                self.alternatives += 1
            else:
                self.per_class[annotation["category_id"]] += 1
        self.baselines.update(record["baselines"])


def _text_keys(mapping: Mapping[int, Any]) -> dict[str, Any]:
    return {str(key): value for key, value in mapping.items()}
