"""The student: a Mask R-CNN that learns from the instances of a run."""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import pydantic
import torch
from torch import Tensor, nn

from pixelkin.data import Dataset, Instances, Sample, encode_mask
from pixelkin.methods.base import Field, Fields, Method, MethodConfig, resolve_device
from pixelkin.models.backbone import build_backbone
from pixelkin.students.examples import LabelledImages, Padding, fit_size, unpack
from pixelkin.students.losses import Sampling, losses
from pixelkin.students.network import MaskRCNN
from pixelkin.students.pictures import learnable, resized
from pixelkin.students.pyramid import StudentError
from pixelkin.training.budget import Budget
from pixelkin.training.config import TrainingConfig
from pixelkin.training.loop import train

NAME = "mask_rcnn"
SURE = 0.5
"""A pixel belongs to a mask from this probability on."""


class MaskRCNNConfig(MethodConfig):
    """Settings of :class:`MaskRCNNStudent`. The published ones are those of IRNet's final model (Detectron)."""

    AFTER_FITTING: ClassVar[frozenset[str]] = frozenset({"score", "nms", "detections", "short_side", "long_side"})

    backbone: str = "efficientnet_lite0"
    """Any backbone that ``pixelkin backbones`` or timm knows; published: ResNet-50."""
    short_side: int = pydantic.Field(default=320, ge=32)
    """Images are resized so that their short side has so many pixels; published: 512."""
    long_side: int = pydantic.Field(default=512, ge=32)
    """Or their long side so many, where that makes them smaller; published: 800."""
    channels: int = pydantic.Field(default=128, ge=8)
    """Of pyramid and heads; published: 256. The time goes with its square."""
    hidden: int = pydantic.Field(default=512, ge=8)
    """Units of the box head; published: 1024."""
    anchor_scale: float = pydantic.Field(default=6.0, gt=0)
    """Side of the anchors over the stride of their map: the smallest are 4 times this; published: 8."""
    candidates: int = pydantic.Field(default=1000, ge=1)
    """Boxes that each map proposes; published: 2000 to train, 1000 to predict."""
    proposals: int = pydantic.Field(default=500, ge=1)
    """Boxes an image has after suppression; published: 2000 to train, 1000 to predict."""

    epochs: float = pydantic.Field(default=7.0, ge=0)
    """Passes over the images; published: 7. Training has at least ``training.iterations`` steps, however few images."""
    training: TrainingConfig = TrainingConfig(
        iterations=750,
        batch_size=2,
        optimizer="adamw",
        learning_rate=3e-4,
        weight_decay=1e-4,
        schedule="step",
        warmup=100,
        ema=0.998,
        clip_norm=10.0,
        log_every=20,
    )
    backbone_rate: float = pydantic.Field(default=1.0, ge=0)
    """Learning rate of the backbone over that of the rest; 0 leaves it as it is."""
    boxes: int = pydantic.Field(default=128, ge=4)
    """Boxes of an image that are learned from, at most a quarter of them objects; published: 512."""
    anchors: int = pydantic.Field(default=256, ge=2)
    """Anchors of an image that are learned from, at most half of them objects."""

    min_score: float = pydantic.Field(default=0.3, ge=0, le=1)
    """Labels of lower score are not learned: where they are is unknown."""
    weights: bool = True
    """Whether a label counts as much as its score, at most 1, over the mean score of the labels, or all count alike."""
    unknown: bool = True
    """Whether regions nobody vouches for are neither object nor background, or everything without a label is
    background."""
    flip: bool = True
    """Whether half of the images are flipped left to right."""
    scale_jitter: tuple[float, float] = (0.8, 1.2)
    """Least and greatest factor of the image sides in training."""
    copy_paste: float = pydantic.Field(default=0.0, ge=0, le=1)
    """Share of the images that get objects of another image pasted on."""

    score: float = pydantic.Field(default=0.05, ge=0, le=1)
    """Least score of what is predicted."""
    nms: float = pydantic.Field(default=0.5, gt=0, le=1)
    """Of two boxes of one class that overlap more (IoU), the worse goes."""
    detections: int = pydantic.Field(default=100, ge=1)
    """Most objects of an image."""

    @pydantic.model_validator(mode="after")
    def _check(self) -> MaskRCNNConfig:
        if self.long_side < self.short_side:
            raise ValueError(f"long_side {self.long_side} is less than short_side {self.short_side}: raise it")
        if not 0 < self.scale_jitter[0] <= self.scale_jitter[1] <= 4:
            raise ValueError("scale_jitter is a least and a greatest factor, above 0 and at most 4")
        return self


