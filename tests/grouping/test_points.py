"""Points that mend and divide a semantic map."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelkin.grouping.points import divide_at_points, mend_classes

ROW = np.array([[1, 1, 1, 0, 2, 2, 2, 2, 0, 3, 3]] * 3)


def test_a_component_with_points_of_another_class_takes_theirs() -> None:
    mended = mend_classes(ROW, [(1, 1), (1, 5)], [1, 7])
    assert (mended[:, :3] == 1).all()
    assert (mended[:, 4:8] == 7).all()
    assert (mended[:, 9:] == 3).all()  # no point at all: nobody said it is wrong
    assert (ROW[:, 4:8] == 2).all()


def test_a_point_of_its_class_speaks_for_the_map() -> None:
    assert mend_classes(ROW, [(1, 5), (1, 6)], [2, 7]) is ROW
    assert mend_classes(ROW, [(1, 3)], [2]) is ROW  # on background
    assert mend_classes(ROW, np.zeros((0, 2)), []) is ROW


def test_between_points_of_several_classes_the_nearest_decides() -> None:
    assert mend_classes(ROW, [(1, 4), (1, 7)], [8, 9])[1, 4:8].tolist() == [8, 8, 9, 9]


def test_a_map_too_narrow_for_the_class_is_widened() -> None:
    mended = mend_classes(ROW.astype(np.uint8), [(1, 5)], [400])
    assert (mended[:, 4:8] == 400).all()
    assert (mended[:, :3] == 1).all()


def test_unknown_pixels_are_no_component() -> None:
    semantic = np.where(ROW == 2, 255, ROW)
    assert mend_classes(semantic, [(1, 5)], [7]) is semantic
    assert not divide_at_points(semantic, [(1, 5)], [7]).any()


def test_a_component_is_divided_among_its_points_and_only_those_of_its_class() -> None:
    semantic = np.full((5, 20), 4)
    owners = divide_at_points(semantic, [(2, 2), (2, 17), (2, 10)], [4, 4, 5])
    assert (owners[:, :9] == 1).all()
    assert (owners[:, 11:] == 2).all()
    assert not (owners == 3).any()


def test_a_piece_cut_off_by_another_class_joins_its_other_half() -> None:
    semantic = np.array([[1, 1, 1, 2, 2, 1, 1, 0, 1]] * 3)
    owners = divide_at_points(semantic, [(1, 0), (1, 3)], [1, 2])
    assert owners[1].tolist() == [1, 1, 1, 2, 2, 1, 1, 0, 0]
    assert divide_at_points(semantic, [(1, 0), (1, 3)], [1, 2], reach="component")[1, 5] == 0


def test_a_point_on_what_hides_its_object_finds_it() -> None:
    semantic = np.array([[1, 1, 1, 2, 2, 2]] * 3)
    assert divide_at_points(semantic, [(1, 3)], [1])[1].tolist() == [1, 1, 1, 0, 0, 0]


def test_a_point_beside_its_object_is_one_of_those_that_divide_it() -> None:
    semantic = np.zeros((20, 40), int)
    semantic[5:15, 5:35] = 3
    points = [(10, 8), (2, 30)]
    assert (divide_at_points(semantic, points, [3, 3])[semantic > 0] == 1).all()
    owners = divide_at_points(semantic, points, [3, 3], snap=3)
    assert owners[10, 10] == 1
    assert owners[10, 30] == 2
    assert (divide_at_points(semantic, points, [3, 3], snap=2.9)[semantic > 0] == 1).all()
    assert not divide_at_points(semantic, [(2, 30)], [4], snap=9).any()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), points=st.integers(0, 6))
def test_owners_are_of_the_class_of_the_pixel(seed: int, points: int) -> None:
    rng = np.random.default_rng(seed)
    semantic = rng.integers(0, 3, (4, 5)).repeat(3, axis=0).repeat(3, axis=1)
    places, ids = rng.uniform((-0.5, -0.5), (11.4, 14.4), (points, 2)), rng.integers(1, 3, points)
    owners = divide_at_points(semantic, places, ids, snap=2)
    own = owners > 0
    assert (ids[owners[own] - 1] == semantic[own]).all()
    turned = divide_at_points(semantic[:, ::-1], np.stack([places[:, 0], 14 - places[:, 1]], axis=1), ids, snap=2)
    assert ((turned[:, ::-1] > 0) == own).all()
    mended = mend_classes(semantic, places, ids)
    assert ((mended > 0) == (semantic > 0)).all()


def test_as_many_classes_as_points() -> None:
    with pytest.raises(ValueError, match="each point its class"):
        divide_at_points(ROW, [(0, 0)], [])
