"""The fully convolutional network of classes: its grid, its loss, its probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pixelkin.models.backbone import BackboneError
from pixelkin.models.semantic import SemanticNetwork, pixel_loss, pixel_probabilities


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return SemanticNetwork(3, "test_resnet", head_channels=8, pretrained=False).eval()


def random_image(size):
    return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_logits_are_those_of_the_cells(stride):
    made = SemanticNetwork(3, "test_resnet", output_stride=stride, head_channels=8, pretrained=False).eval()
    with torch.inference_mode():
        assert made(torch.rand(2, 3, 65, 96)).shape == (2, 4, -(-65 // stride), 96 // stride)


def test_only_a_resnet_that_asks_for_them_has_the_published_dilations():
    def dilations(own):
        made = SemanticNetwork(1, "resnet10t", head_channels=8, pretrained=False, own_dilations=own)
        return {m.dilation for m in made.backbone.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)}

    assert (4, 4) in dilations(own=True)
    assert dilations(own=False) == {(1, 1), (2, 2)}


def test_backbone_and_head_are_trained_at_their_rates(network):
    body, head = network.parameter_groups(5.0)
    assert head["lr_scale"] == 5.0
    count = len(list(body["params"])) + len(list(head["params"]))
    assert count == len(list(network.parameters()))
    made = SemanticNetwork(3, "test_resnet", head_channels=8, pretrained=False).train()
    pixel_loss(made(torch.rand(2, 3, 64, 64)), torch.randint(0, 4, (2, 64, 64))).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in made.parameters())


def test_the_loss_is_of_every_known_pixel():
    logits, labels = torch.randn(2, 3, 4, 5), torch.randint(-1, 3, (2, 16, 20))
    full = nn.functional.interpolate(logits, (16, 20), mode="bilinear", align_corners=False)
    wanted = nn.functional.cross_entropy(full, labels.long(), ignore_index=-1)
    assert torch.allclose(pixel_loss(logits, labels), wanted, atol=1e-6)


def test_unknown_pixels_teach_nothing():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    labels = torch.full((1, 16, 16), -1)
    labels[0, :, :4] = 1
    pixel_loss(logits, labels).backward()
    assert logits.grad[..., 0].abs().sum() > 0
    assert not logits.grad[..., 2:].any()  # the enlargement reaches half a cell across
    assert pixel_loss(logits, torch.full((1, 16, 16), -1)) == 0


@pytest.mark.parametrize("size", [(40, 70), (70, 40), (300, 11), (1, 1), (16, 16)])
def test_probabilities_sum_to_one_for_any_shape(network, size):
    odds = pixel_probabilities(network, random_image(size), longest=64, flip=False)
    assert odds.shape[0] == 4
    assert max(odds.shape[1:]) == 64 // 8
    assert np.allclose(odds.sum(axis=0), 1, atol=1e-5)


def test_with_its_mirror_image_an_image_says_what_its_mirror_image_says(network):
    image = random_image((48, 64))
    straight, mirrored = (pixel_probabilities(network, each, longest=64, flip=True) for each in (image, image[:, ::-1]))
    assert np.allclose(straight, mirrored[..., ::-1], atol=1e-5)
    assert np.allclose(straight.sum(axis=0), 1, atol=1e-5)
    assert not np.allclose(straight, pixel_probabilities(network, image, longest=64, flip=False), atol=1e-5)


def test_a_transformer_needs_its_own_stride():
    with pytest.raises(BackboneError, match="leave output_stride out"):
        SemanticNetwork(2, "vit_tiny_patch16_224", pretrained=False)
    made = SemanticNetwork(2, "vit_tiny_patch16_224", output_stride=None, head_channels=8, pretrained=False).eval()
    assert pixel_probabilities(made, random_image((30, 40)), longest=64, flip=False).shape == (3, 3, 4)
