"""What class activation is sure of, kept as label maps to learn from: the first half of IRNet's relation mining."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import pydantic

from pixelkin.cues.activation import Refine, confident_regions
from pixelkin.cues.refine import dense_crf, pixel_affinity
from pixelkin.data import Dataset, Sample
from pixelkin.data.sample import UNKNOWN, read_label_image
from pixelkin.formats.files import whole
from pixelkin.formats.label_png import write_label_png
from pixelkin.methods.base import ConfigError, MethodConfig

Refinement = Literal["affinity", "crf", "none"]

REFINEMENTS: dict[Refinement, Refine | None] = {"affinity": pixel_affinity, "crf": dense_crf, "none": None}

Activation = Callable[[Sample, tuple[int, int]], tuple[npt.NDArray[np.float32], list[int]]]
"""(K, h, w) class activation of an image in 0..1 on a grid of this (h, w) over it, and the K class ids."""

STAMP = "made_with.json"
"""Beside the maps: what they were made with."""


class RegionConfig(MethodConfig):
    """Settings of the confident regions."""

    foreground: float = pydantic.Field(default=0.35, gt=0, lt=1)
    """Activation from which a pixel surely is of its class."""
    background: float = pydantic.Field(default=0.05, ge=0, lt=1)
    """Activation up to which a pixel surely is background."""
    refinement: Refinement = "affinity"
    """What moves both to the image's edges: ``affinity`` (local colour affinity), ``crf`` (dense CRF, as published;
    needs ``pixelkin[crf]``) or ``none``."""
    max_pixels: int = pydantic.Field(default=4_000_000, ge=1024)
    """Larger images are looked at in this size; the maps keep the image's."""

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> RegionConfig:
        if self.background > self.foreground:
            raise ValueError("background is not above foreground")
        return self


def check_refinement(config: RegionConfig) -> None:
    """Find out before a long training whether what refines the regions is there.

    Raises:
        ConfigError: it is not installed.
    """
    if config.refinement == "crf" and importlib.util.find_spec("pydensecrf") is None:
        raise ConfigError("regions.refinement=crf needs pip install 'pixelkin[crf]': install it, or use affinity")


def regions_of(sample: Sample, activation: Activation, config: RegionConfig) -> npt.NDArray[Any]:
    """(H, W) class ids, 0 background, 255 unknown; what the sample says to ignore is unknown."""
    image = sample.image
    height, width = image.shape[:2]
    scale = min(1.0, (config.max_pixels / (height * width)) ** 0.5)
    size = (max(1, int(height * scale)), max(1, int(width * scale))) if scale < 1 else (height, width)
    cam, ids = activation(sample.replace(image=image), size)
    found = confident_regions(
        cam,
        ids,
        image if scale == 1 else np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA), np.uint8),
        foreground=config.foreground,
        background=config.background,
        refine=REFINEMENTS[config.refinement],
    )
    if scale < 1:
        found = found[np.ix_(*(np.arange(n) * few // n for n, few in zip((height, width), size, strict=True)))]
    ignore = sample.ignore
    if ignore is not None:
        found[ignore] = UNKNOWN
    return found


def with_regions(
    dataset: Dataset,
    samples: Iterable[Sample],
    activation: Activation,
    config: RegionConfig,
    *,
    out: Path,
    identity: Mapping[str, Any],
) -> Dataset:
    """The dataset with its confident regions for semantic maps, made once and kept as PNG; goes on where it stopped.

    Maps of another activation or config that lie in the folder are thrown away, never mixed with new ones.

    Args:
        dataset: images with tags.
        samples: its samples, perhaps wrapped by a progress bar.
        activation: of an image.
        config: the settings.
        out: folder of the PNG, for nothing else.
        identity: what else the maps depend on, as JSON values: the classifier, the tags.
    """
    made_with = {"config": config.model_dump(mode="json"), **identity}
    return with_maps(dataset, samples, partial(regions_of, activation=activation, config=config), out, made_with)


def with_maps(
    dataset: Dataset,
    samples: Iterable[Sample],
    make: Callable[[Sample], npt.NDArray[Any]],
    out: Path,
    made_with: Mapping[str, Any],
) -> Dataset:
    """The dataset with semantic maps that are made once and kept as PNG; goes on where it stopped.

    Args:
        dataset: the images.
        samples: its samples, perhaps wrapped by a progress bar.
        make: (H, W) class ids of a sample.
        out: folder of the PNG, for nothing else; what was made with something else is thrown away.
        made_with: what the maps depend on, as JSON values.
    """
    _claim(out, made_with)
    for sample in samples:
        if not _place(out, sample).is_file():
            write_label_png(_place(out, sample), make(sample))
    return dataset.map(lambda sample: sample.replace(semantic=partial(read_label_image, _place(out, sample))))


def _claim(out: Path, made_with: Mapping[str, Any]) -> None:
    """Empty the folder unless what lies there was made with just this."""
    stamp, text = out / STAMP, json.dumps(made_with, indent=1, sort_keys=True) + "\n"
    if stamp.is_file() and stamp.read_text() == text:
        return
    if out.exists():
        stamp.unlink(missing_ok=True)  # first: what a kill leaves behind then belongs to nobody
        shutil.rmtree(out)
    with whole(stamp) as beside:
        beside.write_text(text)


def _place(out: Path, sample: Sample) -> Path:
    return out / f"{sample.name}.png"
