"""Seeds through the walk to masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pixelkin.grouping.random_walk import random_walk
from pixelkin.grouping.seed_walk import paint, walk_seeds


def scene(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Seeds of two classes, a boundary and three groups on a 12 x 15 field."""
    rng = np.random.default_rng(seed)
    seeds = rng.random((2, 12, 15)).astype(np.float32) * (rng.random((2, 12, 15)) < 0.3)
    boundary = (rng.random((12, 15)) < 0.2).astype(np.float32) * 0.9
    groups = np.repeat([1, 2, 3], 5)[None].repeat(12, axis=0).astype(np.int32)
    return seeds, boundary, groups


def slow_detections(
    seeds: np.ndarray, boundary: np.ndarray, groups: np.ndarray, size: tuple[int, int], background: float
) -> np.ndarray:
    """(H, W) 1 + class * groups + group as IRNet's published code computes it: all maps at full size, one argmax."""
    cut = np.stack([seed * (groups == g) for seed in seeds for g in (1, 2, 3)])
    walked = torch.from_numpy(random_walk(cut.astype(np.float32), boundary))
    fine = nn.functional.interpolate(walked[None], scale_factor=4, mode="bilinear", align_corners=False)[0]
    fine = fine[:, : size[0], : size[1]]
    fine = fine / fine.max()
    return torch.cat([torch.full((1, *size), background), fine]).argmax(0).numpy()


def test_equals_the_published_order_of_steps() -> None:
    seeds, boundary, groups = scene()
    size = (46, 58)
    walked = walk_seeds(seeds, boundary, groups=groups, normalisation="image")
    owner = paint(walked, size, stride=4, background=0.25).labels
    ours = np.concatenate([[0], 1 + 3 * walked.classes + walked.groups - 1])[owner]
    slow = slow_detections(seeds, boundary, groups, size, 0.25)
    assert len(np.unique(slow)) > 3
    # The published form divides by the largest upsampled value, which is a little below the largest of the grid.
    assert (ours == slow).mean() > 0.98


def test_normalisation_sets_the_largest_of_each_unit_to_one() -> None:
    seeds, boundary, groups = scene()
    seeds[1] *= 0.1
    image, whole, region = (
        walk_seeds(seeds, boundary, groups=groups, normalisation=how)  # type: ignore[arg-type]
        for how in ("image", "class", "region")
    )
    assert np.isclose(image.values.max(axis=(1, 2)), 1).sum() == 1
    assert np.allclose(region.values.max(axis=(1, 2)), 1)
    for k in (0, 1):
        assert whole.values[whole.classes == k].sum(axis=0).max() == pytest.approx(1)


def test_a_background_that_walks_keeps_what_no_seed_reaches() -> None:
    seeds, boundary, _ = scene()
    ground = np.clip(1 - seeds.max(axis=0), 0, 1)
    walked = walk_seeds(seeds, boundary, background=ground)
    assert walked.background is not None
    assert walked.background.max() == pytest.approx(1)
    alone = random_walk(ground[None], boundary)[0]
    assert np.allclose(walked.background, alone / alone.max(), atol=1e-5)
    scaled = walk_seeds(seeds, boundary, background=ground, background_scale=0.3)
    assert scaled.background is not None
    assert np.allclose(scaled.background, 0.3 * alone, atol=1e-5)
    assert np.allclose(scaled.values, walked.values)
    painted = paint(walked, (46, 58), stride=4, background=0.0)
    fine = nn.functional.interpolate(
        torch.from_numpy(np.concatenate([walked.background[None], walked.values]))[None],
        scale_factor=4,
        mode="bilinear",
    )[0, :, :46, :58]
    assert (painted.labels == fine.argmax(0).numpy()).mean() > 0.999
    top = fine.sort(dim=0, descending=True).values.numpy()
    assert np.allclose(painted.strength, top[0], atol=1e-4)
    assert np.allclose(painted.margin, top[0] - top[1], atol=1e-4)


def test_instances_share_what_their_class_wins() -> None:
    seeds, boundary, groups = scene()
    walked = walk_seeds(seeds, boundary, groups=groups)
    whole = paint(walk_seeds(seeds, boundary), (46, 58), stride=4)
    first = paint(walked, (46, 58), stride=4, class_first=True)
    classes = np.concatenate([[0], walked.classes + 1])[first.labels]
    assert (classes == whole.labels).mean() > 0.999
    assert len(np.unique(first.labels)) > 4
    fine = nn.functional.interpolate(torch.from_numpy(walked.values)[None], scale_factor=4, mode="bilinear")[0]
    fine = fine[:, :46, :58].numpy()
    for k in (0, 1):
        mine, inside = np.flatnonzero(walked.classes == k), classes == k + 1
        assert (first.labels[inside] == mine[fine[mine].argmax(axis=0)][inside] + 1).mean() > 0.999
    assert ((paint(walked, (46, 58), stride=4).labels == 0) >= (first.labels == 0)).all()


def test_without_normalisation_the_walk_is_all() -> None:
    seeds, boundary, _ = scene()
    walked = walk_seeds(seeds, boundary, normalisation="none")
    assert np.allclose(walked.values, random_walk(seeds, boundary)[walked.classes], atol=1e-5)


def test_a_weak_class_survives_only_with_a_normalisation_of_its_own() -> None:
    seeds = np.zeros((2, 8, 16), np.float32)
    seeds[0, 2:6, 1:5], seeds[1, 2:6, 11:15] = 1, 0.1
    boundary = np.zeros((8, 16), np.float32)
    boundary[:, 7:9] = 1
    for normalisation, classes in (("image", {0}), ("class", {0, 1})):
        walked = walk_seeds(seeds, boundary, normalisation=normalisation)  # type: ignore[arg-type]
        owner = paint(walked, (32, 64), stride=4).labels
        assert set(walked.classes[owner[owner > 0] - 1].tolist()) == classes


def test_seeds_stop_at_the_boundary() -> None:
    seeds = np.zeros((1, 8, 16), np.float32)
    seeds[0, 3, 3] = 1
    boundary = np.zeros((8, 16), np.float32)
    boundary[:, 7] = 1
    owner = paint(walk_seeds(seeds, boundary), (32, 64), stride=4).labels
    assert (owner[:, :24] == 1).all()
    assert not owner[:, 36:].any()


def test_nothing_in_nothing_out() -> None:
    boundary = np.zeros((4, 5), np.float32)
    for seeds in (np.zeros((0, 4, 5), np.float32), np.zeros((3, 4, 5), np.float32)):
        walked = walk_seeds(seeds, boundary)
        assert len(walked.values) == 0
        assert not paint(walked, (16, 20), stride=4).labels.any()


def test_pixels_without_a_group_are_no_seed() -> None:
    seeds = np.ones((1, 4, 6), np.float32)
    groups = np.zeros((4, 6), np.int32)
    groups[:, :3] = 7
    walked = walk_seeds(seeds, np.zeros((4, 6), np.float32), groups=groups)
    assert walked.groups.tolist() == [7]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": np.ones((1, 3, 3), np.float32)}, "give"),
        ({"seeds": -np.ones((1, 4, 5), np.float32)}, "at least 0"),
        ({"groups": np.zeros((2, 2), np.int32)}, "same size"),
        ({"normalisation": "pixel"}, "use image"),
    ],
)
def test_what_cannot_work_is_said(change: dict[str, object], message: str) -> None:
    call: dict[str, object] = {"seeds": np.ones((1, 4, 5), np.float32), "boundary": np.zeros((4, 5), np.float32)}
    with pytest.raises(ValueError, match=message):
        walk_seeds(**(call | change))  # type: ignore[arg-type]
