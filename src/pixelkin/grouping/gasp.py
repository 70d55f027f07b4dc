"""Average linkage of a signed graph: segments that are one on the whole, whatever a single pair says.

GASP (Bailoni et al., CVPR 2022, arXiv 1906.11713) with average linkage. The mutex watershed believes the strongest
statement; this the mean of all pairs between two segments. Pixels are joined to small superpixels first, so that the
graph is small: what the mutex watershed finds in each tile of a few pixels. Far pairs have a say in them already, so
they cross borders less often than pieces grown from neighbours alone, and a wrong join goes no further than its tile.
"""

from __future__ import annotations

import heapq

import numba
import numpy as np
import numpy.typing as npt

from pixelkin.grouping.mutex_watershed import (
    EMPTY,
    Floats,
    Ints,
    check_affinities,
    check_foreground,
    check_stride,
    mutex_watershed,
    pair_slot,
    root,
)

UNIT = 1 << 24
"""Weights are counted in whole parts of this: sums are exact, so no order of summation matters."""

ONE, OTHER, SUM, COUNT, TOUCH = range(5)
"""Columns of a table of edges: the two ends, the sum and the number of the pairs between them, whether they touch."""


def gasp(
    affinities: npt.ArrayLike,
    offsets: npt.ArrayLike,
    foreground: npt.ArrayLike | None = None,
    *,
    attractive: int | None = None,
    stride: int | tuple[int, int] = 1,
    threshold: float = 0.5,
    touching: bool = True,
    tile: int = 4,
) -> npt.NDArray[np.int32]:
    """Segments of an image whose pixel pairs are one object or not, by the average linkage of GASP.

    The two segments whose pairs have the largest mean affinity become one, for as long as that is above ``threshold``:
    the signed weight of a pair is its affinity minus the threshold. Of equal means the pair of segments goes first of
    which a pair of pixels came first, by channel, then in raster order.

    Args:
        affinities: (C, H, W) in 0..1, used as float32. Channel c at pixel p: how surely p and p + offsets[c] are one
            object; 1 is sure that they are, 0 that they are not, also for far pixels.
        offsets: (C, 2) integers (dy, dx) in pixels, those of neighbours first. Pairs that leave the image are ignored.
        foreground: (H, W) bool; other pixels belong to no segment. Default: every pixel belongs to one.
        attractive: how many offsets lead to where a segment touches another. Default: those at the beginning that lead
            to one of the eight neighbours.
        stride: of the other offsets only pairs that begin on every ``stride``-th row and column are heard, each for all
            that it stands for; an int or (dy, dx).
        threshold: from 0 to 1. Lower joins more.
        touching: whether only segments may join that touch: that a pair of an attractive offset leads from one into the
            other. What far pairs say between others waits until they do. Else an object may be in several pieces.
        tile: superpixels lie in tiles of this side, in pixels; 1 is the exact linkage of pixels, and ten times as slow.

    Returns:
        (H, W) int32, 0 outside the foreground, else segments 1..N in raster order of their first pixels.

    Raises:
        ValueError: shapes that do not fit, or values out of range.
    """
    weights, jumps, pulls = check_affinities(affinities, offsets, attractive)
    steps = check_stride(stride)
    size = weights.shape[1:]
    inside = check_foreground(foreground, size)
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold}: give an affinity from 0 to 1")
    if tile < 1:
        raise ValueError(f"tile is {tile}: give a side of at least 1 pixel")
    if len(jumps) * inside.size >= 2**32:
        raise ValueError(f"{len(jumps)} affinities of {size[0]}x{size[1]} pixels are too many: divide the image")
    found = inside.astype(np.int32)
    if tile > 1:
        sure = weights.copy()
        sure[:pulls][weights[:pulls] <= threshold] = 0
        found, _ = mutex_watershed(sure, jumps, inside, attractive=pulls, stride=stride)
    pieces, number = _cut(found, jumps[:pulls], tile)
    edges = _between(weights, jumps, pulls, steps, pieces, threshold)
    if not touching:
        edges[:, TOUCH] = 1
    return np.append(0, _clusters(_contract(edges, number)) + 1).astype(np.int32)[pieces]


