"""Random windows of images for training, and the settings that say at which scales images are looked at."""

from __future__ import annotations

from functools import partial
from typing import Annotated, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import pydantic

from pixelkin.data import Sample


def _ascending(value: tuple[int, int]) -> tuple[int, int]:
    if not 0 < value[0] <= value[1]:
        raise ValueError("long_side is the least and the greatest length, above 0")
    return value


def _positive(value: tuple[float, ...]) -> tuple[float, ...]:
    if not value or min(value) <= 0:
        raise ValueError("give at least one scale, all above 0")
    return value


LongSide = Annotated[tuple[int, int], pydantic.AfterValidator(_ascending)]
"""Least and greatest random length of a training image's long side, in pixels."""

Scales = Annotated[tuple[float, ...], pydantic.AfterValidator(_positive)]
"""Of the image, one look at each."""


class Window(NamedTuple):
    """A square of an image that is first brought to another size; it may reach beyond the image.

    Attributes:
        size: (height, width) of the whole image then.
        source: rows and columns of it that the square holds.
        target: where these are in the square.
        side: of the square.
        mirrored: whether the square is turned left to right in the end.
    """

    size: tuple[int, int]
    source: tuple[slice, slice]
    target: tuple[slice, slice]
    side: int
    mirrored: bool

    def cut(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """(3, side, side) of an (H, W, 3) image; its mean colour beyond it."""
        mode = cv2.INTER_AREA if self.size[0] < image.shape[0] else cv2.INTER_CUBIC
        shown = cv2.resize(image, self.size[::-1], interpolation=mode)
        square = np.empty((self.side, self.side, 3), np.uint8)
        square[:] = shown.mean(axis=(0, 1)).round()
        square[self.target] = shown[self.source]
        return np.ascontiguousarray(square[:, :: -1 if self.mirrored else 1].transpose(2, 0, 1))


def at_most(sample: Sample, side: int) -> Sample:
    """The sample, its image shrunk to a long side of at most this when it is read; other dense labels do not fit."""
    return sample.replace(image=partial(_shrunk, sample, side))


def _shrunk(sample: Sample, side: int) -> npt.NDArray[np.uint8]:
    image = sample.image
    scale = side / max(image.shape[:2])
    if scale >= 1:
        return image
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def random_window(rng: np.random.Generator, size: tuple[int, ...], long_side: tuple[int, int], crop: int) -> Window:
    """A random square of side ``crop`` of an image of (height, width) ``size`` at a random scale.

    Args:
        rng: the generator.
        size: of the image.
        long_side: least and greatest length of the image's long side then.
        crop: side of the square.
    """
    scale = rng.uniform(*long_side) / max(size)
    height, width = (max(1, round(side * scale)) for side in size)
    source, target = zip(*(_overlap(rng, side, crop) for side in (height, width)), strict=True)
    return Window((height, width), source, target, crop, bool(rng.random() < 0.5))


def _overlap(rng: np.random.Generator, side: int, crop: int) -> tuple[slice, slice]:
    """Where a random window of one axis takes from and puts to."""
    start = int(rng.integers(min(side - crop, 0), max(side - crop, 0) + 1))
    return slice(max(start, 0), min(start + crop, side)), slice(max(-start, 0), min(side - start, crop))
