from __future__ import annotations

import numpy as np
import pytest

from pixelkin.data import Instances
from pixelkin.viz import instance_color, overlay


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


@pytest.fixture
def instances() -> Instances:
    masks = np.zeros((3, 60, 80), dtype=bool)
    masks[0, 5:40, 5:50] = True
    masks[0, 10:20, 10:20] = False  # a hole
    masks[1, 30:55, 45:75] = True  # overlaps the first
    masks[2, 12, 70] = True  # one pixel
    return Instances.from_masks(masks, labels=[1, 2, 1], scores=[0.9, 0.4, 0.7], ids=[7, 3, 12])


def test_pixels_outside_the_masks_are_untouched(image: np.ndarray, instances: Instances) -> None:
    before = image.copy()
    out = overlay(image, instances)
    outside = ~instances.masks().any(axis=0)
    assert (out[outside] == image[outside]).all()
    assert (out[~outside] != image[~outside]).any(axis=1).mean() > 0.95
    assert (image == before).all()
    assert out.dtype == np.uint8


def test_contours_are_crisp_and_the_fill_is_translucent(image: np.ndarray, instances: Instances) -> None:
    out = overlay(image, instances, alpha=0.5, thickness=1)
    color = np.array(instance_color(7))
    assert (out[5, 5:45] == color).all()  # the edge is the colour itself
    assert (out[9, 10:20] == color).all()  # and so is the edge of the hole
    assert np.abs(out[30, 20].astype(float) - (image[30, 20] + color) / 2).max() <= 1


def test_a_small_instance_lies_over_a_large_one_and_never_vanishes(image: np.ndarray) -> None:
    masks = np.zeros((2, 60, 80), dtype=bool)
    masks[0, 20, 20] = True
    masks[1] = True
    out = overlay(image, Instances.from_masks(masks, scores=[0.1, 0.9]), alpha=0.0)
    assert tuple(out[20, 20]) == instance_color(1)


def test_colors_follow_ids_not_places(image: np.ndarray, instances: Instances) -> None:
    assert (overlay(image, instances) == overlay(image, instances[[2, 0, 1]])).all()
    alone = overlay(image, instances[1:2])
    assert tuple(alone[54, 60]) == instance_color(3)


def test_tags_are_drawn_only_with_classes(image: np.ndarray, instances: Instances) -> None:
    large = np.kron(image, np.ones((4, 4, 1), dtype=np.uint8))
    grown = Instances.from_masks(np.kron(instances.masks(), np.ones((1, 4, 4))), labels=instances.labels)
    plain, tagged = overlay(large, grown), overlay(large, grown, {1: "nucleus"})
    assert (plain != tagged).any()
    assert (overlay(image, Instances.empty((60, 80)), {1: "nucleus"}) == image).all()


def test_scale_enlarges_masks_to_whole_blocks(image: np.ndarray, instances: Instances) -> None:
    out = overlay(image, instances, scale=3, alpha=1.0)
    assert out.shape == (180, 240, 3)
    assert (out[36:39, 210:213] == instance_color(12)).all()


def test_color_by_class(image: np.ndarray, instances: Instances) -> None:
    out = overlay(image, instances, color_by="class", alpha=1.0)
    assert tuple(out[30, 8]) == tuple(out[12, 70]) != tuple(out[50, 70])


def test_wrong_calls(image: np.ndarray, instances: Instances) -> None:
    with pytest.raises(ValueError, match="give both one size"):
        overlay(image[:50], instances)
    with pytest.raises(ValueError, match="uint8 RGB"):
        overlay(image[..., 0], instances)
    with pytest.raises(ValueError, match="scale"):
        overlay(image, instances, scale=0)
