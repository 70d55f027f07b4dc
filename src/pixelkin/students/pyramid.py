"""Feature pyramids: maps of doubling strides from whatever maps a backbone has."""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from pixelkin.models.backbone import Backbone

LEAST_STRIDE = 4


class StudentError(ValueError):
    """A student that cannot be built or trained as asked; the message is one line with the mend."""


class Pyramid(nn.Module):
    """Backbone maps to maps of one number of channels and doubling strides, plus one coarser still by pooling.

    Attributes:
        strides: pixels per cell of each map that comes out.
        divisor: for image sides that are multiples of it, all strides but the last divide exactly.
    """

    def __init__(self, strides: Sequence[float], divisor: int) -> None:
        super().__init__()
        self.strides = (*strides, 2 * strides[-1])
        self.divisor = divisor


class TopDown(Pyramid):
    """A feature pyramid network (arXiv 1612.03144) over a backbone of several strides; those below 4 are left out."""

    def __init__(self, backbone: Backbone, channels: int) -> None:
        first = next(i for i, stride in enumerate(backbone.strides) if stride >= LEAST_STRIDE)
        super().__init__(backbone.strides[first:], max(backbone.strides))
        self.first = first
        self.network = FeaturePyramidNetwork(list(backbone.channels[first:]), channels, LastLevelMaxPool())

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps of the backbone, fine to coarse, to those of the pyramid."""
        named = OrderedDict((str(i), features) for i, features in enumerate(maps[self.first :]))
        return list(self.network(named).values())


class FromOneMap(Pyramid):
    """A simple feature pyramid (arXiv 2203.16527) over the deepest map of a backbone of one stride, such as a ViT."""

    def __init__(self, backbone: Backbone, channels: int) -> None:
        stride = backbone.strides[-1]
        super().__init__([stride / 4, stride / 2, float(stride), 2.0 * stride], 2 * stride)
        deep = backbone.channels[-1]

        def rise(wide: int, narrow: int) -> nn.Module:
            return nn.ConvTranspose2d(wide, narrow, 2, 2)

        ways: list[tuple[int, list[nn.Module]]] = [
            (deep // 4, [rise(deep, deep // 2), nn.GroupNorm(1, deep // 2), nn.GELU(), rise(deep // 2, deep // 4)]),
            (deep // 2, [rise(deep, deep // 2)]),
            (deep, []),
            (deep, [nn.MaxPool2d(2)]),
        ]
        self.ways = nn.ModuleList(
            nn.Sequential(
                *way,
                nn.Conv2d(wide, channels, 1, bias=False),
                nn.GroupNorm(1, channels),
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                nn.GroupNorm(1, channels),
            )
            for wide, way in ways
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps of the backbone, shallow to deep, to those of the pyramid."""
        made = [way(maps[-1]) for way in self.ways]
        return [*made, nn.functional.max_pool2d(made[-1], 1, 2)]


def make_pyramid(backbone: Backbone, channels: int) -> Pyramid:
    """The pyramid that suits a backbone.

    Raises:
        StudentError: strides that neither double from map to map nor are all the same.
    """
    kept = [stride for stride in backbone.strides if stride >= LEAST_STRIDE]
    if kept and len(set(kept)) == 1:
        return FromOneMap(backbone, channels)
    if kept and all(math.isclose(2 * fine, coarse) for fine, coarse in itertools.pairwise(kept)):
        return TopDown(backbone, channels)
    raise StudentError(
        f"{backbone.name} has maps of strides {', '.join(map(str, backbone.strides))}: a student needs strides that"
        " double, as those of resnet50.a1_in1k, or one stride, as those of a vision transformer"
    )
