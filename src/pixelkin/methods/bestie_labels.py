"""The last stages of BESTIE: the fields of an image, and from fields to instances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from pixelkin.cues.edges import colour_edges
from pixelkin.cues.transfer import subsample
from pixelkin.data import ImageError, Instances, Sample
from pixelkin.data.sample import UNKNOWN
from pixelkin.grouping.centers import CenterGroups, CenterRules, group_by_centers
from pixelkin.grouping.points import divide_at_points, mend_classes
from pixelkin.methods.base import Field, Fields
from pixelkin.methods.bestie_config import BESTIEConfig
from pixelkin.methods.bestie_views import Ids, Places, places_of
from pixelkin.models.center_fields import STRIDE, CenterFields, CenterOutput

CENTER, PROBABILITY, OFFSET, SEMANTIC = "center/", "class/", "offset", "semantic"
"""Names of fields; the first two before a class id."""

LEAST_SCORE = 1e-4

USUAL_SHARE = 0.1
"""The side, as a share of the image's, of the square whose size halves the square of its score."""


def fields_of(model: CenterFields, sample: Sample, classes: Sequence[int], config: BESTIEConfig) -> Fields:
    """``semantic`` on the image's pixels, ``offset`` and, for each class in it, ``center/ID`` and ``class/ID``.

    Args:
        model: the network.
        sample: an image; its semantic map, where it has one, is taken as it is but for classes that are not its tags.
        classes: ids in the order of the network's rows.
        config: the settings.

    Raises:
        ImageError: tags, points or a map with a class that the model never learned.
    """
    semantic = _given_map(sample, classes, mend=config.mend)
    if semantic is not None:
        wanted = sorted({int(i) for i in np.unique(semantic)} - {0, UNKNOWN})
    else:
        wanted = _possible(sample, classes)
    if not wanted:
        return Fields(sample.size, {SEMANTIC: Field(np.zeros(sample.size, np.uint8) if semantic is None else semantic)})
    found = _predict(model, sample, [list(classes).index(i) for i in wanted], config)
    odds = found.semantic.cpu().numpy()
    if semantic is None:
        semantic = _most_probable(odds, wanted, sample.size, config.background_weight)
    heat = found.center.clamp(0, 1).cpu().numpy()
    maps = {SEMANTIC: Field(semantic), OFFSET: Field(found.offset.cpu().numpy() / STRIDE, STRIDE)}
    shown = set(np.unique(semantic).tolist())
    for row, class_id in enumerate(wanted):
        if class_id in shown:
            maps[f"{CENTER}{class_id}"] = Field(heat[row], STRIDE)
            maps[f"{PROBABILITY}{class_id}"] = Field(odds[row + 1], STRIDE)
    return Fields(sample.size, maps)


def classes_in(fields: Fields) -> list[int]:
    """Ids of the classes with a centre heat, ascending."""
    return sorted(int(name.removeprefix(CENTER)) for name in fields.maps if name.startswith(CENTER))


def instances_of(fields: Fields, sample: Sample, config: BESTIEConfig) -> Instances:
    """Every pixel of a class to the user's points, else to the centre that its offset leads to."""
    ids = classes_in(fields)
    if not ids:
        return Instances.empty(fields.size)
    places, names = places_of(sample)
    mine = np.isin(names, ids)
    places, names, semantic = places[mine], names[mine], fields[SEMANTIC]
    own = np.zeros(fields.size, np.int32)
    if config.division == "paths" and len(places):
        own = _by_paths(fields, sample.image, places, names, config)
    held = np.unique(own[own > 0]) - 1
    free = slice(0) if config.division == "paths" else slice(None)
    # Who made a map knows its classes better than a network that learned from such maps.
    doubted = config.score == "heat" or not sample.has("semantic")
    rest = _by_centers(fields, np.where(own > 0, 0, semantic), places[free], names[free], config, doubted)
    rank = np.zeros(len(places) + 1, np.int32)
    rank[held + 1] = 1 + np.arange(len(held))
    labels = np.where(rest.labels > 0, rest.labels + len(held), rank[own])
    scores = rest.scores
    if len(held):
        odds = [_probability(fields, own == k + 1, places[k], int(names[k])) if doubted else 1.0 for k in held]
        scores = np.concatenate([odds, scores])
    if config.score == "size":
        sides = np.sqrt(np.bincount(labels.ravel(), minlength=len(scores) + 1)[1:])
        scores = scores * np.sqrt(sides / (sides + USUAL_SHARE * np.sqrt(labels.size)))
    return Instances.from_label_map(
        labels,
        labels=np.concatenate([names[held], rest.classes]),
        scores=np.clip(scores, LEAST_SCORE, 1),
        sources=[source_of(sample)] * (len(held) + len(rest.classes)),
    )


