"""Cuts that must be earned: a mask into pieces along its boundary field, joined again where the evidence is weak.

The mask is first cut too often, along the ridges of the boundary. Then the two neighbours with the least evidence of
being two objects are joined, again and again, to the whole mask. The joins form a tree; each of its nodes is an
instance the mask may hold, and the evidence at which it comes and goes says how sure that is.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from pixelkin.grouping.components import distance_markers, flood

Map = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.int32]

CRUMB = 4
"""Pieces of fewer field pixels join a neighbour whatever the evidence."""


class Node(NamedTuple):
    """One candidate instance.

    Attributes:
        pieces: the numbers of the pieces it is made of.
        inner: the strongest evidence of a cut within it; 0 for a single piece.
        outer: the evidence of a cut between it and what it is joined with next; 1 for the whole mask.
    """

    pieces: frozenset[int]
    inner: float
    outer: float

    def stands(self, threshold: float) -> bool:
        """Whether it is a part of the division at this threshold: all cuts around it are earned, none within it."""
        return self.inner < threshold <= self.outer

    def confidence(self, threshold: float) -> float:
        """In 0..1: how far the evidence within is below, and around it above the threshold."""
        within, around = threshold / (threshold + self.inner), self.outer / (self.outer + threshold)
        return within * (1.0 if self.outer >= 1 else around)


class Division(NamedTuple):
    """A mask as ``pieces`` (h, w) int32, 0 outside, and the ``nodes`` of the tree over them, finest first."""

    pieces: Labels
    nodes: list[Node]


def divide(mask: npt.NDArray[np.bool_], displacement: Map, boundary: Map, *, apart: int = 2) -> Division:
    """Cut a mask into pieces and grow the tree of their joins.

    The evidence that two neighbours are two objects is how far apart the points lie that they point to, as a share of
    how far apart they lie themselves: pieces of one object point to one middle, pieces of two to two.

    Args:
        mask: (h, w) bool.
        displacement: (2, h, w), (dy, dx) in field pixels to the middle of the pixel's object.
        boundary: (h, w) in 0..1.
        apart: pieces have their middles over so many field pixels apart on an axis.
    """
    pieces = oversegment(mask, boundary, apart=apart)
    return Division(pieces, _join(pieces, displacement))


def oversegment(mask: npt.NDArray[np.bool_], boundary: Map, *, apart: int = 2, free: float = 0.25) -> Labels:
    """Pieces of a mask that meet on the ridges of the boundary: one around each point that is far from all of it.

    Args:
        mask: (h, w) bool.
        boundary: (h, w) in 0..1.
        apart: see :func:`divide`.
        free: below this the boundary counts as open space.

    Returns:
        (h, w) int32, 0 outside the mask, pieces from 1.
    """
    smooth = cv2.GaussianBlur(boundary.astype(np.float32), (0, 0), 0.7)
    space = np.pad(mask & (smooth < free), 1).astype(np.uint8)
    far = np.asarray(cv2.distanceTransform(space, cv2.DIST_L2, 3), np.float32)[1:-1, 1:-1]
    distance = np.asarray(cv2.GaussianBlur(far, (0, 0), 1.0), np.float32) * mask
    markers = distance_markers(distance, mask, apart)
    # Between two objects the ridge decides; where there is none, the narrow place.
    height = 0.15 * distance / max(float(distance.max()), 1e-6) - smooth
    return flood(height, markers, mask)


@dataclass
class _Moments:
    """Sums over each piece: pixels, their places, and the places they point to."""

    count: npt.NDArray[np.float64]
    place: npt.NDArray[np.float64]
    goal: npt.NDArray[np.float64]

    def join(self, a: int, b: int) -> None:
        for values in (self.count, self.place, self.goal):
            values[a] += values[b]

    def evidence(self, a: int, b: int) -> float:
        if min(self.count[a], self.count[b]) < CRUMB:
            return 0.0
        places = np.hypot(*(self.place[a] / self.count[a] - self.place[b] / self.count[b]))
        goals = np.hypot(*(self.goal[a] / self.count[a] - self.goal[b] / self.count[b]))
        return float(min(goals / max(places, 1e-6), 1.0))


def _join(pieces: Labels, displacement: Map) -> list[Node]:
    count = int(pieces.max())
    moments = _measure(pieces, displacement, count)
    neighbours: dict[int, set[int]] = {i: set() for i in range(1, count + 1)}
    evidence: dict[tuple[int, int], float] = {}
    queue: list[tuple[float, int, int]] = []

    def weigh(a: int, b: int) -> None:
        pair = min(a, b), max(a, b)
        evidence[pair] = moments.evidence(a, b)
        heapq.heappush(queue, (evidence[pair], *pair))

    for a, b in _contacts(pieces):
        neighbours[a].add(b)
        neighbours[b].add(a)
        weigh(a, b)
    members = {i: frozenset([i]) for i in neighbours}
    inner = dict.fromkeys(neighbours, 0.0)
    nodes: list[Node] = []
    level = 0.0
    while queue:
        weight, a, b = heapq.heappop(queue)
        if evidence.get((a, b)) != weight:
            continue  # one of the two has been joined with something since
        # A later join may look weaker than an earlier one; what is inside stays the strongest seen.
        level = max(level, weight)
        nodes += [Node(members[i], inner[i], level) for i in (a, b)]
        moments.join(a, b)
        members[a] |= members.pop(b)
        inner[a] = level
        for c in neighbours.pop(b):
            del evidence[min(b, c), max(b, c)]
            neighbours[c].discard(b)
            if c != a:
                neighbours[a].add(c)
                neighbours[c].add(a)
        for c in neighbours[a]:
            weigh(a, c)
    return nodes + [Node(members[i], inner[i], 1.0) for i in sorted(neighbours)]


def _measure(pieces: Labels, displacement: Map, count: int) -> _Moments:
    flat = pieces.ravel()
    places = np.indices(pieces.shape)

    def sums(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        return np.stack([np.bincount(flat, axis.ravel(), minlength=count + 1) for axis in values], axis=1)

    size = np.bincount(flat, minlength=count + 1).astype(np.float64)
    return _Moments(size, sums(places), sums(places + displacement))


def _contacts(pieces: Labels) -> set[tuple[int, int]]:
    """Pairs (a < b) of pieces with 8-neighbouring pixels."""
    height, width = pieces.shape
    pairs: set[tuple[int, int]] = set()
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        a = pieces[: height - dy, max(-dx, 0) : width - max(dx, 0)]
        b = pieces[dy:, max(dx, 0) : width + min(dx, 0)]
        meet = (a != b) & (a > 0) & (b > 0)
        codes = np.unique(np.minimum(a, b)[meet].astype(np.int64) << 32 | np.maximum(a, b)[meet])
        pairs.update((int(code >> 32), int(code & 0xFFFFFFFF)) for code in codes)
    return pairs
