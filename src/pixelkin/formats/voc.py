"""PASCAL VOC devkit folders: boxes, tags, instance and class masks."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pixelkin.data import Dataset, ImageError, Instances, Sample
from pixelkin.data.sample import UNKNOWN, Boxes
from pixelkin.formats.classes import CLASSES_FILE, as_classes, class_id_of, read_classes, write_classes
from pixelkin.formats.files import SourceError, list_files, read_lines, require_folder, sample_names, whole
from pixelkin.formats.images import copy_image, file_name
from pixelkin.formats.label_png import classes_beneath, paint
from pixelkin.formats.maps import label_size, load_ids, load_semantic
from pixelkin.formats.palette import write_palette_png
from pixelkin.formats.report import ConversionReport, FileLoss
from pixelkin.formats.voc_xml import VocAnnotation, VocObject, read_xml, write_xml

# fmt: off
VOC_NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on
VOC_CLASSES = dict(enumerate(VOC_NAMES, start=1))
LARGEST_ID = 254


def read_voc(
    folder: Path | str,
    *,
    classes: Mapping[int, str] | Path | str | None = None,
    image_set: Path | str | None = None,
) -> Dataset:
    """Read a VOC devkit folder (the one with ``JPEGImages``). All its images are samples; without any, all its masks.

    ``Annotations/*.xml`` give tags and boxes; where ``SegmentationObject`` has a mask, the sample has instances, each
    of the class that ``SegmentationClass`` shows beneath it, and ``ignore`` where it is 255 (void);
    ``SegmentationClass`` is the semantic mask. An annotation file that cannot be read leaves its image without tags,
    with a warning.

    Args:
        folder: the devkit.
        classes: class list. Default: ``classes.txt`` in the folder or its parent, else the 20 VOC classes, ids 1..20.
        image_set: file of an image set (``ImageSets/Segmentation/train.txt``); only its images are samples.

    Raises:
        SourceError: no images, or an annotated class that is not in the class list.
    """
    folder = require_folder(Path(folder), "VOC devkit folder")
    images = folder / "JPEGImages"
    known = as_classes(classes) or _listed_classes(folder)
    paths = list_files(images) or list_files(folder / "SegmentationObject", {".png"})
    names = sample_names(paths)
    wanted = None if image_set is None else _image_set(Path(image_set), set(names))
    samples = [
        _sample(folder, name, images / path, known)
        for name, path in zip(names, paths, strict=True)
        if wanted is None or name in wanted
    ]
    if not samples:
        raise SourceError(f"{images}: no images in it: check the path")
    return Dataset(samples, known, name=folder.name)


def _listed_classes(folder: Path) -> dict[int, str]:
    for place in (folder, folder.absolute().parent):
        if (place / CLASSES_FILE).is_file():
            return read_classes(place / CLASSES_FILE)
    return VOC_CLASSES


def _image_set(path: Path, names: set[str]) -> set[str]:
    """The images of a set; lines are ``name`` or, in the sets of one class, ``name 1|-1|0``, of which the 1s count."""
    wanted = set()
    for number, line in enumerate(read_lines(path), start=1):
        parts = line.split()
        if not parts or (len(parts) == 2 and parts[1] in ("-1", "0")):
            continue
        if parts[0] not in names:
            raise SourceError(f"{path}, line {number}: no image {parts[0]!r} in JPEGImages: correct or remove the line")
        wanted.add(parts[0])
    return wanted


def _sample(folder: Path, name: str, image: Path, classes: Mapping[int, str]) -> Sample:
    xml = folder / "Annotations" / f"{name}.xml"
    tags, boxes = read_xml_labels(xml, classes) if xml.is_file() else (None, None)
    objects, semantic = folder / "SegmentationObject" / f"{name}.png", folder / "SegmentationClass" / f"{name}.png"
    has_objects, has_semantic = objects.is_file(), semantic.is_file()
    return Sample(
        name,
        image,
        size=None if image.is_file() or not has_objects else label_size(objects),
        tags=tags,
        boxes=boxes,
        semantic=partial(load_semantic, semantic, tuple(classes)) if has_semantic else None,
        instances=partial(_load_instances, objects, semantic, tuple(classes)) if has_objects else None,
        ignore=partial(_load_void, objects) if has_objects else None,
    )


def read_xml_labels(path: Path, classes: Mapping[int, str]) -> tuple[tuple[int, ...] | None, Boxes | None]:
    """Tags and boxes of one annotation file, difficult objects included; boxes only if every object has one.

    Raises:
        SourceError: a class that is not in the class list.
    """
    try:
        objects = read_xml(path).objects
    except SourceError as error:
        warnings.warn(f"{error}; the image goes without tags and boxes", stacklevel=2)
        return None, None
    labels = [class_id_of(item.name, classes, str(path)) for item in objects]
    tags = tuple(sorted(set(labels)))
    if any(item.box is None for item in objects):
        return tags, None
    xyxy = np.array([item.box for item in objects], dtype=np.float64).reshape(-1, 4)
    return tags, Boxes(xyxy, np.array(labels, dtype=np.int64))


def _load_instances(objects: Path, semantic: Path, classes: tuple[int, ...]) -> Instances:
    instances = Instances.from_label_map(load_ids(objects), ignore=UNKNOWN)
    labels = classes_beneath(instances, load_semantic(semantic, classes), objects)
    return Instances(instances.size, instances.rles, labels=labels, ids=instances.ids)


def _load_void(objects: Path) -> npt.NDArray[np.bool_]:
    return np.asarray(load_ids(objects) == UNKNOWN)


def write_voc(
    folder: Path | str,
    samples: Iterable[Sample],
    classes: Mapping[int, str],
    *,
    image_set: str = "trainval",
    copy_images: bool = True,
) -> ConversionReport:
    """Write a VOC devkit folder, one image in memory at a time.

    Masks become ``SegmentationObject`` and ``SegmentationClass`` (void 255 where ``ignore`` or only a crowd is), boxes
    and tags ``Annotations``; the flags difficult, truncated and occluded are written as 0. Lost, and reported: overlaps
    (the higher score is on top), crowds as objects. Scores and sources have no place in the format.

    Args:
        folder: where to; made if absent.
        samples: what to write. An image that cannot be read is reported and the next one follows.
        classes: class id to name; ids up to 254.
        image_set: name of the files in ``ImageSets``.
        copy_images: put the image files into ``JPEGImages``.

    Raises:
        SourceError: a class id over 254.
    """
    folder = Path(folder)
    if max(classes, default=0) > LARGEST_ID:
        raise SourceError(f"class id {max(classes)} does not fit the 8 bits of VOC masks: convert to coco")
    report = ConversionReport("voc")
    everything, masked = [], []
    for sample in samples:
        try:
            report.add(_write_sample(folder, sample, classes))
            report.without_image += copy_images and not copy_image(sample, folder / "JPEGImages")
        except ImageError as error:
            report.failed.append((sample.name, str(error)))
            continue
        everything.append(sample.name)
        if sample.has("instances"):
            masked.append(sample.name)
    for kind, names in (("Main", everything), ("Segmentation", masked)):
        with whole(folder / "ImageSets" / kind / f"{image_set}.txt") as beside:
            beside.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    write_classes(folder / CLASSES_FILE, classes)
    return report


def _write_sample(folder: Path, sample: Sample, classes: Mapping[int, str]) -> FileLoss:
    instances = sample.instances
    loss = FileLoss(sample.name, masks=0)
    if instances is not None:
        if set(instances.labels.tolist()) - set(classes):
            raise ImageError(f"{sample.name}: a class that is not in the class list: add it")
        objects, owner, loss = paint(instances, largest=LARGEST_ID, crowd=UNKNOWN)
        loss = replace(loss, name=sample.name)
        semantic = np.append(instances.labels, 0)[owner]  # owner -1: the 0 at the end
        semantic[objects == UNKNOWN] = UNKNOWN
        ignore = sample.ignore
        if ignore is not None:
            void = ignore & (objects == 0)
            objects[void] = UNKNOWN
            semantic[void] = UNKNOWN
        write_palette_png(folder / "SegmentationObject" / f"{sample.name}.png", objects)
        write_palette_png(folder / "SegmentationClass" / f"{sample.name}.png", semantic)
    annotation = VocAnnotation(
        file_name(sample), sample.size, instances is not None, _objects(sample, instances, classes)
    )
    write_xml(folder / "Annotations" / f"{sample.name}.xml", annotation)
    return loss


def _objects(sample: Sample, instances: Instances | None, classes: Mapping[int, str]) -> tuple[VocObject, ...]:
    """What the annotation file says: the boxes that came with the image, else those of its masks, else its tags."""
    if sample.boxes is not None:
        boxes, labels = sample.boxes.xyxy, sample.boxes.labels
    elif instances is not None:
        single = instances[~instances.crowd]
        boxes, labels = single.boxes.astype(np.float64), single.labels
    else:
        return tuple(VocObject(classes[i]) for i in sample.tags or () if i in classes)
    return tuple(
        VocObject(classes[int(label)], (float(box[0]), float(box[1]), float(box[2]), float(box[3])))
        for box, label in zip(boxes, labels, strict=True)
        if int(label) in classes and box[2] > box[0] and box[3] > box[1]
    )
