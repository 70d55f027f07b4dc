"""The appearance pathway of AMD: one frame to soft regions.

The Emergence of Objectness (Liu, Wu, Yu, Lin, NeurIPS 2021), section 3, in the form of its released configuration.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from pixelkin.models.backbone import Backbone, build_backbone


class AppearancePathway(nn.Module):
    """A backbone and a small fully convolutional head: each cell of the grid to one of a few regions, softly.

    Args:
        backbone: name for :func:`pixelkin.models.backbone.build_backbone`; ``resnet50`` as published.
        regions: how many; below 4, training was reported as unstable.
        output_stride: image pixels per cell, 8, 16 or 32.
        head_channels: width of the head.
        head_dilation: of its two 3 x 3 convolutions.
        dropout: share of the head's channels left out in training.
        pretrained: whether the backbone has its weights; random ones as published.
        own_dilations: whether a ResNet of stride 8 keeps timm's dilations, 2 and 4 in its last two stages, with which
            pretrained weights reach as far as they did; otherwise it has the published ones, 1 and 2.

    Raises:
        BackboneError: a backbone that cannot be built so.
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        *,
        regions: int = 5,
        output_stride: int = 8,
        head_channels: int = 256,
        head_dilation: int = 6,
        dropout: float = 0.1,
        pretrained: bool = False,
        own_dilations: bool = False,
    ) -> None:
        super().__init__()
        self.regions = regions
        self.backbone = build_backbone(backbone, pretrained=pretrained, output_stride=output_stride)
        if not own_dilations:
            dilate_last_stage_only(self.backbone)
        self.head = fcn_head(
            self.backbone.channels[-1], head_channels, regions, dilation=head_dilation, dropout=dropout
        )

    @property
    def stride(self) -> int:
        """Image pixels per cell."""
        return self.backbone.strides[-1]

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in 0..1 to (B, regions, ceil(H / stride), ceil(W / stride)) logits."""
        return self.look(image)[0]

    def look(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The logits as :meth:`forward` gives them, and the backbone's last map, (B, C, h, w), they are made from."""
        features = self.backbone(self.backbone.normalise(image))[-1]
        return cast("Tensor", self.head(features)), features


def fcn_head(inside: int, channels: int, outside: int, *, dilation: int, dropout: float) -> nn.Sequential:
    """A fully convolutional head: two 3 x 3 convolutions with batch normalisation and ReLU, and a 1 x 1 one.

    Args:
        inside: channels of the map it is given.
        channels: its width.
        outside: channels of what it says, logits.
        dilation: of its 3 x 3 convolutions.
        dropout: share of its channels left out in training.
    """
    return nn.Sequential(
        *_block(inside, channels, dilation),
        *_block(channels, channels, dilation),
        nn.Dropout2d(dropout),
        nn.Conv2d(channels, outside, 1),
    )


def _block(inside: int, outside: int, dilation: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inside, outside, 3, padding=dilation, dilation=dilation, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution, nn.BatchNorm2d(outside), nn.ReLU(inplace=True)


def dilate_last_stage_only(backbone: Backbone) -> None:
    """Give a ResNet of stride 8 the published dilations, 1 in the third stage and 2 in all of the fourth."""
    stages = [getattr(backbone.body, name, None) for name in ("layer3", "layer4")]
    if backbone.strides[-1] != 8 or not all(isinstance(stage, nn.Module) for stage in stages):
        return
    for stage, dilation in zip(stages, (1, 2), strict=True):
        for module in cast("nn.Module", stage).modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                module.dilation = module.padding = (dilation, dilation)


def soft_regions(logits: Tensor) -> Tensor:
    """(B, regions, h, w) logits to shares that sum to 1 in every cell."""
    return torch.softmax(logits, dim=1)
