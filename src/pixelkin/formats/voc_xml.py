"""PASCAL VOC annotation files: boxes, classes and flags of one image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from pixelkin.formats.files import SourceError, whole

MAX_BYTES = 16 * 2**20


@dataclass(frozen=True)
class VocObject:
    """One object of an annotation file.

    Attributes:
        name: its class.
        box: (x0, y0, x1, y1) pixels, lower right exclusive; the file counts from 1 and includes its last pixel. None
            for an object that is only named.
        pose: ``Left``, ``Frontal``, ... or ``Unspecified``.
        truncated: the box does not hold the whole object.
        difficult: left out of evaluations.
        occluded: partly hidden.
    """

    name: str
    box: tuple[float, float, float, float] | None = None
    pose: str = "Unspecified"
    truncated: bool = False
    difficult: bool = False
    occluded: bool = False


@dataclass(frozen=True)
class VocAnnotation:
    """One annotation file: the image's file name, its (height, width) if given, whether it has masks, its objects."""

    filename: str
    size: tuple[int, int] | None
    segmented: bool
    objects: tuple[VocObject, ...]


def read_xml(path: Path | str) -> VocAnnotation:
    """Read one annotation file.

    Raises:
        SourceError: no such file, not VOC XML, or a box that is none.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SourceError(f"{path}: over {MAX_BYTES // 2**20} MB: no VOC annotation")
        text = path.read_bytes()
        if b"<!DOCTYPE" in text or b"<!ENTITY" in text:  # entities can be nested to expand without end
            raise SourceError(f"{path}: it declares entities, which no VOC annotation needs: remove them")
        root = ElementTree.fromstring(text)
        objects = tuple(_object(node) for node in root.findall("object"))
        width, height = root.findtext("size/width"), root.findtext("size/height")
        size = (int(float(height)), int(float(width))) if width and height else None
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file: check the path") from None
    except (OSError, ElementTree.ParseError, OverflowError) as error:
        raise SourceError(f"{path}: not XML that can be read ({error}): write it again") from None
    except ValueError as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{path}: {error}: correct it") from None
    return VocAnnotation((root.findtext("filename") or path.stem).strip(), size, _flag(root, "segmented"), objects)


def _object(node: ElementTree.Element) -> VocObject:
    name = (node.findtext("name") or "").strip()
    if not name:
        raise ValueError("an object without a name")
    box = None
    corners = node.find("bndbox")
    if corners is not None:
        x0, y0, x1, y1 = (float(corners.findtext(key) or "nan") for key in ("xmin", "ymin", "xmax", "ymax"))
        if not (math.isfinite(x0 + y0 + x1 + y1) and x1 >= x0 and y1 >= y0):
            raise ValueError(f"a box of {name!r} that is none")
        box = (x0 - 1, y0 - 1, x1, y1)
    pose = (node.findtext("pose") or "Unspecified").strip()
    return VocObject(name, box, pose, _flag(node, "truncated"), _flag(node, "difficult"), _flag(node, "occluded"))


def _flag(node: ElementTree.Element, key: str) -> bool:
    return (node.findtext(key) or "0").strip().lower() in ("1", "true")


def write_xml(path: Path | str, annotation: VocAnnotation) -> None:
    """Write one annotation file that :func:`read_xml` reads back the same."""
    root = ElementTree.Element("annotation")
    _text(root, "filename", annotation.filename)
    if annotation.size is not None:
        size = ElementTree.SubElement(root, "size")
        for key, value in zip(("width", "height", "depth"), (*annotation.size[::-1], 3), strict=True):
            _text(size, key, str(value))
    _text(root, "segmented", str(int(annotation.segmented)))
    for item in annotation.objects:
        node = ElementTree.SubElement(root, "object")
        _text(node, "name", item.name)
        _text(node, "pose", item.pose)
        for key in ("truncated", "difficult", "occluded"):
            _text(node, key, str(int(getattr(item, key))))
        if item.box is not None:
            _corners(ElementTree.SubElement(node, "bndbox"), item.box)
    ElementTree.indent(root, "\t")
    with whole(Path(path)) as beside:
        beside.write_bytes(ElementTree.tostring(root, encoding="utf-8") + b"\n")


def _corners(node: ElementTree.Element, box: Sequence[float]) -> None:
    for key, value in zip(("xmin", "ymin", "xmax", "ymax"), (box[0] + 1, box[1] + 1, box[2], box[3]), strict=True):
        _text(node, key, str(int(value)) if float(value).is_integer() else repr(float(value)))


def _text(parent: ElementTree.Element, tag: str, text: str) -> None:
    ElementTree.SubElement(parent, tag).text = text
