"""Settings of semantic fine-tuning."""

from __future__ import annotations

from typing import Literal

import pydantic

from pixelkin.methods.base import MethodConfig
from pixelkin.methods.windows import LongSide
from pixelkin.models.zoo import DEFAULT_BACKBONE
from pixelkin.training.config import TrainingConfig


class SemanticConfig(MethodConfig):
    """Settings of :class:`~pixelkin.methods.semantic.SemanticSegmenter`.

    The sizes are those of a few minutes on a CPU; :data:`PUBLISHED` has those of the paper.
    """

    backbone: str = DEFAULT_BACKBONE
    """Any that ``pixelkin backbones`` or timm knows, or the folder of a model to go on from; a ResNet-50 as
    published."""
    pretrained: bool = True
    """Whether the backbone starts from its weights; otherwise from random ones, to compare with."""
    output_stride: Literal[8, 16, 32] | None = 16
    """Image pixels per cell of the backbone's last map, 8 as published; none: the backbone's own, for transformers."""
    head_channels: int = pydantic.Field(default=128, ge=1)
    """Width of the head; 512 in mmsegmentation's FCN."""
    head_dilation: int = pydantic.Field(default=1, ge=1)
    """Of its two 3 x 3 convolutions."""
    dropout: float = pydantic.Field(default=0.1, ge=0, lt=1)
    """Share of the head's channels left out in training."""
    head_rate: float = pydantic.Field(default=10.0, gt=0)
    """Learning rate of the head over the backbone's; 1 as published."""
    crop: int = pydantic.Field(default=192, ge=32, multiple_of=32)
    """Side of a training crop."""
    long_side: LongSide = (160, 448)
    """Least and greatest random length of a training image's long side."""
    epochs: float = pydantic.Field(default=3.0, ge=0)
    """Passes over the images. Training has at least ``training.iterations`` steps, however few images."""
    training: TrainingConfig = TrainingConfig(iterations=150, batch_size=8, learning_rate=3e-4, warmup=10)
    longest: int = pydantic.Field(default=320, ge=32)
    """The long side that an image is labelled with, larger and smaller ones resized to it."""
    flip: bool = False
    """Whether the mirror image is labelled too and the mean taken, for twice the time."""
    min_area: int = pydantic.Field(default=64, ge=0)
    """Smaller components of a class are no instances, in pixels; the semantic map keeps them."""


PUBLISHED = SemanticConfig(
    backbone="resnet50",
    output_stride=8,
    head_channels=512,
    head_rate=1.0,
    crop=512,
    long_side=(341, 1365),
    epochs=0.0,
    training=TrainingConfig(
        iterations=40_000,
        batch_size=16,
        optimizer="sgd",
        learning_rate=0.01,
        momentum=0.9,
        weight_decay=5e-4,
        schedule="poly",
        poly_power=0.9,
    ),
    longest=683,
)
"""The paper's steps, batch, learning rate and schedule; the rest is as in mmsegmentation's FCN for PASCAL VOC.

Its images, 500 x 375, are brought to a short side of 512 (683 the long one), in training times 0.5 to 2.
"""
