"""Class maps learned from a method's own labels: examples, training, probabilities."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from pixelkin.data import Dataset, ImageError, Sample
from pixelkin.methods.base import ConfigError
from pixelkin.methods.class_labels import ClassMapConfig, MapExamples, class_probabilities, fit_class_maps
from pixelkin.methods.tag_classifier import weights_digest
from pixelkin.models.class_maps import ClassMaps
from pixelkin.models.classifier import CamClassifier
from pixelkin.training.config import TrainingConfig

SMALL = ClassMapConfig(
    crop=64,
    long_side=(64, 80),
    epochs=0,
    scales=(1.0,),
    flip=False,
    training=TrainingConfig(iterations=12, batch_size=4, learning_rate=1e-3),
)
IDS = [3, 400]
COLOURS = {0: (120, 120, 120), 3: (220, 30, 30), 400: (30, 30, 220)}


def scene(name, size=(60, 70)):
    """Two coloured parts on grey, and a strip that nobody knows."""
    semantic = np.zeros(size, np.int32)
    semantic[: size[0] // 2, : size[1] // 2] = 3
    semantic[size[0] // 2 :, size[1] // 2 :] = 400
    image = np.zeros((*size, 3), np.uint8)
    for class_id, colour in COLOURS.items():
        image[semantic == class_id] = colour
    semantic[:, -5:] = 255
    return Sample(name, image, semantic=semantic)


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    return CamClassifier(2, pretrained=False).eval()


def test_labels_lie_on_the_pixels_of_their_class_and_nowhere_beyond_the_image():
    example = MapExamples(SMALL, Dataset([scene("a")]), IDS)
    seen = set()
    for k in range(12):
        made = example(np.random.default_rng(k))
        image, labels = made["image"].numpy().astype(int), made["labels"].numpy()
        assert image.shape == (3, 64, 64)
        seen |= set(np.unique(labels))
        for row, class_id in enumerate((0, *IDS)):
            mine = labels == row
            inner = mine & np.roll(mine, 3, 0) & np.roll(mine, -3, 0) & np.roll(mine, 3, 1) & np.roll(mine, -3, 1)
            wanted = np.array(COLOURS[class_id])[:, None]
            assert inner.sum() > 10
            assert np.abs(image[:, inner] - wanted).max() < 25
    assert seen == {-1, 0, 1, 2}
    narrow = MapExamples(SMALL, Dataset([scene("b", (10, 200))]), IDS)(np.random.default_rng(0))
    assert (narrow["labels"] == -1).float().mean() > 0.8


def test_an_image_without_a_map_is_named():
    bare = scene("bare").replace(semantic=None)
    with pytest.raises(ImageError, match="bare: no semantic map"):
        MapExamples(SMALL, Dataset([bare]), IDS)(np.random.default_rng(0))


def test_training_learns_the_map_and_leaves_the_classifier_alone(classifier, tmp_path):
    before, dataset = weights_digest(classifier), Dataset([scene("a"), scene("b")])

    def fit(identity, out=tmp_path):
        settings = {"out": out, "budget": None, "device": "cpu", "seed": 0, "identity": identity}
        return fit_class_maps(SMALL, dataset, IDS, classifier, **settings)

    model, report = fit({"round": 1})
    assert report.iterations == 12
    assert weights_digest(classifier) == before
    assert weights_digest(fit({"round": 1})[0]) == weights_digest(model)
    with pytest.raises(ValueError, match="round was 1"):
        fit({"round": 2})
    shown = scene("c")
    odds = class_probabilities(shown, model, IDS, IDS, SMALL, size=(15, 18))
    assert odds.shape == (3, 15, 18)
    assert np.allclose(odds.sum(axis=0), 1, atol=1e-5)
    truth = np.searchsorted([0, *IDS], shown.semantic[2::4, 2::4])
    known = shown.semantic[2::4, 2::4] != 255
    found = odds[:, : truth.shape[0], : truth.shape[1]].argmax(0)
    assert (found == truth)[known].mean() > (truth == 0)[known].mean() + 0.1


def test_probabilities_are_of_the_classes_asked_for(classifier):
    torch.manual_seed(0)
    model = ClassMaps(copy.deepcopy(classifier)).eval()
    both = class_probabilities(scene("a"), model, IDS, IDS, SMALL, size=(8, 9))
    one = class_probabilities(scene("a"), model, IDS, [400], SMALL, size=(8, 9))
    assert one.shape == (2, 8, 9)
    assert np.allclose(one[1] / one[0], both[2] / both[0], rtol=1e-3)


def test_no_images():
    with pytest.raises(ValueError, match="no image"):
        fit_class_maps(SMALL, Dataset([]), IDS, None, out=None, budget=None, device="cpu", seed=0, identity={})


@pytest.mark.parametrize(
    "change",
    [{"long_side": "400,200"}, {"long_side": "0,9"}, {"scales": "0"}, {"scales": "1,-1"}],
)
def test_settings_that_make_no_sense(change):
    with pytest.raises(ConfigError, match=r"above 0"):
        ClassMapConfig.from_settings(change)
