"""Class maps learned from the labels that a method made itself, so that what it got wrong by chance is averaged out.

Not in IRNet (Ahn, Cho, Kwak, CVPR 2019, arXiv 1904.05044), whose labels are the end; the field then trains a semantic
network on them. Here that network also makes the labels of the next round, and of the method.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pydantic
import torch
from torch import Tensor

from pixelkin.data import Dataset, ImageError, Sample
from pixelkin.data.sample import UNKNOWN
from pixelkin.methods.base import MethodConfig
from pixelkin.methods.tag_classifier import Crops
from pixelkin.methods.windows import LongSide, Scales, random_window
from pixelkin.models.class_maps import ClassMaps, class_scores, map_loss
from pixelkin.models.classifier import CamClassifier
from pixelkin.training.budget import Budget
from pixelkin.training.config import TrainingConfig
from pixelkin.training.loop import TrainingReport, train


class ClassMapConfig(MethodConfig):
    """Settings of the network of class maps."""

    head_rate: float = pydantic.Field(default=10.0, gt=0)
    """Learning rate of the heads over the backbone's."""
    crop: int = pydantic.Field(default=256, ge=32, multiple_of=32)
    """Side of a training crop."""
    long_side: LongSide = (256, 448)
    """Least and greatest random length of a training image's long side."""
    epochs: float = pydantic.Field(default=4.0, ge=0)
    """Passes over the images in a round, which has at least ``training.iterations`` steps, however few images."""
    training: TrainingConfig = TrainingConfig(iterations=120, batch_size=16, learning_rate=3e-4, warmup=10)
    scales: Scales = (1.0, 0.75)
    """Of the image, for its maps."""
    flip: bool = True
    """Whether the mirror image is looked at too, for twice the time."""
    doubt: float = pydantic.Field(default=0.2, ge=0, lt=1)
    """Pixels whose class is less than this more probable than the next teach nothing in the next round."""
    background_weight: float = pydantic.Field(default=0.5, gt=0)
    """The background's probability times this competes with those of the classes."""
    steps: int = pydantic.Field(default=64, ge=0)
    """Of the walk from the maps, fewer than from the activation: the maps know where objects end."""
    max_pixels: int = pydantic.Field(default=4_000_000, ge=1024)
    """Larger images, at any scale, are shrunk to this."""


def fit_class_maps(
    config: ClassMapConfig,
    dataset: Dataset,
    classes: Sequence[int],
    classifier: CamClassifier,
    *,
    out: Path,
    budget: Budget | None,
    device: str,
    seed: int,
    identity: Mapping[str, Any],
) -> tuple[ClassMaps, TrainingReport]:
    """Train class maps on the semantic maps of a dataset; resumes from ``out``.

    Args:
        config: the settings.
        dataset: images with semantic maps, 255 unknown.
        classes: ids in the order of the classifier's rows.
        classifier: what to start from; it is not changed.
        out: folder for checkpoints and the log.
        budget: goes before the iterations of the config.
        device: ``auto``, ``cpu`` or ``cuda``.
        seed: of the first weights and the examples.
        identity: what the maps were made with, as JSON values: a training on others starts anew.

    Raises:
        ValueError: no images.
    """
    if not len(dataset):
        raise ValueError("no image has a semantic map to learn from")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = ClassMaps(copy.deepcopy(classifier))
    training = config.training.lasting(config.epochs, len(dataset))
    report = train(
        model,
        MapExamples(config, dataset, classes),
        _loss,
        training.model_copy(update={"seed": seed}),
        out=out,
        budget=budget,
        most_steps=training.iterations,
        device=device,
        groups=model.parameter_groups(config.head_rate),
        identity={
            "config": config.model_dump(mode="json", include={"crop", "long_side", "head_rate"}),
            "images": len(dataset),
            "name": dataset.name,
            **identity,
        },
    )
    return model, report


def class_probabilities(
    sample: Sample,
    model: ClassMaps,
    classes: Sequence[int],
    present: Sequence[int],
    config: ClassMapConfig,
    *,
    size: tuple[int, int],
) -> npt.NDArray[np.float32]:
    """(1 + K, h, w) probability of the background and the K classes present, on a grid of ``size`` over the image."""
    rows = [list(classes).index(class_id) for class_id in present]
    scores = class_scores(
        model, sample.image, keep=rows, scales=config.scales, flip=config.flip, max_pixels=config.max_pixels
    ).resized(size)
    scores /= len(config.scales) * (2 if config.flip else 1)
    odds = np.exp(scores - scores.max(axis=0))
    return np.asarray(odds / odds.sum(axis=0), np.float32)


def _loss(model: torch.nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {"loss": map_loss(model(batch["image"].float() / 255), batch["labels"])}


class MapExamples:
    """Training crops at random scales, some mirrored, with their class maps; unknown beyond the image."""

    def __init__(self, config: Crops, dataset: Dataset, classes: Sequence[int]) -> None:
        self.config, self.dataset = config, dataset
        self.rows = np.full(max(UNKNOWN, *classes) + 1, -1, np.int32)
        self.rows[0] = 0
        self.rows[list(classes)] = np.arange(1, len(classes) + 1)

    def __call__(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """``image`` (3, crop, crop) uint8, ``labels`` (crop, crop) int32: 0 background, 1 + row, -1 unknown.

        Raises:
            ImageError: an image without a semantic map.
        """
        sample = self.dataset[int(rng.integers(len(self.dataset)))]
        semantic = sample.semantic
        if semantic is None:
            raise ImageError(f"{sample.name}: no semantic map: give one or leave the image out")
        labels = self.rows[semantic]
        window = random_window(rng, sample.image.shape[:2], self.config.long_side, self.config.crop)
        values = cv2.resize(labels, window.size[::-1], interpolation=cv2.INTER_NEAREST)
        frame = np.full((self.config.crop, self.config.crop), -1, np.int32)
        frame[window.target] = values[window.source]
        step = -1 if window.mirrored else 1
        return {
            "image": torch.from_numpy(window.cut(sample.image)),
            "labels": torch.from_numpy(np.ascontiguousarray(frame[:, ::step])),
        }
