from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest
from scipy import ndimage

from pixelkin.data.synthetic import render_scene, scene_dataset
from pixelkin.data.synthetic.layout import arrange
from pixelkin.data.synthetic.raster import coverage
from pixelkin.data.synthetic.textures import FAMILIES

KINDS = {
    "plain": {},
    "crowded": {
        "objects": 14,
        "classes": 8,
        "scale": (0.05, 0.12),
        "size": (150, 130),
        "touching": 1.0,
        "overlap": 0.6,
    },
    "one_class": {"classes": 1, "objects": 8, "touching": 0.5, "overlap": 0.0},
    "small": {"objects": 20, "scale": (0.015, 0.03)},
    "nuclei": {"preset": "nuclei"},
}


def same_class_contacts(scene) -> set[frozenset[int]]:
    """Pairs of instances of one class whose masks are 8-adjacent, found the slow way."""
    found, masks = set(), scene.instances.masks()
    for i, mask in enumerate(masks):
        near = ndimage.binary_dilation(mask, np.ones((3, 3)))
        for j in range(i):
            if scene.instances.labels[i] == scene.instances.labels[j] and (near & masks[j]).any():
                found.add(frozenset((i, j)))
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_labels_agree_with_each_other(kind, seed):
    scene = render_scene(seed, **KINDS[kind])
    masks = scene.instances.masks()
    assert scene.image.dtype == np.uint8
    assert scene.image.shape == (*scene.instances.size, 3)
    assert (masks.sum(axis=0) <= 1).all()
    assert np.array_equal(scene.semantic, scene.instances.semantic_map())
    assert set(scene.instances.labels.tolist()) <= set(scene.classes)
    assert (scene.instances.areas >= 8).all()
    assert scene.instances.ids.tolist() == list(range(1, len(masks) + 1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_exactly_the_planned_pairs_of_groups_touch(kind, seed):
    scene = render_scene(seed, **KINDS[kind])
    touching = same_class_contacts(scene)
    planned = {frozenset(pair) for pair in scene.contacts}
    assert planned <= touching
    # whoever touches its kind was placed in a group: nobody else comes near by chance
    grouped = {i for pair in planned for i in pair}
    assert {i for pair in touching for i in pair} == grouped


def test_touching_is_the_fraction_that_was_asked_for():
    for fraction in (0.0, 0.5, 1.0):
        counts = []
        for seed in range(6):
            scene = render_scene(seed, objects=8, scale=(0.06, 0.1), touching=fraction, overlap=0.0)
            counts.append(len({i for pair in same_class_contacts(scene) for i in pair}) / len(scene.instances))
        assert np.mean(counts) == pytest.approx(fraction, abs=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_without_overlap_every_mask_is_the_whole_outline(seed):
    size, families = (120, 140), FAMILIES
    layout = arrange(np.random.default_rng(seed), size, families, 14, (6.0, 16.0), touching=0.6, overlap=0.0)
    assert len(layout.bodies) > 8
    for number, body in enumerate(layout.bodies, 1):
        whole = np.zeros(size, bool)
        for part in body.shape.parts:
            patch = coverage(part @ body.pose[:2, :2].T + body.pose[:2, 2], size)
            if patch is not None:
                h, w = patch.mask.shape
                whole[patch.y : patch.y + h, patch.x : patch.x + w] |= patch.mask
        assert np.array_equal(layout.owner == number, whole)


def test_overlap_hides_parts_of_objects():
    apart = [render_scene(seed, touching=0.0, overlap=0.0, classes=1) for seed in range(3)]
    for scene in apart:  # whole ellipses and blobs are convex enough to be one piece with no bite
        pieces = ndimage.label(scene.semantic, np.ones((3, 3)))[1]
        assert pieces == len(scene.instances)
    covered = [render_scene(seed, touching=0.0, overlap=1.0, classes=4, objects=8) for seed in range(3)]
    bordering = 0
    for scene in covered:
        shown = scene.instances.label_map()
        right, down = shown[:, 1:] != shown[:, :-1], shown[1:] != shown[:-1]
        bordering += (right & (shown[:, 1:] > 0) & (shown[:, :-1] > 0)).sum()
        bordering += (down & (shown[1:] > 0) & (shown[:-1] > 0)).sum()
    assert bordering > 100


def test_the_seed_decides_everything():
    for kind in KINDS.values():
        one, same, other = render_scene(5, **kind), render_scene(5, **kind), render_scene(6, **kind)
        assert np.array_equal(one.image, same.image)
        assert one.instances == same.instances
        assert one.contacts == same.contacts
        assert not np.array_equal(one.image, other.image)
        assert one.instances != other.instances
    assert not np.array_equal(render_scene((0, 1)).image, render_scene((1, 0)).image)


def test_objects_differ_from_the_ground_and_from_their_neighbours():
    """Edges of the picture lie where the masks say."""
    at_borders, elsewhere = [], []
    for seed in range(5):
        scene = render_scene(seed, noise=0.0)
        grey = cv2.cvtColor(scene.image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        slope = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
        shown = scene.instances.label_map()
        border = ndimage.grey_dilation(shown, size=3) != ndimage.grey_erosion(shown, size=3)
        at_borders.append(slope[border].mean())
        elsewhere.append(slope[~border].mean())
    assert np.mean(at_borders) > 2 * np.mean(elsewhere)


def test_nuclei_are_bright_on_dark_and_grey():
    scene = render_scene(1, preset="nuclei", size=(160, 200))
    inside = scene.semantic > 0
    assert scene.image[inside].mean() > 2 * scene.image[~inside].mean()
    assert (scene.image == scene.image[..., :1]).all()
    assert scene.classes == {1: "nucleus"}


def test_number_of_objects_may_be_a_range():
    counts = {len(render_scene(seed, objects=(1, 5), scale=(0.03, 0.06)).instances) for seed in range(12)}
    assert counts <= set(range(1, 6))
    assert len(counts) > 2
    assert len(render_scene(0, objects=0).instances) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"preset": "cats"},
        {"classes": 9},
        {"classes": 0},
        {"touching": 1.5},
        {"overlap": -1.0},
        {"scale": (0.3, 0.1)},
        {"preset": "nuclei", "classes": 2},
    ],
)
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ValueError, match=r"use one of|classes|fraction|scale"):
        render_scene(0, **wrong)


