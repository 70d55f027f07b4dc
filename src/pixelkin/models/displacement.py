"""The displacement head (Ahn, Cho, Kwak, CVPR 2019, arXiv 1904.05044)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from pixelkin.models.grids import check_taps, field_size, to_grid


class DisplacementHead(nn.Module):
    """Feature maps to the displacement (dy, dx) of every field pixel to the centre of its object, in field pixels.

    Maps coarser than the field meet at twice its stride, where a 1x1 convolution joins them; the result meets the finer
    maps on the field's grid. 1,269,120 parameters on the published ResNet-50 maps of 64, 256, 512, 1024 and 2048
    channels.

    The losses know only differences of displacements, so what is learned has an arbitrary offset: give the mean over
    the training images to :meth:`centre`, and the head subtracts it in eval mode.

    Args:
        channels: of each feature map, fine to coarse.
        strides: image pixels per cell of each map.
        target_stride: image pixels per field pixel.
        width: channels of the coarse maps and joints; the finer maps get a half and a quarter of it.
        context: layers that look around, each twice as far as the one before; 0 as published. All others look at one
            place, and the maps of a network that saw mirrored images cannot tell left from right there.

    Raises:
        ValueError: maps that do not fit the target stride, or a width that is no multiple of 32.
    """

    mean: Tensor

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[float],
        *,
        target_stride: int = 4,
        width: int = 256,
        context: int = 0,
    ) -> None:
        super().__init__()
        check_taps(channels, strides, target_stride)
        if width % 32:
            raise ValueError(f"the width of a displacement head must be a multiple of 32, got {width}")
        self.strides = tuple(strides)
        self.target_stride = target_stride
        fine = [i for i, stride in enumerate(strides) if stride <= target_stride]
        widths = [width] * len(channels)
        for i in fine:
            widths[i] = width // 2 if i == fine[-1] else width // 4
        self.reduce = nn.ModuleList(_reduction(c, out) for c, out in zip(channels, widths, strict=True))
        coarse = len(channels) - len(fine)
        self.join_coarse = _reduction(coarse * width, width) if coarse else None
        self.context = nn.ModuleList(_surroundings(width, 2**i) for i in range(context if coarse else 0))
        joined = sum(widths[i] for i in fine) + (width if coarse else 0)
        self.join = nn.Sequential(_reduction(joined, width), nn.ReLU(), nn.Conv2d(width, 2, 1, bias=False))
        self.register_buffer("mean", torch.zeros(2))

    def forward(self, features: Sequence[Tensor], size: tuple[int, int] | None = None) -> Tensor:
        """The (B, C_i, h_i, w_i) maps to (B, 2, h, w) displacements, centred in eval mode.

        Args:
            features: in the order of ``channels``.
            size: (h, w) of the field, ceil(image / target_stride); needed only where every map is coarser than that.
        """
        target = self.target_stride
        size = field_size(features, self.strides, target, size)
        half = (-(-size[0] // 2), -(-size[1] // 2))
        fine, coarse = [], []
        for x, stride, reduce in zip(features, self.strides, self.reduce, strict=True):
            if stride <= target:
                fine.append(torch.relu(to_grid(reduce(x), stride, target, size)))
            else:
                coarse.append(torch.relu(to_grid(reduce(x), stride, 2 * target, half)))
        if self.join_coarse is not None:
            met = self.join_coarse(torch.cat(coarse, dim=1))
            if self.context:
                met = torch.relu(met)
            for layer in self.context:
                met = met + torch.relu(layer(met))
            fine.append(torch.relu(to_grid(met, 2 * target, target, size)))
        field = cast("Tensor", self.join(torch.cat(fine, dim=1)))
        return field if self.training else field - self.mean.view(1, 2, 1, 1)

    def centre(self, mean: Tensor) -> None:
        """Keep the mean (dy, dx) of the uncentred displacement over the training images, to subtract in eval mode.

        Raises:
            ValueError: a mean that is not two finite numbers.
        """
        if mean.shape != (2,) or not bool(torch.isfinite(mean).all()):
            raise ValueError(f"the mean displacement must be two finite numbers (dy, dx), got {mean.tolist()}")
        self.mean.copy_(mean.detach())


def _reduction(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.GroupNorm(min(16, width // 8), width))


def _surroundings(width: int, dilation: int) -> nn.Sequential:
    """5x5 cells, so far apart, of each channel, then all channels together."""
    return nn.Sequential(
        nn.Conv2d(width, width, 5, padding=2 * dilation, dilation=dilation, groups=width, bias=False),
        nn.Conv2d(width, width, 1, bias=False),
        nn.GroupNorm(min(16, width // 8), width),
    )