def agglomerate(
    pairs: npt.ArrayLike,
    weights: npt.ArrayLike,
    touching: npt.ArrayLike | None = None,
    *,
    number: int,
) -> npt.NDArray[np.int64]:
    """Clusters of any signed graph by average linkage: the two with the largest mean weight join while it is above 0.

    Of equal means the pair of clusters goes first of which an edge came first.

    Args:
        pairs: (E, 2) integers, the nodes that each edge joins; several edges may join the same two.
        weights: (E,) in -1..1: positive attracts, negative repels. Rounded to 24 bits after the point.
        touching: (E,) bool. Clusters join only if such an edge is between them. Default: all are.
        number: of nodes.

    Returns:
        (number,) clusters 0..K-1 in the order of their first nodes.

    Raises:
        ValueError: shapes that do not fit, or values out of range.
    """
    ends, values = np.asarray(pairs), np.asarray(weights, np.float64)
    if ends.ndim != 2 or ends.shape[1] != 2 or ends.dtype.kind not in "iu":
        raise ValueError(f"pairs are {ends.dtype} of shape {ends.shape}: give integers of (E, 2)")
    touch = np.ones(len(ends), np.bool_) if touching is None else np.asarray(touching)
    if values.shape != (len(ends),) or touch.shape != (len(ends),) or touch.dtype != np.bool_:
        raise ValueError(f"give a weight, and a bool whether it touches, for each of {len(ends)} pairs")
    if len(ends) and not (0 <= ends.min() <= ends.max() < number):
        raise ValueError(f"pairs name nodes {ends.min()} to {ends.max()}: give numbers from 0 to {number - 1}")
    if not (np.abs(values) <= 1).all():
        raise ValueError("weights must be in -1..1: scale them")
    if (ends[:, 0] == ends[:, 1]).any():
        raise ValueError("an edge joins a node with itself: leave it out")
    parts = np.rint(values * UNIT).astype(np.int64)
    return _clusters(_contract(_gathered(ends.astype(np.int64), parts, touch, number), number))


