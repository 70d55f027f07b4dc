"""SISeg by crowding: a network that sees image and mask learns to divide touching objects that were put together.

Our own mode. Solitary objects are pressed against each other (:mod:`pixelkin.cues.crowding`), so the identity of
touching pixels is known exactly, without an instance label. The network says where each pixel's object has its middle
(displacement) and where another object begins (boundary); :mod:`pixelkin.grouping.cuts` cuts along the boundary and
joins again what points to one middle.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import pydantic
import torch
from scipy import ndimage
from torch import Tensor, nn

from pixelkin.cues.crowding import FieldCrowder, NoMaterialError, PieceCrowder
from pixelkin.cues.pieces import Picture, PictureStore, load_picture
from pixelkin.cues.suspects import CONVEX, EVEN, SMALLEST, object_statistics, usual_diameter
from pixelkin.data import ALTERNATIVE, Dataset, ImageError, Instances, Sample, encode_mask
from pixelkin.data.components import Components, class_components
from pixelkin.data.rle import RLE, code_of
from pixelkin.grouping.cuts import divide
from pixelkin.grouping.gaps import join_across_gaps
from pixelkin.methods.base import Field, Fields, MethodConfig
from pixelkin.methods.mask_fields import piece_fields, scene_fields, whole_fields
from pixelkin.methods.recipe import Example, Facts
from pixelkin.models.division_loss import division_loss
from pixelkin.models.mask_unet import MaskUNet
from pixelkin.training.config import TrainingConfig
from pixelkin.viz import boundary_picture, flow_wheel

Indices = npt.NDArray[np.int64]

SOURCE = "siseg/crowding:semantic"

USUAL_SIDE = 32.0
"""The side, in pixels, of the square at which the size of an instance halves its confidence."""

ZOOMS = (0.25, 4.0)
"""Least and greatest zoom that brings objects to their usual size."""

LONGEST = 1024
"""Photos are shrunk to this longer side before components are cut out of them."""

LARGEST = 100_000_000
"""No image is zoomed to more pixels."""


class CrowdingConfig(MethodConfig):
    """Settings of :class:`CrowdingRecipe`."""

    kind: Literal["auto", "scene", "piece"] = "auto"
    """``scene``: whole images zoomed to one size of objects (cells, seeds); ``piece``: component by component, each
    zoomed to fill the window (photos); ``auto``: scene where most components are convex and even in size."""
    window: int = pydantic.Field(default=128, ge=64, multiple_of=32)
    """Side of a training example, in network pixels."""
    diameter: float = pydantic.Field(default=28.0, ge=8)
    """Side of a usual object in a scene, in network pixels."""
    margin: float = pydantic.Field(default=0.25, ge=0)
    """Free space around a piece, as a share of its longer side."""
    images: int = pydantic.Field(default=1000, ge=1)
    """Most images learned from, evenly spread over the set."""
    cut: float | None = pydantic.Field(default=None, gt=0, lt=1)
    """Evidence that earns a cut. Default 0.25 in scenes; 0.7 in pieces: composites teach less about real ones."""
    gap: float | None = pydantic.Field(default=None, ge=0)
    """Components of a class up to this far apart, in sides of the larger, are an alternative as one object in pieces.
    Default 1 in pieces; in scenes such objects are not looked for."""
    alternatives: bool = True
    """Also give the instances of doubtful divisions, with scores under 0.5; those of 0.5 and more never overlap."""
    min_area: int = pydantic.Field(default=16, ge=1)
    """Smaller instances are dropped, in pixels."""
    flips: bool = True
    """Average the fields over mirror images."""
    backbone_rate: float | None = pydantic.Field(default=None, ge=0)
    """Learning rate of the backbone relative to the decoder's; 0 freezes it. Default 0.25 in scenes; 0 in pieces,
    where a backbone that learns would learn to see the seams of composites."""
    training: TrainingConfig = TrainingConfig(
        iterations=2000,
        batch_size=12,
        learning_rate=2e-3,
        weight_decay=1e-2,
        warmup=50,
        clip_norm=5.0,
        ema=0.995,
    )


class CrowdingRecipe:
    """Fields and instances by crowding.

    Args:
        config: the settings.
        backbone: name of the network's backbone.
        pretrained: whether it starts from ImageNet weights.
    """

    def __init__(self, config: CrowdingConfig, backbone: str, *, pretrained: bool = True) -> None:
        self.config, self.backbone, self.pretrained = config, backbone, pretrained

    def measure(self, dataset: Dataset) -> Facts:
        """The habits of the classes, whether the images are scenes or photos of pieces, and which cannot be read.

        Raises:
            ValueError: no object in any semantic map.
        """
        unreadable: list[str] = []
        statistics = object_statistics(_readable(self._used(dataset), unreadable))
        if not statistics:
            broken = f" ({len(unreadable)} images cannot be read)" if unreadable else ""
            raise ValueError(
                f"the semantic masks hold no object of {SMALLEST} pixels{broken}: give masks with class ids over 0"
            )
        kind = self.config.kind
        if kind == "auto":
            counts = [
                (habits["count"], habits["solidity"] >= CONVEX and habits["within"] <= EVEN)
                for habits in statistics.values()
            ]
            even = sum(count for count, is_even in counts if is_even) / sum(count for count, _ in counts)
            kind = "scene" if even > 0.5 else "piece"
        return {"kind": kind, "statistics": statistics, "unreadable": unreadable, "classes": list(dataset.classes)}

    def build(self, facts: Facts) -> nn.Module:
        """A MaskUNet whose reach suits the size of the objects it will see."""
        model = MaskUNet(self.backbone, reach=self._unit(facts) * 0.75, pretrained=self.pretrained)
        if self._backbone_rate(facts) == 0:
            model.backbone.freeze()
        return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def groups(self, model: nn.Module, facts: Facts) -> Iterable[Mapping[str, Any]]:
        """The decoder, and the backbone at its own rate."""
        backbone = [p for name, p in model.named_parameters() if name.startswith("backbone.") and p.requires_grad]
        decoder = [p for name, p in model.named_parameters() if not name.startswith("backbone.")]
        groups: list[Mapping[str, Any]] = [{"params": decoder}]
        if backbone:
            groups.append({"params": backbone, "lr_scale": self._backbone_rate(facts)})
        return groups

    def example(self, dataset: Dataset, facts: Facts) -> Example:
        """A maker of crowded scenes or pieces.

        Raises:
            ValueError: there is nothing to press together.
        """
        config, broken = self.config, set(facts.get("unreadable", ()))
        used = self._used(dataset).filter(lambda sample: sample.name not in broken)
        store = PictureStore(used, partial(self._zoom, facts), facts["statistics"])
        try:
            if facts["kind"] == "scene":
                return FieldCrowder(store, diameter=config.diameter, side=config.window)
            return PieceCrowder(store, side=config.window, margin=config.margin)
        except NoMaterialError as error:
            other = "piece" if facts["kind"] == "scene" else "scene"
            raise ValueError(f"{error}: try --set crowding.kind={other}, or --set mode=components") from None

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :func:`pixelkin.models.division_loss.division_loss`."""
        unet = cast("MaskUNet", model)
        return division_loss(unet(batch["image"], batch["mask"]), batch["objects"], batch["crowd"], unet.reach)

    def finish(self, model: nn.Module, dataset: Dataset, facts: Facts) -> None:
        """Nothing more to do."""

    def picture(self, sample: Sample, facts: Facts) -> Picture:
        """The image and its components at the zoom that brings objects to their usual size."""
        return load_picture(sample, partial(self._zoom, facts), facts["statistics"])

    def fields(self, model: nn.Module, sample: Sample, facts: Facts) -> Fields:
        """Displacement and boundary: of the whole image for a scene, else of each component, named ``boundary/3``."""
        picture = self.picture(sample, facts)
        unet, unit, config = cast("MaskUNet", model), self._unit(facts), self.config
        if facts["kind"] == "scene":
            return Fields(sample.size, scene_fields(unet, picture, unit, flips=config.flips))
        maps = piece_fields(unet, picture, unit, side=config.window, margin=config.margin, flips=config.flips)
        return Fields(sample.size, maps)

    def group(self, fields: Fields, sample: Sample, facts: Facts) -> Instances:
        """Divide each component of the semantic map.

        Scores are at least 0.5 for the division itself, higher for larger and surer instances, and under 0.5 for the
        alternatives to it. Where the sample has semantic probabilities, an instance is as sure as its class is there.
        """
        labels, classes = _components(sample)
        probabilities = _probabilities(sample, facts)
        size = (labels.shape[0], labels.shape[1])
        found: list[tuple[RLE, int, float, str]] = []
        places = ndimage.find_objects(labels, max_label=len(classes))
        large = np.bincount(labels.ravel(), minlength=len(classes) + 1)[1:] >= self.config.min_area
        for i in np.flatnonzero(large):
            place = places[i]
            mask = labels[place] == i + 1
            channel = probabilities.get(int(classes[i]))
            for rows, columns, sure, standing in self._divide(mask, place, fields, i + 1, facts):
                if channel is not None:
                    sure *= float(np.clip(channel[rows, columns].mean(), 0, 1))
                score = 0.5 * sure + (0.5 if standing else 0.0)
                source = SOURCE if standing else SOURCE + ALTERNATIVE
                found.append((_encode(rows, columns, size), int(classes[i]), score, source))
        if self.config.alternatives:
            for class_id in np.unique(classes[large]):
                numbers = np.flatnonzero(large & (classes == class_id))
                for mask, sure in self._across_gaps(labels, places, numbers, facts):
                    found.append((encode_mask(mask), int(class_id), 0.5 * sure, SOURCE + ALTERNATIVE))
        return Instances(
            size,
            [rle for rle, *_ in found],
            labels=[label for _, label, *_ in found],
            scores=[score for *_, score, _ in found],
            sources=[source for *_, source in found],
        )

    def _across_gaps(
        self, labels: npt.NDArray[np.int32], places: list[Any], numbers: npt.NDArray[np.int64], facts: Facts
    ) -> Iterator[tuple[npt.NDArray[np.bool_], float]]:
        """Masks of components (from 0) that may be one object in pieces, and how sure that is."""
        most = self.config.gap if self.config.gap is not None else (0.0 if facts["kind"] == "scene" else 1.0)
        if most == 0:
            return
        boxes = np.array([[s.start for s in places[i]] + [s.stop for s in places[i]] for i in numbers])
        areas = np.bincount(labels.ravel(), minlength=len(places) + 1)[1:][numbers]
        for join in join_across_gaps(boxes, areas, most=most):
            chosen = sorted(join.members)
            yield np.isin(labels, numbers[chosen] + 1), 0.6 / (1 + join.gap) * _weight(int(areas[chosen].sum()))

    def pictures(self, fields: Fields, sample: Sample) -> dict[str, npt.NDArray[np.uint8]]:
        """The fields of the whole image; pieces put together, the larger below."""
        displacement, boundary = whole_fields(fields)
        return {"displacement": flow_wheel(displacement), "boundary": boundary_picture(boundary)}

    def _used(self, dataset: Dataset) -> Dataset:
        """The images with a semantic map, at most ``images`` of them, evenly spread."""
        labelled = dataset.with_label("semantic")
        chosen = np.unique(
            np.linspace(0, len(labelled) - 1, min(len(labelled), self.config.images)).round().astype(int)
        )
        return Dataset([labelled[int(i)] for i in chosen], dataset.classes, name=dataset.name)

    def _unit(self, facts: Facts) -> float:
        return self.config.diameter / 3 if facts["kind"] == "scene" else self.config.window / 8

    def _backbone_rate(self, facts: Facts) -> float:
        rate = self.config.backbone_rate
        return rate if rate is not None else (0.25 if facts["kind"] == "scene" else 0.0)

    def _cut(self, facts: Facts) -> float:
        return self.config.cut or (0.25 if facts["kind"] == "scene" else 0.7)

    def _zoom(self, facts: Facts, labels: npt.NDArray[np.int32], classes: npt.NDArray[np.int64]) -> float:
        if facts["kind"] == "piece":
            return min(1.0, LONGEST / int(max(labels.shape)))
        usual = usual_diameter(labels, classes, facts["statistics"])
        fitting = 1.0 if usual is None else float(np.clip(self.config.diameter / usual, *ZOOMS))
        return min(fitting, math.sqrt(LARGEST / labels.size))

    def _divide(
        self, mask: npt.NDArray[np.bool_], place: tuple[slice, slice], fields: Fields, number: int, facts: Facts
    ) -> Iterator[tuple[Indices, Indices, float, bool]]:
        """Rows and columns in the image of each part of a component, its sureness, and whether it stands."""
        rows, columns = np.nonzero(mask)
        name = "" if "boundary" in fields else f"/{number}"
        if f"boundary{name}" not in fields:  # too small for the network to see
            yield rows + place[0].start, columns + place[1].start, _weight(len(rows)), True
            return
        ridge, arrow = fields.maps[f"boundary{name}"], fields[f"displacement{name}"]
        y = _cell(rows + place[0].start, ridge.origin[0], ridge.stride, ridge.array.shape[0])
        x = _cell(columns + place[1].start, ridge.origin[1], ridge.stride, ridge.array.shape[1])
        part = (slice(y.min(), y.max() + 1), slice(x.min(), x.max() + 1))
        grid = _sample_mask(mask, place, ridge, part)
        grid[y - y.min(), x - x.min()] = True
        division = divide(grid, arrow[:, part[0], part[1]], ridge.array[part])
        pieces = division.pieces[y - y.min(), x - x.min()]
        pixels = np.split(
            np.argsort(pieces, kind="stable"), np.cumsum(np.bincount(pieces, minlength=division.pieces.max() + 1))[:-1]
        )
        cut = self._cut(facts)
        for node in division.nodes:
            standing = node.stands(cut)
            if not standing and (not self.config.alternatives or node.outer == 0):
                continue  # the latter: what is left without a crumb
            inside = np.concatenate([pixels[piece] for piece in sorted(node.pieces)])
            if len(inside) < self.config.min_area:
                continue
            sure = node.confidence(cut) * _weight(len(inside))
            yield rows[inside] + place[0].start, columns[inside] + place[1].start, sure, standing


