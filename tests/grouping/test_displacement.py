from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pixelkin.grouping.displacement import follow, group_by_displacement, weak_components


def blobs(h=40, w=60, centres=((20, 15), (20, 45))):
    """A field that leads every pixel to the nearest of the centres, and which centre that is."""
    grid = np.indices((h, w), dtype=np.float32)
    c = np.array(centres, dtype=np.float32)
    nearest = ((grid[None] - c[:, :, None, None]) ** 2).sum(1).argmin(0)
    return c[nearest].transpose(2, 0, 1) - grid, nearest


def slow_follow(field, steps):
    h, w = field.shape[1:]
    out = np.zeros((2, h, w))
    for i in range(h):
        for j in range(w):
            y, x = float(i), float(j)
            for _ in range(steps):
                y0, x0 = math.floor(y), math.floor(x)
                y1, x1, fy, fx = min(y0 + 1, h - 1), min(x0 + 1, w - 1), y - y0, x - x0
                f = field.astype(np.float64)
                d = (f[:, y0, x0] * (1 - fx) + f[:, y0, x1] * fx) * (1 - fy)
                d = d + (f[:, y1, x0] * (1 - fx) + f[:, y1, x1] * fx) * fy
                y, x = min(max(y + d[0], 0), h - 1), min(max(x + d[1], 0), w - 1)
            out[:, i, j] = y, x
    return out


@settings(max_examples=25, deadline=None)
@given(h=st.integers(1, 9), w=st.integers(1, 9), steps=st.integers(0, 6), seed=st.integers(0, 99))
def test_follow_is_the_slow_walk(h, w, steps, seed):
    field = np.random.default_rng(seed).normal(0, 2, (2, h, w)).astype(np.float32)
    got = follow(field, max_steps=steps, tolerance=0)
    np.testing.assert_allclose(got, slow_follow(field, steps), atol=2e-3)


def test_stopping_early_changes_nothing():
    rng = np.random.default_rng(0)
    field = 0.2 * blobs()[0] + ndimage.gaussian_filter(rng.normal(0, 4, (2, 40, 60)), (0, 3, 3)).astype(np.float32)
    early, full = follow(field), follow(field, tolerance=0)
    assert (np.abs(early - full).max(0) < 0.05).mean() > 0.999
    np.testing.assert_array_equal(group_by_displacement(field), group_by_displacement(field, tolerance=0))


def test_two_blobs_are_two_instances():
    field, truth = blobs()
    for scale in (1.0, 0.4):
        groups = group_by_displacement(scale * field)
        assert set(np.unique(groups)) == {1, 2}
        assert ((groups == groups[20, 15]) == (truth == 0)).mean() > 0.99


def test_foreground_limits_the_work_and_the_answer():
    field, _ = blobs()
    foreground = np.zeros((40, 60), bool)
    foreground[5:30, 5:28] = True
    groups = group_by_displacement(field, foreground=foreground)
    np.testing.assert_array_equal(groups > 0, foreground)
    assert set(np.unique(groups)) == {0, 1}
    ends = follow(field, foreground=foreground)
    np.testing.assert_array_equal(ends[:, ~foreground], np.indices((40, 60))[:, ~foreground])


def test_leftover_pixels():
    field, _ = blobs()
    field[:, :, 50:] = np.array([0.0, 5.0])[:, None, None]  # these run into the right edge, where there is no centre
    nearest, own, drop = (group_by_displacement(field, leftover=rule) for rule in ("nearest", "own", "drop"))
    assert nearest[0, 59] == nearest[20, 45]
    assert set(np.unique(own)) == {1, 2, 3}
    assert set(np.unique(drop)) == {0, 1, 2}
    np.testing.assert_array_equal(own == 3, drop == 0)
    lost = np.full((2, 6, 6), 9.0)
    assert (group_by_displacement(lost) == 1).all()
    assert (group_by_displacement(lost, leftover="own") == 1).all()
    assert (group_by_displacement(lost, leftover="drop") == 0).all()


def test_weak_components_are_4_connected():
    field = np.full((2, 5, 5), 9.0)
    field[:, 1, 1] = field[:, 2, 2] = 0
    labels, count = weak_components(field)
    assert count == 2
    assert labels[1, 1] != labels[2, 2]
    field[:, 1, 2] = (1.5, 2.0)  # exactly 2.5 long: not shorter
    assert weak_components(field)[1] == 2
    field[:, 1, 2] = (1.5, 1.9)
    assert weak_components(field)[1] == 1


def test_errors_say_what_is_wrong():
    field, _ = blobs()
    with pytest.raises(ValueError, match=r"\(2, h, w\)"):
        follow(field[0])
    with pytest.raises(ValueError, match="same size"):
        follow(field, foreground=np.ones((3, 3), bool))
    with pytest.raises(ValueError, match="leftover"):
        group_by_displacement(field, leftover="keep")
    assert group_by_displacement(np.zeros((2, 0, 4))).shape == (0, 4)
