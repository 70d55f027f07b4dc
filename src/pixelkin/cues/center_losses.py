"""Losses of the semantic, centre and offset branches: what nobody knows teaches nothing.

As in BESTIE (Kim, Yoo, Rhee, Kim, CVPR 2022), whose released code is followed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pixelkin.data.sample import UNKNOWN

LEAST_KNOWN = 10
"""Without guidance, losses are at most so many times the mean over all pixels."""


@dataclass(frozen=True)
class LossWeights:
    """What each branch counts: as published."""

    semantic: float = 1.0
    center: float = 200.0
    offset: float = 0.01


class FieldTargets(NamedTuple):
    """What centre and offset branches should say, for a batch.

    Attributes:
        heat: (B, K, h, w) centre heat.
        offset: (B, 2, h, w) (dy, dx) in image pixels to the centre.
        weight: (B, h, w) confidence of the offsets, 0 where nothing is known.
        center_weight: (B, h, w) the same for the heat.
    """

    heat: Tensor
    offset: Tensor
    weight: Tensor
    center_weight: Tensor


def center_loss(
    heat: Tensor, target: Tensor, weight: Tensor, *, channels: Tensor | None = None, guidance: bool = True
) -> Tensor:
    """Weighted squared error, summed over the channels, over the number of pixels that have a weight.

    The divisor counts pixels and does not sum their weights, so what is less sure teaches less. Zero, with zero
    gradient, where nothing has a weight.

    Args:
        heat: (B, K, h, w).
        target: (B, K, h, w).
        weight: (B, h, w) or (B, 1, h, w), from 0.
        channels: (B, K) bool, false for channels that stand for no class. Default: all do.
        guidance: false for the ablation: what has no weight is background and counts as much as what has weight 1. The
            divisor stays the number of known pixels, so that their part is the same in both (under the plain mean of
            the released ablation it is not), but is no less than a tenth of all.
    """
    error = (heat.float() - target.float()).square()
    if channels is not None:
        error = error * channels[:, :, None, None]
    return _weighted(error, weight, guidance)


def offset_loss(offset: Tensor, target: Tensor, weight: Tensor, *, guidance: bool = True) -> Tensor:
    """Weighted absolute error, summed over both axes, over the number of pixels that have a weight.

    Args:
        offset: (B, 2, h, w).
        target: (B, 2, h, w); 0 where unknown, so that without guidance the background points at itself.
        weight: (B, h, w) or (B, 1, h, w), from 0.
        guidance: as for :func:`center_loss`.
    """
    return _weighted((offset.float() - target.float()).abs(), weight, guidance)


def mined_semantic_loss(
    logits: Tensor,
    labels: Tensor,
    ids: Tensor | None = None,
    *,
    hardest: float = 0.2,
    unknown: int = UNKNOWN,
    unknown_in_ranking: bool = False,
) -> Tensor:
    """Cross-entropy, the mean over the pixels of the batch that are hardest.

    Args:
        logits: (B, 1 + C, h, w), the background first.
        labels: (B, h, w) integers: class ids where ``ids`` is given, else channels.
        ids: (C,) class id of each channel but the background's.
        hardest: share of the pixels that count; 1 for the plain mean.
        unknown: the label that teaches nothing; a class id without a channel does not either.
        unknown_in_ranking: whether the share is of all pixels, the unknown as zeros among them, as released: where
            most is unknown, the mean is then of easy pixels and zeros. Default: the share is of the known pixels.

    Raises:
        ValueError: a share not in 0..1.
    """
    if not 0 < hardest <= 1:
        raise ValueError(f"the share of hardest pixels must be above 0 and at most 1, got {hardest}")
    if ids is None:
        target = torch.where(labels == unknown, -1, labels).long()
    else:
        target = channel_of(labels, ids) + 1
        target = torch.where((target == 0) & (labels != 0), -1, target)
    loss = functional.cross_entropy(logits.float(), target, ignore_index=-1, reduction="none").flatten()
    known = loss.numel() if unknown_in_ranking or not loss.numel() else int((target >= 0).sum())
    if not known:
        return logits.sum() * 0
    return loss.topk(max(1, int(hardest * known)), sorted=False).values.mean()


def bestie_loss(
    logits: Tensor,
    heat: Tensor,
    offset: Tensor,
    *,
    labels: Tensor,
    certified: FieldTargets,
    refined: FieldTargets | None = None,
    ids: Tensor | None = None,
    channels: Tensor | None = None,
    weights: LossWeights = LossWeights(),
    hardest: float = 0.2,
    guidance: bool = True,
) -> dict[str, Tensor]:
    """The whole loss: semantic, and of centre and offset the mean over certified and refined targets.

    Args:
        logits: (B, 1 + C, h, w), the background first.
        heat: (B, K, h, w).
        offset: (B, 2, h, w) image pixels.
        labels: (B, h, w) of the semantic branch, on the grid of its logits.
        certified: from the transfer.
        refined: from the refinement; None: the certified count alone.
        ids: see :func:`mined_semantic_loss`.
        channels: see :func:`center_loss`.
        weights: of the parts.
        hardest: see :func:`mined_semantic_loss`.
        guidance: see :func:`center_loss`; of the certified only, as the refined are never background.

    Returns:
        ``loss`` and its unweighted parts ``semantic``, ``center``, ``offset``.
    """
    semantic = mined_semantic_loss(logits, labels, ids, hardest=hardest)
    center = center_loss(heat, certified.heat, certified.center_weight, channels=channels, guidance=guidance)
    motion = offset_loss(offset, certified.offset, certified.weight, guidance=guidance)
    if refined is not None:
        center = (center + center_loss(heat, refined.heat, refined.center_weight, channels=channels)) / 2
        motion = (motion + offset_loss(offset, refined.offset, refined.weight)) / 2
    total = weights.semantic * semantic + weights.center * center + weights.offset * motion
    return {"loss": total, "semantic": semantic, "center": center, "offset": motion}


def channel_of(labels: Tensor, ids: Tensor) -> Tensor:
    """The channel of each label's class: its place in ``ids``, -1 for labels that are not there and for 0.

    Args:
        labels: (B, h, w) integer class ids, of any size.
        ids: (C,) class ids in any order, or (B, C) of each image; 0 for a channel without a class.
    """
    wanted = labels.flatten(1).long()
    ids = ids.to(wanted)
    if ids.shape[-1] == 0:
        return torch.full_like(wanted, -1).view(labels.shape)
    ordered, order = ids.expand(len(wanted), -1).sort(dim=1)
    place = torch.searchsorted(ordered.contiguous(), wanted).clamp(max=ids.shape[-1] - 1)
    found = (ordered.gather(1, place) == wanted) & (wanted != 0)
    return torch.where(found, order.gather(1, place), -1).view(labels.shape)


def _weighted(error: Tensor, weight: Tensor, guidance: bool) -> Tensor:
    weight = (weight.squeeze(1) if weight.ndim == 4 else weight).float()
    total, known = error.sum(1), (weight > 0).sum()
    if guidance:
        return (total * weight).sum() / known.clamp(min=1)
    counts = torch.where(weight > 0, weight, 1.0)
    return (total * counts).sum() / known.clamp(min=max(1, weight.numel() // LEAST_KNOWN))
