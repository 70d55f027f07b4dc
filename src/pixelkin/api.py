"""The public verbs: what the command line calls, for use from Python."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from pixelkin.data import Dataset
from pixelkin.formats import open_dataset
from pixelkin.formats.files import sample_names
from pixelkin.formats.json_index import walk_records
from pixelkin.methods.base import versions
from pixelkin.run.fitting import Recipe, fit_into, resolve
from pixelkin.run.folder import continued, locked, write_json
from pixelkin.run.images import Failure
from pixelkin.run.labelling import RunSummary, label_into

Source = Path | str


def _silent(line: str) -> None:
    pass


@dataclass
class FitSummary:
    """What fitting has to show."""

    folder: Path
    method: str
    images: int = 0
    """Images learned from; 0 where the folder held the finished model already."""
    finished_before: bool = False
    failures: list[Failure] = field(default_factory=list)
    """Images that could not be read."""


def label(
    source: Source,
    *,
    out: Source,
    method: str = "auto",
    semantic: Source | None = None,
    tags: Source | None = None,
    points: Source | None = None,
    depth: Source | None = None,
    classes: Source | None = None,
    model: Source | None = None,
    backbone: str | None = None,
    budget: str | None = None,
    device: str = "auto",
    seed: int = 0,
    settings: Mapping[str, str] | None = None,
    limit: int | None = None,
    say: Callable[[str], None] = _silent,
) -> RunSummary:
    """Label every image of a source into a run folder; the same call again continues it.

    Args:
        source: folder of images, COCO JSON, VOC devkit, DAVIS folder, folder of frames or split file.
        out: the run folder: ``instances.json``, ``run.json``, ``errors.jsonl``, ``gallery.html``, ``model/``.
        method: a name of :func:`list_methods`, or ``auto`` for the one that suits the labels.
        semantic: folder of PNG of class ids with the images' stems; 255 is unknown.
        tags: CSV ``image,class1;class2``, or ``xml`` for VOC XML.
        points: JSON list of ``{image, x, y, label}`` in pixels.
        depth: folder of 16-bit PNG or .npy.
        classes: file of lines ``id name``.
        model: folder of a fitted model; without one the method is fitted on the source first.
        backbone: a name of :func:`list_backbones`.
        budget: most time or iterations for fitting: ``5m``, ``2000it``.
        device: ``auto``, ``cpu`` or ``cuda``.
        seed: same seed, same result on one device.
        settings: the method's config keys and their values as text.
        limit: only the first images.
        say: takes a line for the user now and then.

    Returns:
        Counts and where to look. Images that failed are in ``errors.jsonl``.

    Raises:
        ValueError: the call is wrong; one line with the mend.
    """
    flags: dict[str, Any] = {"semantic": semantic, "tags": tags, "points": points, "depth": depth, "classes": classes}
    dataset, inputs = _open(source, flags, limit)
    recipe = resolve(
        dataset,
        Path(out),
        method=method,
        inputs=inputs,
        settings=settings,
        model=model,
        backbone=backbone,
        budget=budget,
        device=device,
        seed=seed,
    )
    _announce(recipe, say)
    ids = _coco_ids(Path(source)) if str(source).lower().endswith(".json") else {}
    return label_into(Path(out), dataset, recipe, image_ids=ids, say=say)


def fit(
    source: Source,
    *,
    out: Source,
    method: str = "auto",
    semantic: Source | None = None,
    tags: Source | None = None,
    points: Source | None = None,
    depth: Source | None = None,
    classes: Source | None = None,
    backbone: str | None = None,
    budget: str | None = None,
    device: str = "auto",
    seed: int = 0,
    settings: Mapping[str, str] | None = None,
    limit: int | None = None,
    say: Callable[[str], None] = _silent,
) -> FitSummary:
    """Fit a method on a source and save it in a folder; the same call again continues. Arguments as in :func:`label`.

    Raises:
        ValueError: the call is wrong, or no image can be learned from; one line with the mend.
    """
    flags: dict[str, Any] = {"semantic": semantic, "tags": tags, "points": points, "depth": depth, "classes": classes}
    dataset, inputs = _open(source, flags, limit)
    recipe = resolve(
        dataset,
        Path(out),
        method=method,
        inputs=inputs,
        settings=settings,
        backbone=backbone,
        budget=budget,
        device=device,
        seed=seed,
    )
    _announce(recipe, say)
    folder = Path(out)
    with locked(folder):
        record = continued(folder / "fit.json", recipe.request)
        head: dict[str, Any] = {"method": recipe.name, "why": recipe.why, "request": recipe.request}
        head |= {"seed": recipe.seed, "device": recipe.device, "versions": versions()}
        if not record:
            write_json(folder / "fit.json", {"status": "running", **head})
        started = time.monotonic()
        fitted = fit_into(folder, dataset, recipe, say=say)
        failures = list(fitted.failures.values())
        with (folder / "errors.jsonl").open("w") as file:
            file.writelines(json.dumps(vars(failure)) + "\n" for failure in failures)
        if fitted.method is None:
            raise ValueError(
                f"no image of {source} can be learned from, see {folder / 'errors.jsonl'}: mend the images"
            )
        if fitted.now:
            timings = {"fit_s": round(time.monotonic() - started, 2)}
            counts = {"images": len(dataset), "done": fitted.images, "failed": len(failures)}
            write_json(folder / "fit.json", {"status": "done", **head, "counts": counts, "timings": timings})
        return FitSummary(folder, recipe.name, fitted.images, not fitted.now, failures)


def _open(source: Source, flags: dict[str, Any], limit: int | None) -> tuple[Dataset, dict[str, Any]]:
    """The dataset, and the inputs as they go on record."""
    paths = {key: value if value in (None, "xml") else Path(str(value)) for key, value in flags.items()}
    dataset = open_dataset(source, **flags, limit=limit)
    return dataset, {"source": Path(source), **paths, "limit": limit}


def _announce(recipe: Recipe, say: Callable[[str], None]) -> None:
    say(f"method {recipe.name}" + (f": {recipe.why}" if recipe.why else ""))


def _coco_ids(path: Path) -> dict[str, int | str]:
    """The image ids of a COCO file by sample name."""
    records = [record.content for record in walk_records(path) if record.section == "images"]
    names = sample_names([PurePosixPath(record["file_name"].replace("\\", "/")) for record in records])
    return dict(zip(names, (record["id"] for record in records), strict=True))
