"""MaskUNet: an image and a mask to the fields that divide the mask into objects."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pixelkin.models.backbone import build_backbone

MASK_CHANNELS = 2
"""Channels beside RGB: the mask (0 or 1) and its distance transform (0 outside; of the order of 1 inside)."""


class Division(NamedTuple):
    """What :class:`MaskUNet` says of a batch; fields at stride 2.

    Attributes:
        displacement: (B, 2, h, w), (dy, dx) from each pixel to the middle of its object, in units of ``MaskUNet.reach``
            field pixels.
        boundary: (B, h, w) logits: another object of the mask begins beside this pixel.
        crowd: (B,) logits: the mask holds more than one object.
    """

    displacement: Tensor
    boundary: Tensor
    crowd: Tensor


class MaskUNet(nn.Module):
    """A backbone that also sees a mask, and a U-shaped decoder to stride 2.

    The semantic mask is known when labels are made as well as in training, so the network need not find the objects,
    only where one ends and the next begins. The mask enters at the stem, with weights that start at zero, and again at
    every level of the decoder.

    Args:
        backbone: name for :func:`pixelkin.models.backbone.build_backbone`.
        reach: field pixels that a displacement of 1 stands for; of the order of half an object.
        widths: channels of the decoder, multiples of 8 from coarse to fine; one for each map of the backbone but the
            coarsest, the finest ones of those given.
        pretrained: whether the backbone starts from its ImageNet weights.

    Raises:
        ValueError: the backbone has a single map, or more than there are widths for.
    """

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        *,
        reach: float = 16.0,
        widths: tuple[int, ...] = (96, 64, 48, 32),
        pretrained: bool = True,
    ) -> None:
        super().__init__()
        self.reach = reach
        self.backbone = build_backbone(backbone, pretrained=pretrained, in_channels=3 + MASK_CHANNELS)
        *skips, top = self.backbone.channels
        if not 1 <= len(skips) <= len(widths):
            raise ValueError(
                f"{backbone} has {len(skips) + 1} feature maps, but 2 to {len(widths) + 1} serve: use another"
            )
        widths = widths[-len(skips) :]
        self.top = nn.Conv2d(top + MASK_CHANNELS, widths[0], 1)
        self.steps = nn.ModuleList()
        before = widths[0]
        for skip, width in zip(reversed(skips), widths, strict=True):
            self.steps.append(_step(before + skip + MASK_CHANNELS, width))
            before = width
        self.dense = nn.Conv2d(before, 3, 1)
        self.crowd = nn.Linear(top + before, 1)

    def train(self, mode: bool = True) -> MaskUNet:
        """As ``nn.Module.train``; the backbone's normalisation keeps its running statistics, as batches are small."""
        super().train(mode)
        for module in self.backbone.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def forward(self, image: Tensor, mask: Tensor) -> Division:
        """(B, 3, H, W) RGB in 0..1 and (B, 2, H, W) mask channels to fields of ceil(H / 2) x ceil(W / 2)."""
        x = self.backbone.normalise(torch.cat([image, mask], dim=1)).contiguous(memory_format=torch.channels_last)
        *skips, top = self.backbone(x)
        y = self.top(_with_mask(top, mask))
        for step, skip in zip(self.steps, reversed(skips), strict=True):
            y = functional.interpolate(y, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            y = step(_with_mask(torch.cat([y, skip], dim=1), mask))
        stride2 = (-(-image.shape[-2] // 2), -(-image.shape[-1] // 2))
        if y.shape[-2:] != stride2:  # the backbone's finest map is coarser (or finer) than that
            y = functional.interpolate(y, size=stride2, mode="bilinear", align_corners=False)
        dense = self.dense(y)
        inside = _shrink(mask[:, :1], y)
        pooled = (y * inside).sum((2, 3)) / (inside.sum((2, 3)) + 1e-3)
        crowd = self.crowd(torch.cat([top.mean((2, 3)), pooled], dim=1))
        return Division(dense[:, :2], dense[:, 2], crowd[:, 0])


def _with_mask(x: Tensor, mask: Tensor) -> Tensor:
    return torch.cat([x, _shrink(mask, x)], dim=1)


def _shrink(mask: Tensor, to: Tensor) -> Tensor:
    return functional.adaptive_avg_pool2d(mask, (to.shape[-2], to.shape[-1]))


def _step(channels: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for given in (channels, width):
        layers += [nn.Conv2d(given, width, 3, padding=1, bias=False), nn.GroupNorm(8, width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
