"""One image through a method: labels, baseline counts and gallery record, or the reason why not."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelkin.data import Dataset, Instances, Sample
from pixelkin.methods.base import Method
from pixelkin.methods.baselines import count_baselines
from pixelkin.viz import gallery_entry

SKIPPED = "skipped"


@dataclass(frozen=True)
class Failure:
    """Why an image has no labels; ``stage`` is image, labels, fields, group, output or skipped."""

    name: str
    stage: str
    reason: str


@dataclass(frozen=True)
class Labelled:
    """What a method made of one image."""

    instances: Instances
    semantic: npt.NDArray[np.uint8] | None
    gallery: dict[str, Any]
    baselines: dict[str, int]
    seconds: float


@dataclass(frozen=True)
class Survey:
    """The part of a dataset that can be learned from, and what could not be read."""

    usable: Dataset
    failures: dict[str, Failure]


def label_image(method: Method, sample: Sample) -> Labelled | Failure:
    """Label one image. Whatever goes wrong with it is its own failure, never the run's."""
    started = time.monotonic()
    stage = "image"
    try:
        image = sample.image
        sample = sample.replace(image=image)  # decoded once for the method, the baselines and the gallery
        stage = "labels"
        if method.reads and not any(sample.has(kind) for kind in method.reads):
            return Failure(sample.name, SKIPPED, f"no {' or '.join(method.reads)} labels for this image")
        semantic = sample.semantic
        sample = sample.replace(semantic=semantic)
        stage = "fields"
        fields = method.fields(sample)
        stage = "group"
        instances = method.group(fields, sample)
        stage = "output"
        if not np.isfinite(instances.scores).all():
            raise ValueError("a score is not a finite number")
        made = method.semantic(sample, fields)
        pictures = method.pictures(fields, sample)
        entry_of = partial(gallery_entry, clip=sample.clip, frame=sample.frame, fps=sample.fps)
        entry = entry_of(sample.name, image, instances, pictures=pictures)
        baselines = {} if semantic is None else count_baselines(semantic)
    except Exception as error:  # the boundary: one bad image must not end the run
        return Failure(sample.name, stage, _reason(error))
    return Labelled(instances, made, dict(entry), baselines, time.monotonic() - started)


def survey(dataset: Dataset, samples: Iterable[Sample], labels: tuple[str, ...]) -> Survey:
    """Read every image and its labels once, so that learning meets no broken file.

    Args:
        dataset: what to read.
        samples: its samples, perhaps wrapped by a progress bar.
        labels: the kinds of labels that matter.
    """
    failures: dict[str, Failure] = {}
    for sample in samples:
        stage = "image"
        try:
            loaded = sample.replace(image=sample.image)
            stage = "labels"
            for kind in labels:
                getattr(loaded, kind)
        except Exception as error:  # the same boundary as in label_image
            failures[sample.name] = Failure(sample.name, stage, _reason(error))
    return Survey(dataset.filter(lambda sample: sample.name not in failures), failures)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}".rstrip(": ")
