"""pixelkin.refine: seeds spread up to colour edges, a given boundary or a model's, and stay in their range."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import pixelkin
from pixelkin.data import Dataset
from pixelkin.data.synthetic import scene_dataset
from pixelkin.methods.irnet import IRNet
from pixelkin.methods.irnet_config import IRNetConfig
from pixelkin.methods.siseg import SISeg
from pixelkin.methods.tag_classifier import build_classifier


def two_colours(size=(64, 96)):
    image = np.full((*size, 3), (40, 90, 40), np.uint8)
    image[:, size[1] // 2 :] = 210, 60, 180
    return image


def clicks(size=(64, 96)):
    """One seed in each half."""
    seeds = np.zeros((2, *size), np.float32)
    seeds[0, 24:40, 16:32], seeds[1, 24:40, 64:80] = 1, 1
    return seeds


def test_seeds_stop_at_a_strong_colour_edge():
    found = pixelkin.refine(two_colours(), clicks(), device="cpu")
    assert found.shape == (2, 64, 96)
    assert found.dtype == np.float32
    assert (found.argmax(axis=0)[:, :44] == 0).all()
    assert (found.argmax(axis=0)[:, 52:] == 1).all()
    assert found[0, :, :40].min() > 100 * found[0, :, 56:].max()


def test_without_an_edge_seeds_mix():
    found = pixelkin.refine(np.full((64, 96, 3), 99, np.uint8), clicks(), device="cpu")
    assert found[0, 32, 56] > 0.05 * found[0].max()


@pytest.mark.parametrize("thickness", [1, 8])
def test_a_given_boundary_goes_before_the_colours(thickness):
    wall = np.zeros((64, 96), np.float32)
    wall[30 : 30 + thickness] = 1
    seeds = np.zeros((1, 64, 96), np.float32)
    seeds[0, 8:16, 8:16] = 1
    found = pixelkin.refine(two_colours(), seeds, boundary=wall, device="cpu")[0]
    assert found[12, 60] > 1e-6  # across the colours
    assert found[44:].max() == 0  # not across the wall, however thin


@settings(max_examples=20)
@given(
    seeds=hnp.arrays(np.float32, (3, 11, 14), elements=st.floats(0, 50, width=32)),
    stride=st.sampled_from([1, 3, 4]),
    steps=st.sampled_from([0, 1, 64]),
)
def test_the_range_is_kept(seeds, stride, steps):
    image = np.random.default_rng(0).integers(0, 255, (30, 41, 3)).astype(np.uint8)
    found = pixelkin.refine(image, seeds, stride=stride, steps=steps, device="cpu")
    assert found.shape == (3, 30, 41)
    assert found.min() >= 0
    assert (found.max(axis=(1, 2)) <= seeds.max(axis=(1, 2)) * (1 + 1e-5)).all()


@pytest.mark.parametrize("grid", [(64, 96), (16, 24), (8, 12), (1, 1), (200, 10)])
def test_seeds_and_boundary_on_any_grid(grid):
    found = pixelkin.refine(two_colours(), np.ones((1, *grid)), boundary=np.zeros(grid), device="cpu")
    assert found == pytest.approx(np.ones((1, 64, 96)), abs=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (2, 70), (61, 3)])
def test_any_image_size_and_no_seed(size):
    image = np.zeros((*size, 3), np.uint8)
    assert pixelkin.refine(image, np.ones((2, *size)), device="cpu").shape == (2, *size)
    assert pixelkin.refine(image, np.zeros((0, *size)), device="cpu").shape == (0, *size)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((8, 8), np.uint8)}, "RGB"),
        ({"image": np.zeros((8, 8, 3), np.float32)}, "uint8"),
        ({"image": np.zeros((0, 8, 3), np.uint8)}, "RGB"),
        ({"seeds": np.zeros((8, 8))}, "one map a class"),
        ({"seeds": np.zeros((1, 0, 8))}, "one map a class"),
        ({"seeds": -np.ones((1, 8, 8))}, "at least 0"),
        ({"seeds": np.full((1, 8, 8), np.nan)}, "finite"),
        ({"seeds": np.full((1, 8, 8), np.inf)}, "finite"),
        ({"boundary": np.zeros((1, 8, 8))}, "boundary"),
        ({"boundary": np.full((8, 8), 1.5)}, "0..1"),
        ({"boundary": np.full((8, 8), np.nan)}, "0..1"),
        ({"boundary": np.zeros((8, 8)), "model": "m"}, "exclude"),
        ({"stride": 0}, "stride"),
        ({"steps": -1}, "steps"),
        ({"device": "tpu"}, "device"),
        ({"model": "nowhere"}, "no model here"),
    ],
)
def test_what_cannot_work_is_said(change, message):
    call = {"image": np.zeros((8, 8, 3), np.uint8), "seeds": np.ones((1, 8, 8)), "device": "cpu"} | change
    with pytest.raises(ValueError, match=message):
        pixelkin.refine(**call)


def test_the_boundary_of_a_model(tmp_path):
    small = {"classifier.crop": "64", "classifier.scales": "1", "pairs.width": "32", "pairs.crop": "64"}
    method = IRNet(IRNetConfig.from_settings(small))
    scene = scene_dataset(1, 0, labels=("tags",), size=(56, 72))[0]
    method.check(Dataset([scene], {1: "a"}))
    method.facts = {"classes": [1]}
    method.classifier = build_classifier(method.config.classifier, [1], method.config.backbone, pretrained=False)
    method.relations = method._recipe().build(method.facts)
    method.save(tmp_path / "m")
    seeds = np.zeros((1, 56, 72), np.float32)
    seeds[0, 20:30, 20:30] = 1
    found = pixelkin.refine(scene.image, seeds, model=tmp_path / "m", device="cpu")
    wall = method.relation_fields(scene)["boundary"]
    assert np.allclose(found, pixelkin.refine(scene.image, seeds, boundary=wall, device="cpu"), atol=1e-5)
    SISeg().save(tmp_path / "other")
    with pytest.raises(ValueError, match=r"siseg.*give one of irnet"):
        pixelkin.refine(scene.image, seeds, model=tmp_path / "other")