def _by_paths(
    fields: Fields, image: npt.NDArray[np.uint8], places: Places, names: Ids, config: BESTIEConfig
) -> npt.NDArray[np.int32]:
    """(H, W) which point each pixel belongs to, from 1; 0: none. Paths shun edges, and places where votes jump."""
    height, width = fields.size
    votes = None
    if config.vote_cost:
        step = fields.stride(OFFSET)
        fine = [_on_pixels(each * np.float32(step * config.vote_cost), fields.size) for each in fields[OFFSET]]
        votes = np.stack(fine) + np.float32(config.vote_cost) * np.indices((height, width), dtype=np.float32)
    cost = colour_edges(image, stride=1) * np.float32(config.edge_cost)
    snap = config.snap * max(fields.size)
    return divide_at_points(fields[SEMANTIC], places, names, cost=cost, votes=votes, snap=snap)


def _by_centers(
    fields: Fields, semantic: npt.NDArray[Any], places: Places, names: Ids, config: BESTIEConfig, doubted: bool
) -> CenterGroups:
    """Every pixel to the centre nearest to where its offset leads; scores count the class where it is doubted."""
    ids = classes_in(fields)
    return group_by_centers(
        np.stack([fields[f"{CENTER}{i}"] for i in ids]),
        fields[OFFSET] * np.float32(fields.stride(OFFSET)),
        semantic,
        ids,
        stride=STRIDE,
        probability=np.stack([fields[f"{PROBABILITY}{i}"] for i in ids]) if doubted else None,
        points=places,
        point_classes=names,
        rules=CenterRules(
            min_area=config.min_area,
            threshold=config.threshold,
            kernel=config.kernel,
            relative_kernel=config.relative_kernel,
            prominence=config.prominence,
            blob_heat=config.threshold,
            leftover=config.leftover,
            scope=config.scope,
        ),
    )


def _probability(fields: Fields, mask: npt.NDArray[np.bool_], place: Places, class_id: int) -> float:
    """The mean probability of a class in a mask: the score of the instance of a point, whose heat counts as 1."""
    odds, cells = fields[f"{PROBABILITY}{class_id}"], subsample(mask, STRIDE)
    if not cells.any():
        cells[tuple(np.clip(place / STRIDE, 0, np.array(cells.shape) - 1).astype(int))] = True
    return float(odds[cells].mean())


def source_of(sample: Sample) -> str:
    """What the instances of an image were made from."""
    for kind in ("points", "tags", "semantic"):
        if sample.has(kind):
            return f"bestie:{kind}"
    return "bestie:predicted classes"


def _given_map(sample: Sample, classes: Sequence[int], *, mend: bool) -> npt.NDArray[Any] | None:
    """The semantic map of an image without the classes that are none of its tags, mended by its points."""
    _check_known(sample, [*(sample.tags or ()), *(point.label for point in sample.points or ())], classes)
    semantic = sample.semantic
    if semantic is None:
        return None
    semantic = np.asarray(semantic)
    _check_known(sample, set(np.unique(semantic).tolist()) - {0, UNKNOWN}, classes)
    if mend and sample.points:
        semantic = mend_classes(semantic, *places_of(sample))
    if sample.tags is None:
        return semantic
    kept = np.isin(semantic, [0, UNKNOWN, *sample.tags])
    return np.where(kept, semantic, np.array(UNKNOWN, semantic.dtype))


def _check_known(sample: Sample, named: Any, classes: Sequence[int]) -> None:
    strange = sorted(set(named) - set(classes))
    if strange:
        raise ImageError(f"{sample.name}: the model never learned class {strange[0]}: fit one with these labels")


def _possible(sample: Sample, classes: Sequence[int]) -> list[int]:
    """The classes that a predicted map may show: those of the image's tags and points, or all where it has neither."""
    if sample.tags is None and sample.points is None:
        return list(classes)
    return sorted({*(sample.tags or ()), *(point.label for point in sample.points or ())})


def _predict(model: CenterFields, sample: Sample, rows: list[int], config: BESTIEConfig) -> CenterOutput:
    device = next(model.parameters()).device
    image = torch.from_numpy(np.ascontiguousarray(sample.image.transpose(2, 0, 1))).to(device).float() / 255
    shown = sum(config.fields.long_side) / 2 / max(sample.size) if config.shown == "training" else 1.0
    scales = [scale * shown for scale in config.scales]
    return model.predict(image, scales=scales, flip=config.flip, keep=rows, max_pixels=config.max_pixels)


def _most_probable(
    odds: npt.NDArray[np.float32], ids: Sequence[int], size: tuple[int, int], background: float
) -> npt.NDArray[Any]:
    """(H, W) class ids from (1 + K, h, w) probabilities; a class at a time, as images may be large."""
    best = _on_pixels(odds[0], size) * background
    found = np.zeros(size, np.uint8 if max(ids, default=0) < UNKNOWN else np.int32)
    for class_id, values in zip(ids, odds[1:], strict=True):
        fine = _on_pixels(values, size)
        higher = fine > best
        found[higher] = class_id
        best[higher] = fine[higher]
    return found


def _on_pixels(values: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    height, width = values.shape
    fine = cv2.resize(values, (width * STRIDE, height * STRIDE), interpolation=cv2.INTER_LINEAR)
    return np.asarray(fine[: size[0], : size[1]], np.float32)
