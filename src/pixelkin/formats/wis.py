"""WIS: Waymo Instance Segmentation, masks of 200 validation segments of the Waymo Open Dataset.

The release holds no images and no COCO file: one JSON a frame, ``SEGMENT/images/frame_000020.json``, with boxes and
polygons in fractions of the front camera's picture. A polygon names the box it belongs to; an object that others divide
has several.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pixelkin.data import RLE, Dataset, ImageError, Instances, Sample, encode_mask
from pixelkin.data.sample import image_size
from pixelkin.formats.classes import as_classes
from pixelkin.formats.files import IMAGE_SUFFIXES, SourceError, read_json, require_folder
from pixelkin.formats.segmentation import segmentation_to_rle

CLASSES = {1: "vehicle", 2: "pedestrian", 3: "cyclist"}

SIZE = (1280, 1920)
"""(height, width) of the front camera's pictures."""

SOURCE = "wis"
UNMARKABLE = "unmarkable"
RELEASE = "waymo_val_anno"

_TYPES = {"TYPE_VEHICLE": 1, "TYPE_PEDESTRIAN": 2, "TYPE_CYCLIST": 3}


class WisObject(NamedTuple):
    """One object of a frame, in fractions of the picture's width and height.

    Attributes:
        class_id: of CLASSES.
        identity: of its box, or of its polygon where it has no box.
        polygons: one (n, 2) array of corners (x, y) for every part that is seen; empty where nobody drew any.
        box: (x0, y0, x1, y1), or None.
    """

    class_id: int
    identity: int
    polygons: tuple[npt.NDArray[np.float64], ...]
    box: tuple[float, float, float, float] | None


def is_wis(folder: Path) -> bool:
    """Whether a folder holds the release's segments, or the release."""
    return any(next(root.glob("*/images/frame_*.json"), None) for root in (folder, folder / RELEASE))


def read_wis(
    folder: Path | str,
    images: Path | str | None = None,
    *,
    unmarked: bool = False,
    classes: Mapping[int, str] | Path | str | None = None,
) -> Dataset:
    """Read the WIS annotations. Samples are named ``SEGMENT/frame_000020``; each segment is a clip.

    Frames that the annotators gave up on ("unmarkable", most of them at night) are left out. Of a polygon that names
    several boxes the first one counts; one that names none is an object of its own; its own class goes before its
    box's. Corners that lie a little outside the picture are moved to its edge.

    Args:
        folder: the one with the segments, or that holds ``waymo_val_anno``.
        images: folder of the pictures as ``SEGMENT/frame_000020.png`` or ``SEGMENT/images/frame_000020.png`` (or
            .jpg). Default: beside the annotations. Where there are none, only the masks can be used.
        unmarked: boxes that no polygon names, most of them tiny, as ignore regions (``crowd``), so that finding such
            an object is not counted as wrong. The paper's rule is not known; off, as the release's masks stand.
        classes: class list that renames 1 vehicle, 2 pedestrian, 3 cyclist.

    Raises:
        SourceError: no annotations, or no such folder.
    """
    folder = require_folder(Path(folder), "WIS folder")
    root = folder if next(folder.glob("*/images/frame_*.json"), None) else folder / RELEASE
    frames = sorted(root.glob("*/images/frame_*.json"))
    if not frames:
        raise SourceError(f"{folder}: no SEGMENT/images/frame_*.json in it: give the release's {RELEASE}")
    pictures = root if images is None else require_folder(Path(images), "folder of images")
    samples = []
    for path in frames:
        segment = path.parent.parent.name
        if _content(path) is None:
            continue
        picture = _picture(pictures, segment, path.stem)
        samples.append(
            Sample(
                f"{segment}/{path.stem}",
                picture if picture is not None else pictures / segment / f"{path.stem}.png",
                size=None if picture is not None else SIZE,
                instances=partial(_load, path, picture, unmarked),
                clip=segment,
                frame=int(path.stem.removeprefix("frame_")),
            )
        )
    return Dataset(samples, as_classes(classes) or CLASSES, name=root.name)


