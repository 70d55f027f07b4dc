from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pixelkin.viz import class_color, instance_color
from pixelkin.viz.colors import heat_colors, hex_color, lighten


def test_class_colors_are_the_voc_palette() -> None:
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 8: (64, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
    assert {label: class_color(label) for label in known} == known
    assert class_color(255) == (224, 224, 192)


def test_no_class_but_the_background_is_near_black() -> None:
    assert all(max(class_color(label)) >= 64 for label in range(1, 400))


@given(st.integers(-(2**40), 2**40))
def test_instance_colors_are_stable_and_bright(identity: int) -> None:
    color = instance_color(identity)
    assert color == instance_color(identity)
    assert all(0 <= c <= 255 for c in color)
    assert max(color) > 120


def test_neighbouring_ids_are_far_apart() -> None:
    colors = np.array([instance_color(i) for i in range(1, 13)], dtype=float)
    gaps = np.linalg.norm(colors[:, None] - colors[None], axis=2)
    assert gaps[~np.eye(len(colors), dtype=bool)].min() > 25
    assert np.linalg.norm(np.diff(colors, axis=0), axis=1).min() > 100


def test_heat_grows_brighter() -> None:
    brightness = heat_colors(np.linspace(0, 1, 64)).astype(int).sum(axis=1)
    assert (np.diff(brightness) >= 0).all()
    assert brightness[0] < 10
    assert brightness[-1] > 700


def test_small_helpers() -> None:
    assert hex_color((1, 171, 255)) == "#01abff"
    assert lighten((0, 100, 255), 0.0) == (0, 100, 255)
    assert lighten((0, 100, 255), 1.0) == (255, 255, 255)
