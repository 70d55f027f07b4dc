from __future__ import annotations

import numpy as np
from drawing import boxes, random_instances
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pixelkin.data import Instances
from pixelkin.metrics import crowded, divided

SIZE = (30, 40)


def by_definition(truth):
    """Label the components of every class's mask and count the instances in each."""
    out = np.zeros(len(truth), dtype=bool)
    for label in np.unique(truth.labels):
        members = [i for i in range(len(truth)) if truth.labels[i] == label and not truth.crowd[i]]
        mask = np.zeros(truth.size, dtype=bool)
        for i in members:
            mask |= truth.mask(i)
        components, _ = ndimage.label(mask, np.ones((3, 3)))
        inside = {i: set(np.unique(components[truth.mask(i)])) for i in members}
        for i in members:
            out[i] = any(inside[i] & inside[j] for j in members if j != i)
    return out


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 9))
def test_same_as_the_definition(seed, n):
    rng = np.random.default_rng(seed)
    truth = random_instances(rng, SIZE, n, [1, 5], crowd=0.2)
    thin = Instances.from_masks(truth.masks() & (rng.random((n, *SIZE)) > 0.7), labels=truth.labels, crowd=truth.crowd)
    for instances in (truth, thin):
        assert crowded(instances).tolist() == by_definition(instances).tolist()


def test_corners_touch_gaps_do_not():
    assert crowded(boxes(SIZE, [(0, 0, 5, 5), (5, 5, 9, 9)])).tolist() == [True, True]
    assert crowded(boxes(SIZE, [(5, 0, 9, 5), (0, 5, 5, 9)])).tolist() == [True, True]
    assert crowded(boxes(SIZE, [(0, 0, 5, 5), (6, 6, 9, 9)])).tolist() == [False, False]


def test_other_classes_and_crowd_regions_do_not_join():
    assert crowded(boxes(SIZE, [(0, 0, 5, 5), (0, 5, 5, 9)], labels=[1, 2])).tolist() == [False, False]
    row = [(0, 0, 5, 5), (0, 5, 5, 9), (0, 9, 5, 14)]
    assert crowded(boxes(SIZE, row, crowd=[False, True, False])).tolist() == [False, False, False]


def test_empty_masks_touch_nothing():
    assert not crowded(boxes(SIZE, [(0, 0, 0, 0), (5, 5, 5, 5), (0, 0, 9, 9)])).any()


def test_more_instances_than_boxes_are_compared(monkeypatch):
    monkeypatch.setattr("pixelkin.metrics.crowding._PAIRWISE", 1)
    truth = boxes(SIZE, [(0, 0, 5, 5), (0, 5, 5, 9), (20, 20, 25, 25)])
    assert crowded(truth).tolist() == [True, True, False]


def test_one_above_two_that_it_hides():
    assert crowded(boxes(SIZE, [(0, 0, 5, 5), (0, 0, 5, 5), (0, 5, 5, 9)])).all()


def test_divided_masks_lie_in_several_pieces():
    masks = np.zeros((4, *SIZE), dtype=bool)
    masks[0, :3, :3] = masks[0, 10:12, 10:12] = True
    masks[1, :3, :3] = masks[1, 3, 3] = True  # joined at a corner
    masks[2, 5:9] = True
    masks[3, ::4] = True
    truth = Instances.from_masks(masks, crowd=[False, False, False, True])
    assert divided(truth).tolist() == [True, False, False, False]
    assert divided(Instances.empty(SIZE)).tolist() == []