def _components(sample: Sample) -> Components:
    semantic = sample.semantic
    if semantic is None:
        raise ImageError(f"{sample.name}: no semantic mask: give one or leave the image out")
    return class_components(semantic)


def _probabilities(sample: Sample, facts: Facts) -> dict[int, npt.NDArray[np.float32]]:
    """The (H, W) probability of each class that has one."""
    maps, classes = sample.probabilities, facts.get("classes", [])
    if maps is None:
        return {}
    if len(maps) != 1 + len(classes):
        raise ImageError(
            f"{sample.name}: {len(maps)} probability maps for {len(classes)} classes: give background first, then one"
            " for each class in the order of the ids"
        )
    return dict(zip(classes, maps[1:], strict=True))


def _readable(dataset: Dataset, unreadable: list[str]) -> Iterator[Components]:
    """The components of each image; the names of those that cannot be read are added to ``unreadable``."""
    for sample in dataset:
        try:
            parts = _components(sample.replace(image=sample.image))
        except Exception:  # the boundary: one bad image must not end the training
            unreadable.append(sample.name)
        else:
            yield parts


def _weight(area: int) -> float:
    """How much an instance of so many pixels is trusted, in 0..1."""
    side = math.sqrt(area)
    return side / (side + USUAL_SIDE)


