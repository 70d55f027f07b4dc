"""The network of class maps: what it says at first, its rows, its loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pixelkin.models.class_maps import ClassMaps, class_scores, map_loss
from pixelkin.models.classifier import CamClassifier


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = ClassMaps(CamClassifier(3, pretrained=False)).eval()
    for parameter in made.correction.parameters():
        nn.init.normal_(parameter)
    return made


def test_at_first_it_says_what_the_classifier_says_and_nothing_of_the_background():
    torch.manual_seed(0)
    classifier = CamClassifier(3, pretrained=False).eval()
    image = torch.rand(2, 3, 64, 96)
    with torch.inference_mode():
        logits = ClassMaps(classifier).eval()(image)
        cells = nn.functional.conv2d(classifier._features(image), classifier.head.weight)
        wanted = nn.functional.interpolate(cells, scale_factor=2, mode="bilinear", align_corners=False)
    assert logits.shape == (2, 4, 8, 12)
    assert not logits[:, 0].any()
    assert torch.allclose(logits[:, 1:], wanted, atol=1e-5)


def test_chosen_rows_are_those_of_all(model):
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        every, some = model(image), model(image, [2, 0])
    assert torch.allclose(some, every[:, [0, 3, 1]], atol=1e-5)


def test_everything_is_trained_and_the_heads_are_a_group_of_their_own(model):
    model.zero_grad()
    logits = model.train()(torch.rand(1, 3, 64, 64))
    map_loss(logits, torch.randint(0, 4, (1, 64, 64))).backward()
    model.eval()
    body, heads = model.parameter_groups(7.0)
    assert heads["lr_scale"] == 7.0
    assert len(body["params"]) + len(heads["params"]) == len(list(model.parameters()))
    assert any(p is model.classifier.head.weight for p in heads["params"])
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("backbone", ["resnet10t", "vit_tiny_patch16_224"])
def test_other_backbones(backbone):
    torch.manual_seed(0)
    stride = None if backbone.startswith("vit") else 16
    made = ClassMaps(CamClassifier(2, backbone, output_stride=stride, pretrained=False)).eval()
    with torch.inference_mode():
        logits = made(torch.rand(1, 3, 224, 224))
    finest = made.classifier.backbone.strides[made.fine_map]
    assert finest == (16 if stride is None else 8)
    assert logits.shape == (1, 3, 224 // finest, 224 // finest)


def test_the_loss_is_the_mean_over_known_cells_looked_at_in_their_middle():
    logits = torch.randn(1, 3, 2, 2)
    labels = torch.full((1, 8, 8), 7)  # no such class: looking there would fail
    labels[0, 2::4, 2::4] = torch.tensor([[0, 2], [-1, 1]])
    odds = logits.log_softmax(1)[0]
    wanted = -(odds[0, 0, 0] + odds[2, 0, 1] + odds[1, 1, 1]) / 3
    assert torch.allclose(map_loss(logits, labels), wanted)


def test_a_batch_that_knows_nothing_teaches_nothing():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = map_loss(logits, torch.full((1, 8, 8), -1))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_hundreds_of_classes_have_no_unknown_one_among_them():
    logits = torch.zeros(1, 301, 1, 1)
    logits[0, 255] = 9.0
    assert map_loss(logits, torch.full((1, 4, 4), 255)) < 0.1


def test_scores_of_an_image_and_its_mirror_image_mirror_each_other(model):
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    straight, mirrored = (
        class_scores(model, shown, keep=[0, 2], scales=(1.0, 0.75)).resized((13, 18))
        for shown in (image, image[:, ::-1])
    )
    assert straight.shape == (3, 13, 18)
    assert np.allclose(straight, mirrored[..., ::-1], atol=1e-4)
    with pytest.raises(ValueError, match="at least one"):
        class_scores(model, image, keep=[0], scales=())
