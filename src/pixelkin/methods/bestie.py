"""BESTIE: from points or tags to instances, through a semantic map (Kim, Yoo, Rhee, Kim, CVPR 2022)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from pixelkin.data import Dataset, Instances, Sample
from pixelkin.methods.base import Fields, Method, MethodConfig, resolve_device
from pixelkin.methods.bestie_config import BESTIEConfig
from pixelkin.methods.bestie_examples import CenterExamples, check_points, collate, maps_digest, points_digest
from pixelkin.methods.bestie_labels import CENTER, OFFSET, SEMANTIC, classes_in, fields_of, instances_of
from pixelkin.methods.bestie_training import CenterLoss, Taught, build_fields
from pixelkin.methods.bestie_views import Paths
from pixelkin.methods.irnet import LARGEST_ID, IRNet
from pixelkin.methods.regions import check_refinement, with_maps
from pixelkin.methods.tag_classifier import tagged_classes, weights_digest
from pixelkin.training.budget import Budget, Stages
from pixelkin.training.loop import train
from pixelkin.training.progress import track
from pixelkin.viz import centers_picture, flow_wheel, semantic_picture

if TYPE_CHECKING:
    import torch

    from pixelkin.models.center_fields import CenterFields
    from pixelkin.training.loop import TrainingReport

SHARES = {"irnet": 4.0, "peaks": 1.0, "fields": 4.0}
"""Of a time budget, for the stages that are needed."""

SHAPES_FIELDS = {
    "backbone",
    "guidance",
    "refinement",
    "kernel",
    "relative_kernel",
    "scope",
    "mend",
    "edge_cost",
    "snap",
}
"""The settings beside ``fields`` that training depends on."""


class BESTIE(Method):
    """Count, and learn from what counts one.

    A component of the semantic map with one point of its class is an instance; all else is unknown and teaches nothing
    about instances. A network learns where centres are and offsets to them, and its own groups are labels again. Points
    are the user's, or the peaks of a classifier of tags; semantic maps are given, or made by IRNet.
    """

    name: ClassVar[str] = "bestie"
    summary: ClassVar[str] = "divides semantic maps, given or its own, by points or image tags"
    supervision: ClassVar[tuple[str, ...]] = ("points", "tags")
    uses: ClassVar[tuple[str, ...]] = ("semantic",)
    names_classes: ClassVar[bool] = True
    paper: ClassVar[str] = (
        "Beyond Semantic to Instance Segmentation: Weakly-Supervised Instance Segmentation via Semantic Knowledge"
        " Transfer and Self-Refinement, arXiv 2109.09477"
    )
    config_class = BESTIEConfig
    config: BESTIEConfig

    def __init__(self, config: MethodConfig | None = None) -> None:
        super().__init__(config)
        self.model: CenterFields | None = None

    def fit(
        self, dataset: Dataset, *, out: Path, budget: Budget | None = None, device: str = "auto", seed: int = 0
    ) -> None:
        """Make semantic maps and points where there are none, then train the network; see :meth:`Method.fit`.

        Where any image has points, images without are left out; likewise for semantic maps.

        Raises:
            ValueError: neither points nor tags, a point outside its image, or a class id that no PNG holds.
        """
        self.check(dataset)
        check_points(dataset)
        self.device, out = resolve_device(device), Path(out)
        exact = any(sample.points for sample in dataset)
        dataset = dataset.with_label("points" if exact else "tags")
        mapped = dataset.with_label("semantic")
        classes = _learned_classes(dataset, listed=bool(len(mapped)))
        if max(classes, default=0) > LARGEST_ID:
            raise ValueError(f"class id {max(classes)} is over {LARGEST_ID}, the largest in a 16-bit PNG: renumber")
        stages = Stages(
            budget, {k: v for k, v in SHARES.items() if k == "fields" or not (len(mapped) if k == "irnet" else exact)}
        )
        spent: dict[str, Any] = {}
        if len(mapped):
            origin = f"given for {len(mapped)} of {len(dataset)} images; how they were made is not known here"
            dataset, made_with = mapped, f"given, {maps_digest(mapped)}"
        else:
            told = "tags" if all(sample.has("tags") for sample in dataset) else "classes of the points"
            dataset, made_with, spent = self._maps(dataset, out=out, budget=stages.begin("irnet"), seed=seed)
            origin = f"made by irnet from the {told} of {len(dataset)} images, backbone {self.config.backbone}"
        if not exact:
            dataset, report = self._peaks(dataset, out=out, budget=stages.begin("peaks"), seed=seed)
            spent["peaks"] = _spent(report)
        self.facts = {
            "classes": list(classes),
            "cues": "points" if exact else "peaks of a classifier of tags",
            "points": sum(len(sample.points or ()) for sample in dataset),
            "semantic": origin,
        }
        self.trained_on |= {"semantic maps": origin}
        spent["fields"] = _spent(
            self._train(dataset, exact, made_with, out=out / "fields", budget=stages.begin("fields"), seed=seed)
        )
        self.facts["training"] = spent

    def _maps(
        self, dataset: Dataset, *, out: Path, budget: Budget | None, seed: int
    ) -> tuple[Dataset, str, dict[str, Any]]:
        """The dataset with semantic maps of IRNet, what they were made with, and the length of its trainings."""
        check_refinement(self.config.irnet.regions)
        tagged = dataset.map(_with_tags)
        maker = IRNet(self.config.irnet.model_copy(update={"backbone": self.config.backbone}))
        maker.fit(tagged, out=out / "irnet", budget=budget, device=self.device, seed=seed)
        weights = {name: weights_digest(each) for name, each in maker.networks().items()}
        made_with = {
            "weights": weights,
            "settings": maker.config.model_dump(mode="json"),
            "labels": points_digest(tagged),
        }
        found = with_maps(
            tagged,
            track(tagged, "semantic maps"),
            lambda sample: maker.semantic(sample, maker.fields(sample)),
            out / "semantic",
            made_with,
        )
        spent = {f"irnet, {stage}": each for stage, each in maker.facts["training"].items()}
        return found, "-".join(weights.values()), spent

    def _peaks(
        self, dataset: Dataset, *, out: Path, budget: Budget | None, seed: int
    ) -> tuple[Dataset, TrainingReport]:
        """The dataset with the peaks of a classifier of its tags for points."""
        from pixelkin.methods.bestie_peaks import fit_peaks, peak_points  # only tags need it

        config, classes = self.config.peaks, tagged_classes(dataset)
        if not classes:
            raise ValueError("no image has a tag to learn from: give image tags (--tags FILE or --tags xml)")
        classifier, report = fit_peaks(
            config,
            dataset,
            classes,
            self.config.backbone,
            out=out / "peaks",
            budget=budget,
            device=self.device,
            seed=seed,
        )
        points = peak_points(
            classifier, config, dataset, track(dataset, "peaks"), classes, file=out / "peaks" / "peaks.json"
        )
        return dataset.map(lambda sample: sample.replace(points=points[sample.name])), report

    def _train(
        self, dataset: Dataset, exact: bool, made_with: str, *, out: Path, budget: Budget | None, seed: int
    ) -> TrainingReport:
        """Train the network of centres on images with semantic maps and points."""
        import torch

        config, classes = self.config, self.facts["classes"]
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            student = build_fields(config, self._names(classes), pretrained=True)
        taught = Taught(student, config.fields.teacher_decay if config.refinement == "teacher" else None)
        training = config.fields.training.lasting(config.fields.epochs, len(dataset))
        report = train(
            taught,
            CenterExamples(
                config.fields,
                dataset,
                classes,
                exact=exact,
                paths=Paths(config.edge_cost, config.snap),
                mend=config.mend,
                weak=config.refinement == "teacher",
            ),
            CenterLoss(config, classes, exact=exact),
            training.model_copy(update={"seed": seed}),
            out=out,
            budget=budget,
            most_steps=training.iterations,
            device=self.device,
            groups=student.parameter_groups(config.fields.head_rate),
            identity={
                "config": config.fields.model_dump(mode="json", exclude={"training"})
                | config.model_dump(mode="json", include=SHAPES_FIELDS),
                "classes": {str(i): name for i, name in self._names(classes).items()},
                "images": len(dataset),
                "name": dataset.name,
                "points": points_digest(dataset),
                "maps": made_with,
            },
            collate=collate,
        )
        self.model = student
        return report

    def fields(self, sample: Sample) -> Fields:
        """``semantic``, ``offset`` and, for each class in the map, ``center/ID`` and ``class/ID``.

        The semantic map is the image's own where it has one, its classes mended by the image's points, else the
        network's, of the classes of the image's tags and points, or of all where it has neither.

        Raises:
            RuntimeError: the method is neither fitted nor loaded.
            ImageError: tags, points or a map with a class that the model never learned.
        """
        if self.model is None:
            raise RuntimeError("bestie has no model yet: call fit or load first")
        return fields_of(self.model, sample, self.facts["classes"], self.config)

    def group(self, fields: Fields, sample: Sample) -> Instances:
        """Every pixel of a class to the centre its offset leads to: the image's points, else centres found."""
        return instances_of(fields, sample, self.config)

    def semantic(self, sample: Sample, fields: Fields) -> npt.NDArray[Any] | None:
        """(H, W) predicted class ids; None where the image came with its map."""
        return None if sample.has("semantic") else fields[SEMANTIC]

    def pictures(self, fields: Fields, sample: Sample) -> dict[str, npt.NDArray[np.uint8]]:
        """The centre heat of each class, the offsets within the map, and the map where it was predicted."""
        shown: dict[str, npt.NDArray[np.uint8]] = {}
        for class_id in classes_in(fields):
            heat = fields[f"{CENTER}{class_id}"]
            behind = cv2.resize(sample.image, heat.shape[::-1], interpolation=cv2.INTER_AREA)
            name = f"centres: {self.classes.get(class_id, class_id)}"
            shown[name] = centers_picture(heat, image=np.asarray(behind, np.uint8))
        if shown:
            inside = np.isin(fields[SEMANTIC], classes_in(fields)).astype(np.uint8)
            offset = fields[OFFSET]
            step = round(fields.stride(OFFSET))
            rows, columns = (
                np.minimum(np.arange(n) * step + step // 2, m - 1)
                for n, m in zip(offset.shape[1:], inside.shape, strict=True)
            )
            shown["offsets"] = flow_wheel(offset * inside[np.ix_(rows, columns)])
        if not sample.has("semantic"):
            shown["classes"] = semantic_picture(fields[SEMANTIC], image=sample.image)
        return shown

    def state(self) -> dict[str, torch.Tensor]:
        """The weights of the network of centres; what made its labels is not needed any more."""
        return {} if self.model is None else dict(self.model.state_dict())

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take up saved weights; no pretrained ones are looked for."""
        model = build_fields(self.config, self._names(self.facts["classes"]), pretrained=False)
        model.load_state_dict(tensors)
        self.model = model.to(resolve_device(self.device)).eval()

    def _names(self, classes: list[int]) -> dict[int, str]:
        return {class_id: self.classes.get(class_id, str(class_id)) for class_id in classes}

    def card(self) -> dict[str, str]:
        """Where points and semantic maps came from, backbone and its licence, and the length of the trainings."""
        lines = {
            "Points": f"{self.facts.get('points', 0)}, {self.facts.get('cues', '')}",
            "Semantic maps": self.facts.get("semantic", ""),
            "Backbone": self.config.backbone,
        }
        if self.model is not None:
            lines["Backbone licence"] = self.model.backbone.licence
        for stage, spent in self.facts.get("training", {}).items():
            lines[f"Training of the {stage}"] = (
                f"{spent['iterations']} iterations, {spent['seconds']} s on {self.device}"
            )
        return lines


def _learned_classes(dataset: Dataset, *, listed: bool) -> list[int]:
    """Ids of the classes of all points and tags and, with semantic maps, of all that the dataset lists."""
    named = {point.label for sample in dataset for point in sample.points or ()}
    named |= {tag for sample in dataset for tag in sample.tags or ()}
    found = sorted(named | set(dataset.classes if listed else ()))
    if not found:
        raise ValueError(
            "no image has a point or a tag to learn from: give points (--points FILE) or tags (--tags FILE)"
        )
    return found


def _with_tags(sample: Sample) -> Sample:
    """The sample, with the classes of its points for tags where it has none."""
    if sample.tags is not None:
        return sample
    return sample.replace(tags=tuple(sorted({point.label for point in sample.points or ()})))


def _spent(report: TrainingReport) -> dict[str, Any]:
    return {"iterations": report.iterations, "seconds": round(report.seconds, 1)}
