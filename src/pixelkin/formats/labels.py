"""Labels that come beside the images: semantic masks, tags, points, depth."""

from __future__ import annotations

import csv
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pixelkin.data import ImageError, Point, Sample
from pixelkin.data.sample import image_size
from pixelkin.formats.classes import class_id_of
from pixelkin.formats.files import (
    LABEL_SUFFIXES,
    NameIndex,
    SourceError,
    list_files,
    match,
    read_json,
    read_lines,
    require_folder,
)
from pixelkin.formats.maps import (
    array_shape,
    load_depth,
    load_most_probable,
    load_probabilities,
    load_semantic,
    scan_classes,
)
from pixelkin.formats.voc import read_xml_labels
from pixelkin.formats.voc_xml import read_xml


class SemanticFolder:
    """A folder of semantic masks, matched to the samples by path and stem.

    A ``.npy`` of three dimensions holds probabilities; beside a mask of the same name it adds to it, alone it also
    gives the mask (the most probable class).

    Args:
        folder: the masks.
        samples: all samples of the source.

    Raises:
        SourceError: no such folder, or not one of its files belongs to an image.
    """

    def __init__(self, folder: Path, samples: Sequence[Sample]) -> None:
        folder = require_folder(folder, "folder of semantic masks")
        files = list_files(folder, LABEL_SUFFIXES)
        arrays = [path for path in files if path.suffix.lower() == ".npy"]
        three = {path for path in arrays if _is_volume(folder / path)}
        names = [sample.name for sample in samples]
        masks = match(names, [path for path in files if path not in three])
        volumes = match(names, sorted(three))
        if not masks and not volumes:
            raise SourceError(_no_match(folder, len(files), names))
        self._masks = {name: folder / path for name, path in masks.items()}
        self._volumes = {name: folder / path for name, path in volumes.items()}
        self._folder = folder

    def find_classes(self) -> dict[int, str]:
        """The classes the masks hold; reads them all. Raises SourceError where there is none."""
        found = scan_classes([*self._masks.values(), *self._volumes.values()])
        if not found:
            raise SourceError(
                f"{self._folder}: the masks hold only 0 (background) and 255 (unknown): write class ids, say 1"
            )
        return found

    def attach(self, sample: Sample, classes: tuple[int, ...]) -> Sample:
        """The sample with its mask and probabilities, or as it is where it has none."""
        mask, volume = self._masks.get(sample.name), self._volumes.get(sample.name)
        if mask is not None:
            semantic = partial(load_semantic, mask, classes)
        elif volume is not None:
            semantic = partial(load_most_probable, volume, classes)
        else:
            return sample.replace(semantic=None, probabilities=None)
        probabilities = None if volume is None else partial(load_probabilities, volume, classes)
        return sample.replace(semantic=semantic, probabilities=probabilities)


def _no_match(folder: Path, files: int, names: Sequence[str]) -> str:
    stems = Counter(name.rsplit("/", 1)[-1] for name in names)
    stem, count = stems.most_common(1)[0]
    if files and count > 1:
        where = ", ".join([name for name in names if name.rsplit("/", 1)[-1] == stem][:3])
        return f"{folder}: several images have one name ({where}): give the folder of the images alone"
    return (
        f"{folder}: none of its {files} files has the name of an image (say {names[0]}.png):"
        " give the folder whose files are named like the images"
    )


def _is_volume(path: Path) -> bool:
    try:
        return len(array_shape(path)) == 3
    except ImageError:
        return False


def attach_depth(samples: Sequence[Sample], folder: Path) -> list[Sample]:
    """The samples with the depth maps of a folder: 16-bit PNG millimetres or .npy metres.

    Raises:
        SourceError: no such folder, or not one of its files belongs to an image.
    """
    folder = require_folder(folder, "folder of depth maps")
    names = [sample.name for sample in samples]
    files = list_files(folder, LABEL_SUFFIXES)
    found = match(names, files)
    if not found:
        raise SourceError(_no_match(folder, len(files), names))
    return [
        sample.replace(depth=partial(load_depth, folder / found[sample.name]) if sample.name in found else None)
        for sample in samples
    ]


class TagsFile:
    """Image tags from a CSV file: ``image,class1;class2`` a line, a header ``image,...`` allowed.

    Raises:
        SourceError: no such file, a line of another form, an image that is not in the source or there twice.
    """

    def __init__(self, path: Path, samples: Sequence[Sample]) -> None:
        index = NameIndex((sample.name for sample in samples), str(path))
        self._path = path
        self._rows: dict[str, tuple[int, list[str]]] = {}
        try:
            rows = list(csv.reader(read_lines(path)))
        except csv.Error as error:
            raise SourceError(
                f"{path}: not CSV that can be read ({error}): write 'image,class1;class2' a line"
            ) from None
        for number, row in enumerate(rows, start=1):
            if not any(cell.strip() for cell in row):
                continue
            if number == 1 and row[0].strip().lower() in ("image", "file", "filename", "file_name"):
                continue
            place = f"line {number}"
            if len(row) != 2:
                raise SourceError(f"{path}, {place}: {len(row)} columns: write 'image,class1;class2'")
            name = index.find(row[0], place)
            if name in self._rows:
                raise SourceError(
                    f"{path}, {place}: {row[0]!r} is there twice (line {self._rows[name][0]}): join the lines"
                )
            self._rows[name] = number, [part.strip() for part in row[1].split(";") if part.strip()]
        if not self._rows:
            raise SourceError(f"{path}: no tags in it: write 'image,class1;class2' a line")

    def find_classes(self) -> dict[int, str]:
        """The classes it names: numbers keep their ids, names are numbered from 1 in alphabetical order."""
        return _classes_of(label for _, labels in self._rows.values() for label in labels)

    def attach(self, samples: Sequence[Sample], classes: Mapping[int, str]) -> list[Sample]:
        """The samples with their tags, None where the file has none. Raises SourceError: unknown class."""
        tags: dict[str, tuple[int, ...]] = {}
        for name, (number, labels) in self._rows.items():
            where = f"{self._path}, line {number}"
            tags[name] = tuple(sorted({class_id_of(label, classes, where) for label in labels}))
        return [sample.replace(tags=tags.get(sample.name)) for sample in samples]


