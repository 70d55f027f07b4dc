"""How far peaks stand out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pixelkin.grouping.centers import CenterRules, find_centers
from pixelkin.grouping.prominence import saddles


def by_flooding(heat, mask, tops):
    """The same, level by level: the highest level at which a peak is connected with a higher one."""
    found = np.full(len(tops), -np.inf)
    heights = heat[tuple(tops.T)]
    for level in np.unique(heat[mask])[::-1]:
        basins = ndimage.label(mask & (heat >= level), np.ones((3, 3)))[0][tuple(tops.T)]
        for k in np.flatnonzero(basins):
            rank = (-heights[k], k)
            higher = [j for j in np.flatnonzero(basins == basins[k]) if (-heights[j], j) < rank]
            if higher and found[k] == -np.inf:
                found[k] = level
    return found


@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 9), st.integers(1, 12))
@settings(max_examples=150, deadline=None)
def test_as_by_flooding(seed, height, width, levels):
    rng = np.random.default_rng(seed)
    heat = (rng.integers(0, levels, (height, width)) / 16).astype(np.float32)
    mask = rng.random((height, width)) < 0.8
    places = np.argwhere(mask)
    tops = rng.permutation(places)[: rng.integers(0, 6)]
    assert saddles(heat, mask, tops).tolist() == by_flooding(heat, mask, tops).tolist()


def test_the_way_around_counts():
    heat = np.array([[0.9, 0.1, 0.8], [0.5, 0.5, 0.5]], np.float32)
    tops = np.array([[0, 2], [0, 0]])
    mask = np.ones((2, 3), bool)
    assert saddles(heat, mask, tops) == pytest.approx([0.5, -np.inf])
    mask[1, 1] = False
    assert saddles(heat, mask, tops) == pytest.approx([0.1, -np.inf])
    mask[0, 1] = False
    assert saddles(heat, mask, tops).tolist() == [-np.inf, -np.inf]


def test_of_equals_the_first_is_the_higher_one():
    heat = np.array([[1, 0.5, 1, 0.25, 1]], np.float32)
    assert saddles(heat, np.ones((1, 5), bool), [[0, 4], [0, 0], [0, 2]]).tolist() == [-np.inf, 0.25, 0.5]


def test_a_peak_outside_the_mask():
    with pytest.raises(ValueError, match="outside the mask"):
        saddles(np.zeros((2, 2), np.float32), np.zeros((2, 2), bool), [[0, 0]])


def test_a_ripple_is_no_centre_and_a_valley_makes_two():
    heat = np.full((20, 60), 0.3, np.float32)
    heat[10, 15], heat[10, 45] = 0.5, 0.4
    mask, still = np.ones(heat.shape, bool), np.full((2, 20, 60), 9.0)
    rules = CenterRules(kernel=5, prominence=0.2)
    both = find_centers(heat, still, mask, rules=rules)
    assert both.places.tolist() == [[10, 15], [10, 45]]
    heat[heat == 0.3] = 0.35
    assert find_centers(heat, still, mask, rules=rules).places.tolist() == [[10, 15]]
    assert len(find_centers(heat, still, mask, rules=CenterRules(kernel=5)).places) > 1
