"""OAL: which pixels are one object, learned from depth and motion, or from masks; our own design.

The idea is that of Object Affinity Learning (TPAMI 2023): what is one piece in space and moves as one is one object, a
network learns to say so of any two pixels of a single image, and a partition of that graph gives the objects. The
paper's text is not public and its code was never released.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import cv2
import numpy as np
import numpy.typing as npt
import pydantic

from pixelkin.cues.pair_targets import OFFSETS
from pixelkin.data import Dataset, Instances, Sample
from pixelkin.data.components import class_components
from pixelkin.grouping.partition import PartitionMethod
from pixelkin.methods.base import Field, Fields, Method, MethodConfig, resolve_device
from pixelkin.methods.oal_frames import FrameConfig, Frames, shrunk
from pixelkin.methods.oal_grouping import Division, group_freely, group_within, semantic_of_foreground
from pixelkin.methods.siseg_crowding import CrowdingConfig, CrowdingRecipe
from pixelkin.training.budget import Budget
from pixelkin.training.config import TrainingConfig
from pixelkin.viz import boundary_picture, heatmap

if TYPE_CHECKING:
    import torch

    from pixelkin.methods.oal_belief import Stage
    from pixelkin.models.affinity import AffinityFields

ENLARGED = 1.5
"""Cells of 4 pixels are coarse for what is small, and borders between what touches are thin."""


class OALConfig(MethodConfig):
    """Settings of :class:`OAL`."""

    learn: Literal["auto", "geometry", "labels"] = "auto"
    """From ``geometry`` (depth, stereo, motion between the frames of a clip) or from ``labels`` (semantic masks, or the
    instances of a run). ``auto``: geometry where depth is given, else semantic masks, else clips, else instances."""
    backbone: str = "efficientnet_lite0"
    """Any backbone that ``pixelkin backbones`` or timm knows."""
    frames: FrameConfig = FrameConfig()
    embedding: int = pydantic.Field(default=0, ge=0)
    """Channels of an embedding that is trained beside the affinities; 0: none."""
    crop: tuple[int, int] = (256, 384)
    """Height and width of a training crop, multiples of 32."""
    pressing: float = pydantic.Field(default=0.8, ge=0, le=1)
    """Share of the crops in which objects that stand alone are pressed against others."""
    doubt: bool = True
    """Whether pairs that only touch at rest are doubted: from depth, left out of the frames, and within what is
    pressed, or a component, believed as much as the network does."""
    consistency: float = pydantic.Field(default=0.0, ge=0)
    """Weight of the agreement with the mirror image, for twice the time."""
    diameter: float = pydantic.Field(default=48.0, ge=16)
    """Side of a usual object in scenes of even objects (nuclei), in network pixels."""
    head_rate: float = pydantic.Field(default=4.0, gt=0)
    """Learning rate of the decoder and the heads over the backbone's."""
    threshold: float = pydantic.Field(default=0.5, gt=0, lt=1)
    """Foreground is what is more probable than this."""
    background: float = pydantic.Field(default=0.25, ge=0, le=1)
    """Background is what is no more probable foreground than this; between it and ``threshold`` nobody knows."""
    min_score: float = pydantic.Field(default=0.5, ge=0, le=1)
    """Learning from instances: those of lower score are unknown."""
    partition: Literal["auto", "mutex", "gasp"] = "auto"
    """``mutex``: the strongest pairs decide; ``gasp``: the mean of all pairs between two segments, for noisy ones.
    ``auto``: ``gasp`` for what was learned from geometry, ``mutex`` for what was learned from labels."""
    stride: int = pydantic.Field(default=1, ge=1)
    """Only far pairs that begin on every so many cells are heard: faster."""
    min_area: int | None = pydantic.Field(default=None, ge=1)
    """Smaller segments go to their neighbours, or are dropped where they have none; in pixels. None: 24 within given
    masks, which know where something is, and 48 elsewhere."""
    zoom: float | None = pydantic.Field(default=None, gt=0, le=4)
    """How much an image is enlarged before it is looked at, above the scale of the training. None: 1.5 for what was
    learned from geometry, else not at all."""
    flips: bool = True
    """Average over mirror images."""
    training: TrainingConfig = TrainingConfig(
        iterations=2000,
        batch_size=8,
        learning_rate=5e-4,
        weight_decay=1e-2,
        warmup=50,
        clip_norm=5.0,
        ema=0.99,
    )

    @pydantic.field_validator("crop")
    @classmethod
    def _whole_cells(cls, value: tuple[int, int]) -> tuple[int, int]:
        if min(value) < 32 or value[0] % 32 or value[1] % 32:
            raise ValueError("crop is height,width, both multiples of 32")
        return value


