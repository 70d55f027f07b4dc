"""A finished run as what a student learns from, and images as what it is asked about."""

from __future__ import annotations

from pathlib import Path

from pixelkin.data import Dataset, Sample
from pixelkin.formats import open_dataset, read_run
from pixelkin.formats.files import SourceError
from pixelkin.formats.images import with_image_of
from pixelkin.formats.source import with_semantic_of_run

LABELS = ("tags", "points", "boxes", "semantic", "probabilities", "instances", "ignore", "depth")


def open_teaching(run: Path, images: Path | None = None, *, limit: int | None = None) -> Dataset:
    """The images and instances of a run, with the semantic masks that go with them: its own, or those it was made from.

    Args:
        run: a run folder; or any source with instances, such as a COCO JSON.
        images: where the images are now (anything :func:`~pixelkin.formats.open_dataset` opens), if they have moved.
        limit: only the first images.

    Raises:
        SourceError: no run, no instances in it, or images that are not where they were.
    """
    if not run.exists():
        raise SourceError(f"{run}: no such run: give the folder that `pixelkin label` wrote")
    is_run = (run / "instances.json").is_file()
    dataset = read_run(run) if is_run else open_dataset(run)
    if not dataset.with_label("instances"):
        raise SourceError(f"{run}: no instances in it: give the folder of a finished run, or a COCO JSON")
    if images is not None:
        dataset = _with_images(dataset, images)
    files = [sample.path for sample in dataset if sample.path is not None]
    if files and not any(file.is_file() for file in files):
        raise SourceError(f"{run}: its images are not in {files[0].parent} any more: say where with --images DIR")
    dataset = with_semantic_of_run(dataset, run) if is_run else dataset
    return Dataset(list(dataset)[:limit], dataset.classes, name=run.resolve().name)


def bare_images(dataset: Dataset, classes: dict[int, str], *, tagged: bool = False) -> Dataset:
    """The images alone, with other classes: what labels they came with is not the student's to see.

    With ``tagged`` it may see their tags: those of its classes, found by name where both have names, else by id.
    """
    named = {name: class_id for class_id, name in classes.items()}

    def known(tags: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if tags is None:
            return None
        own = {named.get(dataset.classes.get(tag, ""), tag if tag not in dataset.classes else None) for tag in tags}
        return tuple(sorted(tag for tag in own if tag in classes))

    bare = [
        sample.replace(**dict.fromkeys(LABELS) | ({"tags": known(sample.tags)} if tagged else {})) for sample in dataset
    ]
    return Dataset(bare, classes, name=dataset.name)


def _with_images(dataset: Dataset, images: Path) -> Dataset:
    found = {sample.name: sample for sample in open_dataset(images)}
    named = [sample.name for sample in dataset if sample.name in found]
    if not named:
        first = next((sample.name for sample in dataset), "")
        raise SourceError(f"{images}: none of the run's images is there, say {first}: give the folder that holds them")

    def moved(sample: Sample) -> Sample:
        return with_image_of(sample, found[sample.name]) if sample.name in found else sample

    return dataset.map(moved)