class MaskRCNNStudent(Method):
    """Learns to find objects in images alone from instances that another method, or a person, gave."""

    name: ClassVar[str] = NAME
    summary: ClassVar[str] = "student: learns from the instances of a run, finds them in new images"
    supervision: ClassVar[tuple[str, ...]] = ("instances",)
    uses: ClassVar[tuple[str, ...]] = ("semantic", "ignore")
    links: ClassVar[bool] = True
    paper: ClassVar[str] = "Mask R-CNN, arXiv 1703.06870"
    config_class = MaskRCNNConfig
    config: MaskRCNNConfig

    def __init__(self, config: MethodConfig | None = None) -> None:
        super().__init__(config)
        self.network: MaskRCNN | None = None

    def fit(
        self, dataset: Dataset, *, out: Path, budget: Budget | None = None, device: str = "auto", seed: int = 0
    ) -> None:
        """Train on a dataset with instances; see :meth:`Method.fit`.

        Raises:
            ValueError: no instance of a score that counts, or a backbone of no use.
        """
        self.check(dataset)
        dataset = dataset.with_label("instances")
        self.device = resolve_device(device)
        config = self.config
        facts = survey(dataset, config.min_score)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = _build(config, len(facts["class_ids"]), pretrained=True)
        example = LabelledImages(
            dataset,
            facts["class_ids"],
            mean_score=facts["mean_score"] if config.weights else 0.0,
            short_side=config.short_side,
            long_side=config.long_side,
            jitter=config.scale_jitter,
            flip=config.flip,
            copy_paste=config.copy_paste,
            min_score=config.min_score,
            unknown=config.unknown,
        )
        report = train(
            network,
            example,
            functools.partial(_loss, sampling=Sampling(anchors=config.anchors, boxes=config.boxes)),
            config.training.lasting(config.epochs, len(dataset)).model_copy(update={"seed": seed}),
            out=Path(out),
            budget=budget,
            device=self.device,
            groups=_groups(network, config.backbone_rate),
            identity={
                "config": config.model_dump(mode="json", exclude={"training"}),  # which the loop looks at itself
                "images": len(dataset),
                "name": dataset.name,
                **facts,
            },
            collate=Padding(network.pyramid.divisor),
        )
        facts["training"] = {"iterations": report.iterations, "seconds": round(report.seconds, 1)}
        facts["training"] |= {"losses": {name: round(value, 4) for name, value in report.losses.items()}}
        self.network, self.facts = network, facts

    @torch.no_grad()
    def fields(self, sample: Sample) -> Fields:
        """What the network finds in an image; only classes of its tags, where it has any.

        ``boxes`` (D, 4) in image pixels, ``scores`` (D, 1), ``labels`` (D, 1) class ids, ``masks`` (D, 28, 28)
        probabilities, stretched over the box.

        Raises:
            RuntimeError: neither trained nor loaded.
        """
        if self.network is None:
            raise RuntimeError(f"{self.name} has no network yet: call fit or load first")
        config, image = self.config, sample.image
        height, width = image.shape[:2]
        rows, columns = fit_size((height, width), config.short_side, config.long_side)
        tensor = network_input(resized(image, (columns, rows)), self.network.pyramid.divisor)
        device = self.network.box_weights.device
        ids = np.array([0, *self.facts["class_ids"]], dtype=np.int64)
        allowed = None if sample.tags is None else torch.from_numpy(np.isin(ids, [0, *sample.tags])).to(device)
        found = self.network.detect(
            tensor.to(device),
            torch.tensor([rows, columns], device=device),
            score=config.score,
            overlap=config.nms,
            keep=config.detections,
            allowed=allowed,
        )
        scale = np.array([width / columns, height / rows] * 2, dtype=np.float32)
        arrays = {
            "boxes": found.boxes.cpu().numpy() * scale,
            "scores": found.scores.cpu().numpy()[:, None],
            "labels": ids[found.classes.cpu().numpy()][:, None],
            "masks": found.masks.cpu().numpy(),
        }
        return Fields((height, width), {name: Field(array) for name, array in arrays.items()})

    def group(self, fields: Fields, sample: Sample) -> Instances:
        """Masks at the size of the image, one at a time in memory; those without a pixel are left out."""
        codes, kept = [], []
        for i, (box, mask) in enumerate(zip(fields["boxes"], fields["masks"], strict=True)):
            dense = paste_mask(mask, box, fields.size)
            if dense.any():
                codes.append(encode_mask(dense))
                kept.append(i)
        return Instances(
            fields.size,
            codes,
            labels=fields["labels"][kept, 0],
            scores=fields["scores"][kept, 0],
            sources=[f"{self.name}:{self.facts.get('teacher', 'labels')}"] * len(kept),
        )

    def state(self) -> dict[str, Tensor]:
        """The network's weights."""
        return {} if self.network is None else dict(self.network.state_dict())

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take up saved weights; no pretrained ones are looked for."""
        network = _build(self.config, len(self.facts["class_ids"]), pretrained=False)
        network.load_state_dict(tensors)
        self.network = network.to(resolve_device(self.device)).eval()

    def card(self) -> dict[str, str]:
        """Teacher, backbone and its licence, and the length of the training."""
        lines = {
            "Learned from": f"instances by {self.facts.get('teacher', 'labels')}",
            "Backbone": self.config.backbone,
        }
        if self.network is not None:
            lines["Backbone licence"] = self.network.backbone.licence
        training = self.facts.get("training")
        if training:
            lines["Training"] = f"{training['iterations']} iterations, {training['seconds']} s on {self.device}"
        return lines


def survey(dataset: Dataset, min_score: float) -> dict[str, Any]:
    """What the labels of a dataset are: ``class_ids`` that occur, ``mean_score``, ``instances`` and the ``teacher``.

    Raises:
        StudentError: none counts.
    """
    classes: set[int] = set()
    teachers: Counter[str] = Counter()
    count, total, best = 0, 0.0, 0.0
    for sample in dataset:
        instances = sample.instances
        if instances is None or not len(instances):
            continue
        best = max(best, float(instances.scores.max()))
        kept = instances[learnable(instances, min_score)]
        classes |= set(kept.labels.tolist())
        teachers.update(re.split("[:/]", str(source))[0] for source in kept.sources)
        count, total = count + len(kept), total + float(kept.scores.clip(max=1).sum())
    if not count:
        raise StudentError(
            f"no label of {dataset.name or 'the dataset'} has a score of at least {min_score:g}, the best has {best:g}:"
            " lower it with --set min_score=..., or make labels first"
        )
    teacher = teachers.most_common(1)[0][0] or "labels"
    return {"class_ids": sorted(classes), "mean_score": total / count, "instances": count, "teacher": teacher}


def network_input(image: npt.NDArray[np.uint8], divisor: int) -> Tensor:
    """(3, H, W) in 0..1 from (h, w, 3) uint8, padded below and right to multiples of a divisor."""
    tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255
    height, width = tensor.shape[-2:]
    return nn.functional.pad(tensor, (0, -width % divisor, 0, -height % divisor))


def paste_mask(
    mask: npt.NDArray[np.float32], box: npt.NDArray[np.float32], size: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    """The pixels whose middle lies in a box and where a mask stretched over it is sure.

    Args:
        mask: (S, S) probabilities.
        box: (x0, y0, x1, y1) in pixels, anywhere.
        size: (height, width) of the image.
    """
    dense = np.zeros(size, dtype=bool)
    rows, down = _stretch(box[1], box[3], size[0], mask.shape[0])
    columns, across = _stretch(box[0], box[2], size[1], mask.shape[1])
    dense[rows, columns] = down @ mask @ across.T >= SURE
    return dense


def _stretch(low: float, high: float, size: int, cells: int) -> tuple[slice, npt.NDArray[np.float32]]:
    """The pixels of one axis whose middles lie in low..high, and what each takes of the cells (linearly)."""
    first = min(max(math.ceil(low - 0.5), 0), size)
    last = min(max(math.ceil(high - 0.5), first), size)
    place = (np.arange(first, last) + 0.5 - low) * (cells / max(high - low, 1e-6)) - 0.5
    share = 1 - np.abs(np.clip(place, 0, cells - 1)[:, None] - np.arange(cells))
    return slice(first, last), np.clip(share, 0, 1).astype(np.float32)


def _build(config: MaskRCNNConfig, classes: int, *, pretrained: bool) -> MaskRCNN:
    return MaskRCNN(
        build_backbone(config.backbone, pretrained=pretrained),
        classes,
        channels=config.channels,
        hidden=config.hidden,
        anchor_scale=config.anchor_scale,
        candidates=config.candidates,
        proposals=config.proposals,
    )


def _groups(network: MaskRCNN, backbone_rate: float) -> list[dict[str, Any]]:
    if not backbone_rate:
        network.backbone.freeze()
    below = {id(parameter) for parameter in network.backbone.parameters()}
    rest = [parameter for parameter in network.parameters() if id(parameter) not in below]
    backbone = {"params": list(network.backbone.parameters()), "lr_scale": backbone_rate}
    return [{"params": rest}, *([backbone] if backbone_rate else [])]


def _loss(network: nn.Module, batch: dict[str, Tensor], *, sampling: Sampling) -> dict[str, Tensor]:
    return losses(cast("MaskRCNN", network), *unpack(batch), sampling)
