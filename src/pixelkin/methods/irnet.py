"""IRNet: from image tags to instances (Ahn, Cho, Kwak, CVPR 2019, arXiv 1904.05044)."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import cv2
import numpy as np
import numpy.typing as npt

from pixelkin.data import Dataset, Instances, Sample
from pixelkin.methods.base import Field, Fields, Method, MethodConfig, resolve_device
from pixelkin.methods.class_labels import class_probabilities, fit_class_maps
from pixelkin.methods.irnet_config import IRNetConfig
from pixelkin.methods.irnet_labels import CAM, PROBABILITY, SHAPES_LABELS, class_labels_of, classes_in, instances_of
from pixelkin.methods.regions import check_refinement, with_maps, with_regions
from pixelkin.methods.siseg_pairs import PairRecipe
from pixelkin.methods.tag_classifier import (
    build_classifier,
    class_activation,
    fit_classifier,
    present_classes,
    tagged_classes,
    tags_digest,
    weights_digest,
)
from pixelkin.methods.windows import at_most
from pixelkin.models.class_maps import ClassMaps
from pixelkin.training.budget import Budget, Stages
from pixelkin.training.loop import train
from pixelkin.training.progress import track
from pixelkin.viz import boundary_picture, flow_wheel, heatmap

if TYPE_CHECKING:
    import torch

    from pixelkin.models.classifier import CamClassifier
    from pixelkin.models.pair_fields import PairFields
    from pixelkin.training.loop import TrainingReport

SHARES = {"classifier": 3.0, "regions": 1.0, "relations": 2.0}
ROUND_SHARES = {"labels": 2.0, "class maps": 3.0}
"""Of a time budget; making maps takes what it takes, and what follows feels it."""

NO_MODEL = "irnet has no model yet: call fit or load first"

LARGEST_ID = 2**16 - 1
"""What a 16-bit PNG holds."""


class IRNet(Method):
    """Instances of the classes that an image is said to hold.

    A classifier of the tags shows where each class activates. Where that is sure, pairs of pixels teach a boundary
    between classes and a displacement to the middle of the object. The activation is then cut by the displacement into
    instances, and each diffuses up to the boundaries. Beyond the paper, a network of class maps learns from these
    labels, and its probabilities take the place of the activation.
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
        self.maps: ClassMaps | None = None

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
        dataset = dataset.with_label("tags").map(partial(at_most, side=self.config.side))
        self.device = resolve_device(device)
        classes = tagged_classes(dataset)
        if max(classes, default=0) > LARGEST_ID:
            raise ValueError(f"class id {max(classes)} is over {LARGEST_ID}, the largest in a 16-bit PNG: renumber")
        rounds = range(1, self.config.rounds + 1)
        turns = {f"{stage} {number}": share for number in rounds for stage, share in ROUND_SHARES.items()}
        stages = Stages(budget, SHARES | turns)
        self.classifier, learned = fit_classifier(
            self.config.classifier,
            dataset,
            classes,
            self.config.backbone,
            out=Path(out) / "classifier",
            budget=stages.begin("classifier"),
            device=self.device,
            seed=seed,
        )
        self.facts = {"classes": list(classes)}
        made_with = {"classifier": weights_digest(self.classifier), "tags": tags_digest(dataset)}
        looks = self.config.classifier.model_dump(
            mode="json", include={"output_stride", "scales", "flip", "max_pixels"}
        )
        made_with["activation"] = str(looks | {"side": self.config.side})
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
            budget=stages.begin("relations"),
            most_steps=training.iterations,
            device=self.device,
            groups=recipe.groups(model, self.facts),
            identity={
                # each training looks at its own settings itself, and what the classifier learned is in its digest
                "config": self.config.model_dump(
                    mode="json",
                    exclude={"classifier": {"training"}, "pairs": {"training"}, "rounds": True, "maps": True},
                ),
                "images": len(dataset),
                "name": dataset.name,
                **made_with,
            },
        )
        recipe.finish(model, regions, self.facts)
        self.relations, self.maps = model, None
        reports = {"classifier": learned, "relations": report}
        for number in rounds:
            self.maps, reports[f"class maps, round {number}"] = self._round(
                number, dataset, out=Path(out), stages=stages, seed=seed, made_with=made_with
            )
        self.facts["training"] = {
            stage: {"iterations": each.iterations, "seconds": round(each.seconds, 1)} for stage, each in reports.items()
        }

    def _round(
        self, number: int, dataset: Dataset, *, out: Path, stages: Stages, seed: int, made_with: dict[str, str]
    ) -> tuple[ClassMaps, TrainingReport]:
        """Class maps learned from the labels of the models so far."""
        if self.classifier is None:
            raise RuntimeError(NO_MODEL)
        config, doubt = self.config, 0.0
        if number > 1:  # probabilities are believed as they are: a class that is sure of no pixel teaches none
            config, doubt = config.model_copy(update={"normalisation": "none"}), config.maps.doubt
        identity = {
            "walk": config.model_dump(mode="json", include=SHAPES_LABELS),
            "doubt": doubt,
            "tags": made_with["tags"],
            "activation": made_with["activation"],
            "models": {part: weights_digest(model) for part, model in self.networks().items()},
        }
        labelled = with_maps(
            dataset,
            track(dataset, f"labels {number}"),
            lambda sample: class_labels_of(self._evidence(sample), config, doubt=doubt),
            out / f"labels-{number}",
            identity,
        )
        return fit_class_maps(
            self.config.maps,
            labelled,
            self.facts["classes"],
            self.classifier,
            out=out / f"class-maps-{number}",
            budget=stages.begin(f"class maps {number}"),
            device=self.device,
            seed=seed,
            identity=identity,
        )

    def fields(self, sample: Sample) -> Fields:
        """``cam/ID`` for each class present, ``displacement`` and ``boundary``, all on one grid.

        Where class maps were learned also ``class/ID``, the probability of each class and of the background, 0.

        Raises:
            RuntimeError: the method is neither fitted nor loaded.
            ImageError: an image without tags, or with tags that the model never learned.
        """
        image = at_most(sample, self.config.side).image  # read once
        found = self._evidence(sample.replace(image=image), activation=True)
        grown = max(sample.size) / max(image.shape)
        maps = {name: Field(field.array, field.stride * grown) for name, field in found.maps.items()}
        return Fields(sample.size, maps)

    def _evidence(self, sample: Sample, *, activation: bool = False) -> Fields:
        """The fields of an image; where there are class maps, the activation only if asked: it is for looking at."""
        present = self.present(sample)
        if not present:
            return Fields(sample.size)
        relations = self.relation_fields(sample)
        (rows, columns), stride = relations["boundary"].shape, relations.stride("boundary")
        maps = dict(relations.maps)
        if activation or self.maps is None:
            cam = self._activation(sample, present, (rows, columns))
            maps |= {f"{CAM}{class_id}": Field(values, stride) for class_id, values in zip(present, cam, strict=True)}
        if self.maps is not None:
            known, settings = self.facts["classes"], self.config.maps
            odds = class_probabilities(sample, self.maps, known, present, settings, size=(rows, columns))
            named = zip([0, *present], odds, strict=True)
            maps |= {f"{PROBABILITY}{class_id}": Field(values, stride) for class_id, values in named}
        return Fields(sample.size, maps)

    def relation_fields(self, sample: Sample) -> Fields:
        """``displacement`` and ``boundary`` alone, of any image: they know no classes."""
        if self.relations is None:
            raise RuntimeError(NO_MODEL)
        return self._recipe().fields(self.relations, sample, self.facts)

    def group(self, fields: Fields, sample: Sample) -> Instances:
        """The activation cut by the displacement, each part spread up to the boundaries; see the class."""
        source = "irnet:tags" if sample.tags is not None else "irnet:predicted tags"
        return instances_of(fields, self.config, source=source)

    def semantic(self, sample: Sample, fields: Fields) -> npt.NDArray[Any]:
        """(H, W) class ids from whole activations, 255 where in doubt between an object and the background.

        uint8, or int32 where an id needs it.
        """
        return class_labels_of(fields, self.config, doubt=self.config.doubt)

    def pictures(self, fields: Fields, sample: Sample) -> dict[str, npt.NDArray[np.uint8]]:
        """The activation and the probability of each class, the boundary and the displacement."""
        shown = {}
        for kind, prefix in (("activation", CAM), ("probability", PROBABILITY)):
            for class_id in classes_in(fields):
                if prefix + str(class_id) in fields.maps:
                    values = fields[prefix + str(class_id)]
                    behind = cv2.resize(sample.image, values.shape[::-1], interpolation=cv2.INTER_AREA)
                    name = f"{kind}: {self.classes.get(class_id, class_id)}"
                    shown[name] = heatmap(values, image=np.asarray(behind, np.uint8), low=0, high=1)
        if shown:
            shown["boundary"] = boundary_picture(fields["boundary"])
            shown["displacement"] = flow_wheel(fields["displacement"])
        return shown

    def state(self) -> dict[str, torch.Tensor]:
        """The weights of all networks."""
        return {
            f"{part}.{key}": tensor
            for part, model in self.networks().items()
            for key, tensor in model.state_dict().items()
        }

    def networks(self) -> dict[str, torch.nn.Module]:
        """The networks there are so far, by name."""
        parts = {"classifier": self.classifier, "relations": self.relations, "maps": self.maps}
        return {part: model for part, model in parts.items() if model is not None}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take up saved weights; no pretrained ones are looked for."""
        device = resolve_device(self.device)
        classifier = build_classifier(
            self.config.classifier, self.facts["classes"], self.config.backbone, pretrained=False
        )
        relations = cast("PairFields", self._recipe().build(self.facts))
        maps = ClassMaps(copy.deepcopy(classifier)) if any(name.startswith("maps.") for name in tensors) else None
        for part, model in (("classifier.", classifier), ("relations.", relations), ("maps.", maps)):
            if model is not None:
                model.load_state_dict({k.removeprefix(part): v for k, v in tensors.items() if k.startswith(part)})
                model.to(device).eval()
        self.classifier, self.relations, self.maps = classifier, relations, maps

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

    def _recipe(self, *, pretrained: bool = False) -> PairRecipe:
        return PairRecipe(self.config.pairs, "paper", self.config.backbone, pretrained=pretrained)
