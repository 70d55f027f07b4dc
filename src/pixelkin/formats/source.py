"""Opening whatever the user has as a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pixelkin.data import Dataset, Sample
from pixelkin.data.unknown import unknown_region
from pixelkin.formats.classes import as_classes, find_classes
from pixelkin.formats.coco import read_coco
from pixelkin.formats.davis import read_davis, read_frames
from pixelkin.formats.files import IMAGE_SUFFIXES, SourceError, list_files, read_json
from pixelkin.formats.folder import read_folder
from pixelkin.formats.images import with_image_of
from pixelkin.formats.kitti import is_kitti, read_kitti
from pixelkin.formats.labels import (
    PointsFile,
    SemanticFolder,
    TagsFile,
    attach_depth,
    attach_xml_tags,
    find_xml,
    xml_classes,
)
from pixelkin.formats.split_file import read_split_file
from pixelkin.formats.video import VIDEO_SUFFIXES, is_animation, read_video, read_videos
from pixelkin.formats.voc import read_voc
from pixelkin.formats.wis import is_wis, read_wis
from pixelkin.formats.yolo import is_yolo, read_yolo

KINDS = (
    "a folder of images or videos, a COCO JSON, a VOC, DAVIS or YOLO folder, a video, a split file or a finished run"
)


def open_dataset(
    source: Path | str,
    *,
    semantic: Path | str | None = None,
    tags: Path | str | None = None,
    points: Path | str | None = None,
    depth: Path | str | None = None,
    classes: Mapping[int, str] | Path | str | None = None,
    limit: int | None = None,
    frames: bool = False,
) -> Dataset:
    """Open images with whatever labels there are. Nothing is loaded; a broken image fails alone, later.

    The class list is ``classes``, else the source's own (COCO, VOC), else a ``classes.txt`` near the semantic masks,
    the tags, the points or the source (their folder or the two above), else what the labels hold.

    Args:
        source: a folder of images or video files (at any depth), a COCO JSON, a VOC devkit folder or one of its image
            set files, a DAVIS folder, a YOLO folder, a KITTI drive or a folder of some, the WIS annotations with their
            images, a video file, a split file, a finished run, or one image.
        semantic: folder of masks of class ids (0 background, 255 unknown; PNG, TIFF, .npy) or of .npy probabilities
            (1 + classes, H, W), named like the images. It replaces masks that the source has; so do the next ones.
        tags: CSV file ``image,class1;class2``, or ``"xml"`` for VOC XML files.
        points: JSON list of ``{"image", "x", "y", "label"}``.
        depth: folder of 16-bit PNG millimetres or .npy metres, named like the images.
        classes: class list, or a file of lines ``id name``.
        limit: only the first so many images.
        frames: take each folder of a folder of images as one clip.

    Raises:
        SourceError: one line: what is wrong with the call and how to mend it.
    """
    source = Path(source)
    folders = [Path(folder) for folder in (semantic, depth) if folder is not None]
    _check(source, folders, limit)
    given = as_classes(classes)
    try:
        labelled = any(given is not None for given in (semantic, tags, points, depth))
        # labels are matched by the names of all frames, so only a source without any is read no further than asked
        dataset = _open(source, given, folders, frames, None if labelled else limit)
        samples = list(dataset)
        masks = SemanticFolder(Path(semantic), samples) if semantic is not None else None
        tag_file = TagsFile(Path(tags), samples) if tags is not None and str(tags) != "xml" else None
        point_file = PointsFile(Path(points), samples) if points is not None else None
        label_files = [Path(file).parent for file in (tags, points) if file is not None and str(file) != "xml"]
        known = given or dataset.classes or find_classes([*folders[:1], *label_files, _home(source)])
        if not known:
            known = _discover(masks, tag_file, point_file, find_xml(samples, source) if str(tags) == "xml" else {})
        if tag_file is not None:
            samples = tag_file.attach(samples, known)
        elif tags is not None:
            samples = attach_xml_tags(samples, source, known)
        if point_file is not None:
            samples = point_file.attach(samples, known)
        if masks is not None:
            ids = tuple(known)
            samples = [masks.attach(sample, ids) for sample in samples]
        if depth is not None:
            samples = attach_depth(samples, Path(depth))
        return Dataset(samples[:limit], known, name=dataset.name)
    except SourceError:
        raise
    except ValueError as error:  # the dataset's own checks
        raise SourceError(f"{source}: {error}") from None


def read_run(
    folder: Path | str,
    images: Path | str | None = None,
    *,
    classes: Mapping[int, str] | Path | str | None = None,
) -> Dataset:
    """Read the instances of a run folder; what its semantic masks leave open becomes ``ignore``.

    Open is what they call unknown, or give a class that no instance claims. They are the run's own, else those it was
    made from.

    Args:
        folder: the run; its ``instances.json`` is read.
        images: folder of the images. Default: those of the source that ``run.json`` names, where it still exists.
        classes: class list that replaces the run's own.

    Raises:
        SourceError: no finished run.
    """
    folder = Path(folder)
    path = folder / "instances.json"
    if not path.is_file():
        raise SourceError(f"{folder}: no instances.json in it: give the folder of a finished run")
    dataset = with_semantic_of_run(read_coco(path, images, classes=classes), folder).map(_ignoring)
    source = _input_of_run(folder, "source") if images is None else None
    if source is None:
        return dataset
    try:
        found = {sample.name: sample for sample in _open(source, None, [], frames=False, limit=None)}
    except SourceError:  # it has changed since; the masks are still good
        return dataset
    return dataset.map(lambda sample: with_image_of(sample, found[sample.name]) if sample.name in found else sample)


def with_semantic_of_run(dataset: Dataset, folder: Path) -> Dataset:
    """The samples of a run with the semantic masks it wrote, else with those it was made from, where they still are."""
    masks = folder / "semantic" if (folder / "semantic").is_dir() else _input_of_run(folder, "semantic")
    if masks is None or not masks.is_dir():
        return dataset
    try:
        found = SemanticFolder(masks, list(dataset))
    except SourceError:  # moved or renamed since: they are an extra
        return dataset
    return dataset.map(lambda sample: found.attach(sample, tuple(dataset.classes)))


def _ignoring(sample: Sample) -> Sample:
    ignore = partial(_open_region, sample) if sample.has("semantic") else None
    return sample.replace(semantic=None, probabilities=None, ignore=ignore)


def _open_region(sample: Sample) -> npt.NDArray[np.bool_] | None:
    instances = sample.instances
    if instances is None:
        return None
    every = np.ones(len(instances), bool)
    return unknown_region(sample, instances, every, ~every)


def _input_of_run(folder: Path, key: str) -> Path | None:
    """What a run was made from, as its own record says; written by the user's own call, so it may lie anywhere."""
    record = read_json(folder / "run.json") if (folder / "run.json").is_file() else None
    request = record.get("request") if isinstance(record, dict) else None
    path = request.get(key) if isinstance(request, dict) else None
    return folder / path if isinstance(path, str) and (folder / path).exists() else None


