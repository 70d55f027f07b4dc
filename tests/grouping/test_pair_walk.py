from __future__ import annotations

import numpy as np
import pytest

from pixelkin.grouping.displacement import group_by_displacement
from pixelkin.grouping.fine_grid import Axis
from pixelkin.grouping.pair_walk import own_pixels
from pixelkin.grouping.random_walk import random_walk


def to_middles(labels):
    """The exact displacement of an (h, w) label map, zero in the background."""
    field = np.zeros((2, *labels.shape), np.float32)
    for i in np.unique(labels[labels > 0]):
        at = np.argwhere(labels == i)
        field[:, labels == i] = (at.mean(axis=0) - at).T
    return field


def two_halves(stride=1):
    labels = np.zeros((16, 24), np.int64)
    labels[2:14, 1:12], labels[2:14, 12:23] = 1, 2
    truth = labels.repeat(stride, 0).repeat(stride, 1)
    return truth, to_middles(labels), np.zeros(labels.shape, np.float32)


@pytest.mark.parametrize("stride", [1, 3, 4])
def test_touching_objects_come_apart_and_own_every_pixel(stride):
    truth, field, boundary = two_halves(stride)
    owners = own_pixels((truth > 0) * 9, field, boundary + (np.arange(24) == 11) * 0.9, stride=stride)
    assert owners.classes.tolist() == [9, 9]
    assert np.array_equal(owners.labels > 0, truth > 0)
    assert (owners.labels == truth).mean() > 0.97
    assert owners.strength[truth > 0].min() > 0
    assert owners.strength.max() <= 1
    assert not owners.strength[truth == 0].any()


def test_at_stride_one_it_is_the_walk_of_the_groups():
    rng = np.random.default_rng(0)
    truth, field, _ = two_halves()
    boundary = rng.random(truth.shape, dtype=np.float32) * 0.6
    inside = truth > 0
    groups = group_by_displacement(field, foreground=inside)
    seeds = (groups == np.arange(1, groups.max() + 1)[:, None, None]) * (inside * (1 - boundary))
    walked = random_walk(seeds.astype(np.float32), boundary, mask=inside, suppress_boundary=False)
    owners = own_pixels(inside.astype(int), field, boundary, stride=1)
    assert np.array_equal(owners.labels[inside], walked.argmax(axis=0)[inside] + 1)
    assert np.allclose(owners.strength[inside], walked.max(axis=0)[inside], atol=1e-6)


def test_far_regions_and_other_classes_do_not_change_a_region():
    truth, field, boundary = two_halves()
    alone = own_pixels((truth > 0) * 2, field, boundary, stride=1)
    semantic = np.concatenate([(truth > 0) * 2, np.zeros((8, 24), int), (truth > 0) * 2, (truth > 0) * 1])
    fields = np.concatenate([field, np.zeros((2, 8, 24), np.float32), field, field], axis=1)
    owners = own_pixels(semantic, fields, np.zeros(semantic.shape, np.float32), stride=1)
    assert owners.classes.tolist() == [1, 1, 2, 2, 2, 2]
    for start in (0, 24):
        part = slice(start, start + 16)
        assert np.allclose(owners.strength[part], alone.strength, atol=1e-6)
        first = owners.labels[part][truth > 0].min()
        assert np.array_equal(np.where(truth > 0, owners.labels[part] - first + 1, 0), alone.labels)


def test_unknown_pixels_have_no_owner():
    truth, field, boundary = two_halves(4)
    semantic = (truth > 0).astype(np.uint8)
    semantic[:, 60:] = 255
    owners = own_pixels(semantic, field, boundary, stride=4)
    assert np.array_equal(owners.labels > 0, semantic == 1)


def test_weights_lower_the_strength_and_a_background_threshold_drops_the_weak():
    truth, field, _ = two_halves()
    boundary = np.where(truth > 0, 0, 1).astype(np.float32)
    boundary[:, 11:13] = 1  # nothing passes from one half to the other
    weight = np.where(truth == 1, 0.2, 1).astype(np.float32)
    plain = own_pixels((truth > 0) * 1, field, boundary, stride=1)
    weak = own_pixels((truth > 0) * 1, field, boundary, stride=1, class_weight=lambda c: weight if c == 1 else None)
    assert np.allclose(weak.strength[:, 1:11], plain.strength[:, 1:11] * 0.2, atol=2e-3)
    dropped = own_pixels((truth > 0) * 1, field, boundary, stride=1, class_weight=lambda c: weight, background=0.5)
    assert not dropped.labels[:, 1:11].any()
    assert dropped.labels[2:14, 13:23].all()


def test_a_certain_boundary_everywhere_still_leaves_owners():
    truth, field, boundary = two_halves()
    owners = own_pixels((truth > 0) * 1, field, boundary + 1, stride=1)
    assert np.array_equal(owners.labels > 0, truth > 0)
    assert owners.strength[truth > 0].min() > 0


def test_more_instances_than_are_walked_at_once():
    labels = np.arange(1, 41).reshape(4, 10).repeat(7, 0).repeat(7, 1)
    owners = own_pixels(np.ones(labels.shape, int), to_middles(labels), np.zeros(labels.shape, np.float32), stride=1)
    assert len(owners.classes) == 40


@pytest.mark.parametrize(("side", "stride"), [(8, 4), (7, 4), (9, 4), (1, 4), (10, 2.7), (33, 1.3), (5, 1)])
def test_every_image_pixel_lies_in_the_field_pixel_over_its_centre(side, stride):
    count = int(np.ceil(side / stride))
    axis = Axis.of(count, side, stride)
    assert np.array_equal(axis.cells, np.floor((np.arange(side) + 0.5) / stride))
    assert axis.span(slice(0, count)) == slice(0, side)
    assert (np.abs(axis.places - axis.cells) <= 0.5).all()


def test_fields_that_do_not_fit_are_refused():
    semantic = np.ones((16, 16), int)
    with pytest.raises(ValueError, match="do not cover"):
        own_pixels(semantic, np.zeros((2, 16, 16), np.float32), np.zeros((16, 16), np.float32), stride=4)
    with pytest.raises(ValueError, match=r"give \(2, h, w\)"):
        own_pixels(semantic, np.zeros((2, 4, 5), np.float32), np.zeros((4, 4), np.float32), stride=4)