class OAL(Method):
    """Learn which pixel pairs are one object; find the objects of single images."""

    name: ClassVar[str] = "oal"
    summary: ClassVar[str] = "learns which pixels are one object from depth and motion, or from masks"
    supervision: ClassVar[tuple[str, ...]] = ("depth", "clip", "semantic", "instances")
    uses: ClassVar[tuple[str, ...]] = ("ignore",)
    links: ClassVar[bool] = True
    paper: ClassVar[str] = "after the idea of Object Affinity Learning (TPAMI 2023), our own design"
    config_class = OALConfig
    config: OALConfig

    def __init__(self, config: MethodConfig | None = None) -> None:
        super().__init__(config)
        self.model: AffinityFields | None = None

    def check(self, dataset: Dataset) -> None:
        """As :meth:`Method.check`; what is learned from geometry has one class."""
        monocular = self.config.frames.depth == "monocular" and self.config.learn != "labels"
        if not monocular and not any(_stereo(sample) for sample in dataset):
            super().check(dataset)
        self.trained_on = {
            "name": dataset.name,
            "images": len(dataset),
            "labels": {kind: sum(sample.has(kind) for sample in dataset) for kind in self.supervision},
        }
        self.classes = dict(dataset.classes) or {1: "object"}

    def fit(
        self, dataset: Dataset, *, out: Path, budget: Budget | None = None, device: str = "auto", seed: int = 0
    ) -> None:
        """Measure what the set is, train the affinities; see :meth:`Method.fit`.

        Raises:
            ValueError: nothing to learn from.
        """
        import torch

        from pixelkin.models.affinity import AffinityFields
        from pixelkin.training.loop import train

        self.check(dataset)
        self.device = resolve_device(device)
        config = self.config
        facts = self._measure(dataset)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = AffinityFields(OFFSETS, config.backbone, embedding=config.embedding)
        parts = self._stages(dataset, facts, model)
        reports = [
            train(
                model,
                part.example(),
                self._loss,
                part.training.model_copy(update={"seed": seed}),
                out=Path(out) / part.folder,
                budget=part.budget(budget),
                device=self.device,
                groups=model.parameter_groups(config.head_rate),
                identity={
                    "config": config.model_dump(mode="json", exclude={"training"}),
                    "images": len(dataset),
                    "name": dataset.name,
                },
            )
            for part in parts
        ]
        facts["training"] = {
            "iterations": sum(report.iterations for report in reports),
            "seconds": round(sum(report.seconds for report in reports), 1),
        }
        self.model, self.facts = model, facts

    def fields(self, sample: Sample) -> Fields:
        """``affinity`` (C, h, w) and ``foreground`` (h, w), probabilities on cells of 4 pixels of the zoomed image.

        Raises:
            RuntimeError: the method is neither fitted nor loaded.
        """
        if self.model is None:
            raise RuntimeError("oal has no model yet: call fit or load first")
        image, zoom = self._picture(sample)
        from pixelkin.models.affinity import predict_tiled

        affinity, foreground = predict_tiled(self.model, image, flips=self.config.flips)
        stride = 4 / zoom
        maps = {"affinity": Field(affinity, stride), "foreground": Field(foreground, stride)}
        return Fields(sample.size, maps)

    def group(self, fields: Fields, sample: Sample) -> Instances:
        """Segments of the affinities: within the semantic map where it learned from labels, else of the foreground.

        Scores are the affinities within, times 1 - those that lead out, times the foreground, times a trust in size.
        """
        config, zoom = self.config, 4 / fields.stride("affinity")
        offsets = tuple((int(dy), int(dx)) for dy, dx in self.facts["offsets"])
        semantic = sample.semantic if self.facts["learned"] != "geometry" else None
        division = Division(
            zoom=zoom,
            min_area=config.min_area or (48 if semantic is None else 24),
            stride=config.stride,
            method=self._partition(),
            source=f"oal:{self.facts['learned']}",
        )
        if semantic is not None:
            return group_within(fields["affinity"], offsets, class_components(semantic), division)
        return group_freely(
            fields["affinity"], fields["foreground"], offsets, fields.size, division, threshold=config.threshold
        )

    def semantic(self, sample: Sample, fields: Fields) -> npt.NDArray[np.uint8] | None:
        """Foreground, background and where nobody knows; None where a semantic map was given."""
        if self.facts["learned"] != "geometry" and sample.has("semantic"):
            return None
        config, zoom = self.config, 4 / fields.stride("affinity")
        return semantic_of_foreground(
            fields["foreground"], fields.size, zoom=zoom, background=config.background, threshold=config.threshold
        )

    def pictures(self, fields: Fields, sample: Sample) -> dict[str, npt.NDArray[np.uint8]]:
        """Where neighbours are two objects, where pixels three cells apart are, and the foreground."""
        near, far = fields["affinity"][:2].min(axis=0), fields["affinity"][2:4].min(axis=0)
        return {
            "apart": boundary_picture(1 - near),
            "apart, 3 cells": boundary_picture(1 - far),
            "foreground": heatmap(fields["foreground"], low=0, high=1),
        }

    def state(self) -> dict[str, torch.Tensor]:
        """The network's weights."""
        return {} if self.model is None else dict(self.model.state_dict())

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take up saved weights; no pretrained ones are looked for."""
        from pixelkin.models.affinity import AffinityFields

        offsets = [(int(dy), int(dx)) for dy, dx in self.facts["offsets"]]
        model = AffinityFields(offsets, self.config.backbone, embedding=self.config.embedding, pretrained=False)
        model.load_state_dict(tensors)
        self.model = model.to(resolve_device(self.device)).eval()

    def card(self) -> dict[str, str]:
        """What it learned from, backbone and its licence, and the length of the training."""
        lines = {"Learned from": str(self.facts.get("learned", "")), "Backbone": self.config.backbone}
        licence: Any = getattr(getattr(self.model, "backbone", None), "licence", None)
        if licence:
            lines["Backbone licence"] = str(licence)
        training = self.facts.get("training")
        if training:
            lines["Training"] = f"{training['iterations']} iterations, {training['seconds']} s on {self.device}"
        return lines

    def _partition(self) -> PartitionMethod:
        if self.config.partition != "auto":
            return self.config.partition
        return "gasp" if self.facts["learned"] == "geometry" else "mutex"

    def _measure(self, dataset: Dataset) -> dict[str, Any]:
        learn: str = self.config.learn
        if learn == "auto":
            learn = _best(dataset, self.config.frames)
        facts: dict[str, Any] = {"learned": learn, "offsets": [list(offset) for offset in OFFSETS], "kind": "frames"}
        if learn == "labels":
            masks = dataset.with_label("semantic")
            if len(masks) and not any(sample.has("instances") for sample in dataset):
                habits = self._recipe("").measure(masks)
                kind = "scene" if habits["kind"] == "scene" else "frames"
                facts |= {"kind": kind, "statistics": habits["statistics"], "habits": habits}
        return facts

    def _stages(self, dataset: Dataset, facts: dict[str, Any], model: AffinityFields) -> list[Stage]:
        """What is taught, once; or from depth twice, as the network may say what is one object after the first time."""
        from pixelkin.methods.oal_belief import Stage, stages_of_belief
        from pixelkin.methods.oal_examples import CrowdedScenes, LabelFrames, PairExamples

        config = self.config
        if facts["kind"] == "scene":
            crowded = self._recipe("scene").example(dataset.with_label("semantic"), facts["habits"])
            return [Stage(lambda: CrowdedScenes(crowded, OFFSETS), config.training)]
        examples = partial(PairExamples, offsets=OFFSETS, crop=config.crop, pressing=config.pressing)
        if facts["learned"] == "labels":
            statistics = facts.get("statistics", {})
            labelled = LabelFrames(
                dataset, OFFSETS, statistics, longest=config.frames.longest, min_score=config.min_score
            )
            return [Stage(lambda: examples(labelled), config.training)]
        frames = Frames(dataset, config.frames, OFFSETS, device=self.device)
        if config.doubt and frames.measures_depth():
            return stages_of_belief(frames, model, examples, config.training)
        return [Stage(lambda: examples(frames), config.training)]

    def _loss(self, model: Any, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        from pixelkin.models.affinity_loss import affinity_loss, flip_consistency

        network = cast("AffinityFields", model)
        image = batch["image"].float() / 255
        said = network(image)
        losses = affinity_loss(said, batch["codes"], batch["foreground"], network.offsets, doubt=self.config.doubt)
        if self.config.consistency:
            other = network(image.flip(-1)).affinity
            losses["consistency"] = flip_consistency(said.affinity, other, network.offsets)
            losses["loss"] = losses["loss"] + self.config.consistency * losses["consistency"]
        return losses

    def _recipe(self, kind: str) -> CrowdingRecipe:
        """What finds the usual size of objects and crowds scenes, as in ``siseg``."""
        settings = CrowdingConfig(
            diameter=self.config.diameter, window=max(min(self.config.crop), 64) if kind == "scene" else 128
        )
        return CrowdingRecipe(settings, self.config.backbone, pretrained=False)

    def _picture(self, sample: Sample) -> tuple[npt.NDArray[np.uint8], float]:
        """The image as the network sees it, and its zoom."""
        if self.facts["kind"] == "scene" and sample.has("semantic"):
            picture = self._recipe("scene").picture(sample, self.facts["habits"])
            return picture.image, picture.zoom
        image, zoom = shrunk(sample.image, self.config.frames.longest)
        factor = self.config.zoom or (ENLARGED if self.facts["learned"] == "geometry" else 1.0)
        if factor == 1:
            return image, zoom
        size = (max(round(image.shape[1] * factor), 1), max(round(image.shape[0] * factor), 1))
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), np.uint8), zoom * factor


def _stereo(sample: Sample) -> bool:
    return sample.camera is not None and sample.camera.right is not None


def _best(dataset: Dataset, frames: FrameConfig) -> str:
    """What to learn from where nobody said."""
    depth = any(sample.has("depth") or _stereo(sample) for sample in dataset) and frames.depth != "none"
    if depth or frames.depth == "monocular":
        return "geometry"
    if any(sample.has("semantic") for sample in dataset):
        return "labels"
    return "geometry" if any(sample.clip is not None for sample in dataset) else "labels"
