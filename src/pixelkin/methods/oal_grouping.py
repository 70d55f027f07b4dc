"""From OAL's affinities to instances of the image's pixels, inside a semantic map where there is one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pixelkin.data import Instances
from pixelkin.data.components import Components, class_components
from pixelkin.data.lattice import Offset
from pixelkin.data.sample import UNKNOWN
from pixelkin.grouping.cells import cells_to_pixels
from pixelkin.grouping.partition import Partition, PartitionMethod, partition
from pixelkin.models.center_fields import STRIDE

USUAL_SIDE = 32.0
"""The side, in pixels, of the square at which the size of an instance takes a quarter of its confidence."""

Labels = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class Division:
    """How affinities are divided, and what the instances are called."""

    zoom: float
    """Pixels of the zoomed image per pixel of the image."""
    min_area: int
    """Smaller segments go to their neighbours, or are dropped where they have none; in pixels."""
    stride: int
    """See :func:`~pixelkin.grouping.partition.partition`; so too ``method``."""
    method: PartitionMethod
    source: str
    """Of the instances."""

    def segments(
        self,
        affinity: npt.NDArray[np.float32],
        offsets: tuple[Offset, ...],
        cells: npt.NDArray[np.bool_],
    ) -> Partition:
        """The segments of the cells and their scores."""
        return partition(affinity, np.array(offsets), cells, stride=self.stride, method=self.method)


def group_freely(
    affinity: npt.NDArray[np.float32],
    foreground: npt.NDArray[np.float32],
    offsets: tuple[Offset, ...],
    size: tuple[int, int],
    division: Division,
    *,
    threshold: float,
) -> Instances:
    """The segments of the foreground, all of class 1; crumbs go to their neighbours.

    Args:
        affinity: (C, h, w) probabilities on cells of 4 pixels of the zoomed image.
        foreground: (h, w) probabilities.
        offsets: of the channels.
        size: (height, width) of the image.
        division: how to divide.
        threshold: foreground is what is more probable.
    """
    seen = zoomed(size, division.zoom)
    found = division.segments(affinity, offsets, foreground > threshold)
    inside = _spread(foreground, seen) > threshold
    pixels = resized_labels(cells_to_pixels(found.labels, inside, STRIDE, most=1.5), size)
    parts = class_components(resized_labels(inside.astype(np.int32), size))
    divided, owners, _ = _within(pixels, parts, division.min_area)
    worth = found.scores * _means(found.labels, foreground, len(found.scores))
    worth = np.append(0.0, worth)[owners]  # 0: foreground so thin that no cell saw it
    return _instances(divided, worth, np.ones(len(worth), np.int64), division.min_area, division.source)


def semantic_of_foreground(
    foreground: npt.NDArray[np.float32],
    size: tuple[int, int],
    *,
    zoom: float,
    background: float,
    threshold: float,
) -> npt.NDArray[np.uint8]:
    """(H, W): 1 where :func:`group_freely` looks for objects, 0 for background, and 255 where nobody knows.

    Args:
        foreground: (h, w) probabilities on cells of 4 pixels of the zoomed image.
        size: (height, width) of the image.
        zoom: pixels of the zoomed image per pixel of the image.
        background: what is more probable, and not above the threshold, is unknown.
        threshold: foreground is what is more probable.
    """
    spread = _spread(foreground, zoomed(size, zoom))
    said = np.select([spread > threshold, spread > background], [1, UNKNOWN], 0).astype(np.int32)
    return resized_labels(said, size).astype(np.uint8)


def group_within(
    affinity: npt.NDArray[np.float32],
    offsets: tuple[Offset, ...],
    parts: Components,
    division: Division,
) -> Instances:
    """The segments of the components of a semantic map: every pixel of a component goes to one.

    Args:
        affinity: (C, h, w) probabilities on cells of 4 pixels of the zoomed image.
        offsets: of the channels.
        parts: the (H, W) components and their classes.
        division: how to divide.
    """
    size = (parts.labels.shape[0], parts.labels.shape[1])
    inside = resized_labels((parts.labels > 0).astype(np.int32), zoomed(size, division.zoom)) > 0
    cells = _any_in_cells(inside, (affinity.shape[1], affinity.shape[2]))
    found = division.segments(affinity, offsets, cells)
    pixels = resized_labels(cells_to_pixels(found.labels, inside, STRIDE), size)
    divided, owners, homes = _within(pixels, parts, division.min_area)
    worth = np.where(owners > 0, np.append(0.0, found.scores)[owners], 1.0)
    return _instances(divided, worth, parts.classes[homes - 1], division.min_area, division.source)


def zoomed(size: tuple[int, int], zoom: float) -> tuple[int, int]:
    """(height, width) of an image after zooming."""
    return (size[0], size[1]) if zoom == 1 else (max(round(size[0] * zoom), 1), max(round(size[1] * zoom), 1))


def resized_labels(labels: Labels, size: tuple[int, int]) -> Labels:
    """(H, W) labels at another size, the nearest one; up to 2**24 labels."""
    if labels.shape == size:
        return labels
    values = cv2.resize(labels.astype(np.float32), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(values, np.int32)


def _spread(values: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Values of cells at the pixels of an image of ``size``."""
    padded = np.pad(np.asarray(values, np.float32), 1, mode="edge")
    scale = cv2.resize(padded, None, fx=STRIDE, fy=STRIDE, interpolation=cv2.INTER_LINEAR)
    return np.asarray(scale[STRIDE : STRIDE + size[0], STRIDE : STRIDE + size[1]], np.float32)


