"""Converting labelled data from one format to another, image by image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

from pixelkin.data import Dataset, ImageError, Instances, Sample
from pixelkin.formats.classes import as_classes
from pixelkin.formats.coco import annotation_record, image_record, read_coco, write_coco
from pixelkin.formats.coco_video import number_clips, video_records
from pixelkin.formats.davis import read_davis, read_davis_masks
from pixelkin.formats.files import SourceError, list_files, match, require_folder
from pixelkin.formats.images import with_image
from pixelkin.formats.label_png import read_label_maps, write_label_pngs
from pixelkin.formats.report import ConversionReport, FileLoss
from pixelkin.formats.source import devkit_of, read_run
from pixelkin.formats.voc import read_voc, write_voc
from pixelkin.formats.wis import is_wis, read_wis
from pixelkin.formats.yolo import is_yolo, read_yolo, write_yolo

TARGETS = ("coco", "voc", "yolo", "label-png")


def read_labelled(
    source: Path | str,
    *,
    classes: Mapping[int, str] | Path | str | None = None,
    images: Path | str | None = None,
    unmarked: bool = False,
) -> Dataset:
    """Read whatever holds instances; images need not be there.

    Args:
        source: a run folder, a COCO JSON, a VOC devkit folder, a YOLO folder, a DAVIS folder or its annotations, the
            WIS annotations, or a folder of label maps.
        classes: class list, where the source has none or to replace its own.
        images: folder of the images, where they do not lie with the source. Default: for a run those it was made from,
            for a COCO JSON what lies beside it, for label maps an ``images`` folder beside theirs.
        unmarked: of WIS, the boxes without a mask too, as ignore regions.

    Raises:
        SourceError: none of these.
    """
    source = Path(source)
    known = as_classes(classes)
    if not source.exists():
        raise SourceError(f"{source}: no such file or folder: check the path")
    if source.is_file():
        if source.suffix.lower() != ".json":
            raise SourceError(
                f"{source}: a {source.suffix or 'nameless'} file holds no instances: give a COCO JSON or a folder"
            )
        return read_coco(source, images, classes=known)
    if (source / "instances.json").is_file():
        return read_run(source, images, classes=known)
    if is_wis(source):
        return read_wis(source, images, unmarked=unmarked, classes=known)
    devkit = devkit_of(source)
    if devkit is not None:
        dataset = read_voc(devkit, classes=known)
    elif is_yolo(source):
        dataset = read_yolo(source, classes=known)
    elif (source / "JPEGImages").is_dir():
        dataset = read_davis(source, classes=known)
    elif (source / "Annotations").is_dir() or _has_clips(source):
        dataset = read_davis_masks(source, classes=known)
    else:
        dataset = read_label_maps(source, classes=known)
        beside = source.absolute().parent / "images"
        images = beside if images is None and beside.is_dir() else images
    return dataset if images is None else _with_images(dataset, require_folder(Path(images), "folder of images"))


def _with_images(dataset: Dataset, folder: Path) -> Dataset:
    """The samples with the images of a folder that are named like them."""
    found = match([sample.name for sample in dataset], list_files(folder))
    return dataset.map(
        lambda sample: with_image(sample, folder / found[sample.name]) if sample.name in found else sample
    )


def _has_clips(folder: Path) -> bool:
    """Whether it is ``Annotations``, ``Annotations/480p`` or one clip's masks of a DAVIS folder."""
    return "Annotations" in folder.absolute().parts[-3:]


def convert(
    source: Path | str,
    out: Path | str,
    to: str = "coco",
    *,
    classes: Mapping[int, str] | Path | str | None = None,
    images: Path | str | None = None,
    unmarked: bool = False,
) -> ConversionReport:
    """Convert instances to another format; memory holds one image at a time.

    ``coco`` keeps every mask bit for bit, with scores and sources; ``out`` is the JSON file, or a folder for
    ``instances.json``. ``voc`` and ``label-png`` lose overlaps, ``yolo`` joins pieces by lines; ``label-png`` loses
    classes. What was lost is counted file by file. Only ``coco`` has scores, so the others leave out the instances that
    are alternatives to surer ones (:attr:`pixelkin.data.Instances.alternative`).

    Args:
        source: what :func:`read_labelled` reads.
        out: file or folder to write.
        to: ``coco``, ``voc``, ``yolo`` or ``label-png``.
        classes: class list, where the source has none.
        images: folder of the images, where they do not lie with the source.
        unmarked: of WIS, the boxes without a mask too, as ignore regions.

    Raises:
        SourceError: an unknown format, or a source without instances.
    """
    if to not in TARGETS:
        raise SourceError(f"unknown format {to!r}: give one of {', '.join(TARGETS)}")
    out = Path(out)
    dataset = read_labelled(source, classes=classes, images=images, unmarked=unmarked)
    labelled = dataset.with_label("instances")
    if not len(labelled):
        raise SourceError(f"{source}: no instance masks in it: there is nothing to convert")
    if to != "coco" and out.is_file():
        raise SourceError(f"{out}: a file, but {to} is a folder: give a folder")
    if out.is_dir() and out.resolve() == Path(source).resolve():
        raise SourceError(f"{out}: source and target are the same folder: give another one")
    if to != "coco":
        labelled = labelled.map(lambda sample: sample.replace(instances=partial(_standing, sample)))
    if to == "voc":
        return write_voc(out, labelled, dataset.classes)
    if to == "yolo":
        return write_yolo(out, labelled, dataset.classes)
    if to == "label-png":
        return write_label_pngs(out, labelled, dataset.classes)
    return _write_coco(out, labelled)


def _standing(sample: Sample) -> Instances:
    """The instances of a sample without the alternatives."""
    instances = cast("Instances", sample.instances)
    return instances[~instances.alternative]


def _write_coco(out: Path, dataset: Dataset) -> ConversionReport:
    report = ConversionReport("coco")
    path = out if out.suffix.lower() == ".json" else out / "instances.json"
    info = {"description": dataset.name}
    write_coco(path, _coco_records(dataset, report), dataset.classes, info=info, videos=video_records(dataset))
    return report


def _coco_records(dataset: Dataset, report: ConversionReport) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    annotation_id = 0
    clips = number_clips(dataset)
    for image_id, sample in enumerate(dataset, start=1):
        try:
            instances = sample.instances
            image = image_record(sample, image_id, clips.get(sample.clip or ""))
        except ImageError as error:
            report.failed.append((sample.name, str(error)))
            continue
        if instances is None:
            continue
        records = []
        for i in range(len(instances)):
            annotation_id += 1
            records.append(annotation_record(instances, i, image_id, annotation_id, identity=True))
        report.add(FileLoss(sample.name, len(instances), area_before=int(instances.areas.sum())))
        yield image, records
