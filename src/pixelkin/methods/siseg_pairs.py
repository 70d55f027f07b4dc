"""SISeg as published, and with pairs that keep to components: displacement and boundary learned from pairs of pixels.

Which pixels are of one class is known, which of one object is not. Two nearby pixels of a class are taught as if they
were of one object (``paper``). Where two objects touch that is wrong, but most pairs are right, and the network learns
to point to the middle of an object. ``components`` spares it some of the wrong ones: a pair must share a connected
component that does not look like several objects, and images are scaled so that an object fits the radius of the pairs.

SISeg: arXiv 2308.00949. Layers, losses and synthesis as in IRNet (Ahn, Cho, Kwak, CVPR 2019, arXiv 1904.05044).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, cast

import cv2
import numpy as np
import numpy.typing as npt
import pydantic
import torch
from torch import Tensor, nn

from pixelkin.cues.relations import PairGeometry, affinity_loss, displacement_loss, pair_labels
from pixelkin.cues.suspects import object_statistics, suspects, usual_diameter
from pixelkin.data import Dataset, ImageError, Instances, Sample
from pixelkin.data.components import class_components
from pixelkin.data.sample import UNKNOWN
from pixelkin.grouping.pair_walk import FloatMap, own_pixels
from pixelkin.grouping.pieces import merge_small, split_pieces
from pixelkin.methods.base import Field, Fields, MethodConfig
from pixelkin.methods.recipe import Facts
from pixelkin.models.pair_fields import PairFields, PairOutput
from pixelkin.training.config import TrainingConfig
from pixelkin.viz import boundary_picture, flow_wheel

PairMode = Literal["paper", "components"]

PUBLISHED_TRAINING = TrainingConfig(
    iterations=990, batch_size=32, optimizer="sgd", learning_rate=0.1, momentum=0.0, weight_decay=1e-4, poly_power=0.9
)
"""IRNet's training on 10,582 images. Its code calls for a momentum of 0.9, but the number only becomes the power of the
learning rate's decay: SGD runs without any, and its learning rates (ten times this one for the displacement) are tuned
to that. SISeg's own is not known."""

SCALES = (0.25, 4.0)
"""Least and greatest scale that fits an object to the radius."""

SURVEYED = 1000
"""Images of a set that are measured, evenly spread over it."""

TRUSTED_CELLS = 4
"""A piece of fewer field pixels is below what the fields can tell: it joins its neighbour of the same class."""

USUAL_SIDE = 32.0
"""The side, in pixels, of the square at which the size of an instance halves its score."""


class PairConfig(MethodConfig):
    """Settings of :class:`PairRecipe`; those of IRNet unless said otherwise."""

    radius: int = pydantic.Field(default=10, ge=2)
    """Pixels closer than this are a pair in training, in field pixels."""
    walk_radius: int = pydantic.Field(default=5, ge=2)
    """Pixels closer than this are neighbours in the random walk, in field pixels."""
    stride: Literal[2, 4, 8] = 4
    """Image pixels per field pixel."""
    output_stride: Literal[8, 16, 32] | None = None
    """Of the backbone's coarsest map; none: its own. The published ResNet-50 has 16."""
    width: int = pydantic.Field(default=256, ge=32, multiple_of=32)
    """Channels of the displacement head."""
    context: int = pydantic.Field(default=0, ge=0, le=6)
    """Layers of it that look around; published: 0, which cannot tell left from right."""
    crop: int = pydantic.Field(default=256, ge=32, multiple_of=8)
    """Side of a training crop; 512 as published, too much for a CPU."""
    scale_jitter: tuple[float, float] = (0.5, 1.5)
    """Least and greatest random scale of a training image."""
    offsets: int = pydantic.Field(default=0, ge=0)
    """Directions of pairs looked at in one step, drawn at random; 0: all (152 at radius 10)."""
    weighting: Literal["irnet", "siseg"] = "irnet"
    """``irnet`` halves the boundary and the displacement loss, ``siseg`` does not. As no weight serves both heads, this
    only scales the gradients: it matters to sgd, not to adamw."""
    displacement_rate: float | None = pydantic.Field(default=None, gt=0)
    """Learning rate of the displacement head over the boundary head's; none: 10 with sgd, as published, else 1."""
    training: TrainingConfig = TrainingConfig(iterations=1000, batch_size=8, learning_rate=3e-3, warmup=20)
    """Not as published (:data:`PUBLISHED_TRAINING`), though little is between them. After 120 steps on rendered scenes
    the loss on other scenes was 1.95 with the published optimiser and rates, 2.06 with a momentum of 0.9 and a tenth of
    the rates, and with adamw 2.06 at 1e-3 and 1.89 at 3e-3."""
    centring: Literal["image", "object"] | None = None
    """Where the mean displacement is zero afterwards: over whole images, as published, or over the pixels of objects;
    none: ``image`` in paper, ``object`` in components."""
    centring_images: int = pydantic.Field(default=50, ge=1)
    """Images that the mean displacement is taken from, evenly spread over the set; all of them as published."""
    weak: float = pydantic.Field(default=2.5, gt=0)
    """Pixels with a displacement shorter than this are centres, in field pixels."""
    beta: float = pydantic.Field(default=10.0, gt=0)
    """Exponent of the affinities of the walk."""
    steps: int = pydantic.Field(default=256, ge=0)
    """Length of the walk."""
    background: float = pydantic.Field(default=0.0, ge=0, lt=1)
    """Pixels whose walked value is below this share of their class's largest belong to no instance. Published is 0.25,
    for class activations, which reach beyond the objects; masks are believed as they are."""
    min_area: int = pydantic.Field(default=16, ge=0)
    """Smaller instances are dropped, in pixels; 1 % of the image as published."""
    max_pixels: int = pydantic.Field(default=4_000_000, ge=1024)
    """Larger images are shrunk to this for the fields; the masks keep the image's size."""

    @pydantic.field_validator("scale_jitter")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            raise ValueError("scale_jitter is the least and the greatest scale, above 0")
        return value


