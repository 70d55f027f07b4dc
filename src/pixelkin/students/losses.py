"""What a detector learns from labels of unequal worth, in images that nobody labelled wholly.

An instance counts as much as its weight says; what lies where nobody knows is neither object nor background.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_iou, roi_align

from pixelkin.students.boxes import encode, match, sample, share_inside
from pixelkin.students.network import MASK_SIDE, MaskRCNN, Proposals

UNKNOWN_SHARE = 0.5
"""From this share of its area in unknown regions on, a box without a label is not taken for background."""

DOUBTFUL_OVERLAP = 0.5
"""From this overlap (IoU) with the box of an alternative on, neither."""

ANCHOR_OVERLAP = (0.3, 0.7)
BOX_OVERLAP = (0.5, 0.5)
SMOOTH = 1 / 9
"""Where the box loss turns from square to linear."""


class Target(NamedTuple):
    """What is known of one image.

    Attributes:
        boxes: (M, 4) of the labels.
        classes: (M,) indices from 1.
        weights: (M,) what each counts; about 1 on average.
        masks: (M, S, S) in 0..1, stretched over the boxes.
        doubtful: (K, 4) boxes of alternatives.
        unknown: (H, W) bool.
    """

    boxes: Tensor
    classes: Tensor
    weights: Tensor
    masks: Tensor
    doubtful: Tensor
    unknown: Tensor


@dataclass(frozen=True)
class Sampling:
    """How many boxes of an image are learned from, and the most that may be objects."""

    anchors: int = 256
    anchor_objects: float = 0.5
    boxes: int = 512
    box_objects: float = 0.25


def assign(boxes: Tensor, target: Target, overlap: tuple[float, float], *, rescue: bool) -> tuple[Tensor, Tensor]:
    """The label each box answers for, and whether: (N,) indices and states.

    State 1: it answers for the label; 0: it is background; -1: nobody knows, as it overlaps its label only in part, or
    the label has no weight, or it has no label and lies in the unknown or on an alternative.
    """
    index, state = match(target.boxes, boxes, low=overlap[0], high=overlap[1], rescue=rescue)
    if len(target.boxes):
        state = torch.where((state == 1) & (target.weights[index] <= 0), -1, state)
    vague = share_inside(boxes, target.unknown) >= UNKNOWN_SHARE
    if len(target.doubtful):
        vague |= (box_iou(boxes, target.doubtful) >= DOUBTFUL_OVERLAP).any(dim=1)
    return index, torch.where((state == 0) & vague, -1, state)


def proposal_losses(
    proposals: Proposals, targets: list[Target], sampling: Sampling, weights: Tensor
) -> dict[str, Tensor]:
    """Losses of the first stage: ``objectness`` and ``anchor`` (where the box is)."""
    objectness, shift = [], []
    count = 0
    for i, target in enumerate(targets):
        index, state = assign(proposals.anchors, target, ANCHOR_OVERLAP, rescue=True)
        chosen = sample(state, sampling.anchors, sampling.anchor_objects)
        count += len(chosen)
        objects = chosen[state[chosen] == 1]
        worth = torch.ones(len(chosen), device=chosen.device)
        worth[: len(objects)] = target.weights[index[objects]]  # sample() puts them first
        logits = proposals.objectness[i, chosen]
        truth = (state[chosen] == 1).to(logits)
        objectness.append((F.binary_cross_entropy_with_logits(logits, truth, reduction="none") * worth).sum())
        wanted = encode(target.boxes[index[objects]], proposals.anchors[objects], weights)
        shift.append(_box_loss(proposals.deltas[i, objects], wanted, worth[: len(objects)]))
    share = 1 / max(count, 1)
    return {"objectness": torch.stack(objectness).sum() * share, "anchor": torch.stack(shift).sum() * share}


class Regions(NamedTuple):
    """Boxes of a batch to learn from, those of objects first in each image.

    Attributes:
        boxes: (N, 4).
        images: (N,) image of the batch.
        labels: (N,) index into the image's labels; of no meaning for background.
        classes: (N,) 0 for background.
        weights: (N,) what each counts.
    """

    boxes: Tensor
    images: Tensor
    labels: Tensor
    classes: Tensor
    weights: Tensor


def choose_regions(proposals: Proposals, targets: list[Target], sampling: Sampling) -> Regions:
    """Some of the proposals and of the labels' own boxes of each image, by chance."""
    parts = []
    for i, target in enumerate(targets):
        boxes = torch.cat([proposals.boxes[i][proposals.scores[i] > 0], target.boxes])
        index, state = assign(boxes, target, BOX_OVERLAP, rescue=False)
        chosen = sample(state, sampling.boxes, sampling.box_objects)
        is_object = state[chosen] == 1
        classes, weights = torch.zeros_like(chosen), torch.ones(len(chosen), device=chosen.device)
        classes[is_object] = target.classes[index[chosen[is_object]]]
        weights[is_object] = target.weights[index[chosen[is_object]]]
        parts.append(Regions(boxes[chosen], torch.full_like(chosen, i), index[chosen], classes, weights))
    return Regions(*(torch.cat(column) for column in zip(*parts, strict=True)))


