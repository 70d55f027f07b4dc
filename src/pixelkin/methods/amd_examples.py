"""Pairs of frames of one clip, the only thing that AMD learns from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pixelkin.data import Dataset
from pixelkin.methods.amd_config import AMDConfig


class FramePair(NamedTuple):
    """Two frames of a clip by their numbers in the dataset, the earlier first."""

    first: int
    second: int


def frame_pairs(dataset: Dataset, gap: int = 1) -> dict[str, list[FramePair]]:
    """The pairs of each clip that has any: at most ``gap`` frames apart and of one size.

    A frame is never its own partner, and where frames are missing, those around the hole are as far apart as before.
    """
    clips: dict[str, dict[int, int]] = {}
    for index, sample in enumerate(dataset):
        if sample.clip is not None and sample.frame is not None:
            clips.setdefault(sample.clip, {})[sample.frame] = index
    found = {}
    for clip, frames in clips.items():
        pairs = [
            FramePair(index, frames[frame + apart])
            for frame, index in sorted(frames.items())
            for apart in range(1, gap + 1)
            if frame + apart in frames and dataset[index].size == dataset[frames[frame + apart]].size
        ]
        if pairs:
            found[clip] = pairs
    return found


class PairExamples:
    """Training examples: a random clip, a random pair of it, and the same random square of both frames.

    Attributes:
        clips: the pairs of each clip that has any.

    Args:
        config: the settings.
        dataset: frames of clips.

    Raises:
        ValueError: no clip has two frames that make a pair.
    """

    def __init__(self, config: AMDConfig, dataset: Dataset) -> None:
        self.config, self.dataset = config, dataset
        pairs = frame_pairs(dataset, config.gap)
        if not pairs:
            raise ValueError(
                "no clip has two frames of one size in a row, and amd learns from motion: give clips of several frames"
            )
        self.clips = pairs
        self._pairs = list(pairs.values())

    def __call__(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """``pair`` (2, 3, crop, crop) uint8."""
        return self.cut(self._pairs[int(rng.integers(len(self._pairs)))], rng)

    def cut(self, pairs: Sequence[FramePair], rng: np.random.Generator) -> dict[str, Tensor]:
        """The same of a random one of these pairs."""
        pair = pairs[int(rng.integers(len(pairs)))]
        images = [self.dataset[index].image for index in pair]
        height, width = images[0].shape[:2]
        scale = self.config.short_edge * rng.uniform(*self.config.jitter) / min(height, width)
        crop = self.config.crop
        size = max(round(height * scale), crop), max(round(width * scale), crop)
        top, left = (int(rng.integers(side - crop + 1)) for side in size)
        square = [resized(image, size)[top : top + crop, left : left + crop] for image in images]
        return {"pair": torch.from_numpy(np.ascontiguousarray(np.stack(square).transpose(0, 3, 1, 2)))}

    def digest(self) -> str:
        """Differs where the frames or their pairs do."""
        names = [[[self.dataset[index].name for index in pair] for pair in pairs] for pairs in self._pairs]
        return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]


def resized(image: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """An (H, W, 3) image at a (height, width), averaged where it shrinks."""
    mode = cv2.INTER_AREA if size[0] < image.shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size[::-1], interpolation=mode), np.uint8)
