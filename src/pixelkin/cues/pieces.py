"""The connected components of a set of semantic maps, with their images, as material for crowding."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from pixelkin.cues.suspects import Statistics, suspects
from pixelkin.data import Dataset, ImageError, Sample
from pixelkin.data.components import class_components

Box = tuple[int, int, int, int]
"""(y0, x0, y1, x1) in pixels, the lower right corner exclusive; may reach beyond the image."""

NEAR = 3
"""Pixels between two components that count as touching: hand-drawn masks leave such gaps."""


class Picture(NamedTuple):
    """One image, resized by ``zoom``, with its components.

    Attributes:
        image: (H, W, 3) uint8 RGB, contrast stretched.
        labels: (H, W) int32 components: 0 none, i + 1 for component i.
        classes: (N,) class ids.
        doubtful: (N,) bool, components that look like several objects.
        zoom: pixels here per pixel of the file.
    """

    image: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int32]
    classes: npt.NDArray[np.int64]
    doubtful: npt.NDArray[np.bool_]
    zoom: float


Zoom = Callable[[npt.NDArray[np.int32], npt.NDArray[np.int64]], float]
"""From the (H, W) components of an image and their (N,) classes to the zoom that suits them."""


class Piece(NamedTuple):
    """One component: index of its picture, its number there (from 1), class, box and area in the picture's pixels."""

    picture: int
    number: int
    class_id: int
    box: Box
    area: int
    solitary: bool
    """Whether it is whole (not cut by the image) and looks like one object."""


def stretch_contrast(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Spread the values between the 0.5 and 99.8 percentile over 0..255: microscopes rarely use the full range."""
    low, high = (float(value) for value in np.percentile(image, (0.5, 99.8)))
    scale = 255.0 / max(high - low, 8.0)
    return np.asarray(np.clip((image.astype(np.float32) - low) * scale, 0, 255), dtype=np.uint8)


def resize(array: npt.NDArray[Any], size: tuple[int, int], *, exact: bool = False) -> npt.NDArray[Any]:
    """Resize to (height, width): averaged or bilinear, or ``exact`` values (nearest) for ids."""
    height, width = size
    shrinks = height * width < array.shape[0] * array.shape[1]
    how = cv2.INTER_NEAREST_EXACT if exact else cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(array, (width, height), interpolation=how))


def cut_out(array: npt.NDArray[Any], box: Box) -> npt.NDArray[Any]:
    """The part of an (H, W, ...) array in a box; zeros where the box reaches beyond it."""
    y0, x0, y1, x1 = box
    out = np.zeros((y1 - y0, x1 - x0, *array.shape[2:]), array.dtype)
    top, left, bottom, right = max(y0, 0), max(x0, 0), min(y1, array.shape[0]), min(x1, array.shape[1])
    if top < bottom and left < right:
        out[top - y0 : bottom - y0, left - x0 : right - x0] = array[top:bottom, left:right]
    return out


def load_picture(sample: Sample, zoom: Zoom, statistics: Statistics) -> Picture:
    """An image with a semantic map as a Picture.

    Args:
        sample: its semantic map is read, and no label but this one.
        zoom: how much to resize it.
        statistics: of the set, for the doubtful components.

    Raises:
        ImageError: no semantic map, or a file that cannot be read.
    """
    semantic = sample.semantic
    if semantic is None:
        raise ImageError(f"{sample.name}: no semantic mask: give one or leave the image out")
    labels, classes = class_components(semantic)
    doubtful, factor = suspects(labels, classes, statistics), zoom(labels, classes)
    image = stretch_contrast(sample.image)
    if factor != 1:
        size = (max(round(labels.shape[0] * factor), 1), max(round(labels.shape[1] * factor), 1))
        image, labels = resize(image, size), resize(labels, size, exact=True)
    return Picture(image, labels, classes, doubtful, factor)


class PictureStore:
    """The pictures of a dataset, the latest used kept in memory up to a limit.

    Args:
        dataset: samples with semantic maps.
        zoom: of each.
        statistics: of the set, for the doubtful components.
        limit: bytes of pictures kept.
    """

    def __init__(self, dataset: Dataset, zoom: Zoom, statistics: Statistics, *, limit: int = 1 << 30) -> None:
        self._dataset, self._zoom, self._statistics, self._limit = dataset, zoom, statistics, limit
        self._kept: OrderedDict[int, Picture] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, i: int) -> Picture:
        if i in self._kept:
            self._kept.move_to_end(i)
            return self._kept[i]
        picture = load_picture(self._dataset[i], self._zoom, self._statistics)
        self._kept[i] = picture
        self._bytes += _bytes(picture)
        while self._bytes > self._limit and len(self._kept) > 1:
            self._bytes -= _bytes(self._kept.popitem(last=False)[1])
        return picture


def find_pieces(picture: Picture, index: int, smallest: int) -> list[Piece]:
    """The components of at least ``smallest`` pixels of a picture."""
    from scipy import ndimage

    height, width = picture.labels.shape
    areas = np.bincount(picture.labels.ravel(), minlength=len(picture.classes) + 1)
    pieces = []
    for i, place in enumerate(ndimage.find_objects(picture.labels, max_label=len(picture.classes))):
        if place is None or areas[i + 1] < smallest:
            continue
        box = (place[0].start, place[1].start, place[0].stop, place[1].stop)
        whole = box[0] > 0 and box[1] > 0 and box[2] < height and box[3] < width
        solitary = bool(whole and not picture.doubtful[i])
        pieces.append(Piece(index, i + 1, int(picture.classes[i]), box, int(areas[i + 1]), solitary))
    return pieces


def touching(picture: Picture) -> set[tuple[int, int]]:
    """Pairs (a < b) of component numbers that come within NEAR pixels of each other along a row or column."""
    labels = picture.labels
    pairs: set[tuple[int, int]] = set()
    for axis in (0, 1):
        for step in range(1, NEAR + 1):
            a, b = np.moveaxis(labels, axis, 0)[:-step], np.moveaxis(labels, axis, 0)[step:]
            meet = (a != b) & (a > 0) & (b > 0)
            found = np.unique(np.stack([np.minimum(a, b)[meet], np.maximum(a, b)[meet]], axis=1), axis=0)
            pairs.update((int(p), int(q)) for p, q in found)
    return pairs


def around(boxes: Iterable[Box]) -> Box:
    """The smallest box around all of them."""
    corners = np.array(list(boxes))
    y0, x0 = corners[:, :2].min(axis=0)
    y1, x1 = corners[:, 2:].max(axis=0)
    return int(y0), int(x0), int(y1), int(x1)


def window(box: Box, margin: float) -> Box:
    """The square around a box, larger by ``margin`` times its longer side on each side."""
    y0, x0, y1, x1 = box
    side = max(round(max(y1 - y0, x1 - x0) * (1 + 2 * margin)), 8)
    top, left = round((y0 + y1 - side) / 2), round((x0 + x1 - side) / 2)
    return top, left, top + side, left + side


def _bytes(picture: Picture) -> int:
    return picture.image.nbytes + picture.labels.nbytes
