"""The last stage of IRNet: from fields to class labels and instances."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pixelkin.data import Instances
from pixelkin.data.sample import UNKNOWN
from pixelkin.grouping.displacement import group_by_displacement
from pixelkin.grouping.pieces import split_pieces
from pixelkin.grouping.seed_walk import Painted, Walked, paint, walk_seeds
from pixelkin.methods.base import Fields
from pixelkin.methods.irnet_config import IRNetConfig

CAM, PROBABILITY = "cam/", "class/"
"""Names of a class's activation and probability among the fields, before its id; the background's id is 0."""

USUAL_SHARE = 0.1
"""The side, as a share of the image's, of the square at which the size of an instance halves its score."""

SHAPES_LABELS: Any = {
    "background": True,
    "background_power": True,
    "normalisation": True,
    "pairs": {"background", "beta", "walk_radius", "steps", "max_pixels"},
    "maps": {"scales", "flip", "background_weight", "steps", "max_pixels"},
}
"""The settings that class labels depend on, beside the networks."""


def classes_in(fields: Fields) -> list[int]:
    """Ids of the classes with an activation or a probability, ascending."""
    ids = {int(name.split("/")[1]) for name in fields.maps if name.startswith((CAM, PROBABILITY))}
    return sorted(ids - {0})


def class_labels_of(fields: Fields, config: IRNetConfig, *, doubt: float) -> npt.NDArray[Any]:
    """(H, W) class ids from whole seeds; uint8, or int32 where an id needs it.

    Args:
        fields: of :class:`~pixelkin.methods.irnet.IRNet`.
        config: the settings.
        doubt: pixels whose strongest value is less than this above the next are 255, unknown.
    """
    present = classes_in(fields)
    if not present:
        return np.zeros(fields.size, np.uint8)
    walked = _walk(fields, present, None, config)
    painted = _paint(walked, fields, config, class_first=False)
    found = np.concatenate([[0], np.array(present)[walked.classes]])[painted.labels]
    found[painted.margin < doubt] = UNKNOWN
    return np.asarray(found, np.uint8 if max(present) < UNKNOWN else np.int32)


def instances_of(fields: Fields, config: IRNetConfig, *, source: str) -> Instances:
    """The seeds of each class cut by the displacement, each part spread up to the boundaries, in connected pieces."""
    present, pairs = classes_in(fields), config.pairs
    if not present:
        return Instances.empty(fields.size)
    groups = group_by_displacement(fields["displacement"], weak=pairs.weak) if config.use_displacement else None
    walked = _walk(fields, present, groups, config)
    painted = _paint(walked, fields, config, class_first=config.class_first)
    pieces = split_pieces(painted.labels, connectivity=4)
    areas = np.bincount(pieces.ravel())[1:]
    owners = np.zeros(len(areas) + 1, np.int64)
    owners[pieces] = painted.labels
    kept = areas >= pairs.min_area
    renumber = np.concatenate([[0], np.cumsum(kept) * kept]).astype(np.int32)
    return Instances.from_label_map(
        renumber[pieces],
        labels=np.array(present)[walked.classes[owners[1:] - 1]][kept],
        scores=_scores(pieces, areas, painted, config)[kept],
        sources=[source] * int(kept.sum()),
    )


def _walk(fields: Fields, present: list[int], groups: npt.NDArray[np.int32] | None, config: IRNetConfig) -> Walked:
    """The seeds of each class after the walk: its probability where there is one, else its activation."""
    pairs, scale, steps = config.pairs, None, config.pairs.steps
    ground: npt.NDArray[np.float32] | None = None
    if config.rounds and f"{PROBABILITY}0" in fields.maps:
        seeds = np.stack([fields[f"{PROBABILITY}{class_id}"] for class_id in present])
        ground, scale = fields[f"{PROBABILITY}0"], config.maps.background_weight
        steps = config.maps.steps
    else:
        seeds = np.stack([fields[f"{CAM}{class_id}"] for class_id in present])
        if config.background == "walked":
            ground = (1 - seeds.max(axis=0)).clip(0, 1).astype(np.float32) ** config.background_power
    return walk_seeds(
        seeds,
        fields["boundary"],
        groups=groups,
        background=ground,
        normalisation=config.normalisation,
        background_scale=scale,
        beta=pairs.beta,
        radius=pairs.walk_radius,
        steps=steps,
    )


def _paint(walked: Walked, fields: Fields, config: IRNetConfig, *, class_first: bool) -> Painted:
    stride = fields.stride("boundary")
    return paint(walked, fields.size, stride=stride, background=config.pairs.background, class_first=class_first)


def _scores(
    pieces: npt.NDArray[np.int32], areas: npt.NDArray[np.int64], painted: Painted, config: IRNetConfig
) -> npt.NDArray[np.float64]:
    """(N,) in 0..1, a score for each piece."""
    if config.score == "peak":
        peaks = np.zeros(len(areas) + 1)
        np.maximum.at(peaks, pieces.ravel(), painted.strength.ravel())
        return np.minimum(peaks[1:], 1)
    total = np.bincount(pieces.ravel(), painted.margin.ravel(), minlength=len(areas) + 1)[1:]
    side, usual = np.sqrt(areas), np.sqrt(pieces.size) * USUAL_SHARE
    return np.asarray(np.sqrt(np.clip(total / np.maximum(areas, 1), 1e-6, 1) * side / (side + usual)))
