"""YOLO segmentation folders. One polygon a mask: what that loses is measured and reported."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
import yaml

from pixelkin.data import Dataset, ImageError, Instances, Sample, encode_mask
from pixelkin.data.sample import Boxes, image_size
from pixelkin.formats.classes import as_classes
from pixelkin.formats.contours import count_pieces_and_holes, fill_polygon, mask_to_polygon
from pixelkin.formats.files import SourceError, list_files, read_lines, require_folder, sample_names, whole
from pixelkin.formats.images import copy_image
from pixelkin.formats.report import ConversionReport, FileLoss

DATA_FILES = ("data.yaml", "dataset.yaml", "data.yml")
IDS_KEY = "class_ids"
DIGITS = 6


def is_yolo(folder: Path) -> bool:
    """Whether a folder has a YOLO ``data.yaml`` and images in ``images`` folders."""
    has_images = (folder / "images").is_dir() or any(folder.glob("*/images"))
    return has_images and any((folder / name).is_file() for name in DATA_FILES)


def read_yolo(folder: Path | str, *, classes: Mapping[int, str] | Path | str | None = None) -> Dataset:
    """Read a YOLO folder: images below ``images`` and text files of the same names below ``labels``.

    Class ids are those that :func:`write_yolo` kept in ``data.yaml``; in a file from elsewhere class index k gets id k
    + 1, as 0 is background. Lines of four numbers are boxes, longer ones polygons. An image without a text file has no
    labels; one with an empty file has no objects.

    Args:
        folder: the one with ``data.yaml``; ``images`` may also lie in folders of splits.
        classes: names that replace those of ``data.yaml``, by id.

    Raises:
        SourceError: not such a folder, or a label file that is none.
    """
    folder = require_folder(Path(folder), "YOLO folder")
    known = _read_names(folder)
    ids = tuple(known)
    paths = [path for path in list_files(folder) if "images" in path.parts]
    if not paths:
        raise SourceError(f"{folder}: no images below an 'images' folder: check the path")
    bare = [_swap(path, None) for path in paths]
    samples = [
        _sample(name, folder / path, folder / _swap(path, "labels").with_suffix(".txt"), ids)
        for name, path in zip(sample_names(bare), paths, strict=True)
    ]
    return Dataset(samples, as_classes(classes) or known, name=folder.absolute().name)


def _swap(path: PurePosixPath, name: str | None) -> PurePosixPath:
    """The path with its first ``images`` folder renamed or taken out."""
    parts = list(path.parts)
    at = parts.index("images")
    parts[at : at + 1] = [name] if name else []
    return PurePosixPath(*parts)


def _read_names(folder: Path) -> dict[int, str]:
    path = next((folder / name for name in DATA_FILES if (folder / name).is_file()), None)
    if path is None:
        raise SourceError(f"{folder}: no data.yaml in it: give a YOLO folder")
    try:
        content = yaml.safe_load("\n".join(read_lines(path)))
    except yaml.YAMLError as error:
        raise SourceError(f"{path}: not YAML that can be read ({str(error).splitlines()[0]}): write it again") from None
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or sorted(names, key=str) != sorted(range(len(names)), key=str):
        raise SourceError(f"{path}: 'names' must name the classes 0, 1, 2, ...: correct it")
    ids = content.get(IDS_KEY, [i + 1 for i in range(len(names))])
    if not isinstance(ids, list) or len(ids) != len(names) or not all(isinstance(i, int) and i > 0 for i in ids):
        raise SourceError(f"{path}: {IDS_KEY!r} must be one class id a name: correct or remove it")
    return {class_id: str(names[index]) for index, class_id in enumerate(ids)}  # in the order of the indices


def _sample(name: str, image: Path, labels: Path, ids: tuple[int, ...]) -> Sample:
    if not labels.is_file():
        return Sample(name, image)
    rows = _read_rows(labels, ids)
    tags = tuple(sorted({label for label, _ in rows}))
    flat = [len(numbers) == 4 for _, numbers in rows]
    if rows and all(flat):
        return Sample(name, image, tags=tags, boxes=_boxes(rows, image))
    if any(flat):
        raise SourceError(f"{labels}: boxes and polygons in one file: keep one kind")
    return Sample(name, image, tags=tags, instances=partial(_load_instances, labels, image, ids))


def _read_rows(path: Path, ids: tuple[int, ...]) -> list[tuple[int, list[float]]]:
    """(class id, numbers 0..1) a line. Raises SourceError."""
    rows = []
    for number, line in enumerate(read_lines(path), start=1):
        parts = line.split()
        if not parts:
            continue
        where = f"{path}, line {number}"
        try:
            index, numbers = int(parts[0]), [float(part) for part in parts[1:]]
        except ValueError:
            raise SourceError(f"{where}: not a class index and numbers: correct or remove it") from None
        if len(numbers) % 2 or (len(numbers) != 4 and len(numbers) < 6):
            raise SourceError(f"{where}: {len(numbers)} numbers are no box (4) and no polygon (6, 8, ...): correct it")
        if not 0 <= index < len(ids):
            raise SourceError(f"{where}: class {index} is not in data.yaml: add it or correct the line")
        if not all(math.isfinite(value) and -0.1 <= value <= 1.1 for value in numbers):
            raise SourceError(f"{where}: numbers outside 0..1: divide x by the width and y by the height")
        rows.append((ids[index], numbers))
    return rows


def _boxes(rows: list[tuple[int, list[float]]], image: Path) -> Boxes | None:
    try:
        height, width = image_size(image)
    except ImageError:
        return None  # a broken image; it fails when it is loaded
    middle = np.array([numbers for _, numbers in rows]) * (width, height, width, height)
    xyxy = np.concatenate([middle[:, :2] - middle[:, 2:] / 2, middle[:, :2] + middle[:, 2:] / 2], axis=1)
    return Boxes(xyxy, np.array([label for label, _ in rows], dtype=np.int64))


def _load_instances(labels: Path, image: Path, ids: tuple[int, ...]) -> Instances:
    size = image_size(image)
    try:
        rows = _read_rows(labels, ids)
    except SourceError as error:
        raise ImageError(str(error)) from None
    rles = [encode_mask(fill_polygon(_to_pixels(numbers, size), size)) for _, numbers in rows]
    return Instances(size, rles, labels=[label for label, _ in rows])


def _to_pixels(numbers: list[float], size: tuple[int, int]) -> npt.NDArray[np.int32]:
    scaled = np.array(numbers).reshape(-1, 2) * (size[1], size[0])
    return np.clip(np.round(scaled), 0, (size[1] - 1, size[0] - 1)).astype(np.int32)


def write_yolo(
    folder: Path | str, samples: Iterable[Sample], classes: Mapping[int, str], *, copy_images: bool = True
) -> ConversionReport:
    """Write a YOLO segmentation folder: ``images``, ``labels`` and ``data.yaml``, one image in memory at a time.

    A mask becomes one polygon of pixel centres. Holes are cut open towards the outline, pieces joined by a line; each
    is read back and compared, and the report says what came out different. Crowds and empty masks are left out,
    overlaps kept. The classes are numbered 0, 1, ...; ``data.yaml`` keeps their ids. Scores and sources have no place
    in the format.

    Args:
        folder: where to; made if absent.
        samples: what to write; those without instances are left out. An image that cannot be read is reported and the
            next one follows.
        classes: class id to name.
        copy_images: put the image files into ``images``.
    """
    folder = Path(folder)
    ordered = dict(sorted(classes.items()))
    index_of = {class_id: index for index, class_id in enumerate(ordered)}
    report = ConversionReport("yolo")
    for sample in samples:
        try:
            instances = sample.instances
            if instances is None:
                continue
            rows, loss = _rows(sample.name, instances, index_of)
        except ImageError as error:
            report.failed.append((sample.name, str(error)))
            continue
        with whole(folder / "labels" / f"{sample.name}.txt") as beside:
            beside.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
        report.add(loss)
        report.without_image += copy_images and not copy_image(sample, folder / "images")
    lines = ["path: .", "train: images", "val: images", f"{IDS_KEY}: {list(ordered)}", "names:"]
    lines += [f"  {index}: {json.dumps(name)}" for index, name in enumerate(ordered.values())]
    with whole(folder / "data.yaml") as beside:
        beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return report


def _rows(name: str, instances: Instances, index_of: Mapping[int, int]) -> tuple[list[str], FileLoss]:
    rows: list[str] = []
    holes = pieces = dropped = changed = 0
    areas = instances.areas
    for i in range(len(instances)):
        label = int(instances.labels[i])
        if label not in index_of:
            raise ImageError(f"{name}: class {label} is not in the class list: add it")
        if instances.crowd[i] or areas[i] == 0:
            dropped += 1
            changed += int(areas[i])
            continue
        mask = instances.mask(i)
        polygon = mask_to_polygon(mask)
        written = fill_polygon(polygon, instances.size)
        rows.append(f"{index_of[label]} {_to_text(polygon, instances.size)}")
        difference = int((mask != written).sum())
        if difference:
            before, after = count_pieces_and_holes(mask), count_pieces_and_holes(written)
            pieces += before[0] != after[0]
            holes += before[1] > after[1]
            changed += difference
    area = int(areas.sum())
    return rows, FileLoss(name, len(instances), holes, pieces, dropped, area_before=area, area_changed=changed)


def _to_text(polygon: npt.NDArray[np.int32], size: tuple[int, int]) -> str:
    """Coordinates as shares of width and height, rounded up so that rounding and cutting off give the same pixel."""
    extent = np.array([size[1], size[0]])
    scaled = np.ceil(polygon / extent * 10**DIGITS) / 10**DIGITS
    scaled += (np.floor(scaled * extent) < polygon) / 10**DIGITS  # a short decimal may lie just under its value
    return " ".join(f"{value:.{DIGITS}f}".rstrip("0").rstrip(".") for value in scaled.ravel())
