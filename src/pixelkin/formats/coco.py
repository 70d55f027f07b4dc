"""COCO instance JSON: polygons, run-length codes and crowds; read lazily, written as a stream."""

from __future__ import annotations

import json
import math
import os
import tempfile
import warnings
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pixelkin.data import Dataset, ImageError, Instances, Sample
from pixelkin.data.sample import MAX_PIXELS, Boxes, image_size
from pixelkin.formats.classes import as_classes
from pixelkin.formats.coco_video import clips_of_images
from pixelkin.formats.files import SourceError, inside, sample_names, whole
from pixelkin.formats.images import file_name
from pixelkin.formats.json_index import read_records, walk_records
from pixelkin.formats.segmentation import segmentation_to_rle

IMAGE_KEYS = ("file_name", "width", "height", "video_id", "frame_id")
"""What is held of an image record."""

PROBED = 20
"""How many file names are tried to find the folder of the images."""


@dataclass
class _Labels:
    """Where the annotations of one image stand in the file, and the little of them that is held."""

    spans: array[int] = field(default_factory=lambda: array("q"))
    categories: list[int] = field(default_factory=list)
    boxes: array[float] = field(default_factory=lambda: array("d"))
    boxed: list[int] = field(default_factory=list)  # categories of the boxes
    boxless: bool = False
    masks: int = 0


def read_coco(
    path: Path | str, images: Path | str | None = None, *, classes: Mapping[int, str] | Path | str | None = None
) -> Dataset:
    """Read a COCO instance file. Masks stay in the file until a sample's are asked for.

    ``category_id`` becomes the label, ``iscrowd`` the crowd flag, ``track_id`` the track, and ``instance_id``, else the
    track, else ``id`` the id; ``score`` and ``source`` are read where present. A file without an ``annotations`` list
    gives samples without labels; an annotation without a mask gives a box only. Images with a ``video_id`` are frames:
    their clip is the video's name in ``videos`` (else the folder of the image), their number ``frame_id``.

    Args:
        path: the JSON file.
        images: folder of the images. Default: looked for beside the file (its folder, a folder named like it or its
            split, ``images/``). Images that are missing fail when they are loaded.
        classes: class list that replaces the file's categories.

    Raises:
        SourceError: not COCO, or a file name that leads out of the folder of the images.
    """
    path = Path(path)
    records, labels, categories, videos, labelled = _index(path)
    orphans = sum(len(found.categories) for identity, found in labels.items() if identity not in records)
    if orphans:
        warnings.warn(f"{path}: {orphans} annotations belong to no image of the file and are left out", stacklevel=2)
    names = as_classes(classes) or _classes(path, categories, labels)
    used = {category for found in labels.values() for category in found.categories}
    if used - set(names):
        raise SourceError(
            f"{path}: category {min(used - set(names))} is used and has no name: add it to the class list"
        )
    relative = [_file_name(record, path) for record in records.values()]
    clips = clips_of_images(records, videos, relative, path)
    root = _image_root(path, relative) if images is None else Path(images)
    if images is not None and not root.is_dir():
        raise SourceError(f"{root}: no such folder of images: check the path")
    samples = [
        _sample(path, name, root / image, record, labels.get(identity, _Labels()) if labelled else None).replace(
            **clips.get(identity, {})
        )
        for name, image, (identity, record) in zip(sample_names(relative), relative, records.items(), strict=True)
    ]
    return _dataset(samples, names, path)


def read_coco_results(path: Path | str, truth: Path | str) -> Dataset:
    """Read a list of COCO results ``[{image_id, category_id, segmentation, score}, ...]``.

    Args:
        path: the results.
        truth: a COCO file that has the images and categories they speak of.

    Raises:
        SourceError: not such files.
    """
    path, truth = Path(path), Path(truth)
    records, _, categories, videos, _ = _index(truth)
    labels: dict[Any, _Labels] = {}
    for record in walk_records(path):
        if record.section:
            raise SourceError(f"{path}: not a list of results: read it as a COCO file")
        _note(labels, path, record.content, record.start, record.end)
    relative = [_file_name(record, truth) for record in records.values()]
    clips = clips_of_images(records, videos, relative, truth)
    samples = [
        _sample(path, name, None, record, labels.get(identity, _Labels())).replace(**clips.get(identity, {}))
        for name, (identity, record) in zip(sample_names(relative), records.items(), strict=True)
    ]
    return _dataset(samples, _classes(truth, categories, labels), path)


_Index = tuple[dict[Any, dict[str, Any]], dict[Any, _Labels], dict[int, str], dict[Any, dict[str, Any]], bool]
"""Image records, labels, categories and videos by id; whether there was a list of annotations."""