class PairRecipe:
    """The modes ``paper`` and ``components`` of SISeg.

    The facts are ``classes``, the ids in the order of a set's probabilities, and in components mode ``statistics``.

    Args:
        config: the settings.
        mode: ``paper``: pairs by class, images at their own scale. ``components``: see the module.
        backbone: name for :func:`pixelkin.models.backbone.build_backbone`.
        pretrained: whether the backbone has its weights.
    """

    def __init__(self, config: PairConfig, mode: PairMode, backbone: str, *, pretrained: bool = True) -> None:
        self.config = config
        self.mode: PairMode = mode
        self.backbone = backbone
        self.pretrained = pretrained
        self.geometry = PairGeometry(config.radius)

    def measure(self, dataset: Dataset) -> Facts:
        """The class ids, and in components mode what is usual for the components of each class."""
        facts: Facts = {"classes": list(dataset.classes)}
        if self.mode == "components":
            maps = (class_components(_semantic(sample)) for sample in _spread(dataset, SURVEYED))
            facts["statistics"] = object_statistics(maps)
        return facts

    def build(self, facts: Facts) -> nn.Module:
        """The two heads on the backbone."""
        config = self.config
        return PairFields(
            self.backbone,
            stride=config.stride,
            width=config.width,
            context=config.context,
            output_stride=config.output_stride,
            pretrained=self.pretrained,
        )

    def groups(self, model: nn.Module, facts: Facts) -> Iterable[Mapping[str, Any]]:
        """Both heads; the backbone stays as it is."""
        heads, rate = cast("PairFields", model), self.config.displacement_rate
        scale = rate if rate is not None else 10.0 if self.config.training.optimizer == "sgd" else 1.0
        return [
            {"params": list(heads.boundary.parameters())},
            {"params": list(heads.displacement.parameters()), "lr_scale": scale},
        ]

    def example(self, dataset: Dataset, facts: Facts) -> PairExamples:
        """Crops of the images at random scales, some mirrored."""
        return PairExamples(self, dataset.with_label("semantic"), facts)

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The four losses: boundary within objects or background and between, displacement in objects and background.

        Args:
            model: from :meth:`build`.
            batch: ``image`` (B, 3, H, W) uint8, ``labels`` (B, h, w) class ids on the field's grid and, in components
                mode, ``components``, see :func:`~pixelkin.cues.relations.pair_labels`.
        """
        fields = model(batch["image"].float() / 255)
        geometry = self.geometry.sample(self.config.offsets) if self.config.offsets else self.geometry
        codes = pair_labels(batch["labels"], geometry, components=batch.get("components"))
        kin = affinity_loss(torch.sigmoid(fields.boundary.float()), codes, geometry)
        centre = displacement_loss(fields.displacement, codes, geometry)
        total = kin.total + centre.total
        return {
            "loss": total if self.config.weighting == "irnet" else 2 * total,
            "together": kin.positive,
            "apart": kin.negative,
            "centre": centre.foreground,
            "flat": centre.background,
        }

    def finish(self, model: nn.Module, dataset: Dataset, facts: Facts) -> None:
        """Centre the displacement: the losses know only differences, so its mean is arbitrary until now.

        The mean weighs every field pixel alike, whatever the size of its image; those beyond an image's edge and the
        unknown ones do not count.
        """
        heads = cast("PairFields", model)
        heads.displacement.centre(torch.zeros(2))
        centring = self.config.centring or ("image" if self.mode == "paper" else "object")
        total, count = np.zeros(2), 0
        for sample in _spread(dataset, self.config.centring_images):
            found, stride = self._predict(model, sample, facts, mirror=False)
            field = found.displacement.float().cpu().numpy()
            labels = _at_cells(_semantic(sample), field.shape[1:], stride)
            counted = (labels != UNKNOWN) & ((labels != 0) | (centring == "image"))
            total += field[:, counted].sum(axis=1, dtype=np.float64)
            count += int(counted.sum())
        heads.displacement.centre(torch.from_numpy(total / max(count, 1)).float())

    def fields(self, model: nn.Module, sample: Sample, facts: Facts) -> Fields:
        """``displacement`` (2, h, w) in field pixels and ``boundary`` (h, w) probability, at one stride."""
        found, stride = self._predict(model, sample, facts)
        maps = {
            "displacement": Field(found.displacement.float().cpu().numpy(), stride),
            "boundary": Field(found.boundary.float().cpu().numpy(), stride),
        }
        return Fields(sample.size, maps)

    def group(self, fields: Fields, sample: Sample, facts: Facts) -> Instances:
        """Every pixel of the mask to an instance of its class; each connected piece is one detection.

        Pieces too small for the fields to tell join their neighbour of the same class. The score, in (0, 1], is the
        mean walked value, where class, displacement and missing boundaries agree, times a share that grows with size.
        """
        config, semantic, stride = self.config, _semantic(sample), fields.stride("boundary")
        owners = own_pixels(
            semantic,
            fields["displacement"],
            fields["boundary"],
            stride=stride,
            class_weight=_Probabilities(sample, facts["classes"]) if sample.has("probabilities") else None,
            weak=config.weak,
            beta=config.beta,
            radius=config.walk_radius,
            steps=config.steps,
            background=config.background,
        )
        pieces = split_pieces(owners.labels)
        classes = _value_of_each(pieces, np.concatenate([[0], owners.classes])[owners.labels])
        labels = merge_small(pieces, classes, below=max(config.min_area, TRUSTED_CELLS * stride**2))
        classes = _value_of_each(labels, np.concatenate([[0], classes])[pieces])
        areas = np.bincount(labels.ravel(), minlength=len(classes) + 1)[1:]
        strength = np.bincount(labels.ravel(), owners.strength.ravel(), minlength=len(classes) + 1)[1:]
        side = np.sqrt(areas)
        scores = np.clip(strength / areas, 1e-4, 1) * side / (side + USUAL_SIDE)
        kept = areas >= config.min_area
        renumber = np.concatenate([[0], np.cumsum(kept) * kept]).astype(np.int32)
        return Instances.from_label_map(
            renumber[labels],
            labels=classes[kept],
            scores=scores[kept],
            sources=[f"siseg/{self.mode}:semantic"] * int(kept.sum()),
        )

    def pictures(self, fields: Fields, sample: Sample) -> dict[str, npt.NDArray[np.uint8]]:
        """The displacement as a flow wheel, inside the mask, and the boundary."""
        displacement = fields["displacement"]
        inside = _at_cells(_semantic(sample), displacement.shape[1:], fields.stride("displacement")) % UNKNOWN > 0
        return {
            "displacement": flow_wheel(displacement * inside),
            "boundary": boundary_picture(fields["boundary"]),
        }

    def scale(self, sample: Sample, facts: Facts) -> float:
        """The scale at which an image is shown to the network: in components mode an object fits the radius."""
        if self.mode == "paper":
            return 1.0
        parts = class_components(_semantic(sample))
        diameter = usual_diameter(parts.labels, parts.classes, facts["statistics"])
        return 1.0 if diameter is None else float(np.clip(self.config.radius * self.config.stride / diameter, *SCALES))

    def _predict(
        self, model: nn.Module, sample: Sample, facts: Facts, *, mirror: bool = True
    ) -> tuple[PairOutput, float]:
        """The fields of an image, and their stride in its own pixels."""
        image = sample.image
        scale = min(self.scale(sample, facts), (self.config.max_pixels / (image.shape[0] * image.shape[1])) ** 0.5)
        shown = torch.from_numpy(_resize(image, scale)).permute(2, 0, 1)
        device = next(model.parameters()).device
        found = cast("PairFields", model).predict(shown.to(device).float() / 255, mirror=mirror)
        return found, self.config.stride / scale


class PairExamples:
    """Training crops of a recipe; called with a generator, as the training loop does.

    Args:
        recipe: whose settings hold.
        dataset: images that all have a semantic map.
        facts: from :meth:`PairRecipe.measure`.

    Raises:
        ValueError: no images.
    """

    def __init__(self, recipe: PairRecipe, dataset: Dataset, facts: Facts) -> None:
        if not len(dataset):
            raise ValueError("no image has a semantic mask to learn from: give semantic masks (--semantic DIR)")
        self.recipe, self.dataset, self.facts = recipe, dataset, facts
        self._known: dict[int, tuple[float, npt.NDArray[np.bool_]]] = {}  # slow to find, small to keep

    def __call__(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """``image`` (3, crop, crop) uint8, ``labels`` (h, w) int64 class ids, in components mode ``components``.

        Beyond the image its edge goes on, unknown.
        """
        config = self.recipe.config
        number = int(rng.integers(len(self.dataset)))
        sample = self.dataset[number]
        image, semantic = sample.image, _semantic(sample)
        maps = [semantic.astype(np.int64)]
        scale = float(rng.uniform(*config.scale_jitter))
        if self.recipe.mode == "components":
            parts = class_components(semantic)
            if number not in self._known:
                doubtful = suspects(parts.labels, parts.classes, self.facts["statistics"])
                self._known[number] = self.recipe.scale(sample, self.facts), doubtful
            usual, doubtful = self._known[number]
            scale *= usual
            ids = np.arange(1, len(doubtful) + 1) * np.where(doubtful, -1, 1)
            maps.append(np.concatenate([[0], ids])[parts.labels])
        scale = min(scale, (config.max_pixels / semantic.size) ** 0.5)
        shown = _resize(image, scale)
        y, x = (_start(rng, side, config.crop) for side in shown.shape[:2])
        window = np.arange(config.crop)
        crop = shown[np.ix_(*(np.clip(at + window, 0, n - 1) for at, n in zip((y, x), shown.shape[:2], strict=True)))]
        middles = np.arange(config.crop // config.stride) * config.stride + config.stride // 2
        rows, columns = y + middles, x + middles
        place = np.ix_(
            *(_nearest(at, *sides) for at, *sides in zip((rows, columns), shown.shape[:2], semantic.shape, strict=True))
        )
        cells = [values[place] for values in maps]
        cells[0][(rows < 0) | (rows >= shown.shape[0])] = UNKNOWN
        cells[0][:, (columns < 0) | (columns >= shown.shape[1])] = UNKNOWN
        step = -1 if rng.random() < 0.5 else 1
        named = {"image": crop[:, ::step].transpose(2, 0, 1)}
        named |= {key: values[:, ::step] for key, values in zip(("labels", "components"), cells, strict=False)}
        return {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in named.items()}


class _Probabilities:
    """The probability of each class, for :func:`own_pixels`."""

    def __init__(self, sample: Sample, classes: list[int]) -> None:
        maps = sample.probabilities
        if maps is None or len(maps) != 1 + len(classes):
            raise ImageError(
                f"{sample.name}: {0 if maps is None else len(maps)} probability maps for {len(classes)} classes: give"
                " background first, then one for each class in the order of the ids"
            )
        self.maps, self.rows = maps, {class_id: i for i, class_id in enumerate(classes, start=1)}

    def __call__(self, class_id: int) -> FloatMap | None:
        return self.maps[self.rows[class_id]] if class_id in self.rows else None


def _semantic(sample: Sample) -> npt.NDArray[Any]:
    semantic = sample.semantic
    if semantic is None:
        raise ImageError(f"{sample.name}: no semantic mask: give one or leave the image out")
    return semantic


def _spread(dataset: Dataset, most: int) -> Iterable[Sample]:
    """At most so many of the samples with a semantic map, evenly spread."""
    usable = dataset.with_label("semantic")
    count = min(most, len(usable))
    return (usable[i * len(usable) // count] for i in range(count))


def _resize(image: npt.NDArray[np.uint8], scale: float) -> npt.NDArray[np.uint8]:
    if scale == 1:
        return image
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    mode = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (width, height), interpolation=mode), dtype=np.uint8)


def _nearest(pixels: npt.NDArray[np.int64], scaled: int, side: int) -> npt.NDArray[np.int64]:
    """Where pixels of an axis were before it was scaled from ``side`` to ``scaled``; beyond an end, that end."""
    return np.clip((pixels + 0.5) * side / scaled, 0, side - 1).astype(np.int64)


def _start(rng: np.random.Generator, side: int, crop: int) -> int:
    """Where a crop begins: inside where the image is larger, else so that it holds the whole image."""
    return int(rng.integers(min(side - crop, 0), max(side - crop, 0) + 1))


def _at_cells(values: npt.NDArray[Any], cells: tuple[int, ...], stride: float) -> npt.NDArray[Any]:
    """(H, W) values at the middle of each of (h, w) field pixels."""
    picked = (
        np.minimum(((np.arange(n) + 0.5) * stride).astype(int), side - 1)
        for n, side in zip(cells, values.shape, strict=True)
    )
    return values[np.ix_(*picked)]


def _value_of_each(labels: npt.NDArray[np.int32], values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """(N,) the value that the pixels of each label 1..N have."""
    out = np.zeros(int(labels.max(initial=0)) + 1, dtype=np.int64)
    out[labels] = values
    return out[1:]