def _check(source: Path, folders: list[Path], limit: int | None) -> None:
    if not source.exists():
        raise SourceError(f"{source}: no such file or folder: give {KINDS}")
    if limit is not None and limit < 1:
        raise SourceError(f"limit {limit}: it must be at least 1")
    for folder in folders:
        if folder.exists() and folder.resolve() == source.resolve():
            raise SourceError(
                f"{folder}: images and labels in one folder cannot be told apart: put the labels into their own"
            )


def _home(source: Path) -> Path:
    return source if source.is_dir() else source.parent


def _open(
    source: Path, classes: dict[int, str] | None, folders: list[Path], frames: bool, limit: int | None
) -> Dataset:
    if source.is_file():
        return _open_file(source, classes, limit)
    devkit = devkit_of(source)
    if devkit is not None:
        return read_voc(devkit, classes=classes)
    if (source / "JPEGImages").is_dir():
        return read_davis(source, classes=classes)
    if (source / "instances.json").is_file() and (source / "run.json").is_file():
        return read_run(source, classes=classes)
    if is_yolo(source):
        return read_yolo(source, classes=classes)
    if is_wis(source):
        return read_wis(source, classes=classes)
    if is_kitti(source):
        return read_kitti(source, classes=classes)
    clips = read_videos(source, exclude=folders, limit=limit)
    if clips and not list_files(source, exclude=folders):
        return Dataset(clips, classes, name=source.absolute().name)
    images = read_frames(source) if frames else read_folder(source, classes=classes, exclude=folders)
    return Dataset([*images, *clips], classes, name=images.name) if clips else images


def _open_file(source: Path, classes: dict[int, str] | None, limit: int | None) -> Dataset:
    suffix = source.suffix.lower()
    if suffix == ".json":
        return read_coco(source, classes=classes)
    if suffix in VIDEO_SUFFIXES and (suffix not in IMAGE_SUFFIXES or is_animation(source)):
        return Dataset(list(read_video(source, limit=limit)), classes, name=source.stem)
    if suffix in IMAGE_SUFFIXES:
        return Dataset([Sample(source.stem, source)], classes, name=source.stem)
    if suffix in (".yaml", ".yml") and is_yolo(source.parent):
        return read_yolo(source.parent, classes=classes)
    if suffix in (".txt", ".lst", ""):
        for folder in source.absolute().parents:
            if folder.name == "ImageSets" and (folder.parent / "JPEGImages").is_dir() and devkit_of(folder.parent):
                return read_voc(folder.parent, classes=classes, image_set=source)
        return read_split_file(source)
    raise SourceError(f"{source}: a {suffix} file is no source: give {KINDS}")


def devkit_of(folder: Path) -> Path | None:
    """The VOC devkit folder that a folder is or holds; None for a DAVIS folder, whose images lie in folders of clips.

    Raises:
        SourceError: it holds several.
    """
    masks = any((folder / name).is_dir() for name in ("SegmentationObject", "SegmentationClass"))
    if not masks and not (folder / "JPEGImages").is_dir():
        inner = sorted(path.parent for path in folder.glob("VOC20*/JPEGImages"))
        if len(inner) > 1:
            raise SourceError(f"{folder}: holds {', '.join(path.name for path in inner)}: give one of them")
        return inner[0] if inner else None
    annotations = (folder / "Annotations").is_dir() and any((folder / "Annotations").glob("*.xml"))
    images = (folder / "JPEGImages").glob("*.*")
    return folder if masks or annotations or any(path.suffix.lower() in IMAGE_SUFFIXES for path in images) else None


def _discover(
    masks: SemanticFolder | None, tags: TagsFile | None, points: PointsFile | None, xml: Mapping[str, Path]
) -> dict[int, str]:
    """The classes that the labels hold, where nobody listed them."""
    if masks is not None:
        return masks.find_classes()
    for file in (tags, points):
        if file is not None:
            return file.find_classes()
    return xml_classes(list(xml.values()))
