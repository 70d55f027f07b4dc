"""The loss of :class:`pixelkin.models.mask_unet.MaskUNet`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pixelkin.models.mask_unet import Division


def division_loss(said: Division, objects: Tensor, crowd: Tensor, reach: float) -> dict[str, Tensor]:
    """Displacement to the middle of the own object, boundary to others, and whether there are others.

    Args:
        said: the network's fields at (h, w).
        objects: (B, h, w) int64: 0 background, -1 foreground of unknown identity, which both teach nothing, else object
            numbers.
        crowd: (B,) 1 many objects, 0 one, -1 nobody knows.
        reach: field pixels of a displacement of 1.

    Returns:
        ``loss`` and its parts ``displacement`` (smooth L1), ``boundary`` (cross-entropy), ``dice``, ``crowd``.
    """
    middles = middle_displacement(objects) / reach
    edges = object_edges(objects)
    known = (objects > 0).float()
    count = known.sum().clamp(min=1)
    off = functional.smooth_l1_loss(said.displacement, middles, reduction="none", beta=0.1).sum(1)
    displacement = (off * known).sum() / count
    weight = torch.tensor(2.0, device=known.device)  # edges are few
    entropy = functional.binary_cross_entropy_with_logits(said.boundary, edges, reduction="none", pos_weight=weight)
    boundary = (entropy * known).sum() / count
    found = said.boundary.sigmoid() * known
    dice = 1 - (2 * (found * edges).sum() + 1) / (found.square().sum() + edges.sum() + 1)
    sure = (crowd >= 0).float()
    doubt = functional.binary_cross_entropy_with_logits(said.crowd, crowd.clamp(min=0), reduction="none")
    crowding = (doubt * sure).sum() / sure.sum().clamp(min=1)
    total = 2 * displacement + boundary + 0.5 * dice + 0.2 * crowding
    return {"loss": total, "displacement": displacement, "boundary": boundary, "dice": dice, "crowd": crowding}


def middle_displacement(objects: Tensor) -> Tensor:
    """(B, h, w) object numbers to (B, 2, h, w): (dy, dx) in cells from each cell to its object's centre of mass."""
    batch, height, width = objects.shape
    numbers = objects.clamp(min=0)
    count = int(numbers.max()) + 1
    codes = (numbers + count * torch.arange(batch, device=objects.device).view(-1, 1, 1)).flatten()
    sizes = torch.bincount(codes, minlength=batch * count).clamp(min=1)
    axes = torch.meshgrid(
        torch.arange(height, device=objects.device, dtype=torch.float32),
        torch.arange(width, device=objects.device, dtype=torch.float32),
        indexing="ij",
    )
    out = []
    for axis in axes:
        places = axis.expand(batch, -1, -1)
        # Sums of whole numbers are exact in float32 here, so a GPU gives the same ones in whatever order it adds.
        middle = torch.zeros(batch * count, device=codes.device).index_add(0, codes, places.flatten()) / sizes
        out.append(middle[codes].view(batch, height, width) - places)
    return torch.stack(out, dim=1)


def object_edges(objects: Tensor) -> Tensor:
    """(B, h, w) object numbers to (B, h, w) float: 1 in cells of an object beside (of 8) a cell of another object."""
    known = torch.where(objects > 0, objects, torch.zeros_like(objects)).float()
    padded = functional.pad(known[:, None], (1, 1, 1, 1))
    highest = functional.max_pool2d(padded, 3, stride=1)[:, 0]
    # The lowest object around: background must not count, so it is put above all.
    above = known.max() + 1
    lowest = -functional.max_pool2d(-torch.where(padded > 0, padded, above), 3, stride=1)[:, 0]
    return ((known > 0) & ((highest > known) | (lowest < known))).float()
