"""Semantic fine-tuning: from semantic masks to the class of every pixel, on any backbone.

The Emergence of Objectness (Liu, Wu, Yu, Lin, NeurIPS 2021), section 4.3, judges a backbone so that was learned from
raw video.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from pixelkin.data import Dataset, Instances, Sample
from pixelkin.data.sample import UNKNOWN
from pixelkin.grouping.components import connected_components
from pixelkin.methods.base import Field, Fields, Method, MethodConfig, resolve_device
from pixelkin.methods.bestie_examples import maps_digest
from pixelkin.methods.class_labels import MapExamples
from pixelkin.methods.semantic_config import SemanticConfig
from pixelkin.methods.tag_classifier import weights_digest
from pixelkin.models.semantic import SemanticNetwork, pixel_loss, pixel_probabilities
from pixelkin.training.budget import Budget
from pixelkin.training.loop import train
from pixelkin.training.progress import track
from pixelkin.viz import heatmap, semantic_picture

if TYPE_CHECKING:
    import torch

CLASSES = "classes"
"""The field: (1 + classes, h, w) probabilities, background first, then ascending ids."""

LARGEST_ID = 2**16 - 1
"""What a 16-bit PNG holds."""

NO_MODEL = "semantic has no model yet: call fit or load first"

SHAPES_TRAINING = frozenset(
    {"output_stride", "head_channels", "head_dilation", "dropout", "head_rate", "crop", "long_side"}
)
"""The settings that a training depends on, beside its own and its first weights."""


class SemanticSegmenter(Method):
    """The class of every pixel, learned from semantic masks; the instances are connected components.

    A fully convolutional head on the last map of a backbone, both trained. It labels images that have no mask, and its
    mIoU on others than those it was fitted on says what the backbone is worth.
    """

    name: ClassVar[str] = "semantic"
    summary: ClassVar[str] = (
        "learns the class of every pixel; fine-tunes any backbone, to label new images or to judge the backbone"
    )
    supervision: ClassVar[tuple[str, ...]] = ("semantic",)
    names_classes: ClassVar[bool] = True
    paper: ClassVar[str] = (
        "The Emergence of Objectness: Learning Zero-Shot Segmentation from Videos, section 4.3, NeurIPS 2021"
    )
    config_class = SemanticConfig
    config: SemanticConfig

    def __init__(self, config: MethodConfig | None = None) -> None:
        super().__init__(config)
        self.network: SemanticNetwork | None = None

    def fit(
        self, dataset: Dataset, *, out: Path, budget: Budget | None = None, device: str = "auto", seed: int = 0
    ) -> None:
        """Train the backbone and the head on the images with semantic masks; see :meth:`Method.fit`.

        Raises:
            ValueError: no semantic mask, none with a class in it, or an id that no PNG holds.
        """
        import torch

        self.check(dataset)
        config, masked = self.config, dataset.with_label("semantic")
        self.device = resolve_device(device)
        self.classes = mapped_classes(masked)
        self.facts = {"classes": list(self.classes), **_origin(config)}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = self._build(pretrained=config.pretrained)
        training = config.training.lasting(config.epochs, len(masked))
        report = train(
            network,
            MapExamples(config, masked, list(self.classes)),
            _loss,
            training.model_copy(update={"seed": seed}),
            out=Path(out) / "network",
            budget=budget,
            most_steps=training.iterations,
            device=self.device,
            groups=network.parameter_groups(config.head_rate),
            identity={
                "config": config.model_dump(mode="json", include=set(SHAPES_TRAINING)),
                "start": weights_digest(network),
                "name": masked.name,
                "images": len(masked),
                "maps": maps_digest(masked),
            },
        )
        self.network = network
        self.facts["training"] = {"iterations": report.iterations, "seconds": round(report.seconds, 1)}

    def fields(self, sample: Sample) -> Fields:
        """``classes``: (1 + classes, h, w) probabilities, background first, then ascending ids.

        Raises:
            RuntimeError: the method is neither fitted nor loaded.
        """
        if self.network is None:
            raise RuntimeError(NO_MODEL)
        image = sample.image
        odds = pixel_probabilities(self.network, image, longest=self.config.longest, flip=self.config.flip)
        stride = float(np.sqrt(image.shape[0] * image.shape[1] / (odds.shape[1] * odds.shape[2])))
        return Fields(image.shape[:2], {CLASSES: Field(odds, stride)})

    def group(self, fields: Fields, sample: Sample) -> Instances:
        """Connected components of every class; the score is the mean probability of the class in it."""
        ids, probability = self._classified(fields)
        return connected_components(
            ids, min_area=self.config.min_area, confidence=probability, source="semantic:semantic"
        )

    def semantic(self, sample: Sample, fields: Fields) -> npt.NDArray[Any]:
        """(H, W) class ids, 0 background; uint8, or int32 where an id needs it."""
        return self._classified(fields)[0]

    def pictures(self, fields: Fields, sample: Sample) -> dict[str, npt.NDArray[np.uint8]]:
        """The map of classes, how sure it is, and the probability of each class that it has."""
        ids, probability = self._classified(fields)
        shown = {
            "classes": semantic_picture(ids.astype(np.int64), image=sample.image),
            "confidence": heatmap(probability, low=0.0, high=1.0),
        }
        for row, class_id in enumerate(self.facts["classes"], start=1):
            if (ids == class_id).any():
                name = f"probability: {self.classes.get(class_id, class_id)}"
                shown[name] = heatmap(fields[CLASSES][row], image=sample.image, low=0.0, high=1.0)
        return shown

    def _classified(self, fields: Fields) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
        """(H, W) ids of the most probable classes, and their probabilities; one class dense at a time."""
        height, width = fields.size
        ids = [0, *self.facts["classes"]]
        found = np.zeros((height, width), np.uint8 if max(ids) < UNKNOWN else np.int32)
        best = np.full((height, width), -1, np.float32)
        for class_id, odds in zip(ids, fields[CLASSES], strict=True):
            full = cv2.resize(odds, (width, height), interpolation=cv2.INTER_LINEAR)
            better = full > best
            found[better] = class_id
            best[better] = full[better]
        return found, best

    def _build(self, *, pretrained: bool) -> SemanticNetwork:
        config = self.config
        return SemanticNetwork(
            len(self.facts["classes"]),
            config.backbone,
            output_stride=config.output_stride,
            head_channels=config.head_channels,
            head_dilation=config.head_dilation,
            dropout=config.dropout,
            pretrained=pretrained,
            own_dilations=self.facts["own_dilations"],
        )

    def state(self) -> dict[str, torch.Tensor]:
        """The weights of backbone and head."""
        return {} if self.network is None else dict(self.network.state_dict())

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take up saved weights; no pretrained ones are looked for."""
        network = self._build(pretrained=False)
        network.load_state_dict(tensors)
        self.network = network.to(resolve_device(self.device)).eval()

    def card(self) -> dict[str, str]:
        """The backbone, what it started from and its licence, and the length of the training."""
        if self.network is None:
            return {}
        spent = self.facts["training"]
        lines = {"Backbone": f"{self.network.backbone.name}, from {self.facts['start']}"}
        if self.config.pretrained:
            lines["Backbone licence"] = self.network.backbone.licence
        lines["Training"] = f"{spent['iterations']} iterations, {spent['seconds']} s on {self.device}"
        return lines


