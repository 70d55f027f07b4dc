"""Displacement and boundary to instances inside a semantic map: displacement grouping, then a walk per instance.

The last stage of IRNet (Ahn, Cho, Kwak, CVPR 2019, arXiv 1904.05044) as SISeg (arXiv 2308.00949) uses it, with a
semantic map for the class activations. The map is believed: what is left to decide is which instance of its class each
pixel belongs to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from pixelkin.data.sample import UNKNOWN
from pixelkin.grouping.displacement import group_by_displacement
from pixelkin.grouping.fine_grid import Axis, interpolate
from pixelkin.grouping.random_walk import Transition

FloatMap = npt.NDArray[np.float32]
ClassWeight = Callable[[int], "FloatMap | None"]
"""(H, W) weight in 0..1 of the pixels of a class, e.g. its probability; None: 1 everywhere."""

LEAST = 1e-3
"""Least weight of a seed, so that no pixel of the map is without an instance."""

CHANNELS = 32
"""Walks computed at once, to bound the memory."""


class Owners(NamedTuple):
    """Which instance owns each pixel.

    Attributes:
        labels: (H, W) int32, 0 none, else 1..N; an instance may have several pieces.
        classes: (N,) int64 class ids.
        strength: (H, W) float32, the walked value of the owner in 0..1: high where class, displacement and the lack of
            boundaries agree.
    """

    labels: npt.NDArray[np.int32]
    classes: npt.NDArray[np.int64]
    strength: FloatMap


def own_pixels(
    semantic: npt.NDArray[Any],
    displacement: FloatMap,
    boundary: FloatMap,
    *,
    stride: float,
    class_weight: ClassWeight | None = None,
    weak: float = 2.5,
    beta: float = 10.0,
    radius: int = 5,
    steps: int = 256,
    background: float = 0.0,
    unknown: int = UNKNOWN,
) -> Owners:
    """Give every pixel of a semantic map to an instance of its class.

    Seeds are the displacement's instances cut by class, weighted by the share of the class in each field pixel, its
    weight there and 1 - boundary. Each diffuses over the field pixels of its class; the strongest owns the pixel.

    Args:
        semantic: (H, W) class ids, 0 background.
        displacement: (2, h, w), (dy, dx) in field pixels.
        boundary: (h, w) probability.
        stride: image pixels per field pixel; field pixel (i, j) covers the image from (i, j) * stride.
        class_weight: weight of the pixels of a class.
        weak: see :func:`group_by_displacement`.
        beta: exponent of the affinities; see :func:`random_walk`.
        radius: pixels closer than this are neighbours in the walk, in field pixels.
        steps: length of the walk.
        background: pixels stay without an instance where the strength is below this share of the largest of their
            class, as published for class activations, which reach beyond the objects; 0 for masks that are believed.
        unknown: class id of unlabelled pixels; they get no instance.

    Raises:
        ValueError: fields of different sizes, or that do not cover the map at this stride.
    """
    semantic = np.asarray(semantic)
    cells = (int(boundary.shape[0]), int(boundary.shape[1]))
    if displacement.shape != (2, *cells):
        raise ValueError(f"displacement is {displacement.shape}, boundary {cells}: give (2, h, w) and (h, w)")
    rows, columns = (Axis.of(n, side, stride) for n, side in zip(cells, semantic.shape, strict=True))
    known = (semantic != 0) & (semantic != unknown)
    groups = group_by_displacement(displacement, foreground=_means(known, rows, columns) > 0, weak=weak)
    owners = Owners(np.zeros(semantic.shape, np.int32), np.zeros(0, np.int64), np.full(semantic.shape, -1, np.float32))
    classes: list[int] = []
    for class_id in np.unique(semantic[known]).tolist():
        inside = semantic == class_id
        share = _means(inside, rows, columns)
        weight = class_weight(class_id) if class_weight is not None else None
        seeds = share if weight is None else _means(np.where(inside, weight, 0), rows, columns)
        seeds = np.where(share > 0, np.clip(seeds * (1 - boundary), LEAST, 1), 0).astype(np.float32)
        crowd = _Crowd(groups, share > 0, radius)
        way = Transition(torch.tensor(boundary), mask=torch.from_numpy(share > 0), beta=beta, radius=radius)
        walked = crowd.walk(seeds, way, steps)
        crowd.paint(
            walked, inside, rows, columns, owners, first=len(classes) + 1, least=background * float(walked.max())
        )
        classes += [class_id] * len(crowd.region)
    owners.strength[owners.labels == 0] = 0
    return owners._replace(classes=np.array(classes, dtype=np.int64))


def _means(values: npt.NDArray[Any], rows: Axis, columns: Axis) -> FloatMap:
    """Mean of (H, W) values over the image pixels of each field pixel, (h, w)."""
    total = np.add.reduceat(np.add.reduceat(values, rows.starts, axis=0, dtype=np.float32), columns.starts, axis=1)
    heights, widths = (np.maximum(np.bincount(axis.cells, minlength=len(axis.starts)), 1) for axis in (rows, columns))
    return np.asarray(total / (heights[:, None] * widths[None, :]), dtype=np.float32)


class _Crowd:
    """The instances of one class on the field's grid.

    Regions that the walk cannot reach one from the other share channels, so there are as many channels as the most
    crowded region has instances.
    """

    def __init__(self, groups: npt.NDArray[np.int32], inside: npt.NDArray[np.bool_], radius: int) -> None:
        reach = 2 * (radius // 2) + 1  # pixels up to radius - 1 apart on an axis touch when each grows by half of it
        grown = cv2.dilate(inside.astype(np.uint8), np.ones((reach, reach), np.uint8))
        self.regions = cv2.connectedComponents(grown, connectivity=8)[1] * inside
        unique, which = np.unique(np.stack([self.regions[inside], groups[inside]], axis=1), axis=0, return_inverse=True)
        self.region = unique[:, 0]
        self.channel = np.arange(len(unique)) - np.searchsorted(self.region, self.region)
        self.channels = np.full(inside.shape, -1, dtype=np.int64)
        self.channels[inside] = self.channel[which.reshape(-1)]

    def walk(self, seeds: FloatMap, transition: Transition, steps: int) -> FloatMap:
        """(K, h, w): the seeds of the instance of each channel after the walk."""
        walked = np.empty((int(self.channel.max()) + 1, *seeds.shape), dtype=np.float32)
        for first in range(0, len(walked), CHANNELS):
            chunk = np.arange(first, min(first + CHANNELS, len(walked)))
            start = torch.from_numpy((self.channels == chunk[:, None, None]) * seeds)
            walked[chunk] = transition.walk(start, steps=steps).numpy()
        return walked

    def paint(
        self,
        walked: FloatMap,
        inside: npt.NDArray[np.bool_],
        rows: Axis,
        columns: Axis,
        owners: Owners,
        *,
        first: int,
        least: float,
    ) -> None:
        """Write the strongest instance of each pixel of the class, and its strength, at full resolution.

        Args:
            walked: (K, h, w) from :meth:`walk`.
            inside: (H, W) the class.
            rows: the vertical axis.
            columns: the horizontal axis.
            owners: written to.
            first: number of the first instance.
            least: strength below which a pixel stays without.
        """
        names = np.full((int(self.region.max()) + 1, len(walked)), -1)
        names[self.region, self.channel] = np.arange(len(self.region))
        leaders = np.where(self.channels >= 0, names[self.regions, walked.argmax(axis=0)] + 1, 0)
        for number, box in enumerate(ndimage.find_objects(leaders, max_label=len(self.region))):
            if box is None:
                continue  # its neighbours are stronger everywhere
            # Between field pixels it may lead beyond those where it does, by less than one of them.
            place = rows.span(box[0]), columns.span(box[1])
            mine = self.regions[np.ix_(rows.cells[place[0]], columns.cells[place[1]])] == self.region[number]
            values = interpolate(walked[self.channel[number]], rows.places[place[0]], columns.places[place[1]])
            better = inside[place] & mine & (values > owners.strength[place]) & (values >= least)
            owners.labels[place][better] = first + number
            owners.strength[place][better] = values[better]
