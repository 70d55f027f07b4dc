"""Backbones out of saved models: the right one of several, under its plain name."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from pixelkin.models.backbone import BackboneError, build_backbone
from pixelkin.models.classifier import CamClassifier
from pixelkin.models.mask_unet import MaskUNet
from pixelkin.models.zoo import plain_name


def saved(folder, tensors, backbone="efficientnet_lite0"):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"config": {"backbone": backbone}}))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return str(folder)


def random(seed, **options):
    torch.manual_seed(seed)
    return build_backbone(pretrained=False, **options)


def same(one, other):
    return all(torch.equal(v, other.state_dict()[k]) for k, v in one.state_dict().items())


def test_of_several_the_last_trained(tmp_path):
    parts = {"relations.backbone.": 1, "classifier.backbone.": 2, "maps.classifier.backbone.": 3}
    for count in (1, 2, 3):
        kept = dict(list(parts.items())[:count])
        tensors = {part + k: v for part, seed in kept.items() for k, v in random(seed).state_dict().items()}
        folder = saved(tmp_path / str(count), {**tensors, "head.weight": torch.zeros(1)})
        found = build_backbone(folder)
        assert same(found, random(count))
        assert found.name == "efficientnet_lite0"
        assert plain_name(folder) == "efficientnet_lite0"
        assert found.imagenet_head()(torch.zeros(1, 320, 1, 1)).shape == (1, 1000)
    assert not same(build_backbone(folder, pretrained=False), random(3))
    assert max(build_backbone(folder, output_stride=16).strides) == 16


def test_a_backbone_of_timm_needs_no_download(tmp_path):
    torch.manual_seed(0)
    own = build_backbone("resnet10t", pretrained=False)
    folder = saved(tmp_path / "m", {"backbone." + k: v for k, v in own.state_dict().items()}, "resnet10t")
    assert same(build_backbone(folder), own)


def test_a_stem_that_saw_a_mask_goes_on_with_the_colours(tmp_path):
    torch.manual_seed(0)
    unet = MaskUNet(pretrained=False)
    folder = saved(tmp_path / "m", unet.state_dict())
    found = build_backbone(folder)
    stem = unet.state_dict()["backbone.body.conv_stem.weight"]
    assert torch.equal(found.body.conv_stem.weight, stem[:, :3])
    wide = build_backbone(folder, in_channels=5).eval()
    assert wide(torch.zeros(1, 5, 32, 32))[0].shape[1] == wide.channels[0]
    assert torch.equal(wide.body.conv_stem.weight[:, :3], stem[:, :3])
    assert not wide.body.conv_stem.weight[:, 3:].any()


def test_a_classifier_on_it_has_the_embedding_of_its_plain_name(tmp_path):
    folder = saved(tmp_path / "m", {"backbone." + k: v for k, v in random(5).state_dict().items()})
    first, again = CamClassifier(2, folder), CamClassifier(2, "efficientnet_lite0", pretrained=False)
    again.load_state_dict(first.state_dict())
    assert first.head.in_channels == 1280


def test_folders_of_no_use(tmp_path):
    folder = saved(tmp_path / "m", {"head.weight": torch.zeros(1)})
    with pytest.raises(BackboneError, match="no weights of efficientnet_lite0"):
        build_backbone(folder)
    (tmp_path / "m" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(BackboneError, match="cannot be read"):
        build_backbone(folder)
    (tmp_path / "m" / "config.json").write_text(json.dumps({"config": {}}))
    with pytest.raises(BackboneError, match="no model with a backbone"):
        build_backbone(folder)
    with pytest.raises(BackboneError, match="nor a folder with a model"):
        build_backbone(str(tmp_path / "nothing"))
