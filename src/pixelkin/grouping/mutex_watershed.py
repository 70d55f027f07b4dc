"""Mutex watershed: instances from the affinities of pixel pairs, without seeds and without a threshold.

Wolf et al., ECCV 2018 and TPAMI 2020 (arXiv 1904.12654); with classes, Wolf et al., ECCV 2020 (arXiv 1912.12717). All
pairs are gone through from the strongest statement to the weakest. "These two are one" joins their segments unless
something stronger has forbidden it; "these two are not one" forbids it for ever, if they are not one yet.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

ONE = 0x3F800000
"""The bits of 1.0 in float32. Those of numbers in 0..1 ascend with them, and fit in three digits of ten bits."""

DIGIT = 1024
EMPTY = -1
"""No entry, in the table of forbidden pairs and in the lists."""


def mutex_watershed(
    affinities: npt.ArrayLike,
    offsets: npt.ArrayLike,
    foreground: npt.ArrayLike | None = None,
    *,
    classes: npt.ArrayLike | None = None,
    attractive: int | None = None,
    stride: int | tuple[int, int] = 1,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64] | None]:
    """Segments of an image whose pixel pairs attract or repel each other.

    A pair of an attractive offset joins with the strength of its affinity, one of a repulsive offset forbids with the
    strength 1 - affinity. Of equal strengths the earlier channel goes first, and within a channel the earlier pixel in
    raster order. A strength of 0 says nothing: pixels whose affinity is 0 are never joined by it.

    With classes, the best class of every pixel is a statement too, as strong as its score: it gives the pixel's segment
    that class, unless it has one. Segments of different classes are never joined.

    Args:
        affinities: (C, H, W) in 0..1, used as float32. Channel c at pixel p: how surely p and p + offsets[c] are one
            object; 1 is sure that they are, 0 that they are not, also in repulsive channels.
        offsets: (C, 2) integers (dy, dx) in pixels, the attractive ones first. Pairs that leave the image are ignored.
        foreground: (H, W) bool; other pixels belong to no segment. Default: every pixel belongs to one.
        classes: (K, H, W) scores in 0..1 of K classes.
        attractive: how many offsets attract. Default: those at the beginning that lead to one of the eight neighbours.
        stride: only pairs that begin on every ``stride``-th row and column repel; an int or (dy, dx). At 2 to 4 it is
            several times as fast and hardly changes large objects.

    Returns:
        (H, W) int32, 0 outside the foreground, else segments 1..N in raster order of their first pixels; and (N,) int64
        channel of the class of each, None without classes.

    Raises:
        ValueError: shapes that do not fit, or values out of range.
    """
    weights, jumps, pulls = check_affinities(affinities, offsets, attractive)
    steps = check_stride(stride)
    size = weights.shape[1:]
    inside = check_foreground(foreground, size)
    best, sure = np.zeros((0, 0), np.int64), np.zeros((0, 0), np.float32)
    if classes is not None:
        scores = check_classes(classes, size)
        best, sure = scores.argmax(axis=0), np.ascontiguousarray(scores.max(axis=0))
    elif attractive is None and pulls == len(jumps):
        raise ValueError("all offsets lead to neighbours, so nothing repels: add long-range ones, or give attractive=")
    if (len(jumps) + 1) * inside.size >= 2**32:
        raise ValueError(f"{len(jumps)} affinities of {size[0]}x{size[1]} pixels are too many: divide the image")
    statements, repelling = _statements(weights, jumps, pulls, steps, inside, sure)
    labels, given = _join(_sorted(statements), repelling, jumps, pulls, inside, best.ravel())
    return labels, None if classes is None else given


def check_affinities(
    affinities: npt.ArrayLike, offsets: npt.ArrayLike, attractive: int | None = None
) -> tuple[Floats, Ints, int]:
    """(C, H, W) float32 affinities, (C, 2) int64 offsets, and how many of them attract.

    Raises:
        ValueError: what is wrong, and the mend.
    """
    weights = np.asarray(affinities)
    if weights.ndim != 3 or not weights.size or weights.dtype.kind not in "fiub":
        raise ValueError(f"affinities are {weights.dtype} of shape {weights.shape}: give numbers of (C, H, W)")
    weights = np.require(weights, np.float32, ["C", "W"])  # the kernels would be compiled anew for read-only arrays
    if not 0 <= float(weights.min()) <= float(weights.max()) <= 1:
        raise ValueError("affinities must be in 0..1: scale or clip them, or apply a sigmoid to logits")
    jumps = np.asarray(offsets)
    if jumps.shape != (len(weights), 2) or jumps.dtype.kind not in "iu":
        raise ValueError(
            f"offsets are {jumps.dtype} of shape {jumps.shape}: give integers (dy, dx) for each of"
            f" {len(weights)} affinities"
        )
    jumps = np.require(jumps, np.int64, ["C", "W"])
    if not jumps.any(axis=1).all():
        raise ValueError("an offset of (0, 0) pairs a pixel with itself: leave it out")
    if attractive is None:
        near = np.abs(jumps).max(axis=1) <= 1
        attractive = len(near) if near.all() else int(near.argmin())
        if not attractive:
            raise ValueError(
                f"the first offset, {tuple(jumps[0].tolist())}, does not lead to a neighbour: put the attractive ones"
                " first, or give attractive="
            )
    if not 0 <= attractive <= len(jumps):
        raise ValueError(f"attractive is {attractive}: give a number from 0 to {len(jumps)}, the number of offsets")
    return weights, jumps, attractive


def check_classes(classes: npt.ArrayLike, size: tuple[int, ...]) -> Floats:
    """(K, H, W) float32 class scores.

    Raises:
        ValueError: another shape, or values out of range.
    """
    scores = np.asarray(classes)
    if scores.ndim != 3 or scores.shape[1:] != size or not len(scores) or scores.dtype.kind not in "fiub":
        raise ValueError(f"classes have shape {scores.shape}: give scores of (K, {size[0]}, {size[1]})")
    scores = np.ascontiguousarray(scores, np.float32)
    if not 0 <= float(scores.min()) <= float(scores.max()) <= 1:
        raise ValueError("scores of classes must be in 0..1: apply a softmax to logits")
    return scores


def check_foreground(foreground: npt.ArrayLike | None, size: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """(H, W) bool foreground, all of it for None.

    Raises:
        ValueError: another shape or kind.
    """
    inside = np.ones(size, np.bool_) if foreground is None else np.asarray(foreground)
    if inside.shape != size or inside.dtype != np.bool_:
        raise ValueError(f"the foreground is {inside.dtype} of shape {inside.shape}: give bool of {tuple(size)}")
    return np.require(inside, None, ["C", "W"])


def check_stride(stride: int | tuple[int, int]) -> tuple[int, int]:
    """(dy, dx).

    Raises:
        ValueError: no whole numbers of at least 1.
    """
    pair = np.asarray(stride)
    if pair.shape not in ((), (2,)) or pair.dtype.kind not in "iu" or pair.min() < 1:
        raise ValueError(f"stride is {stride!r}: give a whole number of at least 1, or two as (dy, dx)")
    dy, dx = np.broadcast_to(pair, 2).tolist()
    return dy, dx


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _statements(
    weights: Floats, jumps: Ints, pulls: int, steps: tuple[int, int], inside: npt.NDArray[np.bool_], sure: Floats
) -> tuple[npt.NDArray[np.uint64], int]:
    """What the pairs say, each as one number: 32 bits that fall with its strength, then channel * pixels + pixel.

    Returns:
        The statements in the order of channels, classes last, and how many of them repel.
    """
    height, width = inside.shape
    most = sure.size
    for c in range(len(jumps)):
        rows, columns = max(0, height - abs(jumps[c, 0])), max(0, width - abs(jumps[c, 1]))
        most += rows * columns if c < pulls else (rows // steps[0] + 1) * (columns // steps[1] + 1)
    out = np.empty(most, np.uint64)
    row = np.empty(width, np.float32)
    bits = row.view(np.int32)
    n, attracting = 0, 0
    for c in range(len(jumps)):
        dy, dx = jumps[c]
        down, along = (1, 1) if c < pulls else steps
        top, left = -(-max(0, -dy) // down) * down, -(-max(0, -dx) // along) * along
        for y in range(top, height - max(0, dy), down):
            for x in range(left, width - max(0, dx), along):
                row[x] = weights[c, y, x] if c < pulls else np.float32(1) - weights[c, y, x]
            first = (c * height + y) * width
            for x in range(left, width - max(0, dx), along):
                if bits[x] > 0 and inside[y, x] and inside[y + dy, x + dx]:
                    out[n] = np.uint64(((ONE - bits[x]) << 32) | (first + x))
                    n += 1
        if c < pulls:
            attracting = n
    repelling = n - attracting
    for y in range(len(sure)):
        row[:] = sure[y]
        first = (len(jumps) * height + y) * width
        for x in range(width):
            if inside[y, x]:
                out[n] = np.uint64(((ONE - bits[x]) << 32) | (first + x))
                n += 1
    return out[:n], repelling


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _sorted(statements: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Sorted by strength, equals as they came: digit by digit, from the least significant one."""
    counts = np.zeros((3, DIGIT), np.int64)
    mask = np.uint64(DIGIT - 1)
    for statement in statements:
        for digit in range(3):
            counts[digit, (statement >> np.uint64(32 + 10 * digit)) & mask] += 1
    source, target = statements, np.empty_like(statements)
    for digit in range(3):
        shift = np.uint64(32 + 10 * digit)
        place = 0
        for value in range(DIGIT):
            place, counts[digit, value] = place + counts[digit, value], place
        for statement in source:
            value = (statement >> shift) & mask
            target[counts[digit, value]] = statement
            counts[digit, value] += 1
        source, target = target, source
    return source


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def root(parents: npt.NDArray[np.int32], pixel: int) -> int:
    """The pixel that stands for a segment; halves the way there."""
    while parents[pixel] != pixel:
        parents[pixel] = parents[parents[pixel]]
        pixel = parents[pixel]
    return pixel


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def pair_slot(table: Ints, a: int, b: int) -> int:
    """Where in the table a pair of roots is, or would be."""
    key = (min(a, b) << 32) | max(a, b)
    mixed = key * 0x9E3779B97F4A7C1  # Fibonacci hashing: the high bits of the product are well mixed
    slot = (mixed ^ (mixed >> 29)) & (len(table) - 1)
    while table[slot] != EMPTY and table[slot] != key:
        slot = (slot + 1) & (len(table) - 1)
    return slot


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _larger(table: Ints, parents: npt.NDArray[np.int32], room: int) -> tuple[Ints, int]:
    """A table with the pairs of what still are roots and room for more, at most half full; and how many there are."""
    alive = 0
    for key in table:
        if key != EMPTY and parents[key >> 32] == key >> 32 and parents[key & 0xFFFFFFFF] == key & 0xFFFFFFFF:
            alive += 1
    length = len(table)
    while length < 4 * (alive + room):
        length *= 2
    out = np.full(length, EMPTY, np.int64)
    for key in table:
        a, b = key >> 32, key & 0xFFFFFFFF
        if key != EMPTY and parents[a] == a and parents[b] == b:
            out[pair_slot(out, a, b)] = key
    return out, alive


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _join(
    order: npt.NDArray[np.uint64],
    repelling: int,
    jumps: Ints,
    pulls: int,
    inside: npt.NDArray[np.bool_],
    best: Ints,
) -> tuple[npt.NDArray[np.int32], Ints]:
    """Go through the sorted statements; the segments and the class of each.

    Forbidden pairs of roots are in a hash table. Each root has a list of whom it must not join, so that when two
    segments become one, the shorter list is entered anew and what concerns the vanished root is left behind.
    """
    height, width = inside.shape
    pixels = height * width
    shifts = jumps[:, 0] * width + jumps[:, 1]
    parents = np.arange(pixels).astype(np.int32)
    given = np.full(pixels if len(best) else 0, EMPTY, np.int64)
    first, length = np.full(pixels, EMPTY, np.int32), np.zeros(pixels, np.int32)
    after, other = np.empty(2 * repelling, np.int32), np.empty(2 * repelling, np.int32)
    table, used, entries = np.full(1024, EMPTY, np.int64), 0, 0
    for statement in order:
        number = np.int64(statement & np.uint64(0xFFFFFFFF))
        channel = number // pixels
        pixel = number - channel * pixels
        a = root(parents, pixel)
        if channel == len(jumps):
            if given[a] == EMPTY:
                given[a] = best[pixel]
            continue
        b = root(parents, pixel + shifts[channel])
        if a == b:
            continue
        if channel >= pulls:
            if 2 * used >= len(table):
                table, used = _larger(table, parents, 1)
            slot = pair_slot(table, a, b)
            if table[slot] == EMPTY:
                table[slot] = (min(a, b) << 32) | max(a, b)
                used += 1
                for one, two in ((a, b), (b, a)):
                    other[entries], after[entries], first[one] = two, first[one], entries
                    length[one] += 1
                    entries += 1
            continue
        if len(given) and given[a] != EMPTY and given[b] != EMPTY and given[a] != given[b]:
            continue
        if length[a] and length[b] and table[pair_slot(table, a, b)] != EMPTY:
            continue
        if length[a] < length[b]:
            a, b = b, a
        parents[b] = a
        if len(given) and given[a] == EMPTY:
            given[a] = given[b]
        if 2 * (used + length[b]) >= len(table):
            table, used = _larger(table, parents, length[b])
        entry = first[b]
        while entry != EMPTY:
            following = after[entry]
            enemy = root(parents, other[entry])
            slot = pair_slot(table, a, enemy)
            if table[slot] == EMPTY:
                table[slot] = (min(a, enemy) << 32) | max(a, enemy)
                used += 1
                after[entry], first[a] = first[a], entry
                length[a] += 1
            entry = following
    labels, numbers = np.zeros((height, width), np.int32), np.zeros(pixels, np.int32)
    found = np.empty(pixels, np.int64) if len(given) else np.empty(0, np.int64)
    count = 0
    for y in range(height):
        for x in range(width):
            if inside[y, x]:
                a = root(parents, y * width + x)
                if numbers[a] == 0:
                    if len(given):
                        found[count] = given[a]
                    count += 1
                    numbers[a] = count
                labels[y, x] = numbers[a]
    return labels, found[:count].copy()
