"""The public verbs: what the command line calls, for use from Python."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pixelkin.data import Dataset
from pixelkin.formats import open_dataset
from pixelkin.formats.files import sample_names
from pixelkin.formats.json_index import walk_records
from pixelkin.methods.base import Method, versions
from pixelkin.methods.registry import METHODS
from pixelkin.run.fitting import Recipe, adapts, fit_into, resolve
from pixelkin.run.folder import continued, locked, write_json
from pixelkin.run.images import Failure
from pixelkin.run.judging import FOLDER, Evaluation, Truth, judge, open_truth
from pixelkin.run.labelling import RunSummary, label_into
from pixelkin.run.teaching import bare_images, open_teaching

if TYPE_CHECKING:
    from pixelkin.students.export import ExportReport

Source = Path | str

STUDENT = "mask_rcnn"


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
    evaluation: Evaluation | None = None
    """How a student did on the truth, if one was given."""


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
        source: folder of images or videos, video file, COCO JSON, VOC devkit, DAVIS folder, folder of frames or split
            file. A method that learns from video takes every folder of a folder of images as a clip; with a model that
            is there already they are photos, unless its settings adapt it to clips.
        out: the run folder: ``instances.json``, ``run.json``, ``errors.jsonl``, ``gallery.html``, ``model/``; for video
            ``masks/CLIP/FRAME.png`` and ``overlays/CLIP.mp4``.
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
    frames = _learns_from_video(method) if model is None else adapts(model, settings)
    dataset, inputs = _open(source, flags, limit, frames=frames)
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
    return label_into(Path(out), dataset, recipe, image_ids=_image_ids(source), say=say)


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
    dataset, inputs = _open(source, flags, limit, frames=_learns_from_video(method))
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
    return _fit_and_keep(dataset, recipe, Path(out), say)


def train_student(
    run: Source,
    *,
    out: Source,
    images: Source | None = None,
    truth: Source | None = None,
    backbone: str | None = None,
    budget: str | None = None,
    device: str = "auto",
    seed: int = 0,
    settings: Mapping[str, str] | None = None,
    limit: int | None = None,
    say: Callable[[str], None] = _silent,
) -> FitSummary:
    """Train a Mask R-CNN on the instances of a run and save it in a folder; the same call again continues.

    Args:
        run: a run folder, or any source with instances, such as a COCO JSON.
        out: the student's folder.
        images: where the images of the run are now, if they have moved.
        truth: images with true instances, such as a COCO JSON, a VOC devkit folder or one of its image set files. The
            student predicts them into ``out/evaluation``, a run like any other; ``scores.json`` there says how well.
        backbone: a name of :func:`list_backbones`.
        budget: most time or iterations: ``30m``, ``2000it``. Default: passes over the images, as the settings say.
        device: ``auto``, ``cpu`` or ``cuda``.
        seed: same seed, same result on one device.
        settings: keys of :class:`pixelkin.students.mask_rcnn.MaskRCNNConfig` and their values as text.
        limit: only the first images of the run; the truth is taken whole.
        say: takes a line for the user now and then.

    Raises:
        ValueError: the call is wrong, or there is nothing to learn from; one line with the mend.
    """
    folder = Path(out)
    dataset = open_teaching(Path(run), None if images is None else Path(images), limit=limit)
    judged = None if truth is None else open_truth(Path(truth), dataset)
    inputs = {"run": Path(run), "images": None if images is None else Path(images), "limit": limit}
    recipe = resolve(
        dataset,
        folder,
        method=STUDENT,
        inputs=inputs,
        settings=settings,
        backbone=backbone,
        budget=budget,
        device=device,
        seed=seed,
    )
    summary = _fit_and_keep(dataset, recipe, folder, say)
    if judged is not None:
        say(f"evaluating on {len(judged.dataset)} images of {judged.dataset.name}")
        summary.evaluation = _evaluate_student(folder, judged, device)
    return summary


def predict(
    student: Source,
    source: Source,
    *,
    out: Source,
    tags: Source | None = None,
    device: str = "auto",
    settings: Mapping[str, str] | None = None,
    limit: int | None = None,
    say: Callable[[str], None] = _silent,
) -> RunSummary:
    """Find the instances of every image of a source with a student; writes a run folder as :func:`label` does.

    Labels that the source has are not looked at, but for ``tags``; classes are the student's.

    Args:
        student: folder that :func:`train_student` wrote.
        source: images: anything :func:`label` takes.
        out: the run folder; the same call again continues it.
        tags: CSV ``image,class1;class2``, or ``xml`` for VOC XML: what is in an image, where that is known. Nothing
            else is found there.
        device: ``auto``, ``cpu`` or ``cuda``.
        settings: of prediction, as text: ``score``, ``nms``, ``detections``, ``short_side``, ``long_side``.
        limit: only the first images.
        say: takes a line for the user now and then.

    Raises:
        ValueError: the call is wrong; one line with the mend.
    """
    model = Method.load(student, device="cpu")
    if not METHODS[model.name].student:
        raise ValueError(f"{student} is a model of {model.name}, not a student: use pixelkin label --model {student}")
    fixed = sorted(set(settings or {}) - model.config_class.AFTER_FITTING)
    if fixed:
        free = ", ".join(sorted(model.config_class.AFTER_FITTING))
        raise ValueError(f"{fixed[0]} was settled when the student was trained: predict has {free}")
    images = bare_images(open_dataset(source, tags=tags, limit=limit), model.classes, tagged=tags is not None)
    inputs = {"source": Path(source), "limit": limit} | ({} if tags is None else {"tags": tags})
    recipe = resolve(images, Path(out), inputs=inputs, settings=settings, model=student, device=device)
    _announce(recipe, say)
    return label_into(Path(out), images, recipe, image_ids=_image_ids(source), say=say)


def export_student(student: Source, *, out: Source, size: tuple[int, int] | None = None) -> ExportReport:
    """Write a student as ONNX for one input size, and compare it with the student on an image.

    Args:
        student: folder that :func:`train_student` wrote.
        out: the ``.onnx`` file.
        size: height and width of the input, made multiples of the network's coarsest stride. Default: those of a
            4:3 image at the size the student was trained for.

    Raises:
        ValueError: no student, packages missing, or an export that does not agree.
    """
    from pixelkin.students.export import export_onnx

    return export_onnx(Method.load(student, device="cpu"), Path(out), size)


def _evaluate_student(folder: Path, truth: Truth, device: str) -> Evaluation:
    """Predict the images of the truth into the student's folder, and score them."""
    out = folder / FOLDER
    images = bare_images(truth.dataset, Method.load(folder, device="cpu").classes)
    recipe = resolve(images, out, inputs={"source": truth.path, "limit": None}, model=folder, device=device)
    return judge(label_into(out, images, recipe, image_ids=_image_ids(truth.path), say=_silent), truth)


