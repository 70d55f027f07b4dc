"""The motion pathway of AMD: two frames and their soft regions to one motion a region.

The Emergence of Objectness (Liu, Wu, Yu, Lin, NeurIPS 2021), equations 3 to 5, in the form of its released code: a
light descendant of PWC-Net whose estimate is pooled and decoded region by region, never pixel by pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from pixelkin.warping import warp

MaskOf = Literal["target", "source"]

FINEST = 4
"""Pixels of a frame per cell of the finest grid that flow is estimated on."""

WIDTHS = (16, 32, 64, 96, 128, 192)
"""Channels of the published pyramid, of strides 2 to 64."""

SLOPE = 0.1
REDUCED = 32
"""Channels that the frame's own features are brought to at every level."""


class SegmentFlow(NamedTuple):
    """The flow on the grid of one frame into the other.

    Attributes:
        flows: finest first, each (B, 2, H / 2^i, W / 2^i), (dy, dx) in pixels of its own grid.
        vectors: (B, regions, 2), (dy, dx) of every region in pixels of the frame.
    """

    flows: tuple[Tensor, ...]
    vectors: Tensor


class PairFlow(NamedTuple):
    """Both directions: ``forward`` on the grid of the first frame, ``backward`` on that of the second."""

    forward: SegmentFlow
    backward: SegmentFlow


class MotionPathway(nn.Module):
    """Feature pyramid, cost volume, and one estimator for all levels; the same weights for both directions.

    Args:
        widths: channels of the pyramid's levels, of strides 2, 4, 8, ...; flow is estimated from the last level down
            to stride 4.
        search: cells that are compared to each side, at every level.
        mask_of: whose regions the flow on a frame's grid is made of: ``target``, that frame's own; ``source``, those of
            the frame it leads into, as the paper's words and released code have it, which is right only where little
            moves.
        epsilon: added to the area of a region, which may be empty.
        normalised: whether cells are compared by the correlation of their features, the convolutions start with the
            gain of their rectifiers, all regions start at rest, and no level moves one farther than it searches;
            otherwise cells are compared by the plain product, from torch's initial weights, without a bound, as
            released. A dozen layers of these shrink what they are given to a thousandth, and its product to a
            millionth: hundreds of steps pass before any motion is seen at all.

    Raises:
        ValueError: fewer than two widths.
    """

    def __init__(
        self,
        widths: Sequence[int] = WIDTHS,
        *,
        search: int = 4,
        mask_of: MaskOf = "target",
        epsilon: float = 1e-6,
        normalised: bool = False,
    ) -> None:
        super().__init__()
        if len(widths) < 2:
            raise ValueError(f"{len(widths)} levels: give at least two, as flow is estimated at stride 4")
        self.search, self.mask_of, self.epsilon, self.normalised = search, mask_of, epsilon, normalised
        self.pyramid = nn.ModuleList(
            nn.Sequential(*_convolution(a, b, stride=2), *_convolution(b, b)) for a, b in pairwise((3, *widths))
        )
        self.reduce = nn.ModuleList(nn.Sequential(*_convolution(width, REDUCED, 1)) for width in reversed(widths[1:]))
        self.estimator = _Estimator((2 * search + 1) ** 2 + REDUCED + 2)
        self.decoder = nn.Sequential(nn.Linear(_Estimator.CHANNELS, 64), nn.LeakyReLU(SLOPE), nn.Linear(64, 2))
        if normalised:
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, a=SLOPE, nonlinearity="leaky_relu")
                    nn.init.zeros_(cast("Tensor", module.bias))
            nn.init.zeros_(cast("Tensor", self.decoder[-1].weight))
            nn.init.zeros_(cast("Tensor", self.decoder[-1].bias))

    @property
    def multiple(self) -> int:
        """Sides of the frames must be multiples of this."""
        return int(2 ** len(self.pyramid))

    def forward(self, first: Tensor, second: Tensor, regions_first: Tensor, regions_second: Tensor) -> PairFlow:
        """The segment flow of a pair, both ways.

        Args:
            first: (B, 3, H, W) in 0..1, sides multiples of :attr:`multiple`.
            second: likewise.
            regions_first: (B, regions, h, w) shares that sum to 1, on any grid over the first frame.
            regions_second: likewise.

        Raises:
            ValueError: frames of another size.
        """
        if any(side % self.multiple for side in first.shape[-2:]):
            raise ValueError(f"frames of {tuple(first.shape[-2:])}: make both sides multiples of {self.multiple}")
        a, b = self._features(first), self._features(second)
        there, back = regions_first, regions_second
        if self.mask_of == "source":
            there, back = back, there
        return PairFlow(self._direction(a, b, there), self._direction(b, a, back))

    def _features(self, frame: Tensor) -> list[Tensor]:
        """The levels that flow is estimated on, coarse to fine."""
        levels = []
        for level in self.pyramid:
            frame = level(frame)
            levels.append(frame)
        return levels[:0:-1]

    def _direction(self, own: Sequence[Tensor], other: Sequence[Tensor], regions: Tensor) -> SegmentFlow:
        vectors = regions.new_zeros(len(regions), regions.shape[1], 2, dtype=torch.float32)
        flow: Tensor | None = None
        flows = []
        for reference, there, reduce in zip(own, other, self.reduce, strict=True):
            size = reference.shape[-2:]
            shares = _resize(regions, size)
            if flow is None:
                flow = vectors.new_zeros(len(reference), 2, *size)
            else:
                flow, vectors = 2 * _resize(flow, size), 2 * vectors
                there = warp(there, flow)
            compared = (standardised(reference), standardised(there)) if self.normalised else (reference, there)
            cost = nn.functional.leaky_relu(cost_volume(*compared, self.search), SLOPE)
            estimate = self.estimator(torch.cat([cost, reduce(reference), flow], dim=1))
            change = self.decoder(pool(estimate, shares, self.epsilon)).float()
            vectors = vectors + (self.search * torch.tanh(change / self.search) if self.normalised else change)
            flow = compose(vectors, shares)
            flows.append(FINEST * _resize(flow, (FINEST * size[0], FINEST * size[1])))
        return SegmentFlow(tuple(reversed(flows)), FINEST * vectors)