def _gathered(ends: Ints, parts: Ints, touch: npt.NDArray[np.bool_], number: int) -> Ints:
    """(E, 5) edges of single pairs, in the order in which their first pairs come."""
    keys = ends.min(axis=1) * number + ends.max(axis=1)
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    owners = np.argsort(order)[inverse.ravel()]
    edges = np.zeros((len(first), 5), np.int64)
    edges[:, :SUM] = ends[first[order]]
    np.add.at(edges[:, SUM], owners, parts)
    np.add.at(edges[:, COUNT], owners, 1)
    np.maximum.at(edges[:, TOUCH], owners, touch)
    return edges


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _cut(labels: npt.NDArray[np.int32], jumps: Ints, tile: int) -> tuple[npt.NDArray[np.int32], int]:
    """(H, W) the connected pieces that the segments have in each tile, 1..N in raster order; and N."""
    height, width = labels.shape
    parents = np.arange(height * width).astype(np.int32)
    for c in range(len(jumps) if tile > 1 else 0):
        dy, dx = jumps[c]
        for y in range(max(0, -dy), height - max(0, dy)):
            for x in range(max(0, -dx), width - max(0, dx)):
                v, u = y + dy, x + dx
                if labels[y, x] and labels[y, x] == labels[v, u] and y // tile == v // tile and x // tile == u // tile:
                    parents[root(parents, y * width + x)] = root(parents, v * width + u)
    pieces, numbers = np.zeros((height, width), np.int32), np.zeros(height * width, np.int32)
    count = 0
    for y in range(height):
        for x in range(width):
            if labels[y, x]:
                a = root(parents, y * width + x)
                if numbers[a] == 0:
                    count += 1
                    numbers[a] = count
                pieces[y, x] = numbers[a]
    return pieces, count


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _clusters(parents: npt.NDArray[np.int32]) -> Ints:
    """The clusters of the nodes: 0..K-1 in the order of their first nodes."""
    out, numbers = np.empty(len(parents), np.int64), np.full(len(parents), EMPTY, np.int64)
    count = 0
    for node in range(len(parents)):
        a = root(parents, node)
        if numbers[a] == EMPTY:
            numbers[a] = count
            count += 1
        out[node] = numbers[a]
    return out


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _table(edges: Ints, gone: npt.NDArray[np.bool_], n: int) -> tuple[Ints, Ints]:
    """Where the first ``n`` edges are by their ends: keys and numbers. A quarter full when the table is."""
    length = 1024
    while length < 4 * len(edges):
        length *= 2
    keys, values = np.full(length, EMPTY, np.int64), np.empty(length, np.int64)
    for e in range(n):
        if not gone[e]:
            a, b = edges[e, ONE], edges[e, OTHER]
            slot = pair_slot(keys, a, b)
            keys[slot], values[slot] = (min(a, b) << 32) | max(a, b), e
    return keys, values


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _between(
    weights: Floats, jumps: Ints, pulls: int, steps: tuple[int, int], pieces: npt.NDArray[np.int32], threshold: float
) -> Ints:
    """(E, 5) the edges between the pieces, in the order in which their first pairs come."""
    height, width = pieces.shape
    edges, n = np.empty((1024, 5), np.int64), 0
    keys, values = _table(edges, np.zeros(0, np.bool_), 0)
    for c in range(len(jumps)):
        dy, dx = jumps[c]
        down, along = (1, 1) if c < pulls else steps
        for y in range(-(-max(0, -dy) // down) * down, height - max(0, dy), down):
            for x in range(-(-max(0, -dx) // along) * along, width - max(0, dx), along):
                a, b = np.int64(pieces[y, x]) - 1, np.int64(pieces[y + dy, x + dx]) - 1
                if a == b or a < 0 or b < 0:
                    continue
                slot = pair_slot(keys, a, b)
                if keys[slot] == EMPTY:
                    if n == len(edges):
                        more = np.empty((2 * n, 5), np.int64)
                        more[:n] = edges
                        edges = more
                        keys, values = _table(edges, np.zeros(n, np.bool_), n)
                        slot = pair_slot(keys, a, b)
                    keys[slot], values[slot] = (min(a, b) << 32) | max(a, b), n
                    edges[n, ONE], edges[n, OTHER] = a, b
                    edges[n, SUM:] = 0
                    n += 1
                e = values[slot]
                part = np.int64(np.rint((np.float64(weights[c, y, x]) - threshold) * UNIT))
                edges[e, SUM] += part * down * along
                edges[e, COUNT] += down * along
                if c < pulls:
                    edges[e, TOUCH] = 1
    found: Ints = edges[:n].copy()
    return found


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _contract(edges: Ints, number: int) -> npt.NDArray[np.int32]:
    """The parents of the nodes after joining whatever has a positive mean, the largest first. Changes the edges.

    An edge keeps its place when the cluster at one of its ends vanishes; of two between the same clusters the earlier
    goes on for both. What the heap says of an edge that is gone, or whose mean has changed since, is passed over.
    """
    parents = np.arange(number).astype(np.int32)
    gone = np.zeros(len(edges), np.bool_)
    first, length = np.full(number, EMPTY, np.int64), np.zeros(number, np.int64)
    after = np.empty(2 * len(edges), np.int64)  # entry 2 e + i is end i of edge e, in the list of the cluster there
    heap = [(0.0, 0) for _ in range(0)]
    for e in range(len(edges)):
        for i in range(2):
            a = edges[e, i]
            after[2 * e + i], first[a] = first[a], 2 * e + i
            length[a] += 1
        if edges[e, TOUCH] and edges[e, SUM] > 0:
            heap.append((-edges[e, SUM] / edges[e, COUNT], e))
    heapq.heapify(heap)
    keys, values = _table(edges, gone, len(edges))
    used = len(edges)
    while heap:
        mean, e = heapq.heappop(heap)
        if gone[e] or mean != -edges[e, SUM] / edges[e, COUNT]:
            continue
        a, b = edges[e, ONE], edges[e, OTHER]
        if length[a] < length[b]:
            a, b = b, a
        parents[b] = a
        gone[e] = True
        if 2 * (used + length[b]) >= len(keys):
            keys, values = _table(edges, gone, len(edges))
            used = len(edges) - np.count_nonzero(gone)
        entry = first[b]
        while entry != EMPTY:
            following, f, end = after[entry], entry >> 1, entry & 1
            if not gone[f]:
                edges[f, end] = a
                slot = pair_slot(keys, a, edges[f, 1 - end])
                kept = f
                if keys[slot] == EMPTY:
                    keys[slot] = (min(a, edges[f, 1 - end]) << 32) | max(a, edges[f, 1 - end])
                    used += 1
                else:
                    twin = values[slot]
                    kept, lost = min(f, twin), max(f, twin)
                    edges[kept, SUM] += edges[lost, SUM]
                    edges[kept, COUNT] += edges[lost, COUNT]
                    edges[kept, TOUCH] |= edges[lost, TOUCH]
                    gone[lost] = True
                    if edges[kept, TOUCH] and edges[kept, SUM] > 0:
                        heapq.heappush(heap, (-edges[kept, SUM] / edges[kept, COUNT], kept))
                values[slot] = kept
                if kept == f:
                    after[entry], first[a] = first[a], entry
                    length[a] += 1
            entry = following
    return parents
