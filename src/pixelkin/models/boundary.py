"""The class-boundary head (Ahn, Cho, Kwak, CVPR 2019, arXiv 1904.05044)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from pixelkin.models.grids import check_taps, field_size, to_grid


class BoundaryHead(nn.Module):
    """Feature maps to one boundary logit a field pixel; its sigmoid is the boundary probability.

    Each map passes a 1x1 convolution and a group norm of its own, is brought to the field's grid, and all together pass
    one more 1x1 convolution. 125,409 parameters on the published ResNet-50 maps of 64, 256, 512, 1024 and 2048
    channels.

    Args:
        channels: of each feature map.
        strides: image pixels per cell of each map.
        target_stride: image pixels per field pixel.
        width: channels that every map is reduced to.
        groups: of the group norms.

    Raises:
        ValueError: maps that do not fit the target stride, or a width that the groups do not divide.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[float],
        *,
        target_stride: int = 4,
        width: int = 32,
        groups: int = 4,
    ) -> None:
        super().__init__()
        check_taps(channels, strides, target_stride)
        if width % groups:
            raise ValueError(f"a width of {width} does not split into {groups} groups: give a multiple")
        self.strides = tuple(strides)
        self.target_stride = target_stride
        self.reduce = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, width, 1, bias=False), nn.GroupNorm(groups, width)) for c in channels
        )
        self.join = nn.Conv2d(width * len(channels), 1, 1)

    def forward(self, features: Sequence[Tensor], size: tuple[int, int] | None = None) -> Tensor:
        """The (B, C_i, h_i, w_i) maps to (B, 1, h, w) logits.

        Args:
            features: in the order of ``channels``.
            size: (h, w) of the field, ceil(image / target_stride); needed only where every map is coarser than that.
        """
        size = field_size(features, self.strides, self.target_stride, size)
        parts = [
            torch.relu(to_grid(reduce(x), stride, self.target_stride, size))
            for x, stride, reduce in zip(features, self.strides, self.reduce, strict=True)
        ]
        return cast("Tensor", self.join(torch.cat(parts, dim=1)))