def _index(path: Path) -> _Index:
    sections: set[str] = set()
    records: dict[Any, dict[str, Any]] = {}
    labels: dict[Any, _Labels] = {}
    categories: dict[int, str] = {}
    videos: dict[Any, dict[str, Any]] = {}
    for section, start, end, content in walk_records(path, sections):
        if section == "images":
            identity = content.get("id")
            if not isinstance(identity, (int, str)) or identity in records:
                raise SourceError(
                    f"{path}: image id {identity!r} is missing or there twice: give every image its own id"
                )
            records[identity] = {key: content[key] for key in IMAGE_KEYS if key in content}
        elif section == "annotations":
            _note(labels, path, content, start, end)
        elif section == "categories":
            number, name = content.get("id"), content.get("name")
            if not isinstance(number, int) or number in categories:
                raise SourceError(f"{path}: category id {number!r} is no number or there twice: give every one its own")
            categories[number] = str(name) if name is not None else f"class {number}"
        elif section == "videos" and isinstance(content.get("id"), (int, str)):
            videos[content["id"]] = content
        elif section == "":
            raise SourceError(
                f"{path}: a list, not a COCO file with images and annotations: results need their COCO file too"
            )
    if not records:
        raise SourceError(f"{path}: no images in it: give a COCO file with 'images' and 'annotations'")
    return records, labels, categories, videos, "annotations" in sections


def _note(labels: dict[Any, _Labels], path: Path, annotation: dict[str, Any], start: int, end: int) -> None:
    category, image = annotation.get("category_id"), annotation.get("image_id")
    if not isinstance(category, int) or not 0 <= category < 2**31 or not isinstance(image, (int, str)):
        raise SourceError(f"{path}: annotation {annotation.get('id')!r} has no category_id or image_id: write it again")
    found = labels.setdefault(image, _Labels())
    found.spans.extend((start, end))
    found.categories.append(category)
    found.masks += bool(annotation.get("segmentation"))
    box = annotation.get("bbox")
    if annotation.get("iscrowd"):
        return
    if isinstance(box, list) and len(box) == 4 and all(isinstance(v, (int, float)) and math.isfinite(v) for v in box):
        found.boxes.extend((box[0], box[1], box[0] + box[2], box[1] + box[3]))
        found.boxed.append(category)
    else:
        found.boxless = True


def _classes(path: Path, categories: dict[int, str], labels: Mapping[Any, _Labels]) -> dict[int, str]:
    used = {category for found in labels.values() for category in found.categories}
    names = categories or {i: f"class {i}" for i in sorted(used)}
    if 0 in used:
        raise SourceError(f"{path}: category 0 would be background: renumber the categories from 1")
    return {i: name for i, name in names.items() if i != 0}  # an unused 0 is the "all" of some exporters


def _dataset(samples: Sequence[Sample], classes: dict[int, str], path: Path) -> Dataset:
    try:
        return Dataset(samples, classes, name=path.stem)
    except ValueError as error:
        raise SourceError(f"{path}: {error}") from None


def _sample(path: Path, name: str, image: Path | None, record: dict[str, Any], found: _Labels | None) -> Sample:
    height, width = record.get("height"), record.get("width")
    size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    if size is not None and (min(size) <= 0 or size[0] * size[1] > MAX_PIXELS):
        raise SourceError(f"{path}: image {name!r} is said to be {width}x{height}: correct width and height")
    if found is None:
        return Sample(name, image, size=size)
    instances = None
    if found.masks or not found.categories:
        instances = partial(_load_instances, path, found.spans, size, image)
    boxes = None
    if not found.boxless:
        xyxy = np.array(found.boxes, dtype=np.float64).reshape(-1, 4)
        boxes = Boxes(xyxy, np.array(found.boxed, dtype=np.int64))
    return Sample(name, image, size=size, tags=tuple(sorted(set(found.categories))), boxes=boxes, instances=instances)


def _load_instances(path: Path, spans: array[int], size: tuple[int, int] | None, image: Path | None) -> Instances:
    if size is None:
        if image is None:
            raise ImageError(f"{path}: an image without width and height: add them")
        size = image_size(image)
    return instances_from_annotations(read_records(path, spans), size)


def instances_from_annotations(annotations: Iterable[Mapping[str, Any]], size: tuple[int, int]) -> Instances:
    """The masks of one image's COCO annotations, in their order; annotations without a mask are passed over.

    Args:
        annotations: COCO annotation records.
        size: the image's (height, width).

    Raises:
        ImageError: a malformed annotation, or a mask of another size.
    """
    rles, labels, scores, sources, crowd, ids, tracks = [], [], [], [], [], [], []
    for position, annotation in enumerate(annotations, start=1):
        where = f"annotation {annotation.get('id', position)}"
        rle = segmentation_to_rle(annotation.get("segmentation"), size, where)
        if rle is None:
            continue
        track = annotation.get("track_id")
        track = track if isinstance(track, int) and 0 < track < 2**63 else 0
        identity = annotation.get("instance_id", track or annotation.get("id"))
        try:
            rles.append(rle)
            labels.append(int(annotation["category_id"]))
            scores.append(float(1.0 if annotation.get("score") is None else annotation["score"]))
            sources.append(str(annotation.get("source") or ""))
            crowd.append(bool(annotation.get("iscrowd", 0)))
            ids.append(identity if isinstance(identity, int) and abs(identity) < 2**63 else position)
            tracks.append(track)
        except (KeyError, TypeError, ValueError) as error:
            raise ImageError(f"{where}: category_id or score is missing or no number ({error}): correct it") from None
    return Instances(size, rles, labels=labels, scores=scores, sources=sources, crowd=crowd, ids=ids, tracks=tracks)


