from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelkin.cues.geometry import (
    BACKGROUND,
    FOREGROUND,
    STEPS,
    UNKNOWN,
    codes_on_cells,
    find_ground,
    inverse_of,
    jumps,
    line,
    object_mask,
    on_cells,
    path_maximum,
)
from pixelkin.data.synthetic import render_clip

SIZE = (60, 80)


def street(*, height=1.5, focal=70.0, horizon=25.0, wall=12.0, lean=0.0):
    """A road, sky above it, and a box of 8 x 20 pixels that stands on the road ``wall`` metres ahead."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float64)
    below = y - horizon + lean * (x - 40)
    depth = np.where(below > 0, focal * height / np.maximum(below, 1e-6), np.inf)
    foot = round(horizon + focal * height / wall)
    depth[foot - 12 : foot + 1, 30:50] = wall
    return depth.astype(np.float32), (slice(foot - 12, foot + 1), slice(30, 50))


@pytest.mark.parametrize("lean", [0.0, 0.2, -0.2])
def test_ground_is_found_exactly(lean):
    depth, _ = street(lean=lean)
    ground = find_ground(depth)
    assert ground is not None
    assert (ground.a, ground.b, ground.c) == pytest.approx(
        (lean / 105, 1 / 105, -(25 + 40 * lean) / 105), rel=2e-3, abs=1e-5
    )
    height = ground.height(inverse_of(depth))
    road = np.isfinite(depth) & (depth != 12)
    assert np.abs(height[road]).max() < 5e-3


def test_ground_survives_noise_and_clutter():
    rng = np.random.default_rng(0)
    depth, _ = street()
    noisy = depth * rng.lognormal(0, 0.03, SIZE)
    noisy[30:, :30] = rng.uniform(3, 30, (30, 30))
    ground = find_ground(noisy)
    assert ground is not None
    assert ground.b == pytest.approx(1 / 105, rel=0.03)


def test_walls_are_no_ground():
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    assert find_ground(np.full(SIZE, 5.0)) is None
    assert find_ground(1 / (0.1 + 0.01 * x)) is None  # a wall to the side
    assert find_ground(1 / (0.9 - 0.01 * y)) is None  # a ceiling
    assert find_ground(np.zeros(SIZE)) is None


def test_what_is_neither_ground_nor_sky_is_an_object():
    depth, box = street()
    depth[5:10, 60:70] = 0  # nobody measured there
    codes = object_mask(depth, find_ground(depth))
    inside = codes[box]
    assert (inside[:-2] == FOREGROUND).all()
    assert (inside[-1] != FOREGROUND).all()  # where it touches the ground
    assert (codes[:5] == BACKGROUND).all()
    assert (codes[-10:] == BACKGROUND).all()
    assert (codes[5:10, 60:70] == UNKNOWN).all()
    outside = codes.copy()
    outside[box] = BACKGROUND
    assert not (outside == FOREGROUND).any()


def test_driving_clips_ground_and_objects():
    for seed in range(3):
        clip = render_clip(seed, 1, preset="driving", noise=0.0)
        codes = object_mask(clip.depth[0], find_ground(clip.depth[0]))
        things = clip.semantic[0] > 0
        assert (codes[things] == FOREGROUND).mean() > 0.85
        assert (codes[things] == BACKGROUND).mean() < 0.08
        assert (codes[~things] == FOREGROUND).mean() < 0.01


def test_cells_take_the_median_of_what_is_known():
    values = np.array([[1, 2, 9, np.nan], [3, np.nan, np.nan, np.nan], [5, 5, 7, 8], [5, 50, 9, 8]], np.float32)
    np.testing.assert_allclose(on_cells(values, 2), [[2, np.nan], [5, 8]])
    assert on_cells(np.ones((5, 7)), 4).shape == (2, 2)
    assert (on_cells(np.ones((5, 7)), 4) == 1).all()
    codes = np.full((4, 8), FOREGROUND, np.uint8)
    codes[:, 4:] = BACKGROUND
    codes[:2, 4:] = UNKNOWN
    assert codes_on_cells(codes, 4).tolist() == [[FOREGROUND, UNKNOWN]]


def test_a_plane_however_steep_breaks_nowhere_and_a_gap_is_its_size():
    y, x = np.mgrid[:20, :24]
    plane = (0.05 + 0.01 * x + 0.004 * y).astype(np.float32)
    for step, gap in jumps(plane).items():
        inner = gap[2:-2, 2:-2]
        assert np.abs(inner).max() < 1e-5, step
    stairs = np.where(x < 12, 0.10, 0.08).astype(np.float32)
    gap = jumps(stairs)[0, 1]
    assert gap[:, 11] == pytest.approx(0.02 / 0.09, rel=1e-4)
    assert np.nanmax(np.delete(gap, 11, axis=1)) == 0
    assert np.isnan(gap[:, -1]).all()


def slow_path(steps, offset, y, x):
    """Cell by cell."""
    shape = steps[0, 1].shape
    best, known = 0.0, True
    way = [(y + dy, x + dx) for dy, dx in line(offset)]
    if not (0 <= way[-1][0] < shape[0] and 0 <= way[-1][1] < shape[1]):
        return 0.0, False
    for (y0, x0), (y1, x1) in pairwise(way):
        step = (y1 - y0, x1 - x0)
        value = steps[step][y0, x0] if step in steps else steps[-step[0], -step[1]][y1, x1]
        if np.isnan(value):
            known = False
        else:
            best = max(best, float(value))
    return best, known


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), dy=st.integers(-7, 7), dx=st.integers(-9, 9))
def test_path_maxima_are_those_of_the_slow_way(seed, dy, dx):
    if (dy, dx) == (0, 0):
        return
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 9)), int(rng.integers(1, 11)))
    steps = {step: rng.random(shape).astype(np.float32) for step in STEPS}
    for step in STEPS:
        steps[step][rng.random(shape) < 0.1] = np.nan
    path = path_maximum(steps, (dy, dx))
    for y in range(shape[0]):
        for x in range(shape[1]):
            assert (path.largest[y, x], path.known[y, x]) == slow_path(steps, (dy, dx), y, x)


@given(dy=st.integers(-30, 30), dx=st.integers(-30, 30))
def test_lines_are_connected_and_the_way_back_is_mirrored(dy, dx):
    way = line((dy, dx))
    assert way[0] == (0, 0)
    assert way[-1] == (dy, dx)
    assert all(max(abs(b[0] - a[0]), abs(b[1] - a[1])) == 1 for a, b in pairwise(way))
    assert [(-y, -x) for y, x in way] == line((-dy, -dx))


def test_offset_zero_and_maps_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="leads nowhere"):
        path_maximum(jumps(np.ones((3, 3))), (0, 0))
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        inverse_of(np.ones((2, 3, 4)))