def _fit_and_keep(dataset: Dataset, recipe: Recipe, folder: Path, say: Callable[[str], None]) -> FitSummary:
    """Fit into a folder with a record of how, or find it done."""
    _announce(recipe, say)
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
                f"no image of {dataset.name} can be learned from, see {folder / 'errors.jsonl'}: mend the images"
            )
        if fitted.now:
            timings = {"fit_s": round(time.monotonic() - started, 2)}
            counts = {"images": len(dataset), "done": fitted.images, "failed": len(failures)}
            write_json(folder / "fit.json", {"status": "done", **head, "counts": counts, "timings": timings})
        return FitSummary(folder, recipe.name, fitted.images, not fitted.now, failures)


def _learns_from_video(method: str) -> bool:
    return method in METHODS and "clip" in METHODS[method].supervision


def _open(source: Source, flags: dict[str, Any], limit: int | None, *, frames: bool) -> tuple[Dataset, dict[str, Any]]:
    """The dataset, a folder of images as clips where ``frames``, and the inputs as they go on record."""
    paths = {key: value if value in (None, "xml") else Path(str(value)) for key, value in flags.items()}
    dataset = open_dataset(source, **flags, limit=limit, frames=frames)
    return dataset, {"source": Path(source), **paths, "limit": limit}


def _announce(recipe: Recipe, say: Callable[[str], None]) -> None:
    say(f"method {recipe.name}" + (f": {recipe.why}" if recipe.why else ""))


def _image_ids(source: Source) -> dict[str, int | str]:
    """The image ids of a COCO file by sample name; none for other sources."""
    path = Path(source)
    if path.suffix.lower() != ".json":
        return {}
    records = [record.content for record in walk_records(path) if record.section == "images"]
    names = sample_names([PurePosixPath(record["file_name"].replace("\\", "/")) for record in records])
    return dict(zip(names, (record["id"] for record in records), strict=True))
