"""The training of BESTIE's network: certified labels, its own refined ones, and perhaps a teacher."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from pixelkin.cues.center_losses import FieldTargets, LossWeights, bestie_loss
from pixelkin.cues.self_refinement import Refinement, refine
from pixelkin.methods.bestie_config import BESTIEConfig
from pixelkin.models.center_fields import STRIDE, CenterFields


def build_fields(config: BESTIEConfig, classes: Mapping[int, str], *, pretrained: bool) -> CenterFields:
    """The untrained network of classes, id to name; pretrained, it starts from what ImageNet knows of them."""
    fields = config.fields
    model = CenterFields(
        len(classes),
        config.backbone,
        widths=fields.widths,
        head_width=fields.head_width,
        reach=fields.reach,
        output_stride=fields.output_stride,
        class_scores=None if fields.imagenet_seed else False,
        pretrained=pretrained,
    )
    if pretrained and model.scores is not None:
        model.scores.seed_from_imagenet(model.backbone, classes)
    return model


class Taught(nn.Module):
    """The network and, with a ``decay``, its teacher: the running average of its weights, kept in the checkpoints."""

    def __init__(self, student: CenterFields, decay: float | None = None) -> None:
        super().__init__()
        self.student = student
        self.decay = decay
        self.teacher = None if decay is None else copy.deepcopy(student).requires_grad_(False).eval()
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def train(self, mode: bool = True) -> Taught:
        """As ``nn.Module.train``; the teacher stays as it is used."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    @torch.no_grad()
    def follow(self) -> None:
        """Take the student's present weights into the average: once a step, before it."""
        if self.teacher is None or self.decay is None:
            return
        steps = cast("Tensor", self.steps)
        past = torch.clamp((1 + steps) / (10 + steps), max=self.decay)
        for mine, other in zip(self.teacher.state_dict().values(), self.student.state_dict().values(), strict=True):
            if torch.is_floating_point(mine):
                mine.lerp_(other, (1 - past).to(mine))
            else:
                mine.copy_(other)
        steps += 1


class CenterLoss:
    """The loss of a batch of :class:`~pixelkin.methods.bestie_examples.CenterExamples`.

    Args:
        config: the settings.
        classes: ids in the order of the network's rows.
        exact: see there.
    """

    def __init__(self, config: BESTIEConfig, classes: list[int], *, exact: bool) -> None:
        self.config, self.classes, self.exact = config, classes, exact
        fields = config.fields
        self.weights = LossWeights(fields.semantic_weight, fields.center_weight, fields.offset_weight)
        self.settings = Refinement(
            stride=STRIDE,
            min_area=fields.min_area,
            threshold=fields.refine_threshold,
            kernel=config.kernel,
            relative_kernel=config.relative_kernel,
            most=fields.most,
            sigma=fields.sigma,
            relative_sigma=fields.relative_sigma,
            scope=config.scope,
        )

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``loss``, and ``semantic``, ``center``, ``offset``; with refinement ``refined``, the share of new labels."""
        taught = cast("Taught", model)
        present = batch["ids"]
        out = taught.student(batch["image"].float() / 255, keep=batch["rows"])
        ids = torch.tensor(self.classes, device=present.device)
        refined = None
        if self.config.refinement != "false":
            seen = out
            if taught.teacher is not None:
                taught.follow()
                with torch.no_grad():
                    seen = taught.teacher(batch["weak"].float() / 255, keep=batch["rows"])
            refined = refine(
                seen.center,
                seen.offset,
                seen.semantic,
                batch["labels"],
                ids,
                present=present,
                components=batch["components"],
                points=batch["points"] if self.exact else None,
                point_classes=batch["point_classes"] if self.exact else None,
                settings=self.settings,
            ).targets
        certified = FieldTargets(batch["heat"], batch["offset"], batch["weight"], batch["center_weight"])
        losses = bestie_loss(
            out.semantic,
            out.center,
            out.offset,
            labels=batch["labels"],
            certified=certified,
            refined=refined,
            ids=ids,
            channels=present > 0,
            weights=self.weights,
            hardest=self.config.fields.hardest,
            guidance=self.config.guidance,
        )
        if refined is not None:
            losses["refined"] = (refined.weight > 0).float().mean()
        return losses
