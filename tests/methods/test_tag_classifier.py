"""The classifier of image tags: its examples, what it says is present, and its activation."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pydantic
import pytest
import torch

from pixelkin.data import Dataset, ImageError, Sample
from pixelkin.methods import tag_classifier
from pixelkin.methods.tag_classifier import (
    PUBLISHED_TRAINING,
    ClassifierConfig,
    TagExamples,
    build_classifier,
    class_activation,
    fit_classifier,
    present_classes,
    tagged_classes,
    tags_digest,
    weights_digest,
)
from pixelkin.models.classifier import tag_probabilities
from pixelkin.training.config import TrainingConfig

SMALL = ClassifierConfig(
    epochs=0,
    crop=64,
    long_side=(64, 80),
    scales=(1.0,),
    flip=False,
    training=TrainingConfig(iterations=12, batch_size=4, learning_rate=1e-3, log_every=1),
)


def coloured(*names, size=(60, 70)):
    """Images whose left half has the colours of their tags."""
    colours = {3: (220, 30, 30), 9: (30, 30, 220)}
    samples = []
    for k, tags in enumerate(names):
        image = np.full((*size, 3), 120, np.uint8)
        for i, tag in enumerate(tags or ()):
            image[i * size[0] // 2 : (i + 1) * size[0] // 2, : size[1] // 2] = colours[tag]
        samples.append(Sample(f"s{k}", image, tags=tags))
    return Dataset(samples, {3: "red", 9: "blue"}, name="colours")


@pytest.fixture(scope="module")
def untrained():
    torch.manual_seed(0)
    return build_classifier(SMALL, [3, 9], "efficientnet_lite0", pretrained=False).eval()


def test_examples_hold_the_tags_of_their_image_and_fill_with_its_mean_colour():
    dataset = coloured((3,), (9, 3), ())
    example = TagExamples(SMALL, dataset, [3, 9])
    seen = set()
    for k in range(20):
        made = example(np.random.default_rng(k))
        image, tags = made["image"].numpy(), tuple(made["tags"].tolist())
        assert image.shape == (3, 64, 64)
        assert image.dtype == np.uint8
        reds = (image[0].astype(int) - image[2] > 100).any()
        blues = (image[2].astype(int) - image[0] > 100).any()
        assert (float(reds), float(blues)) == tags
        seen.add(tags)
    assert seen == {(1, 0), (1, 1), (0, 0)}


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (500, 2), (900, 700)])
def test_examples_of_any_size(size):
    example = TagExamples(SMALL, coloured((3,), size=size), [3, 9])
    for k in range(4):
        made = example(np.random.default_rng(k))["image"]
        assert made.shape == (3, 64, 64)
        if max(size) < 2:
            assert (made.flatten(1).amax(1) == made.flatten(1).amin(1)).all()


def test_examples_are_a_function_of_their_generator_and_travel():
    example = TagExamples(SMALL, coloured((3,), (9,)), [3, 9])
    first = example(np.random.default_rng(5))
    for other in (example, pickle.loads(pickle.dumps(example))):
        again = other(np.random.default_rng(5))
        assert all(torch.equal(first[key], again[key]) for key in first)


def test_fit_learns_the_tags_and_finds_its_place_again(tmp_path):
    dataset = coloured((3,), (9,), (3,), (9,), None)

    def fit(out, seed=0, config=SMALL):
        return fit_classifier(
            config, dataset, dataset.classes, "efficientnet_lite0", out=out, budget=None, device="cpu", seed=seed
        )

    model, report = fit(tmp_path / "a")
    assert report.iterations == 12
    log = [json.loads(line) for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    assert np.mean([line["losses"]["loss"] for line in log[-3:]]) < 0.9 * log[0]["losses"]["loss"]
    red, blue = (tag_probabilities(model, sample.image) for sample in dataset[:2])
    assert red[0] > blue[0]
    assert blue[1] > red[1]
    again, _ = fit(tmp_path / "a")  # was finished: only loads
    assert weights_digest(again) == weights_digest(model)
    helped = SMALL.model_copy(update={"training": SMALL.training.model_copy(update={"workers": 1, "log_every": 3})})
    again, _ = fit(tmp_path / "a", config=helped)  # changes nothing that is learned
    assert weights_digest(again) == weights_digest(model)
    slower = SMALL.model_copy(update={"training": SMALL.training.model_copy(update={"learning_rate": 1e-5})})
    with pytest.raises(ValueError, match="learning_rate was"):
        fit(tmp_path / "a", config=slower)
    changed = dataset.map(lambda s: s.replace(tags=(3,)) if s.name == "s1" else s)
    with pytest.raises(ValueError, match="tags was"):
        fit_classifier(
            SMALL, changed, dataset.classes, "efficientnet_lite0", out=tmp_path / "a", budget=None, device="cpu", seed=0
        )


@pytest.mark.parametrize("tags", [None, ()])
def test_nothing_to_learn_from(tmp_path, tags):
    dataset = coloured(tags, tags)
    with pytest.raises(ValueError, match="--tags"):
        fit_classifier(
            SMALL,
            dataset,
            tagged_classes(dataset),
            "efficientnet_lite0",
            out=tmp_path,
            budget=None,
            device="cpu",
            seed=0,
        )


def test_what_is_present(untrained, monkeypatch):
    sample = coloured((3,))[0]
    asked = {"threshold": 0.5, "max_pixels": 10**6}
    assert present_classes(sample.replace(tags=(9, 3, 9)), untrained, [3, 9], **asked) == [3, 9]
    assert present_classes(sample.replace(tags=()), untrained, [3, 9], **asked) == []
    with pytest.raises(ImageError, match="never learned class 4"):
        present_classes(sample.replace(tags=(3, 4)), untrained, [3, 9], **asked)
    with pytest.raises(ImageError, match="no tags"):
        present_classes(sample.replace(tags=None), untrained, [3, 9], threshold=None, max_pixels=10**6)
    monkeypatch.setattr(tag_classifier, "tag_probabilities", lambda *_, **__: np.array([0.5, 0.49]))
    assert present_classes(sample.replace(tags=None), untrained, [9, 3], **asked) == [9]
    assert present_classes(sample, untrained, [3, 9], **asked) == [3]  # what is said goes before what is seen


def test_activation_is_over_its_largest_and_in_the_order_asked(untrained):
    sample = coloured((3, 9))[0]
    both = class_activation(sample, untrained, [3, 9], [3, 9], SMALL, size=(15, 18))
    assert both.shape == (2, 15, 18)
    assert both.min() >= 0
    assert both.max() <= 1
    turned = class_activation(sample, untrained, [3, 9], [9, 3], SMALL, size=(15, 18))
    assert np.array_equal(turned, both[::-1])
    assert class_activation(sample, untrained, [3, 9], [], SMALL, size=(15, 18)).shape == (0, 15, 18)
    assert class_activation(sample, untrained, [3, 9], [9], SMALL, size=sample.size).shape == (1, *sample.size)


def test_tagged_classes_keep_their_ids_and_names():
    dataset = Dataset(
        [s.replace(tags=t) for s, t in zip(coloured((3,), (3,)), [(9, 400), None], strict=True)], {9: "b"}
    )
    assert tagged_classes(dataset) == {9: "b", 400: "class 400"}


def test_digests_tell_what_differs(untrained):
    dataset = coloured((3, 9), (9,))
    assert tags_digest(dataset) == tags_digest(dataset.map(lambda s: s.replace(tags=tuple(reversed(s.tags)))))
    assert tags_digest(dataset) != tags_digest(dataset.map(lambda s: s.replace(tags=(9,))))
    assert tags_digest(dataset) != tags_digest(dataset[:1])
    before = weights_digest(untrained)
    assert before == weights_digest(untrained)
    with torch.no_grad():
        weight = untrained.head.weight.view(-1)
        kept = weight[0].item()
        weight[0] = float(np.nextafter(np.float32(kept), np.float32(9)))
        assert weights_digest(untrained) != before
        weight[0] = kept
    assert weights_digest(untrained) == before


def test_the_published_training_has_no_momentum():
    assert PUBLISHED_TRAINING.momentum == 0
    assert PUBLISHED_TRAINING.optimizer == "sgd"


@pytest.mark.parametrize("wrong", [{"long_side": (9, 5)}, {"scales": ()}, {"scales": (1.0, 0.0)}, {"crop": 33}])
def test_settings_that_cannot_work(wrong):
    with pytest.raises(pydantic.ValidationError):
        ClassifierConfig(**wrong)
