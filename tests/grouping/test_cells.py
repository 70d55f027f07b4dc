from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelkin.grouping.cells import cells_to_pixels


def test_straight_borders_stay_where_they_are():
    labels = np.zeros((4, 6), int)
    labels[:, :3], labels[:, 3:] = 1, 2
    found = cells_to_pixels(labels, np.ones((16, 24), bool), 4)
    assert (found[:, :12] == 1).all()
    assert (found[:, 12:] == 2).all()


def test_only_the_mask_is_given_away_and_far_pixels_stay_alone():
    labels = np.zeros((8, 20), int)
    labels[2:5, 2:5] = 7
    inside = np.zeros((32, 80), bool)
    inside[8:20, 8:28] = True  # reaches two cells beyond
    inside[8:20, 60:80] = True  # ten cells beyond
    found = cells_to_pixels(labels, inside, 4, most=3)
    assert (found[8:20, 8:28] == 7).all()
    assert (found[:, 60:] == 0).all()
    assert (found[~inside] == 0).all()


def test_a_staircase_becomes_a_slope():
    y, x = np.mgrid[:12, :12]
    labels = np.where(y > x, 1, 2)
    found = cells_to_pixels(labels, np.ones((48, 48), bool), 4)
    v, u = np.mgrid[:48, :48]
    wrong = (found == 1) != (v > u + 2)
    assert wrong.mean() < 0.03
    blocks = np.kron(labels, np.ones((4, 4), int))
    assert wrong.mean() < (((blocks == 1) != (v > u + 2)).mean())


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), stride=st.integers(1, 5))
def test_every_pixel_goes_to_a_segment_near_it(seed, stride):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, tuple(rng.integers(1, 8, 2)))
    size = tuple(side * stride - int(rng.integers(0, stride)) for side in labels.shape)
    inside = rng.random(size) < 0.8
    found = cells_to_pixels(labels, inside, stride)
    assert found.shape == size
    assert (found[~inside] == 0).all()
    for y, x in np.argwhere(found > 0):
        i, j = y // stride, x // stride
        assert found[y, x] in labels[max(i - 3, 0) : i + 4, max(j - 3, 0) : j + 4]
    for y, x in np.argwhere(inside & (found == 0)):
        assert labels[y // stride, x // stride] == 0


def test_sizes_must_fit():
    with pytest.raises(ValueError, match="do not fit"):
        cells_to_pixels(np.zeros((3, 3), int), np.zeros((13, 12), bool), 4)
