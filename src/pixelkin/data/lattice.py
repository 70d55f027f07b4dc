"""Pairs of pixels on a grid: half-plane offsets, and the lattice path from one pixel to the other.

Both as in IRNet (Ahn, Cho, Kwak, CVPR 2019, arXiv 1904.05044).
"""

from __future__ import annotations

from functools import lru_cache

Offset = tuple[int, int]
"""(dy, dx) in field pixels."""


@lru_cache(maxsize=32)
def half_plane_offsets(radius: int) -> tuple[Offset, ...]:
    """The (dy, dx) offsets shorter than ``radius`` (open disc) that name every unordered pair of pixels once.

    Args:
        radius: in pixels; 10 gives 152 offsets, 5 gives 34, 1 none.

    Raises:
        ValueError: a radius below 1.
    """
    if radius < 1:
        raise ValueError(f"the radius of pixel pairs must be at least 1, got {radius}")
    row = [(0, dx) for dx in range(1, radius)]
    below = [
        (dy, dx) for dy in range(1, radius) for dx in range(1 - radius, radius) if dy * dy + dx * dx < radius * radius
    ]
    return tuple(row + below)


@lru_cache(maxsize=4096)
def lattice_path(offset: Offset) -> tuple[Offset, ...]:
    """The pixels on the way from (0, 0) to ``offset``, both included.

    They are the lattice points in the rectangle spanned by the two ends that lie closer than one pixel to the line
    through them.
    """
    dy, dx = offset
    length = dy * dy + dx * dx
    return tuple(
        (y, x)
        for y in range(min(0, dy), max(0, dy) + 1)
        for x in range(min(0, dx), max(0, dx) + 1)
        if (dy * x - dx * y) ** 2 < length or length == 0
    )


def pair_slices(offset: Offset, size: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
    """Where in an (h, w) grid the pairs of an ``offset`` start and where they end, or None when none fits.

    Returns:
        (rows, columns) of the sources and (rows, columns) of the destinations, slices of equal shape.
    """
    (dy, dx), (h, w) = offset, size
    if abs(dy) >= h or abs(dx) >= w:
        return None
    source = (slice(max(0, -dy), h - max(0, dy)), slice(max(0, -dx), w - max(0, dx)))
    destination = (slice(max(0, dy), h - max(0, -dy)), slice(max(0, dx), w - max(0, -dx)))
    return source, destination