def attach_xml_tags(samples: Sequence[Sample], source: Path, classes: Mapping[int, str]) -> list[Sample]:
    """The samples with the tags of VOC XML files, which lie beside the images or in ``Annotations`` there or beside.

    Raises:
        SourceError: not one image has one, or a class is not in the class list.
    """
    files = find_xml(samples, source)
    return [
        sample.replace(tags=read_xml_labels(files[sample.name], classes)[0] if sample.name in files else None)
        for sample in samples
    ]


def find_xml(samples: Sequence[Sample], source: Path) -> dict[str, Path]:
    """Sample name to its VOC XML file. Raises SourceError where there is none at all."""
    home = source if source.is_dir() else source.parent
    found: dict[str, Path] = {}
    for folder in (home, home / "Annotations", home.absolute().parent / "Annotations"):
        if folder.is_dir():
            for name, path in match([sample.name for sample in samples], list_files(folder, {".xml"})).items():
                found.setdefault(name, folder / path)
    if not found:
        raise SourceError(f"{source}: no VOC XML named like the images, nor in Annotations: give --tags FILE.csv")
    return found


def xml_classes(paths: Sequence[Path]) -> dict[int, str]:
    """The classes that VOC XML files name, numbered from 1 in alphabetical order; broken files are passed over."""
    names: set[str] = set()
    for path in paths:
        try:
            names |= {item.name for item in read_xml(path).objects}
        except SourceError:
            continue
    return dict(enumerate(sorted(names), start=1))


class PointsFile:
    """Points from a JSON list of ``{"image", "x", "y", "label"}``; ``label`` is a class name or id, x and y are pixels.

    Raises:
        SourceError: not such a list, an image that is not in the source, a point twice or outside its image.
    """

    def __init__(self, path: Path, samples: Sequence[Sample]) -> None:
        entries = read_json(path)
        if not isinstance(entries, list) or not entries:
            raise SourceError(f'{path}: no list of points: write [{{"image": ..., "x": ..., "y": ..., "label": ...}}]')
        by_name = {sample.name: sample for sample in samples}
        index = NameIndex(by_name, str(path))
        self._path = path
        self._points: dict[str, list[tuple[int, float, float, Any]]] = defaultdict(list)
        sizes: dict[str, tuple[float, float]] = {}
        for number, entry in enumerate(entries, start=1):
            place = f"point {number}"
            if not isinstance(entry, dict) or not {"image", "x", "y", "label"} <= entry.keys():
                raise SourceError(f"{path}, {place}: image, x, y or label is missing: write all four")
            name = index.find(str(entry["image"]), place)
            x, y = (_number(entry[key]) for key in ("x", "y"))
            if name not in sizes:
                sizes[name] = _size(by_name[name])
            height, width = sizes[name]
            if not (-0.5 <= x < width and -0.5 <= y < height):  # false for NaN too
                raise SourceError(
                    f"{path}, {place}: x {entry['x']}, y {entry['y']} is outside the image"
                    f" of {width:g}x{height:g} pixels: correct or remove it"
                )
            x, y = min(max(x, 0.0), width - 1), min(max(y, 0.0), height - 1)  # a pixel, also after rounding
            if any((x, y) == (other[1], other[2]) for other in self._points[name]):
                raise SourceError(f"{path}, {place}: the same point of {entry['image']!r} is there twice: remove one")
            self._points[name].append((number, x, y, entry["label"]))

    def find_classes(self) -> dict[int, str]:
        """The classes it names: numbers keep their ids, names are numbered from 1 in alphabetical order."""
        return _classes_of(str(point[3]) for points in self._points.values() for point in points)

    def attach(self, samples: Sequence[Sample], classes: Mapping[int, str]) -> list[Sample]:
        """The samples with their points, None where the file has none. Raises SourceError: unknown class."""
        points: dict[str, tuple[Point, ...]] = {}
        for name, entries in self._points.items():
            points[name] = tuple(
                Point(x, y, class_id_of(label, classes, f"{self._path}, point {number}"))
                for number, x, y, label in entries
            )
        return [sample.replace(points=points.get(sample.name)) for sample in samples]


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def _size(sample: Sample) -> tuple[float, float]:
    """The image's (height, width); without bound where it cannot be read, as that shows when it is loaded."""
    try:
        return sample.size if sample.path is None else image_size(sample.path)
    except ImageError:
        return math.inf, math.inf


def _classes_of(labels: Any) -> dict[int, str]:
    texts = sorted(set(labels))
    if texts and all(text.isdecimal() for text in texts):
        return {i: f"class {i}" for i in sorted({int(text) for text in texts})}
    return dict(enumerate(texts, start=1))
