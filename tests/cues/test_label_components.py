from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refinement_scenes import EIGHT, same_partition
from scipy import ndimage

from pixelkin.cues.self_refinement import label_components


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from([4, 8]), st.integers(1, 12), st.integers(1, 12))
def test_components_on_the_device(seed, connectivity, h, w):
    labels = np.random.default_rng(seed).integers(0, 3, (2, h, w))
    got = label_components(torch.from_numpy(labels), connectivity).numpy()
    expected, count = np.zeros(labels.shape, int), 0
    for image, class_id in np.ndindex(2, 2):
        pieces, n = ndimage.label(labels[image] == class_id + 1, EIGHT if connectivity == 8 else None)
        expected[image][pieces > 0] = pieces[pieces > 0] + count
        count += n
    same_partition(got, expected)


def test_components_of_a_spiral_and_a_comb():
    spiral = np.zeros((41, 41), int)
    top, left, bottom, right = 0, 0, 40, 40
    while top < bottom:
        spiral[top, left : right + 1] = spiral[top : bottom + 1, right] = 1
        spiral[bottom, left + 2 : right + 1] = spiral[top + 2 : bottom + 1, left + 2] = 1
        top, left, bottom, right = top + 2, left + 2, bottom - 2, right - 2
    comb = np.ones((41, 41), int)
    comb[1:, 1::2] = 0
    for labels in (spiral, comb):
        got = label_components(torch.from_numpy(labels)[None], 4)[0].numpy()
        same_partition(got, ndimage.label(labels)[0])


def test_neighbours_are_4_or_8():
    with pytest.raises(ValueError, match="4 or 8"):
        label_components(torch.zeros(1, 2, 2, dtype=torch.long), 6)
