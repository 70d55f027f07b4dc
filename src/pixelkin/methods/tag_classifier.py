"""A classifier fitted to image tags, and its class activation: the seeds of every method that starts from tags.

As in IRNet (Ahn, Cho, Kwak, CVPR 2019, arXiv 1904.05044), whose released code is followed where it differs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pydantic
import torch
from torch import Tensor

from pixelkin.cues.activation import normalise
from pixelkin.data import Dataset, ImageError, Sample
from pixelkin.methods.base import MethodConfig
from pixelkin.methods.windows import LongSide, Scales, random_window
from pixelkin.models.classifier import (
    CamClassifier,
    multi_scale_activation,
    tag_loss,
    tag_probabilities,
)
from pixelkin.training.budget import Budget
from pixelkin.training.config import TrainingConfig
from pixelkin.training.loop import TrainingReport, train

PUBLISHED_TRAINING = TrainingConfig(
    iterations=3305, batch_size=16, optimizer="sgd", learning_rate=0.1, momentum=0.0, weight_decay=1e-4, poly_power=0.9
)
"""IRNet's five epochs of 10,582 images, without momentum as its code really runs; with ``crop=512``."""


class ClassifierConfig(MethodConfig):
    """Settings of the classifier."""

    output_stride: int | None = 16
    """Of the backbone's last map for the activation, which finer cells place better; none: its own."""
    training_stride: int | None = None
    """The same in training; none: the backbone's own, for half the time of the published 16. Its weights serve both."""
    embedding: bool | None = None
    """Whether the map that ImageNet's head classifies is scored, not the last one; none: where the backbone has one."""
    imagenet_seed: bool = True
    """Start the classes that ImageNet knows by name from its rows, where the backbone has that head."""
    head_rate: float = pydantic.Field(default=10.0, gt=0)
    """Learning rate of the head over the backbone's."""
    crop: int = pydantic.Field(default=256, ge=32, multiple_of=32)
    """Side of a training crop; 512 as published, too much for a CPU."""
    long_side: LongSide = (256, 448)
    """Least and greatest random length of a training image's long side; 320 and 640 as published."""
    epochs: float = pydantic.Field(default=3.0, ge=0)
    """Passes over the images; published: 5. Training has at least ``training.iterations`` steps, however few images."""
    training: TrainingConfig = TrainingConfig(iterations=100, batch_size=16, learning_rate=3e-4, warmup=10)
    """:data:`PUBLISHED_TRAINING` is what the paper's code does."""
    scales: Scales = (1.0, 0.5, 1.5)
    """Of the image, for the activation; the published 2.0 besides would double the time."""
    flip: bool = False
    """Whether the mirror image's activation is added, as published, for twice the time."""
    max_pixels: int = pydantic.Field(default=4_000_000, ge=1024)
    """Larger images, at any scale, are shrunk to this."""


def build_classifier(
    config: ClassifierConfig, classes: Sequence[int], backbone: str, *, pretrained: bool, training: bool = False
) -> CamClassifier:
    """The untrained classifier of these class ids, at the stride of the activation or of training."""
    return CamClassifier(
        len(classes),
        backbone,
        embedding=config.embedding,
        output_stride=config.training_stride if training else config.output_stride,
        pretrained=pretrained,
    )


def fit_classifier(
    config: ClassifierConfig,
    dataset: Dataset,
    classes: Mapping[int, str],
    backbone: str,
    *,
    out: Path,
    budget: Budget | None,
    device: str,
    seed: int,
) -> tuple[CamClassifier, TrainingReport]:
    """Train a classifier on the tags of a dataset; resumes from ``out``.

    Args:
        config: the settings.
        dataset: images; those without tags are left out.
        classes: id to name, in the order of the head's rows.
        backbone: its name.
        out: folder for checkpoints and the log.
        budget: goes before the iterations of the config.
        device: ``auto``, ``cpu`` or ``cuda``.
        seed: of the first weights and the examples.

    Raises:
        ValueError: no image has tags, or no class.
    """
    dataset = dataset.with_label("tags")
    if not len(dataset) or not classes:
        raise ValueError("no image has a tag to learn from: give image tags (--tags FILE or --tags xml)")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_classifier(config, list(classes), backbone, pretrained=True, training=True)
    if config.imagenet_seed and not isinstance(model.embedding, torch.nn.Identity):
        model.seed_from_imagenet(classes)
    training = config.training.lasting(config.epochs, len(dataset))
    report = train(
        model,
        TagExamples(config, dataset, list(classes)),
        tags_loss,
        training.model_copy(update={"seed": seed}),
        out=out,
        budget=budget,
        most_steps=training.iterations,
        device=device,
        groups=model.parameter_groups(config.head_rate),
        identity={
            "config": config.model_dump(mode="json", exclude={"training"}),  # which the loop looks at itself
            "backbone": backbone,
            "images": len(dataset),
            "name": dataset.name,
            "tags": tags_digest(dataset),
        },
    )
    if config.training_stride != config.output_stride:
        trained, model = model, build_classifier(config, list(classes), backbone, pretrained=False)
        model.load_state_dict(trained.state_dict())
        model.to(device).eval()
    return model, report


