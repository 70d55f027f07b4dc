from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelkin.data.lattice import half_plane_offsets, lattice_path, pair_slices


@pytest.mark.parametrize("radius", range(1, 12))
def test_half_plane_names_every_pair_once(radius):
    offsets = half_plane_offsets(radius)
    both = set(offsets) | {(-dy, -dx) for dy, dx in offsets}
    disc = {(y, x) for y in range(-12, 13) for x in range(-12, 13) if 0 < y * y + x * x < radius * radius}
    assert both == disc
    assert len(both) == 2 * len(offsets)


@given(st.tuples(st.integers(-9, 9), st.integers(-9, 9)))
def test_path_joins_its_ends_and_is_the_same_backwards(offset):
    path = set(lattice_path(offset))
    assert {(0, 0), offset} <= path
    assert {(offset[0] - y, offset[1] - x) for y, x in path} == path
    reached = {(0, 0)}
    while grown := {p for p in path - reached if any(abs(p[0] - q[0]) < 2 and abs(p[1] - q[1]) < 2 for q in reached)}:
        reached |= grown
    assert reached == path


@given(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), st.integers(0, 6), st.integers(0, 6))
def test_pair_slices_are_all_pairs_in_the_grid(offset, h, w):
    grid = np.arange(h * w).reshape(h, w)
    pairs = [
        (grid[y, x], grid[y + offset[0], x + offset[1]])
        for y in range(h)
        for x in range(w)
        if 0 <= y + offset[0] < h and 0 <= x + offset[1] < w
    ]
    slices = pair_slices(offset, (h, w))
    if slices is None:
        assert not pairs
    else:
        assert list(zip(grid[slices[0]].ravel(), grid[slices[1]].ravel(), strict=True)) == pairs


def test_errors_say_what_is_wrong():
    with pytest.raises(ValueError, match="at least 1"):
        half_plane_offsets(0)
