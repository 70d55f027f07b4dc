"""A network's maps of one image at several scales, with its mirror image's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ScaledMaps:
    """Maps of one image from several scales; brought to a grid only when asked, as that takes memory.

    Attributes:
        maps: for each scale (K, h, w), all over the whole image; of the image and its mirror image the sum.
        size: (height, width) of the image.
    """

    maps: tuple[Tensor, ...]
    size: tuple[int, int]

    @property
    def strided(self) -> npt.NDArray[np.float32]:
        """(K, (H - 1) // 4 + 1, (W - 1) // 4 + 1): the sum over the scales on every fourth pixel."""
        height, width = self.size
        return self.resized(((height - 1) // 4 + 1, (width - 1) // 4 + 1))

    @property
    def full(self) -> npt.NDArray[np.float32]:
        """(K, H, W): the sum over the scales on every pixel."""
        return self.resized(self.size)

    def resized(self, size: tuple[int, int]) -> npt.NDArray[np.float32]:
        """(K, h, w) on any grid over the image, bilinear, summed over the scales."""
        total = torch.zeros(len(self.maps[0]), *size, device=self.maps[0].device)
        if len(total):
            for each in self.maps:
                total += nn.functional.interpolate(each[None].float(), size, mode="bilinear", align_corners=False)[0]
        return total.cpu().numpy()


def look_at_scales(
    look: Callable[[Tensor], Tensor],
    pixels: Tensor,
    *,
    scales: Sequence[float],
    flip: bool,
    step: int,
    max_pixels: int,
) -> ScaledMaps:
    """What a network says of an image at several scales.

    An image is resized to sides that are multiples of the coarsest stride, the nearest to the scale: then its cells
    cover it exactly, and its mirror image's are the same cells.

    Args:
        look: the network: (1, 3, H, W) RGB in 0..1 to (1, K, h, w).
        pixels: the image, (1, 3, H, W) RGB in 0..1.
        scales: of the image, each at the cost of its area.
        flip: whether to add the mirror image's maps, for twice the time.
        step: the network's coarsest stride.
        max_pixels: larger images, at any scale, are shrunk to about this.

    Raises:
        ValueError: no scale, or one that is not above 0.
    """
    check_scales(scales)
    height, width = pixels.shape[-2:]
    maps = []
    for scale in scales:
        shown = scaled(pixels, min(scale, math.sqrt(max_pixels / (height * width))), step=step)
        found = look(shown)
        if flip:  # one after the other: half the memory of a batch of two
            found = found + look(shown.flip(-1)).flip(-1)
        maps.append(found[0])
    return ScaledMaps(tuple(maps), (height, width))


def check_scales(scales: Sequence[float]) -> None:
    """Raise ValueError where there is no scale, or one that is not above 0."""
    if not scales or not all(math.isfinite(scale) and scale > 0 for scale in scales):
        raise ValueError(f"scales are {tuple(scales)}: give at least one, all above 0")


def to_device(image: npt.NDArray[np.uint8], like: Tensor) -> Tensor:
    """(H, W, 3) uint8 RGB to (1, 3, H, W) in 0..1, on the device of ``like``."""
    return torch.from_numpy(np.ascontiguousarray(image)).to(like.device).permute(2, 0, 1)[None].float() / 255


def scaled(pixels: Tensor, scale: float, *, step: int) -> Tensor:
    """(1, 3, H, W) in 0..1 at a scale, its sides the nearest multiples of ``step``."""
    size = tuple(max(1, round(side * scale / step)) * step for side in pixels.shape[-2:])
    if tuple(pixels.shape[-2:]) == size:
        return pixels
    shown = nn.functional.interpolate(pixels, size, mode="bicubic", align_corners=False, antialias=True)
    return shown.clamp_(0, 1)