def _encode(rows: Indices, columns: Indices, size: tuple[int, int]) -> RLE:
    """The run-length code of some pixels, in any order, without a mask of the whole image."""
    flat = np.sort(columns * size[0] + rows)
    gaps = np.flatnonzero(np.diff(flat) > 1)
    starts, ends = flat[np.concatenate([[0], gaps + 1])], flat[np.concatenate([gaps, [len(flat) - 1]])] + 1
    edges = np.stack([starts, ends], axis=1).ravel()
    runs = np.diff(edges, prepend=0, append=size[0] * size[1])
    return code_of(runs[:-1] if runs[-1] == 0 else runs, size)


def _cell(pixels: npt.NDArray[Any], origin: float, stride: float, cells: int) -> npt.NDArray[np.int64]:
    """Field cells that hold the centres of image pixels, along one axis."""
    return np.clip(((pixels + 0.5 - origin) / stride).astype(np.int64), 0, cells - 1)


def _sample_mask(
    mask: npt.NDArray[np.bool_], place: tuple[slice, slice], field: Field, part: tuple[slice, slice]
) -> npt.NDArray[np.bool_]:
    """The component at the centres of field cells; between image pixels where the field is finer than the image."""
    index, valid = [], []
    for axis in (0, 1):
        centres = (np.arange(part[axis].start, part[axis].stop) + 0.5) * field.stride + field.origin[axis]
        pixels = np.floor(centres).astype(np.int64) - place[axis].start
        valid.append((pixels >= 0) & (pixels < mask.shape[axis]))
        index.append(np.clip(pixels, 0, mask.shape[axis] - 1))
    return np.asarray(mask[np.ix_(*index)] & np.logical_and.outer(*valid))