def mapped_classes(dataset: Dataset) -> dict[int, str]:
    """The classes that a semantic map of the dataset holds, id to name, ascending.

    Raises:
        ValueError: none, or an id that no PNG holds.
    """
    found: set[int] = set()
    for sample in track(dataset, "classes"):
        semantic = sample.semantic
        if semantic is not None:
            found |= set(np.unique(semantic).tolist())
    found -= {0, UNKNOWN}
    if not found:
        raise ValueError("the semantic masks hold no class, only 0 (background) and 255 (unknown): give others")
    if min(found) < 0 or max(found) > LARGEST_ID:
        strange = min(found) if min(found) < 0 else max(found)
        raise ValueError(f"class id {strange}: a mask of ids has 0 to {LARGEST_ID}, as a 16-bit PNG holds: renumber")
    return {i: dataset.classes.get(i, f"class {i}") for i in sorted(found)}


def _loss(model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {"loss": pixel_loss(model(batch["image"].float() / 255), batch["labels"])}


def _origin(config: SemanticConfig) -> dict[str, Any]:
    """What the backbone starts from, and whether it has timm's dilations: not where AMD learned it without them."""
    file = Path(config.backbone) / "config.json"
    if not file.is_file():
        return {"start": "its weights" if config.pretrained else "random weights", "own_dilations": True}
    try:
        saved = json.loads(file.read_text())
        method, settings, facts = str(saved["method"]), saved["config"], saved.get("facts", {})
        scratch = method == "amd" and settings.get("objective") == "photometric" and not settings.get("pretrained")
        own = not scratch and bool(facts.get("own_dilations", True))
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: not a model's config ({error}): fit it again, or name another backbone") from None
    return {"start": f"a model of {method}" if config.pretrained else "random weights", "own_dilations": own}
