"""What :class:`pixelkin.models.affinity.AffinityFields` learns from pair targets with unknowns."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from pixelkin.data.lattice import Offset
from pixelkin.models.affinity import AffinityOutput, embedding_affinity, mirrored

DIFFERENT, SAME, LIKELY, OUTSIDE = 0, 1, 2, 3
"""Codes of pairs, as :mod:`pixelkin.cues.pair_targets` writes them; every other value teaches nothing."""

LEAST_BELIEF = 0.1
"""A pair that is only likely one object counts this much at least."""

BORDER = 0.25
"""How much the pairs of an object and the background weigh against the pairs of two objects."""


def affinity_loss(
    said: AffinityOutput, codes: Tensor, foreground: Tensor, offsets: Sequence[Offset], *, doubt: bool = True
) -> dict[str, Tensor]:
    """Balanced cross-entropy and Dice on the boundary, offset by offset, and cross-entropy of the foreground.

    In each channel, the pairs that are one object weigh as much together as those of two objects, and those of an
    object and the background a quarter of it: there are many, and the foreground says the same. Dice is on 1 - affinity
    of the pairs within the foreground, of which there is little. A pair that is only likely one object weighs as much
    as the network believes it: two parked cars that touch are one piece to every cue, and the network, taught on cars
    that moved, may know better.

    Args:
        said: logits of a batch.
        codes: (B, C, h, w) DIFFERENT, SAME, LIKELY, OUTSIDE, or anything else for unknown.
        foreground: (B, h, w) 0, 1, or anything else for unknown.
        offsets: of the channels.
        doubt: whether likely pairs may be disbelieved.

    Returns:
        ``loss`` and its parts ``affinity``, ``dice``, ``foreground`` and, where there is one, ``embedding``.
    """
    logits = said.affinity.float()
    parts = dict(zip(("affinity", "dice"), _pair_loss(logits, codes, doubt=doubt), strict=True))
    known = foreground <= 1
    wanted = (foreground == 1).float()
    inside = functional.binary_cross_entropy_with_logits(said.foreground.float(), wanted, reduction="none")
    parts["foreground"] = _balanced(inside, known & (foreground == 1), known & (foreground == 0))
    if said.embedding is not None:
        own = embedding_affinity(said.embedding.float(), offsets)
        parts["embedding"] = sum(_pair_loss(own, codes, doubt=doubt))  # type: ignore[assignment]
    return {"loss": parts["affinity"] + parts["dice"] + parts["foreground"] + parts.get("embedding", 0.0), **parts}


def flip_consistency(affinity: Tensor, of_mirror: Tensor, offsets: Sequence[Offset]) -> Tensor:
    """How much the affinities (B, C, h, w) of images and of their mirror images (left to right) disagree; logits."""
    turned, known = mirrored(of_mirror.float().sigmoid(), offsets)
    known = known.to(affinity.device)
    error = (affinity.float().sigmoid() - turned).square() * known
    return error.sum() / (known.sum() * len(affinity)).clamp(min=1)


def _pair_loss(logits: Tensor, codes: Tensor, *, doubt: bool) -> tuple[Tensor, Tensor]:
    """Means over channels of the balanced cross-entropy and of 1 - Dice of 1 - affinity."""
    found = logits.sigmoid()
    belief = found.detach().clamp(min=LEAST_BELIEF) if doubt else torch.ones_like(found)
    weight = (codes == SAME) + (codes == LIKELY) * belief
    apart, outside = (codes == DIFFERENT).float(), (codes == OUTSIDE).float()
    wanted = ((codes == SAME) | (codes == LIKELY)).float()
    entropy = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    axes = (0, 2, 3)
    joined, parted, border = (
        (entropy * each).sum(axes) / each.sum(axes).clamp(min=1) for each in (weight, apart, outside)
    )
    break_ = (1 - found) * (weight + apart)
    dice = 1 - (2 * (break_ * apart).sum(axes) + 1) / (break_.square().sum(axes) + apart.sum(axes) + 1)
    return ((joined + parted + BORDER * border) / (2 + BORDER)).mean(), dice.mean()


def _balanced(values: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The half sum of the means over two masks."""
    means = [(values * mask).sum() / mask.sum().clamp(min=1) for mask in (first, second)]
    return (means[0] + means[1]) / 2
