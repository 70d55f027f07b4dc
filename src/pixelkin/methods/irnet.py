"""IRNet: from image tags to instances (Ahn, Cho, Kwak, CVPR 2019, arXiv 1904.05044)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import cv2
import numpy as np
import numpy.typing as npt
import pydantic

from pixelkin.data import Dataset, Instances, Sample
from pixelkin.data.sample import UNKNOWN
from pixelkin.grouping.displacement import group_by_displacement
from pixelkin.grouping.pieces import split_pieces
from pixelkin.grouping.seed_walk import Normalisation, Painted, Walked, paint, walk_seeds
from pixelkin.methods.base import Field, Fields, Method, MethodConfig, resolve_device
from pixelkin.methods.regions import RegionConfig, check_refinement, with_regions
from pixelkin.methods.siseg_pairs import PairConfig, PairRecipe
from pixelkin.methods.tag_classifier import (
    ClassifierConfig,
    build_classifier,
    class_activation,
    fit_classifier,
    present_classes,
    tagged_classes,
    tags_digest,
    weights_digest,
)
from pixelkin.training.budget import Budget
from pixelkin.training.config import TrainingConfig
from pixelkin.training.loop import train
from pixelkin.training.progress import track
from pixelkin.viz import boundary_picture, flow_wheel, heatmap

if TYPE_CHECKING:
    import torch

    from pixelkin.models.classifier import CamClassifier
    from pixelkin.models.pair_fields import PairFields

SHARE = 0.4
"""Of a time budget, for each of the two trainings; the activation in between takes what it takes."""

CAM = "cam/"
"""Name of a class's activation among the fields, before its id."""

USUAL_SHARE = 0.1
"""The side, as a share of the image's, of the square at which the size of an instance halves its score."""

NO_MODEL = "irnet has no model yet: call fit or load first"

LARGEST_ID = 2**16 - 1
"""What a 16-bit PNG holds."""


class IRNetConfig(MethodConfig):
    """Settings of :class:`IRNet`; what differs from the paper says so."""

    backbone: str = "efficientnet_lite0"
    """Any backbone that ``pixelkin backbones`` or timm knows; ResNet-50 as published."""
    classifier: ClassifierConfig = ClassifierConfig()
    regions: RegionConfig = RegionConfig()
    pairs: PairConfig = PairConfig(
        background=0.25,
        beta=20.0,
        centring="image",
        offsets=32,
        displacement_rate=4.0,
        training=TrainingConfig(iterations=60, batch_size=8, learning_rate=3e-3, warmup=20),
    )
    """Boundary, displacement, walk; ``background`` is the value that an object must beat, ``min_area`` in pixels."""
    epochs: float = pydantic.Field(default=2.0, ge=0)
    """Passes over the images to learn boundary and displacement; published: 3. There are at least
    ``pairs.training.iterations`` steps. More is not better: after 300 steps instead of 100 on 250 photos the boundary
    followed the outlines of the activation instead of those of the objects (see docs/results.md)."""
    predict_tags: bool = False
    """Let the classifier say what is in images without tags."""
    tag_threshold: float = pydantic.Field(default=0.5, gt=0, lt=1)
    """Least probability of a predicted tag."""
    use_displacement: bool = True
    """Off: the pieces of a class are its instances (the paper's ablation)."""
    background: Literal["walked", "constant"] = "walked"
    """What an object must beat: ``constant`` is the value ``pairs.background`` everywhere, as published; ``walked``
    lets the background walk as a class does, from seeds where no class activates."""
    background_power: float = pydantic.Field(default=6.0, gt=0)
    """The background's seeds are 1 - the largest activation, to this power."""
    class_first: bool = True
    """Decide the class of a pixel before its instance; off: both at once, as published."""
    normalisation: Normalisation = "class"
    """What is divided by its largest value after the walk: ``image`` all classes and instances together, as published;
    ``class`` each class; ``region`` each instance."""
    score: Literal["margin", "peak"] = "margin"
    """``peak``: largest walked value of an instance, as published; ``margin``: square root of how far its values are
    above those of the next class on average, lower for small ones."""
    doubt: float = pydantic.Field(default=0.0, ge=0, lt=1)
    """Pixels whose strongest value is less than this above the next are unknown in the semantic map."""


