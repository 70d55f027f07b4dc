"""A fully convolutional network that says the class of every pixel, to fine-tune a backbone on semantic masks.

As backbones learned without labels are judged: The Emergence of Objectness (Liu, Wu, Yu, Lin, NeurIPS 2021), section
4.3, after mmsegmentation's FCN.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pixelkin.models.amd_appearance import dilate_last_stage_only, fcn_head
from pixelkin.models.backbone import build_backbone
from pixelkin.models.class_maps import map_loss
from pixelkin.models.multi_scale import look_at_scales, to_device


class SemanticNetwork(nn.Module):
    """A backbone and a fully convolutional head on its last map: the class of each cell, background first.

    Args:
        classes: how many, without the background.
        backbone: name or folder for :func:`pixelkin.models.backbone.build_backbone`.
        output_stride: image pixels per cell, 8, 16 or 32; None leaves the backbone as it is.
        head_channels: width of the head.
        head_dilation: of its two 3 x 3 convolutions.
        dropout: share of the head's channels left out in training.
        pretrained: whether the backbone has its weights.
        own_dilations: whether a ResNet of stride 8 keeps timm's dilations; otherwise it has those of AMD's, see
            :class:`~pixelkin.models.amd_appearance.AppearancePathway`.

    Raises:
        BackboneError: a backbone that cannot be built so.
    """

    def __init__(
        self,
        classes: int,
        backbone: str = "efficientnet_lite0",
        *,
        output_stride: int | None = 8,
        head_channels: int = 512,
        head_dilation: int = 1,
        dropout: float = 0.1,
        pretrained: bool = True,
        own_dilations: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone, pretrained=pretrained, output_stride=output_stride)
        if not own_dilations:
            dilate_last_stage_only(self.backbone)
        self.head = fcn_head(
            self.backbone.channels[-1], head_channels, 1 + classes, dilation=head_dilation, dropout=dropout
        )

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in 0..1 to (B, 1 + classes, ceil(H / stride), ceil(W / stride)) logits."""
        normal = self.backbone.normalise(image).contiguous(memory_format=torch.channels_last)
        return cast("Tensor", self.head(self.backbone(normal)[-1]))

    def parameter_groups(self, head_rate: float = 1.0) -> Iterable[dict[str, Any]]:
        """What is trained, for :func:`pixelkin.training.loop.train`; the head ``head_rate`` times as fast."""
        return [{"params": self.backbone.parameters()}, {"params": self.head.parameters(), "lr_scale": head_rate}]


def pixel_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy over the known pixels, the logits enlarged to the labels' size; 0 where none is known.

    Args:
        logits: (B, 1 + classes, h, w).
        labels: (B, H, W) 0 background, 1 + row of a class, -1 unknown.
    """
    full = nn.functional.interpolate(logits.float(), labels.shape[-2:], mode="bilinear", align_corners=False)
    return map_loss(full, labels)


@torch.inference_mode()
def pixel_probabilities(
    model: SemanticNetwork, image: npt.NDArray[np.uint8], *, longest: int, flip: bool
) -> npt.NDArray[np.float32]:
    """(1 + classes, h, w) class probabilities of a whole image, on the network's own grid, which covers it exactly.

    Args:
        model: put into eval mode.
        image: (H, W, 3) RGB, of any size.
        longest: the long side it is looked at with, in pixels.
        flip: whether the mirror image is looked at too, and the mean taken.
    """
    model.eval()
    found = look_at_scales(
        lambda shown: torch.softmax(model(shown).float(), dim=1),
        to_device(image, next(model.parameters())),
        scales=(longest / max(image.shape[:2]),),
        flip=flip,
        step=max(model.backbone.strides),
        max_pixels=longest**2,
    )
    return np.asarray(found.maps[0].cpu().numpy() / (2 if flip else 1), np.float32)