def annotation_record(
    instances: Instances, i: int, image_id: int, annotation_id: int, *, identity: bool = False
) -> dict[str, Any]:
    """The COCO annotation of instance ``i``, its mask as a run-length code with text counts.

    One that has a track carries it as ``track_id``, and as ``instance_id`` for tools that look for it there.

    Args:
        instances: masks of one image.
        i: which of them.
        image_id: id of the image record.
        annotation_id: id of the annotation, unique in the file.
        identity: write the instance's own id as ``instance_id`` where it has no track either, so that it survives.
    """
    rle = instances.rles[i]
    one = instances[i]
    x0, y0, x1, y1 = (int(v) for v in one.boxes[0])
    record: dict[str, Any] = {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": int(instances.labels[i]),
        "segmentation": {"size": [int(n) for n in rle["size"]], "counts": rle["counts"].decode("ascii")},
        "area": int(one.areas[0]),
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "iscrowd": int(instances.crowd[i]),
        "score": float(str(instances.scores[i])),  # the shortest number that reads back as the same float32
        "source": str(instances.sources[i]),
    }
    track = int(instances.tracks[i])
    record |= {"track_id": track} if track else {}
    return record | ({"instance_id": int(instances.ids[i])} if track or identity else {})


def image_record(sample: Sample, image_id: int, video_id: int | None = None) -> dict[str, Any]:
    """The COCO image record of a sample; ``file_name`` is its path below the source.

    With ``video_id``, of :func:`~pixelkin.formats.coco_video.number_clips`, it is a frame: ``frame_id`` counts from 0.
    """
    height, width = sample.size
    record = {"id": image_id, "file_name": file_name(sample), "width": int(width), "height": int(height)}
    return record if video_id is None else record | {"video_id": video_id, "frame_id": sample.frame}


def write_coco(
    path: Path | str,
    records: Iterable[tuple[Mapping[str, Any], Iterable[Mapping[str, Any]]]],
    classes: Mapping[int, str],
    *,
    info: Mapping[str, Any] | None = None,
    videos: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write a COCO file image by image; memory does not grow with their number.

    The file appears whole or not at all: it is written beside and renamed.

    Args:
        path: the JSON file.
        records: for each image its record and its annotations, e.g. from :func:`image_record` and
            :func:`annotation_record`.
        classes: class id to name.
        info: the file's ``info``.
        videos: where images are frames, the records of :func:`~pixelkin.formats.coco_video.video_records`.
    """
    with (
        whole(Path(path)) as beside,
        beside.open("w", encoding="utf-8") as file,
        tempfile.TemporaryFile("w+", encoding="utf-8") as images,
    ):
        categories = [{"id": int(i), "name": name, "supercategory": ""} for i, name in sorted(classes.items())]
        head: dict[str, Any] = {"info": dict(info or {}), "licenses": [], "categories": categories}
        head |= {"videos": [dict(video) for video in videos]} if videos else {}
        file.write(json.dumps(head)[:-1] + ',\n"annotations": [')
        first_image, first = True, True
        for image, annotations in records:
            images.write(("\n" if first_image else ",\n") + json.dumps(image))
            first_image = False
            for annotation in annotations:
                file.write(("\n" if first else ",\n") + json.dumps(annotation))
                first = False
        file.write('],\n"images": [')
        images.seek(0)
        for line in images:
            file.write(line)
        file.write("]}\n")


def _file_name(record: Mapping[str, Any], path: Path) -> PurePosixPath:
    inside(path.parent, record.get("file_name"), str(path))
    return PurePosixPath(record["file_name"].replace("\\", "/"))


def _image_root(path: Path, names: Sequence[PurePosixPath]) -> Path:
    """The folder where most of the first few images are; the file's own folder when none is anywhere."""
    stem = path.stem.removeprefix("_").removesuffix(".coco")
    splits = dict.fromkeys([stem, stem.rsplit("_", 1)[-1], stem.split("_", 1)[-1]])
    homes = [path.parent] + ([path.parent.parent] if path.parent.name.lower() in ("annotations", "labels") else [])
    candidates = [
        home / folder for home in homes for folder in ("", "images", *splits, *(f"images/{split}" for split in splits))
    ]
    probes = names[:: max(1, len(names) // PROBED)]
    best = max(candidates, key=lambda root: sum(os.path.isfile(root / name) for name in probes), default=path.parent)
    return best