@pytest.mark.parametrize("size", [(16, 16), (17, 90), (200, 31)])
def test_any_size(size):
    scene = render_scene(3, size=size)
    assert scene.image.shape == (*size, 3)
    assert len(scene.instances) > 0


def test_coverage_is_area():
    square = np.array([[1.5, 2.5], [4.5, 2.5], [4.5, 6.5], [1.5, 6.5]])  # pixels 2..4 and 3..6
    patch = coverage(square, (10, 10))
    dense = np.zeros((10, 10), bool)
    dense[patch.y : patch.y + patch.mask.shape[0], patch.x : patch.x + patch.mask.shape[1]] = patch.mask
    wanted = np.zeros((10, 10), bool)
    wanted[3:7, 2:5] = True
    assert np.array_equal(dense, wanted)
    theta = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    disc = coverage(np.stack([30 + 20.3 * np.cos(theta), 30.4 + 20.3 * np.sin(theta)], axis=1))
    assert disc.alpha.sum() == pytest.approx(np.pi * 20.3**2, rel=0.02)
    assert coverage(square + 100, (10, 10)) is None


def test_dataset_renders_when_asked_and_matches_the_renderer():
    dataset = scene_dataset(3, 7, classes=2, size=(64, 80))
    assert [sample.name for sample in dataset] == ["scene_0000", "scene_0001", "scene_0002"]
    scene = render_scene((7, 1), classes=2, size=(64, 80))
    sample = dataset[1]
    assert sample.size == (64, 80)
    assert np.array_equal(sample.image, scene.image)
    assert np.array_equal(sample.semantic, scene.semantic)
    assert sample.instances == scene.instances
    assert dataset.classes == scene.classes
    assert not sample.has("tags")
    sample.image[:] = 0  # what a user does to an array stays with that array
    assert np.array_equal(sample.image, scene.image)
    assert np.array_equal(pickle.loads(pickle.dumps(sample)).image, scene.image)


def test_dataset_carries_the_labels_asked_for():
    dataset = scene_dataset(2, 1, labels=("tags", "points", "boxes"))
    for k, sample in enumerate(dataset):
        scene = render_scene((1, k))
        assert not sample.has("semantic")
        assert not sample.has("instances")
        assert sample.tags == tuple(sorted(set(scene.instances.labels.tolist())))
        assert np.array_equal(sample.boxes.xyxy, scene.instances.boxes)
        assert len(sample.points) == len(scene.instances)
        for i, point in enumerate(sample.points):
            assert scene.instances.mask(i)[int(point.y), int(point.x)]
            assert point.label == scene.instances.labels[i]