def read_wis_frame(path: Path | str) -> list[WisObject] | None:
    """The objects of one frame, those without a polygon last; None for an unmarkable frame.

    Raises:
        SourceError: not such a file.
    """
    path = Path(path)
    content = _content(path)
    if content is None:
        return None
    try:
        return _objects(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SourceError(f"{path}: not an annotation of the WIS release ({error}): copy it again") from None


def _content(path: Path) -> dict[str, Any] | None:
    content = read_json(path)
    data = content.get("data") if isinstance(content, dict) else None
    if data == UNMARKABLE:
        return None
    if not isinstance(data, dict):
        raise SourceError(f"{path}: no 'data' of boxes and polygons in it: give the release's own files")
    return data


def _objects(content: Mapping[str, Any]) -> list[WisObject]:
    boxes: dict[int, Mapping[str, Any]] = {}
    spare = []  # a few ids are given twice, and only one of the two boxes says that it has polygons
    for box in sorted(content.get("bbox", []), key=lambda box: not box["refObjectId"]):
        if int(box["id"]) in boxes:
            spare.append(box)
        else:
            boxes[int(box["id"])] = box
    parts: dict[int, list[npt.NDArray[np.float64]]] = {}
    kinds: dict[int, int] = {}
    named: set[int] = set()
    for polygon in content.get("poly", []):
        corners = np.asarray(polygon["data"], dtype=np.float64).reshape(-1, 2)
        if len(corners) < 3:
            continue
        known = [int(reference) for reference in polygon["refObjectId"] if int(reference) in boxes]
        named.update(known)
        owner = known[0] if known else int(polygon["id"])
        parts.setdefault(owner, []).append(np.clip(corners, 0.0, 1.0))
        kinds.setdefault(owner, _class(polygon))
    found = [
        WisObject(kinds[owner], owner, tuple(polygons), _box(boxes.get(owner))) for owner, polygons in parts.items()
    ]
    bare = [box for identity, box in boxes.items() if identity not in named] + spare
    return found + [WisObject(_class(box), int(box["id"]), (), _box(box)) for box in bare]


def _class(record: Mapping[str, Any]) -> int:
    return _TYPES[next(iter(record["result"]))]


def _box(record: Mapping[str, Any] | None) -> tuple[float, float, float, float] | None:
    if record is None:
        return None
    x0, y0, x1, y1 = (float(np.clip(value, 0, 1)) for value in record["data"])
    return x0, y0, x1, y1


def _picture(root: Path, segment: str, stem: str) -> Path | None:
    for place in (root / segment / "images", root / segment):
        for suffix in (".png", ".jpg", ".jpeg"):
            if suffix in IMAGE_SUFFIXES and (place / (stem + suffix)).is_file():
                return place / (stem + suffix)
    return None


def _load(path: Path, picture: Path | None, unmarked: bool) -> Instances:
    size = SIZE if picture is None else image_size(picture)
    try:
        objects = read_wis_frame(path) or []
    except SourceError as error:  # the file was changed since
        raise ImageError(str(error)) from None
    shown = [one for one in objects if one.polygons or unmarked]
    codes = [_code(one, size) for one in shown]
    return Instances(
        size,
        codes,
        labels=[one.class_id for one in shown],
        sources=[SOURCE] * len(shown),
        crowd=[not one.polygons for one in shown],
        ids=[one.identity for one in shown],
    )


def _code(one: WisObject, size: tuple[int, int]) -> RLE:
    """The union of the polygons, or the pixels that the box touches."""
    height, width = size
    if one.polygons:
        polygons = [(corners * (width, height)).ravel().tolist() for corners in one.polygons]
        code = segmentation_to_rle(polygons, size, f"object {one.identity}")
        if code is not None:
            return code
    mask = np.zeros(size, dtype=bool)
    if one.box is not None:
        x0, y0, x1, y1 = one.box
        mask[int(y0 * height) : math.ceil(y1 * height), int(x0 * width) : math.ceil(x1 * width)] = True
    return encode_mask(mask)
