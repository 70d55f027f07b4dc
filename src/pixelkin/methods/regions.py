"""What class activation is sure of, kept as label maps to learn from: the first half of IRNet's relation mining."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pydantic

from pixelkin.cues.activation import Refine, confident_regions
from pixelkin.cues.refine import dense_crf, pixel_affinity
from pixelkin.data import Dataset, Sample
from pixelkin.data.sample import UNKNOWN, read_label_image
from pixelkin.formats.label_png import write_label_png
from pixelkin.methods.base import MethodConfig

Refinement = Literal["affinity", "crf", "none"]

REFINEMENTS: dict[Refinement, Refine | None] = {"affinity": pixel_affinity, "crf": dense_crf, "none": None}

Activation = Callable[[Sample], tuple[npt.NDArray[np.float32], list[int]]]
"""(K, H, W) class activation of an image in 0..1, and the K class ids."""


class RegionConfig(MethodConfig):
    """Settings of the confident regions."""

    foreground: float = pydantic.Field(default=0.30, gt=0, lt=1)
    """Activation from which a pixel surely is of its class."""
    background: float = pydantic.Field(default=0.05, ge=0, lt=1)
    """Activation up to which a pixel surely is background."""
    refinement: Refinement = "affinity"
    """What moves both to the image's edges: ``affinity`` (local colour affinity), ``crf`` (dense CRF, as published;
    needs ``pixelkin[crf]``) or ``none``."""

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> RegionConfig:
        if self.background > self.foreground:
            raise ValueError("background is not above foreground")
        return self


def regions_of(sample: Sample, cam: npt.NDArray[np.float32], ids: list[int], config: RegionConfig) -> npt.NDArray[Any]:
    """(H, W) class ids, 0 background, 255 unknown; what the sample says to ignore is unknown."""
    found = confident_regions(
        cam,
        ids,
        sample.image,
        foreground=config.foreground,
        background=config.background,
        refine=REFINEMENTS[config.refinement],
    )
    ignore = sample.ignore
    if ignore is not None:
        found[ignore] = UNKNOWN
    return found


def with_regions(
    dataset: Dataset, samples: Iterable[Sample], activation: Activation, config: RegionConfig, *, out: Path
) -> Dataset:
    """The dataset with its confident regions for semantic maps, made once and kept as PNG; goes on where it stopped.

    Args:
        dataset: images with tags.
        samples: its samples, perhaps wrapped by a progress bar.
        activation: of an image.
        config: the settings.
        out: folder of the PNG; belongs to one classifier and one config.
    """
    for sample in samples:
        if not _place(out, sample).is_file():
            write_label_png(_place(out, sample), regions_of(sample, *activation(sample), config))
    return dataset.map(lambda sample: sample.replace(semantic=lambda: read_label_image(_place(out, sample))))


def _place(out: Path, sample: Sample) -> Path:
    return out / f"{sample.name}.png"
