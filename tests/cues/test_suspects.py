from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import ConvexHull

from pixelkin.cues.suspects import ENOUGH, measure_shapes, object_statistics, suspects, usual_diameter
from pixelkin.data.components import class_components


def disc(size, y, x, radius):
    yy, xx = np.indices(size)
    return (yy - y) ** 2 + (xx - x) ** 2 <= radius**2


def row_of_discs(radii, *, class_id=1, height=80, gap=4):
    semantic = np.zeros((height, gap + sum(2 * r + 1 + gap for r in radii)), np.uint8)
    x = gap
    for radius in radii:
        semantic[disc(semantic.shape, height // 2, x + radius, radius)] = class_id
        x += 2 * radius + 1 + gap
    return semantic


def parts_of(semantic):
    parts = class_components(semantic)
    return parts.labels, parts.classes


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9))
def test_solidity_counts_the_pixels_of_the_hull(seed, height, width):
    mask = np.random.default_rng(seed).random((height, width)) < 0.4
    mask[0, 0] = True
    points = np.argwhere(mask)
    if np.linalg.matrix_rank(points - points[0]) < 2:  # on a line: the hull holds the lattice points between its ends
        ends = points[[0, -1]]
        inside = np.gcd(*np.abs(ends[1] - ends[0])) + 1
    else:
        equations = ConvexHull(points).equations
        grid = np.argwhere(np.ones_like(mask))
        inside = (grid @ equations[:, :2].T + equations[:, 2] <= 1e-9).all(axis=1).sum()
    assert measure_shapes(mask.astype(np.int32), 1).solidities[0] == pytest.approx(mask.sum() / inside)


def test_what_the_image_cuts_is_known():
    labels = np.zeros((20, 20), np.int32)
    labels[0:5, 8:12], labels[8:12, 8:12] = 1, 2
    shapes = measure_shapes(labels, 3)
    assert shapes.areas.tolist() == [20, 16, 0]
    assert shapes.cut.tolist() == [True, False, False]


def test_statistics_are_json_and_count_what_is_whole():
    first, second = row_of_discs([6] * 6), row_of_discs([8] * 5, class_id=7)
    first[0:3, 0:40] = 1  # cut by the image
    first[10, 10] = 1  # a crumb
    statistics = object_statistics([parts_of(first), parts_of(second)])
    assert json.loads(json.dumps(statistics)) == statistics
    assert statistics["1"]["count"] == 6
    assert statistics["1"]["area"] == pytest.approx(disc((40, 40), 20, 20, 6).sum())
    assert statistics["7"]["solidity"] == 1
    assert statistics["7"]["within"] == 0


def test_a_class_with_nothing_whole_still_has_statistics():
    semantic = np.full((10, 10), 3, np.uint8)
    statistics = object_statistics([parts_of(semantic)])
    assert statistics["3"]["area"] == pytest.approx(100)
    assert not suspects(*parts_of(semantic), statistics).any()


def test_two_touching_discs_are_suspect_by_their_notch_and_a_large_one_by_its_size():
    semantic = row_of_discs([8] * 8 + [14])
    semantic[disc(semantic.shape, 40 + 15, 12, 8)] = 1  # against the first
    labels, classes = parts_of(semantic)
    statistics = object_statistics([(labels, classes), parts_of(row_of_discs([8] * 10))])
    found = suspects(labels, classes, statistics)
    doubtful = {int(labels[40, 12]), int(labels[40, -20])}
    assert {i + 1 for i in np.flatnonzero(found)} == doubtful


def test_size_is_measured_against_the_image_where_images_differ_but_are_even():
    small, large = row_of_discs([4] * 6), row_of_discs([14] * 6)
    statistics = object_statistics([parts_of(small), parts_of(large)])
    assert not suspects(*parts_of(small), statistics).any()
    assert not suspects(*parts_of(large), statistics).any()
    odd = row_of_discs([4] * 6 + [14])
    assert suspects(*parts_of(odd), statistics).tolist().count(True) == 1


def test_a_class_of_many_sizes_needs_more_to_stand_out():
    sizes = [3, 4, 6, 8, 12, 16, 24, 30]
    maps = [parts_of(row_of_discs([r])) for r in sizes]
    statistics = object_statistics(maps)
    assert not any(suspects(*parts, statistics).any() for parts in maps)


def test_of_a_class_that_is_not_convex_none_is_suspect():
    cross = np.zeros((60, 60), np.uint8)
    cross[28:32, 5:55] = cross[5:55, 28:32] = 2
    statistics = object_statistics([parts_of(cross)] * 5)
    blob = np.zeros((90, 90), np.uint8)
    blob[5:85, 5:85] = 2
    assert statistics["2"]["solidity"] < 0.9
    assert not suspects(*parts_of(blob), statistics).any()


def test_a_class_the_statistics_do_not_know_is_not_suspect():
    labels, classes = parts_of(row_of_discs([5, 9]))
    assert suspects(labels, classes, {}).tolist() == [False, False]
    assert usual_diameter(labels, classes, {}) is None


def test_no_components():
    labels, classes = parts_of(np.zeros((5, 5), np.uint8))
    assert suspects(labels, classes, {}).shape == (0,)
    assert object_statistics([(labels, classes)]) == {}


def test_the_usual_diameter_is_the_image_s_own_where_it_has_enough():
    set_of = object_statistics([parts_of(row_of_discs([10] * 9))])
    area = {r: float(disc((80, 80), 40, 40, r).sum()) for r in (5, 10)}
    many = usual_diameter(*parts_of(row_of_discs([5] * ENOUGH)), set_of)
    few = usual_diameter(*parts_of(row_of_discs([5] * (ENOUGH - 1))), set_of)
    assert many == pytest.approx(area[5] ** 0.5)
    assert few == pytest.approx(area[10] ** 0.5)
