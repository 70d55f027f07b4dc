"""One frame to the share of the object: a small head on what a frozen backbone sees, fitted to a clip in seconds."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from pixelkin.models.backbone import build_backbone

FINEST = 4
"""Pixels per cell of the backbone's finest map that is looked at."""


class FlowRegions(nn.Module):
    """A frozen backbone, its maps brought together and down to their principal components, and a head of three layers.

    The backbone and the components are computed once for every frame; only the head is trained, cell by cell. It may
    have a copy for each clip.

    Args:
        backbone: name for :func:`pixelkin.models.backbone.build_backbone`.
        components: channels that the head sees.
        hidden: width of the head.
        stride: pixels per cell.
        pretrained: whether the backbone has its weights; those of a saved model are loaded afterwards.

    Raises:
        BackboneError: a backbone that cannot be built so.
    """

    mean: Tensor
    projection: Tensor

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        *,
        components: int = 48,
        hidden: int = 32,
        stride: int = 8,
        pretrained: bool = True,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.backbone = build_backbone(backbone, pretrained=pretrained).freeze()
        self.levels = [i for i, s in enumerate(self.backbone.strides) if s >= FINEST]
        inside = sum(self.backbone.channels[i] for i in self.levels)
        self.register_buffer("mean", torch.zeros(inside))
        self.register_buffer("projection", torch.zeros(inside, min(components, inside)))
        self.head = nn.Sequential(
            nn.Conv2d(min(components, inside), hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, 1, 1),
        )
        self.clips = nn.ModuleDict()

    @torch.no_grad()
    def maps(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in 0..1 to (B, inside, ceil(H / stride), ceil(W / stride)): the backbone's maps together."""
        maps = self.backbone(self.backbone.normalise(image))
        size = -(-image.shape[-2] // self.stride), -(-image.shape[-1] // self.stride)
        return torch.cat([_resized(maps[i], size) for i in self.levels], dim=1)

    @torch.no_grad()
    def set_components(self, maps: Iterable[Tensor]) -> None:
        """Take the principal components of (B, inside, h, w) :meth:`maps` of images like those to come.

        Every channel counts with its deviation as the unit and every level of the backbone alike; the components are
        whitened, the weakest of them less.

        Raises:
            ValueError: no maps.
        """
        count, total, products = 0, torch.zeros(0), torch.zeros(0)
        for each in maps:
            cells = each.transpose(0, 1).flatten(1).double()
            if not count:
                total, products = torch.zeros_like(cells[:, 0]), cells.new_zeros(len(cells), len(cells))
            count += cells.shape[1]
            total += cells.sum(dim=1)
            products += cells @ cells.T
        if not count:
            raise ValueError("no maps to take the components of: give at least one")
        mean = total / count
        covariance = products / count - mean[:, None] * mean
        channels = torch.cat([torch.full((n,), float(n)) for n in (self.backbone.channels[i] for i in self.levels)])
        unit = 1 / ((covariance.diagonal().clamp(min=0).sqrt() + 1e-3) * channels.to(covariance).sqrt())
        strength, axes = torch.linalg.eigh(covariance * unit[:, None] * unit)
        kept = self.projection.shape[1]
        deviation = strength[-kept:].clamp(min=0).sqrt()
        whitened = axes[:, -kept:] / (deviation + 0.1 * deviation.max() + 1e-9)
        self.mean.copy_(mean)
        self.projection.copy_(unit[:, None] * whitened)

    def components(self, maps: Tensor) -> Tensor:
        """(B, inside, h, w) :meth:`maps` to the (B, components, h, w) that the head sees."""
        return torch.einsum("bihw,ic->bchw", maps - self.mean[:, None, None], self.projection)

    def add_clip(self, key: str) -> nn.Module:
        """A fresh copy of the head for one clip; the head itself stays as it is."""
        self.clips[key] = copy.deepcopy(self.head)
        return self.clips[key]

    def forward(self, image: Tensor, clip: str | None = None) -> Tensor:
        """(B, 3, H, W) RGB in 0..1 to (B, ceil(H / stride), ceil(W / stride)) shares of the object, 0 to 1.

        Args:
            image: the frames.
            clip: key of the head to use; None, the common one.
        """
        head = self.head if clip is None else self.clips[clip]
        return share_of(head, self.components(self.maps(image)))


def share_of(head: nn.Module, components: Tensor) -> Tensor:
    """(B, components, h, w) to the object's (B, h, w) shares."""
    return torch.sigmoid(cast("Tensor", head(components))[:, 0])


def _resized(values: Tensor, size: tuple[int, int]) -> Tensor:
    if values.shape[-2] > size[0] or values.shape[-1] > size[1]:
        return nn.functional.adaptive_avg_pool2d(values, size)
    return nn.functional.interpolate(values, size, mode="bilinear", align_corners=False)
