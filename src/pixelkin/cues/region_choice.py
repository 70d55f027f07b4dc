"""Which of the regions that a network divides its images into is the object; nobody's label is asked.

The centre is the heuristic of AMD (Liu, Wu, Yu, Lin, NeurIPS 2021, section 3.5), the normalised cut is that of RCF
(Lian, Wu, Yu, CVPR 2023), on the network's own features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Criterion = Literal["both", "center", "cut"]
Scores = npt.NDArray[np.float64]

ALIKE = 0.2
"""Cells whose features have a cosine over this are alike."""

UNLIKE = 1e-5
"""The affinity of cells that are not."""


class RegionScores(NamedTuple):
    """How little each region of one frame looks like the object; what covers nothing or all has infinity.

    Attributes:
        center: (regions,) see :func:`center_distances`.
        cut: (regions,) see :func:`normalised_cuts`.
    """

    center: Scores
    cut: Scores


class RegionChoice(NamedTuple):
    """The region that is taken for the object.

    Attributes:
        region: its number, from 0.
        agreement: the share of the frames that alone would have it so.
        ranks: (regions,) mean rank over frames and criteria, 0 the best.
    """

    region: int
    agreement: float
    ranks: Scores


def region_scores(shares: npt.NDArray[Any], features: npt.NDArray[Any]) -> RegionScores:
    """Both criteria for one frame.

    Args:
        shares: (regions, h, w); each cell belongs to the region with the largest.
        features: (C, h, w) of the same cells.
    """
    owner = np.asarray(shares).argmax(axis=0)
    return RegionScores(
        center_distances(owner, len(shares)), normalised_cuts(owner, np.asarray(features, np.float64), len(shares))
    )


def center_distances(owner: npt.NDArray[Any], regions: int) -> Scores:
    """How far the cells of each region lie from the middle of the frame on average, where its corners are 1 away.

    Not how far their own middle lies: that of a background all around is the frame's.

    Args:
        owner: (h, w) number of the region of each cell.
        regions: how many there are.

    Returns:
        (regions,), infinity for a region without cells or with all.
    """
    height, width = owner.shape
    y = (np.arange(height) + 0.5) / height * 2 - 1
    x = (np.arange(width) + 0.5) / width * 2 - 1
    away = np.sqrt((y[:, None] ** 2 + x[None, :] ** 2) / 2)
    area = np.bincount(owner.ravel(), minlength=regions)
    total = np.bincount(owner.ravel(), away.ravel(), minlength=regions)
    return np.where(_some(area, owner.size), total / np.maximum(area, 1), np.inf)


def normalised_cuts(owner: npt.NDArray[Any], features: npt.NDArray[np.float64], regions: int) -> Scores:
    """The normalised cut between each region and the rest: low where the two are alike within and unlike each other.

    Args:
        owner: (h, w) number of the region of each cell.
        features: (C, h, w); their mean over the frame is taken off first, as features after a rectifier are all alike.
        regions: how many there are.

    Returns:
        (regions,) in 0..2, infinity for a region without cells or with all.
    """
    cells = features.reshape(len(features), -1).T
    cells = cells - cells.mean(axis=0)
    cells /= np.maximum(np.linalg.norm(cells, axis=1, keepdims=True), 1e-12)
    affinity = np.where(cells @ cells.T > ALIKE, 1.0, UNLIKE)
    member = np.equal.outer(owner.ravel(), np.arange(regions)).astype(np.float64)
    within = np.einsum("nk,nk->k", member, affinity @ member)
    degree = affinity.sum(axis=1) @ member
    between = degree - within
    with np.errstate(divide="ignore", invalid="ignore"):
        cut = between / degree + between / (affinity.sum() - degree)
    return np.where(_some(member.sum(axis=0), owner.size), cut, np.inf)


def _some(area: npt.NDArray[Any], cells: int) -> npt.NDArray[np.bool_]:
    return np.asarray((area > 0) & (area < cells))


def choose_region(frames: Sequence[RegionScores], *, by: Criterion = "both") -> RegionChoice:
    """The region that ranks best over all frames.

    Ranks, not values, are added up, so that neither criterion and no single frame can drown the others. Of equals the
    first region is taken.

    Args:
        frames: their scores, at least one.
        by: which criterion counts.

    Raises:
        ValueError: no frames.
    """
    if not frames:
        raise ValueError("no frames to choose a region on: give at least one")
    criteria = {"both": (0, 1), "center": (0,), "cut": (1,)}[by]
    ranks = np.stack([np.mean([_ranks(frame[k]) for k in criteria], axis=0) for frame in frames])
    total = ranks.mean(axis=0)
    region = int(total.argmin())
    return RegionChoice(region, float((ranks[:, region] <= ranks.min(axis=1)).mean()), total)


def _ranks(values: Scores) -> Scores:
    """0 for the least; equal values share the mean of their ranks."""
    below = (values[None, :] < values[:, None]).sum(axis=1)
    same = (values[None, :] == values[:, None]).sum(axis=1)
    return np.asarray(below + (same - 1) / 2, np.float64)