def _any_in_cells(inside: npt.NDArray[np.bool_], cells: tuple[int, int]) -> npt.NDArray[np.bool_]:
    padded = np.zeros((cells[0] * STRIDE, cells[1] * STRIDE), bool)
    padded[: inside.shape[0], : inside.shape[1]] = inside
    return np.asarray(padded.reshape(cells[0], STRIDE, cells[1], STRIDE).any(axis=(1, 3)))


def _within(
    pixels: Labels, parts: Components, min_area: int
) -> tuple[Labels, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Segments cut at the components and filling them; and of each its old number (0: none) and its component."""
    out = np.zeros_like(pixels)
    owners: list[int] = []
    homes: list[int] = []
    for number, place in enumerate(ndimage.find_objects(parts.labels, max_label=len(parts.classes)), start=1):
        if place is None:
            continue
        mask = parts.labels[place] == number
        mine = np.where(mask, pixels[place], 0)
        names, areas = np.unique(mine[mine > 0], return_counts=True)
        kept = names[areas >= min_area]
        if len(kept) <= 1:
            owners.append(int(kept[0]) if len(kept) else (int(names[areas.argmax()]) if len(names) else 0))
            homes.append(number)
            out[place][mask] = len(owners)
            continue
        mine = np.where(np.isin(mine, kept), mine, 0)
        nearest = ndimage.distance_transform_edt(mine == 0, return_distances=False, return_indices=True)
        full = np.where(mask, mine[tuple(nearest)], 0)
        for name in kept.tolist():
            owners.append(name)
            homes.append(number)
            out[place][full == name] = len(owners)
    return out, np.array(owners, np.int64), np.array(homes, np.int64)


def _means(labels: Labels, values: npt.NDArray[np.float32], number: int) -> npt.NDArray[np.float64]:
    sums = np.bincount(labels.ravel(), values.ravel(), number + 1)[1:]
    return np.asarray(sums / np.maximum(np.bincount(labels.ravel(), minlength=number + 1)[1:], 1))


def _instances(
    labels: Labels, worth: npt.NDArray[Any], classes: npt.NDArray[np.int64], min_area: int, source: str
) -> Instances:
    """The segments that are large enough, scored by their worth and by their size, as large ones are surer."""
    areas = np.bincount(labels.ravel(), minlength=len(worth) + 1)[1:]
    kept = np.flatnonzero(areas >= max(min_area, 1))
    renumber = np.zeros(len(worth) + 1, np.int32)
    renumber[kept + 1] = np.arange(1, len(kept) + 1)
    sides = np.array([math.sqrt(area) for area in areas[kept]])
    scores = np.clip(worth[kept], 0, 1) * (1 + sides / (sides + USUAL_SIDE)) / 2
    return Instances.from_label_map(renumber[labels], labels=classes[kept], scores=scores, sources=[source] * len(kept))
