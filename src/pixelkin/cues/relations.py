"""Inter-pixel relations: which pairs of nearby pixels are kin, and what that teaches boundary and displacement.

Losses and pairs as in IRNet (Ahn, Cho, Kwak, CVPR 2019, arXiv 1904.05044).

Pairs are laid out flat: for every offset of a :class:`PairGeometry` in turn, all sources whose destination is in the
image, in raster order. Everything here returns or takes the (B, N) pairs of that layout.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import NamedTuple

import torch
from torch import Tensor

from pixelkin.data.lattice import Offset, half_plane_offsets, lattice_path, pair_slices
from pixelkin.data.sample import UNKNOWN

EXCLUDED, NEGATIVE, BACKGROUND, FOREGROUND = 0, 1, 2, 3
"""What a pair teaches: nothing; apart; together in the background; together in one object."""

EPSILON = 1e-5
"""Keeps logarithms and means finite, as published."""

Slices = tuple[tuple[slice, slice], tuple[slice, slice]]


@dataclass(frozen=True)
class PairGeometry:
    """Which pairs of grid pixels are looked at.

    Args:
        radius: pixels closer than this are a pair, in field pixels; 10 gives 152 offsets.
        offsets: (dy, dx) to look at; default all of the half plane within the radius.
        published_window: only sources that have all offsets in the image, as published; default every pair in the
            image, which also works where the image is smaller than the radius.

    Raises:
        ValueError: a radius below 1, or an offset not in the half plane within the radius.
    """

    radius: int = 10
    offsets: tuple[Offset, ...] = ()
    published_window: bool = False

    def __post_init__(self) -> None:
        known = half_plane_offsets(self.radius)
        strange = set(self.offsets) - set(known)
        if strange:
            raise ValueError(
                f"offsets {sorted(strange)} are not among those of radius {self.radius}: see half_plane_offsets"
            )
        if not self.offsets:
            object.__setattr__(self, "offsets", known)

    def sample(self, count: int, generator: torch.Generator | None = None) -> PairGeometry:
        """A geometry of ``count`` of the offsets drawn at random, to spare memory and time in a training step."""
        if count < 1:
            raise ValueError(f"at least one offset must be drawn, got {count}")
        if count >= len(self.offsets):
            return self
        drawn = torch.randperm(len(self.offsets), generator=generator)[:count].sort().values.tolist()
        return PairGeometry(self.radius, tuple(self.offsets[i] for i in drawn), self.published_window)

    def slices(self, offset: Offset, size: tuple[int, int]) -> Slices | None:
        """(rows, columns) of the sources and the destinations of an offset in an (h, w) grid; None where none fits."""
        if not self.published_window:
            return pair_slices(offset, size)
        (dy, dx), (h, w), reach = offset, size, self.radius - 1
        if h <= reach or w <= 2 * reach:
            return None
        source = (slice(0, h - reach), slice(reach, w - reach))
        return source, (slice(dy, h - reach + dy), slice(reach + dx, w - reach + dx))

    def each(self, size: tuple[int, int]) -> Iterator[tuple[Offset, Slices]]:
        """The offsets that fit into an (h, w) grid, with their slices, in the order of the flat layout."""
        for offset in self.offsets:
            slices = self.slices(offset, size)
            if slices is not None:
                yield offset, slices


def path_max(boundary: Tensor, geometry: PairGeometry) -> Tensor:
    """The largest boundary on the path between the two pixels of each pair, both ends included. Differentiable.

    The path of an offset is put together from the paths of shorter offsets, so a radius of 10 takes a few hundred
    maxima of whole maps, not one for each of its 2134 path pixels, and no index tables.

    Args:
        boundary: (B, h, w) or (B, 1, h, w).
        geometry: the pairs.

    Returns:
        (B, N), of the boundary's kind.
    """
    maps = boundary.squeeze(1) if boundary.ndim == 4 else boundary
    size = (int(maps.shape[1]), int(maps.shape[2]))
    plan = _path_plan(geometry.radius)
    known: dict[Offset, Tensor] = {
        (0, 0): maps
    }  # an offset's map begins at its first source: row 0, column max(0, -dx)

    def largest(offset: Offset) -> Tensor:
        if offset not in known:
            dy, dx = offset
            height, width = size[0] - dy, size[1] - abs(dx)
            pieces = []
            for part, (y, x) in plan[offset]:
                left = max(0, -dx) + x - max(0, -part[1])
                pieces.append(largest(part)[:, y : y + height, left : left + width])
            known[offset] = reduce(torch.maximum, pieces)
        return known[offset]

    pairs = []
    for offset, ((rows, columns), _) in geometry.each(size):
        left = columns.start - max(0, -offset[1])
        pairs.append(largest(offset)[:, rows, left : left + columns.stop - columns.start].flatten(1))
    return torch.cat(pairs, dim=1) if pairs else maps.new_zeros(len(maps), 0)


def pair_labels(
    labels: Tensor, geometry: PairGeometry, *, components: Tensor | None = None, unknown: int = UNKNOWN
) -> Tensor:
    """What each pair teaches, from class ids on the grid of the fields.

    Pairs of different classes are NEGATIVE, pairs of the background BACKGROUND, pairs of one other class FOREGROUND,
    and pairs with an unknown pixel EXCLUDED. With ``components``, one class is not enough: pairs of one class in
    different components are NEGATIVE (the way from one to the other crosses a boundary), and pairs within a component
    of negative id EXCLUDED (it may hold several objects; against other components and other classes it still teaches
    NEGATIVE).

    Args:
        labels: (B, h, w) integer class ids, 0 background.
        geometry: the pairs.
        components: (B, h, w) integer ids of the object each pixel belongs to; looked at in the foreground only.
        unknown: the class id that teaches nothing.

    Returns:
        (B, N) uint8 of EXCLUDED, NEGATIVE, BACKGROUND, FOREGROUND.

    Raises:
        ValueError: components of another shape.
    """
    if components is not None and components.shape != labels.shape:
        raise ValueError(
            f"components are {tuple(components.shape)}, labels {tuple(labels.shape)}: give both the same shape"
        )
    codes = []
    for _, (source, destination) in geometry.each((int(labels.shape[1]), int(labels.shape[2]))):
        a, b = labels[:, source[0], source[1]], labels[:, destination[0], destination[1]]
        together = a == b
        code = together * torch.where(a == 0, BACKGROUND, FOREGROUND) + ~together * NEGATIVE
        if components is not None:
            c, d = components[:, source[0], source[1]], components[:, destination[0], destination[1]]
            code = torch.where((code == FOREGROUND) & (c != d), NEGATIVE, code)
            code = torch.where((code == FOREGROUND) & (c < 0), EXCLUDED, code)
        code = torch.where((a == unknown) | (b == unknown), EXCLUDED, code)
        codes.append(code.to(torch.uint8).flatten(1))
    return torch.cat(codes, dim=1) if codes else labels.new_zeros((len(labels), 0), dtype=torch.uint8)


class AffinityLoss(NamedTuple):
    """Parts of the boundary loss, each a mean over the whole batch; ``total`` is their half sum."""

    positive: Tensor
    negative: Tensor
    total: Tensor


class DisplacementLoss(NamedTuple):
    """Parts of the displacement loss, each a mean over the whole batch and both axes; ``total`` is their half sum."""

    foreground: Tensor
    background: Tensor
    total: Tensor


def affinity_loss(boundary: Tensor, codes: Tensor, geometry: PairGeometry) -> AffinityLoss:
    """Cross entropy of the affinities, 1 - the largest boundary on the path of a pair.

    The positive part is the half sum of the means over background and foreground pairs.

    Args:
        boundary: (B, 1, h, w) or (B, h, w) probabilities in 0..1.
        codes: (B, N) from :func:`pair_labels` with the same geometry.
        geometry: the pairs.
    """
    affinity = 1 - path_max(boundary.float(), geometry)
    likelihood = torch.where(codes == NEGATIVE, 1 - affinity, affinity)
    loss = -torch.log(likelihood + EPSILON)
    positive = (_mean(loss, codes == BACKGROUND) + _mean(loss, codes == FOREGROUND)) / 2
    negative = _mean(loss, codes == NEGATIVE)
    return AffinityLoss(positive, negative, (positive + negative) / 2)


def displacement_loss(field: Tensor, codes: Tensor, geometry: PairGeometry) -> DisplacementLoss:
    """L1 loss on differences of displacements: pixels of one object point to one place, the background is flat.

    Args:
        field: (B, 2, h, w) displacement (dy, dx) in field pixels.
        codes: (B, N) from :func:`pair_labels` with the same geometry.
        geometry: the pairs.
    """
    field = field.float()
    size = (int(field.shape[2]), int(field.shape[3]))
    foreground = (codes == FOREGROUND)[:, None]
    differences, offsets, counts = [], [], []
    for offset, (source, destination) in geometry.each(size):
        difference = field[:, :, source[0], source[1]] - field[:, :, destination[0], destination[1]]
        differences.append(difference.flatten(2))
        offsets.append(offset)
        counts.append(differences[-1].shape[2])
    if not differences:
        zero = field.sum() * 0
        return DisplacementLoss(zero, zero, zero)
    steps = torch.tensor(offsets, dtype=field.dtype, device=field.device).T
    wanted = steps.repeat_interleave(torch.tensor(counts, device=field.device), dim=1)  # (2, N): destination - source
    error = (torch.cat(differences, dim=2) - wanted * foreground).abs().mean(1)
    inside, outside = _mean(error, foreground[:, 0]), _mean(error, codes == BACKGROUND)
    return DisplacementLoss(inside, outside, (inside + outside) / 2)


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    return (values * chosen).sum() / (chosen.sum() + EPSILON)


@lru_cache(maxsize=8)
def _path_plan(radius: int) -> dict[Offset, tuple[tuple[Offset, Offset], ...]]:
    """For every offset of a radius, shorter offsets and where they start, whose paths together are its path exactly."""
    plan: dict[Offset, tuple[tuple[Offset, Offset], ...]] = {}
    paths: dict[Offset, frozenset[Offset]] = {(0, 0): frozenset({(0, 0)})}
    for offset in sorted(half_plane_offsets(radius), key=lambda o: len(lattice_path(o))):
        whole = frozenset(lattice_path(offset))
        fitting: dict[frozenset[Offset], tuple[Offset, Offset]] = {}
        for start in whole:
            for end in whole:
                part = (end[0] - start[0], end[1] - start[1])
                if part in paths:
                    covered = frozenset((start[0] + y, start[1] + x) for y, x in paths[part])
                    if covered <= whole:
                        fitting[covered] = (part, start)
        missing, chosen = set(whole), []
        while missing:  # greedy set cover, ties broken by position so that every run builds the same plan
            best = max(fitting, key=lambda cover: (len(cover & missing), fitting[cover]))
            missing -= best
            chosen.append(fitting[best])
        plan[offset] = tuple(chosen)
        paths[offset] = whole
    return plan
