"""Seed maps to class or instance masks: seeds diffuse up to the boundaries, and the strongest owns the pixel.

The last stage of IRNet (Ahn, Cho, Kwak, CVPR 2019, arXiv 1904.05044). The seeds are class activations, which do not
know where an object ends: where nothing is strong there is background.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from pixelkin.grouping.fine_grid import Axis, interpolate
from pixelkin.grouping.random_walk import Transition

FloatMap = npt.NDArray[np.float32]
Normalisation = Literal["image", "class", "region"]

CHANNELS = 32
"""Walks computed at once, to bound the memory."""


class Walked(NamedTuple):
    """Seeds after the walk, on the field's grid.

    Attributes:
        values: (N, h, w), largest 1 in each unit of the normalisation; only seeds that reached anything.
        classes: (N,) index of the seed map of each.
        groups: (N,) number of the group it was cut to; 0 where there are no groups.
    """

    values: FloatMap
    classes: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]


class Painted(NamedTuple):
    """Which walked seed owns each pixel of the image.

    Attributes:
        labels: (H, W) int32, 0 background, else 1 + its index.
        strength: (H, W) float32, the largest walked value, also where the background won.
    """

    labels: npt.NDArray[np.int32]
    strength: FloatMap


def walk_seeds(
    seeds: FloatMap,
    boundary: FloatMap,
    *,
    groups: npt.NDArray[np.integer[Any]] | None = None,
    normalisation: Normalisation = "class",
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
        normalisation: what is divided by its largest value: all together (``image``, as published), so that what is
            weak in its image is lost; each class (``class``); or each seed (``region``).
        beta: exponent of the affinities; see :func:`~pixelkin.grouping.random_walk.random_walk`.
        radius: pixels closer than this are neighbours, in field pixels.
        steps: length of the walk.

    Raises:
        ValueError: shapes that disagree, values out of range or an unknown normalisation.
    """
    if normalisation not in ("image", "class", "region"):
        raise ValueError(f"normalisation cannot be {normalisation!r}: use 'image', 'class' or 'region'")
    seeds, boundary = np.asarray(seeds, np.float32), np.asarray(boundary, np.float32)
    if seeds.ndim != 3 or seeds.shape[1:] != boundary.shape:
        raise ValueError(f"seeds are {seeds.shape}, the boundary {boundary.shape}: give (K, h, w) and (h, w)")
    if groups is not None and groups.shape != boundary.shape:
        raise ValueError(f"groups are {groups.shape}, the boundary {boundary.shape}: give both the same size")
    if seeds.size and not float(seeds.min()) >= 0:
        raise ValueError("seeds must be at least 0: clip them")
    start = seeds * (1 - boundary)
    pairs = _pairs(start, groups)
    values = np.empty((len(pairs), *boundary.shape), np.float32)
    if len(pairs):
        way = Transition(torch.from_numpy(boundary), beta=beta, radius=radius)
        for first in range(0, len(pairs), CHANNELS):
            some = pairs[first : first + CHANNELS]
            cut = [start[k] if groups is None else start[k] * (groups == group) for k, group in some]
            values[first : first + CHANNELS] = way.walk(torch.from_numpy(np.stack(cut)), steps=steps).numpy()
    peaks = values.max(axis=(1, 2), initial=0)
    units = {"image": np.zeros(len(pairs), np.int64), "class": pairs[:, 0], "region": np.arange(len(pairs))}
    highest = np.zeros(max(len(seeds), len(pairs), 1), np.float32)
    np.maximum.at(highest, units[normalisation], peaks)
    kept = peaks > 0
    values = values[kept] / highest[units[normalisation][kept]][:, None, None]
    return Walked(values, pairs[kept, 0], pairs[kept, 1])


def paint(walked: FloatMap, size: tuple[int, int], *, stride: float, background: float = 0.25) -> Painted:
    """Give each image pixel to the strongest seed, or to the background where none reaches its value.

    Args:
        walked: (N, h, w) values from :func:`walk_seeds`.
        size: (H, W) of the image.
        stride: image pixels per field pixel.
        background: the background's value.

    Raises:
        ValueError: a field that does not cover the image at this stride.
    """
    rows, columns = (Axis.of(n, side, stride) for n, side in zip(walked.shape[1:], size, strict=True))
    labels, strength = np.zeros(size, np.int32), np.zeros(size, np.float32)
    for number, values in enumerate(walked, start=1):
        # Bilinear values are nowhere above those around them, so the rest of the image cannot matter.
        strong = values > 0
        ys, xs = np.flatnonzero(strong.any(axis=1)), np.flatnonzero(strong.any(axis=0))
        if not len(ys):
            continue
        place = rows.span(slice(ys[0], ys[-1] + 1)), columns.span(slice(xs[0], xs[-1] + 1))
        fine = interpolate(values, rows.places[place[0]], columns.places[place[1]])
        better = fine > strength[place]
        strength[place][better] = fine[better]
        labels[place][better] = number
    labels[strength <= background] = 0
    return Painted(labels, strength)


def _pairs(start: FloatMap, groups: npt.NDArray[np.integer[Any]] | None) -> npt.NDArray[np.int64]:
    """(N, 2) class index and group of the seeds that are not empty, class by class."""
    found: list[tuple[int, int]] = []
    for k, seed in enumerate(start):
        if not (seed > 0).any():
            continue
        found += [(k, 0)] if groups is None else [(k, int(g)) for g in np.unique(groups[seed > 0]) if g]
    return np.array(found, np.int64).reshape(-1, 2)
