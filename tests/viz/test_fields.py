from __future__ import annotations

import colorsys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelkin.viz import (
    boundary_picture,
    centers_picture,
    class_color,
    flow_wheel,
    heatmap,
    panel,
    semantic_picture,
    wheel,
)


def one(dy: float, dx: float, limit: float = 1.0) -> np.ndarray:
    return flow_wheel(np.array([[[dy]], [[dx]]]), limit=limit)[0, 0].astype(float)


def hue(color: np.ndarray) -> float:
    return 360 * colorsys.rgb_to_hsv(*(color / 255))[0]


def test_the_four_directions() -> None:
    assert tuple(one(0, 1)) == (255, 0, 0)  # right: red
    assert hue(one(1, 0)) == pytest.approx(90, abs=1)  # down: yellow-green
    assert tuple(one(0, -1)) == (0, 255, 255)  # left: cyan
    assert hue(one(-1, 0)) == pytest.approx(270, abs=1)  # up: violet


def test_zero_is_white_and_unknown_is_grey() -> None:
    assert tuple(one(0, 0)) == (255, 255, 255)
    assert tuple(one(np.nan, 1)) == (128, 128, 128)
    assert (flow_wheel(np.zeros((2, 5, 6))) == 255).all()


@given(st.floats(0, 2 * np.pi), st.floats(0.2, 1.0))
def test_opposite_directions_have_opposite_hues(angle: float, length: float) -> None:
    dy, dx = length * np.sin(angle), length * np.cos(angle)
    here, there = one(dy, dx), one(-dy, -dx)
    assert abs(here + there - (510 - 255 * length)).max() <= 1.01  # complements: they mix to a grey
    turn = (hue(here) - np.degrees(angle) + 180) % 360 - 180
    assert abs(turn) <= 4 / length


@given(st.floats(0, 2 * np.pi), st.floats(0.0, 0.9))
def test_longer_is_more_saturated_up_to_the_limit(angle: float, length: float) -> None:
    direction = np.array([np.sin(angle), np.cos(angle)])
    assert one(*(direction * length)).min() >= one(*(direction * (length + 0.1))).min()
    assert (one(*(direction * 5)) == one(*direction)).all()


def test_the_scale_of_the_field_does_not_matter_without_a_limit() -> None:
    field = np.random.default_rng(0).normal(size=(2, 9, 7))
    assert (flow_wheel(field) == flow_wheel(field * 1000)).all()
    sparse = np.zeros((2, 40, 40))
    sparse[1, 3, 4] = 2.0  # the 99th percentile is zero here
    assert tuple(flow_wheel(sparse)[3, 4]) == (255, 0, 0)


def test_the_wheel_shows_each_direction_where_it_points() -> None:
    disc = wheel(101)
    assert (disc[50, 50] > 250).all()
    assert (disc[0, 0] == 255).all()
    assert hue(disc[50, 98].astype(float)) == pytest.approx(0, abs=1)
    assert hue(disc[98, 50].astype(float)) == pytest.approx(90, abs=1)


def test_the_legend_covers_only_the_lower_right_corner() -> None:
    field = np.full((2, 80, 100), 0.5)
    plain, marked = flow_wheel(field), flow_wheel(field, legend=True)
    changed = np.argwhere((plain != marked).any(axis=2))
    assert changed.min(axis=0).tolist() >= [60, 80]
    assert flow_wheel(np.zeros((2, 3, 2)), legend=True).shape == (3, 2, 3)


def test_wrong_fields() -> None:
    with pytest.raises(ValueError, match=r"\(2, h, w\)"):
        flow_wheel(np.zeros((3, 4, 4)))
    with pytest.raises(ValueError, match="limit"):
        flow_wheel(np.zeros((2, 4, 4)), limit=0)
    with pytest.raises(ValueError, match=r"\(h, w\)"):
        heatmap(np.zeros((2, 4, 4)))
    with pytest.raises(ValueError, match="integers"):
        semantic_picture(np.zeros((4, 4)))
    with pytest.raises(ValueError, match="at least one"):
        panel({})


def test_boundary_has_a_fixed_scale() -> None:
    values = np.array([[0.0, 0.5, 1.0, 2.0, -1.0, np.nan]])
    picture = boundary_picture(values)
    assert (boundary_picture(values[:, 1:2]) == picture[:, 1:2]).all()
    assert (picture[0, 3] == picture[0, 2]).all()
    assert (picture[0, 4] == picture[0, 0]).all()
    assert (picture[0, 5] == picture[0, 0]).all()
    assert (np.diff(picture[0, :3].astype(int).sum(axis=1)) > 0).all()


def test_heatmap_stretches_and_lays_over_an_image() -> None:
    values = np.array([[10.0, 20.0], [30.0, np.inf]])
    assert (heatmap(values) == heatmap(np.array([[0.0, 0.5], [1.0, 0.0]]))).all()
    assert (heatmap(np.ones((2, 2))) == heatmap(np.zeros((2, 2)))).all()
    image = np.full((8, 12, 3), (200, 30, 30), dtype=np.uint8)
    over = heatmap(values, image=image)
    assert over.shape == image.shape
    grey = heatmap(values, image=image, alpha=0.0)
    assert (grey[..., 0] == grey[..., 1]).all()


def test_centres_are_marked_at_y_x() -> None:
    heat = np.zeros((40, 60))
    plain, marked = centers_picture(heat), centers_picture(heat, [(10, 50)])
    changed = np.argwhere((plain != marked).any(axis=2))
    assert changed.mean(axis=0) == pytest.approx([10, 50])
    large = centers_picture(heat, [(10, 50)], image=np.zeros((160, 240, 3), dtype=np.uint8))
    assert np.argwhere(large.sum(axis=2) > 400).mean(axis=0) == pytest.approx([41.5, 201.5], abs=1)


def test_semantic_colors() -> None:
    ids = np.array([[0, 1], [255, 300]], dtype=np.int32)
    picture = semantic_picture(ids)
    assert [tuple(picture[y, x]) for y, x in np.ndindex(2, 2)] == [class_color(i) for i in (0, 1, 255, 300)]
    image = np.full((2, 2, 3), 77, dtype=np.uint8)
    assert tuple(semantic_picture(ids, image=image)[0, 0]) == (77, 77, 77)
    with pytest.raises(ValueError, match="one size"):
        semantic_picture(ids, image=image[:1])


def test_panel_places_pictures_of_any_size_side_by_side() -> None:
    red = np.full((10, 20, 3), (255, 0, 0), dtype=np.uint8)
    blue = np.full((300, 100, 3), (0, 0, 255), dtype=np.uint8)
    row = panel({"a": red, "a very long caption that cannot fit": blue}, height=100)
    assert (row == (255, 0, 0)).all(axis=2).sum() == 200 * 100
    assert (row == (0, 0, 255)).all(axis=2).sum() == 33 * 100
    grid = panel([("a", red), ("b", blue), ("c", red)], height=100, columns=2)
    assert grid.shape[0] > 2 * 100
    assert (grid == (255, 0, 0)).all(axis=2).sum() == 2 * 200 * 100