class IRNet(Method):
    """Instances of the classes that an image is said to hold.

    A classifier of the tags shows where each class activates. Where that is sure, pairs of pixels teach a boundary
    between classes and a displacement to the middle of the object. The activation is then cut by the displacement into
    instances, and each diffuses up to the boundaries.
    """

    name: ClassVar[str] = "irnet"
    summary: ClassVar[str] = "finds the objects of image tags"
    supervision: ClassVar[tuple[str, ...]] = ("tags",)
    names_classes: ClassVar[bool] = True
    paper: ClassVar[str] = (
        "Weakly Supervised Learning of Instance Segmentation with Inter-pixel Relations, arXiv 1904.05044"
    )
    config_class = IRNetConfig
    config: IRNetConfig

    def __init__(self, config: MethodConfig | None = None) -> None:
        super().__init__(config)
        self.classifier: CamClassifier | None = None
        self.relations: PairFields | None = None

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        """Tags, unless they may be predicted."""
        return () if self.config.predict_tags else ("tags",)

    def fit(
        self, dataset: Dataset, *, out: Path, budget: Budget | None = None, device: str = "auto", seed: int = 0
    ) -> None:
        """Train the classifier, mine its confident regions, train boundary and displacement; see :meth:`Method.fit`.

        Raises:
            ValueError: no image tags, a class id that no PNG holds, or a refinement that is not installed.
        """
        import torch

        self.check(dataset)
        check_refinement(self.config.regions)
        dataset = dataset.with_label("tags")
        self.device = resolve_device(device)
        classes = tagged_classes(dataset)
        if max(classes, default=0) > LARGEST_ID:
            raise ValueError(f"class id {max(classes)} is over {LARGEST_ID}, the largest in a 16-bit PNG: renumber")
        part = budget if budget is None or budget.seconds is None else replace(budget, seconds=budget.seconds * SHARE)
        self.classifier, learned = fit_classifier(
            self.config.classifier,
            dataset,
            classes,
            self.config.backbone,
            out=Path(out) / "classifier",
            budget=part,
            device=self.device,
            seed=seed,
        )
        self.facts = {"classes": list(classes)}
        made_with = {"classifier": weights_digest(self.classifier), "tags": tags_digest(dataset)}
        looks = self.config.classifier.model_dump(
            mode="json", include={"output_stride", "scales", "flip", "max_pixels"}
        )
        made_with["activation"] = str(looks)
        regions = with_regions(
            dataset,
            track(dataset, "activation"),
            self.activation,
            self.config.regions,
            out=Path(out) / "regions",
            identity=made_with,
        )
        recipe = self._recipe(pretrained=True)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = cast("PairFields", recipe.build(self.facts))
        training = self.config.pairs.training.lasting(self.config.epochs, len(dataset))
        report = train(
            model,
            recipe.example(regions, self.facts),
            recipe.loss,
            training.model_copy(update={"seed": seed}),
            out=Path(out) / "relations",
            budget=part,
            most_steps=training.iterations,
            device=self.device,
            groups=recipe.groups(model, self.facts),
            identity={
                # each training looks at its own settings itself, and what the classifier learned is in its digest
                "config": self.config.model_dump(
                    mode="json", exclude={"classifier": {"training"}, "pairs": {"training"}}
                ),
                "images": len(dataset),
                "name": dataset.name,
                **made_with,
            },
        )
        recipe.finish(model, regions, self.facts)
        self.relations = model
        self.facts["training"] = {
            "classifier": {"iterations": learned.iterations, "seconds": round(learned.seconds, 1)},
            "relations": {"iterations": report.iterations, "seconds": round(report.seconds, 1)},
        }

    def fields(self, sample: Sample) -> Fields:
        """``cam/ID`` for each class present, ``displacement`` and ``boundary``, all on one grid.

        Raises:
            RuntimeError: the method is neither fitted nor loaded.
            ImageError: an image without tags, or with tags that the model never learned.
        """
        present = self.present(sample)
        if not present:
            return Fields(sample.size)
        relations = self.relation_fields(sample)
        grid, stride = relations["boundary"].shape, relations.stride("boundary")
        cam = self._activation(sample, present, (grid[0], grid[1]))
        maps = {f"{CAM}{class_id}": Field(values, stride) for class_id, values in zip(present, cam, strict=True)}
        return Fields(sample.size, {**maps, **relations.maps})

    def relation_fields(self, sample: Sample) -> Fields:
        """``displacement`` and ``boundary`` alone, of any image: they know no classes."""
        if self.relations is None:
            raise RuntimeError(NO_MODEL)
        return self._recipe().fields(self.relations, sample, self.facts)

    def group(self, fields: Fields, sample: Sample) -> Instances:
        """The activation cut by the displacement, each part spread up to the boundaries; see the class."""
        present = _present(fields)
        if not present:
            return Instances.empty(sample.size)
        pairs = self.config.pairs
        groups = (
            group_by_displacement(fields["displacement"], weak=pairs.weak) if self.config.use_displacement else None
        )
        walked = self._walk(fields, present, groups)
        painted = self._paint(walked, fields, class_first=self.config.class_first)
        pieces = split_pieces(painted.labels, connectivity=4)
        areas = np.bincount(pieces.ravel())[1:]
        owners = np.zeros(len(areas) + 1, np.int64)
        owners[pieces] = painted.labels
        kept = areas >= pairs.min_area
        renumber = np.concatenate([[0], np.cumsum(kept) * kept]).astype(np.int32)
        return Instances.from_label_map(
            renumber[pieces],
            labels=np.array(present)[walked.classes[owners[1:] - 1]][kept],
            scores=self._scores(pieces, areas, painted)[kept],
            sources=["irnet:tags" if sample.tags is not None else "irnet:predicted tags"] * int(kept.sum()),
        )

    def semantic(self, sample: Sample, fields: Fields) -> npt.NDArray[Any]:
        """(H, W) class ids from whole activations, 255 where in doubt between an object and the background.

        uint8, or int32 where an id needs it.
        """
        present = _present(fields)
        if not present:
            return np.zeros(sample.size, np.uint8)
        walked = self._walk(fields, present, None)
        painted = self._paint(walked, fields, class_first=False)
        found = np.concatenate([[0], np.array(present)[walked.classes]])[painted.labels]
        found[painted.margin < self.config.doubt] = UNKNOWN
        return found.astype(np.uint8 if max(present) < UNKNOWN else np.int32)

    def pictures(self, fields: Fields, sample: Sample) -> dict[str, npt.NDArray[np.uint8]]:
        """The activation of each class, the boundary and the displacement."""
        shown = {
            f"activation: {self.classes.get(class_id, class_id)}": heatmap(
                fields[f"{CAM}{class_id}"], image=_small(sample.image, fields[f"{CAM}{class_id}"].shape), low=0, high=1
            )
            for class_id in _present(fields)
        }
        if shown:
            shown["boundary"] = boundary_picture(fields["boundary"])
            shown["displacement"] = flow_wheel(fields["displacement"])
        return shown

    def state(self) -> dict[str, torch.Tensor]:
        """The weights of both networks."""
        parts = {"classifier": self.classifier, "relations": self.relations}
        return {
            f"{part}.{key}": tensor
            for part, model in parts.items()
            if model is not None
            for key, tensor in model.state_dict().items()
        }

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take up saved weights; no pretrained ones are looked for."""
        device = resolve_device(self.device)
        classifier = build_classifier(
            self.config.classifier, self.facts["classes"], self.config.backbone, pretrained=False
        )
        relations = cast("PairFields", self._recipe().build(self.facts))
        for part, model in (("classifier.", classifier), ("relations.", relations)):
            model.load_state_dict({k.removeprefix(part): v for k, v in tensors.items() if k.startswith(part)})
            model.to(device).eval()
        self.classifier, self.relations = classifier, relations

    def card(self) -> dict[str, str]:
        """Backbone and its licence, and the length of the trainings."""
        lines = {"Backbone": self.config.backbone}
        if self.relations is not None:
            lines["Backbone licence"] = self.relations.backbone.licence
        for stage, spent in self.facts.get("training", {}).items():
            lines[f"Training of the {stage}"] = (
                f"{spent['iterations']} iterations, {spent['seconds']} s on {self.device}"
            )
        return lines

    def present(self, sample: Sample) -> list[int]:
        """Ids of the classes in an image: its tags, or what the classifier sees where that may say.

        Raises:
            RuntimeError: the method is neither fitted nor loaded.
            ImageError: an image without tags, or with tags that the model never learned.
        """
        if self.classifier is None:
            raise RuntimeError(NO_MODEL)
        threshold = self.config.tag_threshold if self.config.predict_tags else None
        most = self.config.classifier.max_pixels
        return present_classes(sample, self.classifier, self.facts["classes"], threshold=threshold, max_pixels=most)

    def activation(
        self, sample: Sample, size: tuple[int, int] | None = None
    ) -> tuple[npt.NDArray[np.float32], list[int]]:
        """Class activation in 0..1, (K, h, w) on a grid of this size over the image, and the ids of its classes.

        Every pixel where no size is given. Raises as :meth:`present`.
        """
        present = self.present(sample)
        return self._activation(sample, present, sample.size if size is None else size), present

    def _activation(self, sample: Sample, present: list[int], size: tuple[int, int]) -> npt.NDArray[np.float32]:
        if self.classifier is None:
            raise RuntimeError(NO_MODEL)
        return class_activation(
            sample, self.classifier, self.facts["classes"], present, self.config.classifier, size=size
        )

    def _walk(self, fields: Fields, present: list[int], groups: npt.NDArray[np.int32] | None) -> Walked:
        pairs, cam = self.config.pairs, np.stack([fields[f"{CAM}{class_id}"] for class_id in present])
        walks = self.config.background == "walked"
        return walk_seeds(
            cam,
            fields["boundary"],
            groups=groups,
            background=np.clip(1 - cam.max(axis=0), 0, 1) ** self.config.background_power if walks else None,
            normalisation=self.config.normalisation,
            beta=pairs.beta,
            radius=pairs.walk_radius,
            steps=pairs.steps,
        )

    def _paint(self, walked: Walked, fields: Fields, *, class_first: bool) -> Painted:
        least = self.config.pairs.background
        stride = fields.stride("boundary")
        return paint(walked, fields.size, stride=stride, background=least, class_first=class_first)

    def _scores(
        self, pieces: npt.NDArray[np.int32], areas: npt.NDArray[np.int64], painted: Painted
    ) -> npt.NDArray[np.float64]:
        """(N,) in 0..1, a score for each piece."""
        if self.config.score == "peak":
            peaks = np.zeros(len(areas) + 1)
            np.maximum.at(peaks, pieces.ravel(), painted.strength.ravel())
            return np.minimum(peaks[1:], 1)
        total = np.bincount(pieces.ravel(), painted.margin.ravel(), minlength=len(areas) + 1)[1:]
        side, usual = np.sqrt(areas), np.sqrt(pieces.size) * USUAL_SHARE
        return np.asarray(np.sqrt(np.clip(total / np.maximum(areas, 1), 1e-6, 1) * side / (side + usual)))

    def _recipe(self, *, pretrained: bool = False) -> PairRecipe:
        return PairRecipe(self.config.pairs, "paper", self.config.backbone, pretrained=pretrained)


def _present(fields: Fields) -> list[int]:
    """Ids of the classes with an activation."""
    return [int(name.removeprefix(CAM)) for name in fields.maps if name.startswith(CAM)]


def _small(image: npt.NDArray[np.uint8], size: tuple[int, ...]) -> npt.NDArray[Any]:
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA)
