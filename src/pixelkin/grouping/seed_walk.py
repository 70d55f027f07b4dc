"""Seed maps to class or instance masks: seeds diffuse up to the boundaries, and the strongest owns the pixel.

The last stage of IRNet (Ahn, Cho, Kwak, CVPR 2019, arXiv 1904.05044). The seeds are class activations, which do not
know where an object ends: where nothing is strong there is background.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import torch

from pixelkin.grouping.fine_grid import Axis, interpolate
from pixelkin.grouping.random_walk import Transition

FloatMap = npt.NDArray[np.float32]
Normalisation = Literal["image", "class", "region", "none"]

CHANNELS = 32
"""Walks computed at once, to bound the memory."""


class Walked(NamedTuple):
    """Seeds after the walk, on the field's grid.

    Attributes:
        values: (N, h, w), at least 0, in units of the normalisation; only seeds that reached anything.
        classes: (N,) index of the seed map of each, ascending.
        groups: (N,) number of the group it was cut to; 0 where there are no groups.
        background: (h, w), at least 0, or None where none walked.
    """

    values: FloatMap
    classes: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]
    background: FloatMap | None = None


class Painted(NamedTuple):
    """Which walked seed owns each pixel of the image.

    Attributes:
        labels: (H, W) int32, 0 background, else 1 + its index.
        strength: (H, W) float32, the largest value there; the background's where it won.
        margin: (H, W) float32, how far the largest value is above the next, of another class where classes go first.
    """

    labels: npt.NDArray[np.int32]
    strength: FloatMap
    margin: FloatMap


def walk_seeds(
    seeds: FloatMap,
    boundary: FloatMap,
    *,
    groups: npt.NDArray[np.integer[Any]] | None = None,
    background: FloatMap | None = None,
    normalisation: Normalisation = "class",
    background_scale: float | None = None,
    beta: float = 10.0,
    radius: int = 5,
    steps: int = 256,
) -> Walked:
    """Cut seed maps to instances and let each diffuse up to the boundaries.

    Args:
        seeds: (K, h, w), at least 0; e.g. a class activation for each class.
        boundary: (h, w) probability in 0..1. Seeds are weighted by 1 - boundary first.
        groups: (h, w) instance of each field pixel, knowing no classes, 0 none; see
            :func:`~pixelkin.grouping.displacement.group_by_displacement`. None: seeds stay whole.
        background: (h, w), at least 0: a seed of the background, which walks too.
        normalisation: what is divided by its largest value: all together (``image``, as published), so that what is
            weak in its image is lost; each class, its instances added up (``class``); each seed (``region``); or
            nothing (``none``).
        background_scale: what the background is multiplied by after the walk; None: one over its largest value.
        beta: exponent of the affinities; see :func:`~pixelkin.grouping.random_walk.random_walk`.
        radius: pixels closer than this are neighbours, in field pixels.
        steps: length of the walk.

    Raises:
        ValueError: shapes that disagree, values out of range or an unknown normalisation.
    """
    if normalisation not in get_args(Normalisation):
        raise ValueError(f"normalisation cannot be {normalisation!r}: use {', '.join(get_args(Normalisation))}")
    seeds, boundary = np.asarray(seeds, np.float32), np.asarray(boundary, np.float32)
    if seeds.ndim != 3 or seeds.shape[1:] != boundary.shape:
        raise ValueError(f"seeds are {seeds.shape}, the boundary {boundary.shape}: give (K, h, w) and (h, w)")
    if groups is not None and groups.shape != boundary.shape:
        raise ValueError(f"groups are {groups.shape}, the boundary {boundary.shape}: give both the same size")
    if background is not None and np.shape(background) != boundary.shape:
        raise ValueError(f"the background is {np.shape(background)}, the boundary {boundary.shape}: give the same size")
    if not all(float(np.min(part, initial=0)) >= 0 for part in (seeds, background) if part is not None):
        raise ValueError("seeds must be at least 0: clip them")
    start = seeds * (1 - boundary)
    pairs = _pairs(start, groups)
    cuts = [start[k] if groups is None else start[k] * (groups == group) for k, group in pairs]
    if background is not None:
        cuts.append(np.asarray(background, np.float32) * (1 - boundary))
    values = np.zeros((len(cuts), *boundary.shape), np.float32)
    if len(pairs):
        way = Transition(torch.from_numpy(boundary), beta=beta, radius=radius)
        for first in range(0, len(cuts), CHANNELS):
            some = np.stack(cuts[first : first + CHANNELS])
            values[first : first + CHANNELS] = way.walk(torch.from_numpy(some), steps=steps).numpy()
    ground = None
    if background is not None:
        ground, values = values[-1], values[:-1]
        ground = ground * (1 / max(float(ground.max()), 1e-12) if background_scale is None else background_scale)
    kept = values.max(axis=(1, 2), initial=0) > 0
    values, pairs = values[kept], pairs[kept]
    if normalisation == "class":
        for k in np.unique(pairs[:, 0]):
            mine = pairs[:, 0] == k
            values[mine] /= values[mine].sum(axis=0).max()
    elif len(values) and normalisation != "none":
        axes = (0, 1, 2) if normalisation == "image" else (1, 2)
        values /= values.max(axis=axes, keepdims=True)
    return Walked(values, pairs[:, 0], pairs[:, 1], ground)


def paint(
    walked: Walked, size: tuple[int, int], *, stride: float, background: float = 0.25, class_first: bool = False
) -> Painted:
    """Give each image pixel to the strongest seed, or to the background where none is above it.

    Args:
        walked: from :func:`walk_seeds`.
        size: (H, W) of the image.
        stride: image pixels per field pixel.
        background: the background's value where none walked.
        class_first: let the classes, their instances added up, compete for a pixel, then the instances of the winner.
            Otherwise all compete at once, as published: then a pixel between two instances, which share the seeds
            around it, goes to the background more easily than one inside.

    Raises:
        ValueError: a field that does not cover the image at this stride.
    """
    rows, columns = (Axis.of(n, side, stride) for n, side in zip(walked.values.shape[1:], size, strict=True))
    grid = _Grid(rows, columns)
    level = np.full(size, background, np.float32) if walked.background is None else grid.whole(walked.background)
    if not class_first:
        return grid.compete(enumerate(walked.values, start=1), level)
    classes = np.unique(walked.classes)
    members = {k: np.flatnonzero(walked.classes == k) for k in classes}
    won = grid.compete(((k + 1, walked.values[members[k]].sum(axis=0)) for k in classes), level)
    labels = np.zeros(size, np.int32)
    for k, mine in members.items():
        inside = won.labels == k + 1
        if len(mine) == 1:
            labels[inside] = mine[0] + 1
        elif inside.any():
            among = grid.compete(((i + 1, walked.values[i]) for i in mine), np.full(size, -1, np.float32))
            labels[inside] = np.where(among.labels > 0, among.labels, mine[0] + 1)[inside]
    return won._replace(labels=labels)


class _Grid(NamedTuple):
    """A field's grid over an image."""

    rows: Axis
    columns: Axis

    def whole(self, values: FloatMap) -> FloatMap:
        """(H, W) bilinear values of a field."""
        return interpolate(values, self.rows.places, self.columns.places)

    def compete(self, fields: Iterable[tuple[int, FloatMap]], level: FloatMap) -> Painted:
        """The number of the largest of the (number, values) fields at each pixel, 0 where none is above the level."""
        strength, labels, second = level.copy(), np.zeros(level.shape, np.int32), np.zeros(level.shape, np.float32)
        for number, values in fields:
            # Bilinear values are 0 beyond the neighbours of those that are not, so the rest of the image cannot matter.
            ys, xs = np.flatnonzero(values.any(axis=1)), np.flatnonzero(values.any(axis=0))
            if not len(ys):
                continue
            place = self.rows.span(slice(ys[0], ys[-1] + 1)), self.columns.span(slice(xs[0], xs[-1] + 1))
            fine = interpolate(values, self.rows.places[place[0]], self.columns.places[place[1]])
            best, better = strength[place], fine > strength[place]
            second[place] = np.where(better, best, np.maximum(second[place], fine))
            best[better] = fine[better]
            labels[place][better] = number
        return Painted(labels, strength, strength - np.maximum(second, 0))


def _pairs(start: FloatMap, groups: npt.NDArray[np.integer[Any]] | None) -> npt.NDArray[np.int64]:
    """(N, 2) class index and group of the seeds that are not empty, class by class."""
    found: list[tuple[int, int]] = []
    for k, seed in enumerate(start):
        if not (seed > 0).any():
            continue
        found += [(k, 0)] if groups is None else [(k, int(g)) for g in np.unique(groups[seed > 0]) if g]
    return np.array(found, np.int64).reshape(-1, 2)