def region_losses(network: MaskRCNN, maps: list[Tensor], regions: Regions, targets: list[Target]) -> dict[str, Tensor]:
    """Losses of the second stage: ``class``, ``box`` and ``mask``."""
    logits, deltas = network.classify(maps, regions.boxes, regions.images)
    share = 1 / max(len(regions.boxes), 1)
    named = (F.cross_entropy(logits, regions.classes, reduction="none") * regions.weights).sum() * share
    objects = torch.nonzero(regions.classes).flatten()
    images, labels = regions.images[objects], regions.labels[objects]
    boxes, classes, weights = regions.boxes[objects], regions.classes[objects], regions.weights[objects]
    truth = torch.cat([t.boxes[labels[images == i]] for i, t in enumerate(targets)])
    wanted = encode(truth, boxes, network.box_weights)
    shift = _box_loss(deltas[objects, classes], wanted, weights) * share
    found = network.masks(maps, boxes, images, classes)
    shapes = torch.cat([_masks_in(boxes[images == i], t, labels[images == i]) for i, t in enumerate(targets)])
    known = torch.cat([1 - _unknown_in(boxes[images == i], t) for i, t in enumerate(targets)])
    per_pixel = F.binary_cross_entropy_with_logits(found, shapes, reduction="none") * known
    per_mask = per_pixel.sum(dim=(1, 2)) / known.sum(dim=(1, 2)).clamp(min=1)
    return {"class": named, "box": shift, "mask": (per_mask * weights).sum() / max(len(objects), 1)}


def losses(
    network: MaskRCNN, images: Tensor, sizes: Tensor, targets: list[Target], sampling: Sampling
) -> dict[str, Tensor]:
    """All losses of a batch and their sum, ``loss``. Images and sizes as in :meth:`MaskRCNN.features`."""
    maps = network.features(images, sizes)
    proposals = network.propose(maps, sizes)
    found = proposal_losses(proposals, targets, sampling, network.rpn_weights)
    found |= region_losses(network, maps, choose_regions(proposals, targets, sampling), targets)
    return {"loss": torch.stack(list(found.values())).sum(), **found}


def _box_loss(found: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
    return (F.smooth_l1_loss(found, wanted, beta=SMOOTH, reduction="none").sum(dim=1) * weights).sum()


def _masks_in(boxes: Tensor, target: Target, labels: Tensor) -> Tensor:
    """(N, 28, 28) in 0..1: the part of its label's mask that is in each box; outside the label's box there is none."""
    if not len(boxes):
        return boxes.new_zeros((0, MASK_SIDE, MASK_SIDE))
    side = target.masks.shape[-1]
    own = target.boxes[labels]
    corner, size = own[:, :2].repeat(1, 2), (own[:, 2:] - own[:, :2]).repeat(1, 2)
    inside = (boxes - corner) / size * side + 1  # the margin of one pixel below
    rois = torch.cat([labels[:, None].to(boxes), inside], dim=1)
    shapes: Tensor = roi_align(F.pad(target.masks, (1, 1, 1, 1))[:, None], rois, MASK_SIDE, aligned=True)
    return shapes[:, 0]


def _unknown_in(boxes: Tensor, target: Target) -> Tensor:
    """(N, 28, 28) 1 where most of a cell of a box is unknown, else 0."""
    if not len(boxes) or not target.unknown.any():
        return boxes.new_zeros((len(boxes), MASK_SIDE, MASK_SIDE))
    rois = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], dim=1)
    share: Tensor = roi_align(target.unknown[None, None].to(boxes), rois, MASK_SIDE, aligned=True)
    return (share[:, 0] > 0.5).to(boxes)