def tagged_classes(dataset: Dataset) -> dict[int, str]:
    """The classes that are a tag of an image, id to name, ascending."""
    found = sorted({tag for sample in dataset for tag in sample.tags or ()})
    return {i: dataset.classes.get(i, f"class {i}") for i in found}


def tags_digest(dataset: Dataset) -> str:
    """Differs where the images or their tags do."""
    lines = [[sample.name, sorted(set(sample.tags or ()))] for sample in dataset]
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()[:16]


def weights_digest(model: torch.nn.Module) -> str:
    """Differs where the weights do, by a single bit."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()[:16]


def tags_loss(model: torch.nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``loss`` of a batch of :class:`TagExamples`."""
    return {"loss": tag_loss(model(batch["image"].float() / 255), batch["tags"])}


class Crops(Protocol):
    """Settings of training crops."""

    @property
    def crop(self) -> int:
        """Side of a crop."""

    @property
    def long_side(self) -> tuple[int, int]:
        """Least and greatest random length of an image's long side."""


class TagExamples:
    """Training crops at random scales, some mirrored, with the tags of the whole image.

    Beyond the image there is its mean colour.
    """

    def __init__(self, config: Crops, dataset: Dataset, classes: Sequence[int]) -> None:
        self.config, self.dataset = config, dataset
        self.rows = {class_id: row for row, class_id in enumerate(classes)}

    def __call__(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """``image`` (3, crop, crop) uint8 and ``tags`` (C,) 0 or 1."""
        sample = self.dataset[int(rng.integers(len(self.dataset)))]
        window = random_window(rng, sample.image.shape[:2], self.config.long_side, self.config.crop)
        tags = np.zeros(len(self.rows), np.float32)
        for tag in sample.tags or ():
            tags[self.rows[tag]] = 1
        return {
            "image": torch.from_numpy(window.cut(sample.image)),
            "tags": torch.from_numpy(tags),
        }


def present_classes(
    sample: Sample, model: CamClassifier, classes: Sequence[int], *, threshold: float | None, max_pixels: int
) -> list[int]:
    """Ids of the classes in an image, ascending: its tags or, where it has none, what the classifier sees.

    Args:
        sample: the image.
        model: the classifier.
        classes: ids in the order of its rows.
        threshold: least probability of a predicted tag; None: nothing is predicted.
        max_pixels: larger images are shrunk to this.

    Raises:
        ImageError: tags that the classifier never learned, or none where nothing may be predicted.
    """
    if sample.tags is not None:
        strange = sorted(set(sample.tags) - set(classes))
        if strange:
            raise ImageError(f"{sample.name}: the model never learned class {strange[0]}: fit one on these tags")
        return sorted(set(sample.tags))
    if threshold is None:
        raise ImageError(f"{sample.name}: no tags: give some, or let the classifier predict them (predict_tags=true)")
    probable = tag_probabilities(model, sample.image, max_pixels=max_pixels)
    return sorted(class_id for class_id, p in zip(classes, probable, strict=True) if p >= threshold)


def class_activation(
    sample: Sample,
    model: CamClassifier,
    classes: Sequence[int],
    present: Sequence[int],
    config: ClassifierConfig,
    *,
    size: tuple[int, int],
) -> npt.NDArray[np.float32]:
    """Class activation of an image, (K, h, w) for the K classes present, each in 0..1.

    Args:
        sample: the image.
        model: the classifier.
        classes: ids in the order of its rows.
        present: ids wanted.
        config: scales and flip.
        size: (h, w) of the grid over the image.
    """
    rows = [classes.index(class_id) for class_id in present]
    cam = multi_scale_activation(
        model, sample.image, keep=rows, scales=config.scales, flip=config.flip, max_pixels=config.max_pixels
    )
    return normalise(cam.resized(size))
