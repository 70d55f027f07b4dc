from __future__ import annotations

import pytest
import torch
from torch import nn

from pixelkin.models.backbone import build_backbone
from pixelkin.models.mask_unet import MASK_CHANNELS, MaskUNet


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return MaskUNet(reach=7.0).eval()


def scene(height, width, batch=1):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(batch, 3, height, width, generator=generator)
    mask = (torch.rand(batch, MASK_CHANNELS, height, width, generator=generator) > 0.5).float()
    return image, mask


@pytest.mark.parametrize("size", [(64, 96), (33, 47), (5, 7), (1, 1), (2, 65)])
def test_fields_of_any_size(net, size):
    with torch.inference_mode():
        said = net(*scene(*size, batch=2))
    half = (-(-size[0] // 2), -(-size[1] // 2))
    assert said.displacement.shape == (2, 2, *half)
    assert said.boundary.shape == (2, *half)
    assert said.crowd.shape == (2,)
    assert all(torch.isfinite(part).all() for part in said)


def test_at_first_the_pretrained_backbone_does_not_see_the_mask(net):
    image, mask = scene(48, 64)
    plain = build_backbone("efficientnet_lite0").eval()
    with torch.inference_mode():
        expected = plain(plain.normalise(image))
        for shown in (torch.zeros_like(mask), mask):
            maps = net.backbone(net.backbone.normalise(torch.cat([image, shown], dim=1)))
            for a, b in zip(maps, expected, strict=True):
                torch.testing.assert_close(a, b)
        assert not torch.equal(net(image, mask).boundary, net(image, mask * 0).boundary)  # the decoder does


def test_normalisation_keeps_its_running_statistics():
    net = MaskUNet(pretrained=False).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    image, mask = scene(64, 64, batch=2)
    said = net(image, mask)
    (said.displacement.sum() + said.boundary.sum() + said.crowd.sum()).backward()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    norms = [m for m in net.backbone.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert not any(module.training for module in norms)
    assert net.training
    assert all(p.grad is not None for p in net.parameters())
    stem = next(p for p in net.backbone.parameters() if p.shape[1:2] == (3 + MASK_CHANNELS,))
    assert stem.grad[:, 3:].any()  # so the backbone can learn to see the mask


def test_a_frozen_backbone_stays_as_it_is():
    net = MaskUNet(pretrained=False)
    net.backbone.freeze()
    net.train()
    said = net(*scene(64, 64))
    (said.displacement.sum() + said.boundary.sum() + said.crowd.sum()).backward()
    assert all(p.grad is None for p in net.backbone.parameters())
    assert all(p.grad is not None for name, p in net.named_parameters() if not name.startswith("backbone."))


def test_the_crowd_is_read_inside_the_mask(net):
    image, mask = scene(64, 64)
    mask = mask * 0
    mask[:, :, 16:48, 16:48] = 1
    with torch.inference_mode():
        assert torch.isfinite(net(image, mask * 0).crowd).all()  # no mask at all
        assert not torch.equal(net(image, mask).crowd, net(image, mask * 0).crowd)


def test_the_names_of_the_weights_do_not_change(net):
    names = [name for name in net.state_dict() if not name.startswith("backbone.")]
    steps = [f"steps.{i}.{layer}" for i in range(4) for layer in ("0.weight", "1.weight", "1.bias", "3.weight")]
    steps += [f"steps.{i}.4.{kind}" for i in range(4) for kind in ("weight", "bias")]
    heads = [f"{head}.{kind}" for head in ("top", "dense", "crowd") for kind in ("weight", "bias")]
    assert sorted(names) == sorted(steps + heads)
    assert net.state_dict()["dense.weight"].shape == (3, 32, 1, 1)
    assert net.reach == 7.0


@pytest.mark.parametrize("backbone", ["resnet10t", "convnext_atto", "vit_tiny_patch16_224"])
def test_other_backbones_give_the_same_grid(backbone):
    net = MaskUNet(backbone, pretrained=False).eval()
    with torch.inference_mode():
        said = net(*scene(49, 64))
    assert said.boundary.shape == (1, 25, 32)
    assert said.displacement.shape == (1, 2, 25, 32)


def test_too_few_widths():
    with pytest.raises(ValueError, match="efficientnet_lite0 has 5 feature maps, but 2 to 3 serve"):
        MaskUNet(widths=(64, 32), pretrained=False)