class _Estimator(nn.Module):
    """Five convolutions, from the third on each of the two before it."""

    CHANNELS = 96

    def __init__(self, inside: int) -> None:
        super().__init__()
        shapes = ((inside, 128), (128, 128), (256, 96), (224, 64), (160, 32))
        self.layers = nn.ModuleList(nn.Sequential(*_convolution(a, b)) for a, b in shapes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inside, h, w) to (B, 96, h, w): the last two layers."""
        before = self.layers[0](x)
        last = self.layers[1](before)
        for layer in self.layers[2:]:
            before, last = last, layer(torch.cat([before, last], dim=1))
        return torch.cat([before, last], dim=1)


def pool(values: Tensor, shares: Tensor, epsilon: float = 1e-6) -> Tensor:
    """The mean of a map over each region (equation 3).

    Args:
        values: (B, C, h, w).
        shares: (B, regions, h, w).
        epsilon: added to the area of a region, which may be empty.

    Returns:
        (B, regions, C).
    """
    area = shares.flatten(2).sum(dim=-1)
    return torch.einsum("bchw,bmhw->bmc", values, shares) / (area + epsilon)[..., None]


def compose(vectors: Tensor, shares: Tensor) -> Tensor:
    """(B, regions, 2) vectors to the (B, 2, h, w) flow of the (B, regions, h, w) regions (equation 5)."""
    # No matrix product: autocast would round it to half precision, which cannot tell the pixels of a wide grid apart.
    return (vectors[..., None, None] * shares[:, :, None]).sum(dim=1)


def standardised(features: Tensor, epsilon: float = 1e-3) -> Tensor:
    """(B, C, h, w) features with mean 0 and deviation 1 in every cell, so that a mean product is a correlation."""
    centred = features - features.mean(dim=1, keepdim=True)
    return centred / (centred.square().mean(dim=1, keepdim=True).sqrt() + epsilon)


def cost_volume(reference: Tensor, other: Tensor, search: int = 4) -> Tensor:
    """How alike every cell is to those around the same place in the other map; zeros beyond the edge.

    Args:
        reference: (B, C, h, w).
        other: likewise.
        search: cells to each side.

    Returns:
        (B, (2 search + 1)^2, h, w): mean over the channels of the product with the cell ``(dy, dx)`` away, row by row
        from ``(-search, -search)`` on.
    """
    height, width = reference.shape[-2:]
    padded = nn.functional.pad(other, (search,) * 4)
    steps = range(2 * search + 1)
    alike = [(reference * padded[..., i : i + height, j : j + width]).mean(dim=1) for i in steps for j in steps]
    return torch.stack(alike, dim=1)


def _convolution(inside: int, outside: int, kernel: int = 3, *, stride: int = 1) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inside, outside, kernel, stride, padding=kernel // 2), nn.LeakyReLU(SLOPE)


def _resize(values: Tensor, size: Sequence[int]) -> Tensor:
    return nn.functional.interpolate(values, tuple(size), mode="bilinear", align_corners=True)
