"""Points from tags: a peak classifier is fitted, and its confident peaks are what a user's points would be."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from pixelkin.cues.peaks import average_views, confident_peaks, find_peaks
from pixelkin.data import Dataset, Point, Sample
from pixelkin.formats.files import whole
from pixelkin.methods.bestie_config import PeakConfig
from pixelkin.methods.tag_classifier import TagExamples, tags_digest, tags_loss, weights_digest
from pixelkin.models.peak_attention import PeakClassifier, peak_views
from pixelkin.training.budget import Budget
from pixelkin.training.loop import TrainingReport, train

Peaks = dict[str, tuple[Point, ...]]
"""Sample name to its points."""


def fit_peaks(
    config: PeakConfig,
    dataset: Dataset,
    classes: Mapping[int, str],
    backbone: str,
    *,
    out: Path,
    budget: Budget | None,
    device: str,
    seed: int,
) -> tuple[PeakClassifier, TrainingReport]:
    """Train a peak classifier on the tags of a dataset; resumes from ``out``.

    Args:
        config: the settings.
        dataset: images, all with tags.
        classes: id to name, in the order of the head's rows.
        backbone: its name.
        out: folder for checkpoints and the log.
        budget: goes before the iterations of the config.
        device: ``auto``, ``cpu`` or ``cuda``.
        seed: of the first weights and the examples.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = PeakClassifier(
            len(classes), backbone, alpha=config.alpha, layers=config.layers, output_stride=config.output_stride
        )
    if config.imagenet_seed and not config.layers and not isinstance(model.embedding, torch.nn.Identity):
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
            "config": config.model_dump(
                mode="json", include={"alpha", "layers", "output_stride", "imagenet_seed", "crop", "long_side"}
            ),
            "backbone": backbone,
            "images": len(dataset),
            "name": dataset.name,
            "tags": tags_digest(dataset),
        },
    )
    return model, report


def peak_points(
    model: PeakClassifier,
    config: PeakConfig,
    dataset: Dataset,
    samples: Iterable[Sample],
    classes: Mapping[int, str],
    *,
    file: Path,
) -> Peaks:
    """The confident peaks of every image, of the classes of its tags; kept in ``file`` and made once.

    Args:
        model: the classifier.
        config: the settings.
        dataset: images with tags.
        samples: its samples, perhaps wrapped by a progress bar.
        classes: those of the rows of the head, in their order.
        file: JSON of what they were made with and the peaks.
    """
    made_with = {
        "classifier": weights_digest(model),
        "tags": tags_digest(dataset),
        "config": config.model_dump(mode="json", exclude={"training"}),
    }
    if file.is_file():
        kept = json.loads(file.read_text())
        if kept["made_with"] == made_with:
            return {name: tuple(Point(*point) for point in points) for name, points in kept["points"].items()}
    rows = {class_id: row for row, class_id in enumerate(classes)}
    found = {sample.name: _points_of(sample, model, config, rows) for sample in samples}
    with whole(file) as beside:
        beside.write_text(json.dumps({"made_with": made_with, "points": found}) + "\n")
    return found


def _points_of(sample: Sample, model: PeakClassifier, config: PeakConfig, rows: Mapping[int, int]) -> tuple[Point, ...]:
    ids = sorted(set(sample.tags or ()))
    if not ids:
        return ()
    height, width = sample.size
    views = peak_views(
        model, sample.image, keep=[rows[i] for i in ids], size=(config.side, config.side), flip=config.flip
    )
    scale = min(1.0, (config.max_pixels / (height * width)) ** 0.5)
    grid = max(1, round(height * scale)), max(1, round(width * scale))
    peaks = find_peaks(
        average_views([view.resized(grid) for view in views]),
        ids,
        (height, width),
        smoothing=config.smoothing,
        kernel=config.kernel,
        top=config.top,
    )
    return tuple(Point(float(x), float(y), int(name)) for y, x, name, _ in confident_peaks(peaks, config.threshold))
