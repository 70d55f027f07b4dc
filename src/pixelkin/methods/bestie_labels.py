"""The last stages of BESTIE: the fields of an image, and from fields to instances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from pixelkin.data import ImageError, Instances, Sample
from pixelkin.data.sample import UNKNOWN
from pixelkin.grouping.centers import CenterRules, group_by_centers
from pixelkin.methods.base import Field, Fields
from pixelkin.methods.bestie_config import BESTIEConfig
from pixelkin.methods.bestie_examples import places_of
from pixelkin.models.center_fields import STRIDE, CenterFields, CenterOutput

CENTER, PROBABILITY, OFFSET, SEMANTIC = "center/", "class/", "offset", "semantic"
"""Names of fields; the first two before a class id."""

LEAST_SCORE = 1e-4


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
    semantic = _given_map(sample, classes)
    if semantic is not None:
        wanted = sorted({int(i) for i in np.unique(semantic)} - {0, UNKNOWN})
        if not wanted:
            return Fields(sample.size, {SEMANTIC: Field(semantic)})
    else:
        wanted = _possible(sample, classes)
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
    """Every pixel of a class to the centre that its offset leads to: the user's points, else those found."""
    ids = classes_in(fields)
    if not ids:
        return Instances.empty(fields.size)
    places, names = places_of(sample)
    mine = np.isin(names, ids)
    groups = group_by_centers(
        np.stack([fields[f"{CENTER}{i}"] for i in ids]),
        fields[OFFSET] * np.float32(fields.stride(OFFSET)),
        fields[SEMANTIC],
        ids,
        stride=STRIDE,
        probability=np.stack([fields[f"{PROBABILITY}{i}"] for i in ids]),
        points=places[mine],
        point_classes=names[mine],
        rules=CenterRules(
            min_area=config.min_area,
            threshold=config.threshold,
            kernel=config.kernel,
            relative_kernel=config.relative_kernel,
            leftover=config.leftover,
            scope=config.scope,
        ),
    )
    return Instances.from_label_map(
        groups.labels,
        labels=groups.classes,
        scores=np.clip(groups.scores, LEAST_SCORE, 1),
        sources=[source_of(sample)] * len(groups.classes),
    )


def source_of(sample: Sample) -> str:
    """What the instances of an image were made from."""
    for kind in ("points", "tags", "semantic"):
        if sample.has(kind):
            return f"bestie:{kind}"
    return "bestie:predicted classes"


def _given_map(sample: Sample, classes: Sequence[int]) -> npt.NDArray[Any] | None:
    """The semantic map of an image without the classes that are none of its tags."""
    _check_known(sample, [*(sample.tags or ()), *(point.label for point in sample.points or ())], classes)
    semantic = sample.semantic
    if semantic is None:
        return None
    semantic = np.asarray(semantic)
    _check_known(sample, set(np.unique(semantic).tolist()) - {0, UNKNOWN}, classes)
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
    return model.predict(image, scales=config.scales, flip=config.flip, keep=rows, max_pixels=config.max_pixels)


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
