"""Moving images and feature maps by a flow, and where a flow leads to; cues and models share it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def warp(values: Tensor, flow: Tensor) -> Tensor:
    """What stands at ``p + flow(p)``, for every pixel p; beyond the edge, the edge. Bilinear.

    Args:
        values: (B, C, H, W).
        flow: (B, 2, H, W), (dy, dx) in pixels of this grid, in a type that tells its pixels apart: float32 or more.

    Returns:
        (B, C, H, W); at zero flow the values themselves, up to the rounding of coordinates.
    """
    goal = destinations(flow)
    height, width = values.shape[-2:]
    # grid_sample wants x before y, and -1 and 1 at the centres of the outermost pixels.
    grid = torch.stack([_unit(goal[:, 1], width), _unit(goal[:, 0], height)], dim=-1)
    moved = nn.functional.grid_sample(values.to(grid.dtype), grid, padding_mode="border", align_corners=True)
    return moved.to(values.dtype)


def arrivals(flow: Tensor) -> Tensor:
    """How much lands on each pixel when every pixel sends 1 along the flow, split bilinearly between four.

    Args:
        flow: (B, 2, H, W), (dy, dx) in pixels.

    Returns:
        (B, 1, H, W), at least 0; what lands outside is lost.
    """
    batch, _, height, width = flow.shape
    goal = destinations(flow)
    corner = goal.floor()
    rest = goal - corner
    landed = flow.new_zeros(batch, height * width)
    for down in (0, 1):
        for right in (0, 1):
            y, x = corner[:, 0] + down, corner[:, 1] + right
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            share = (rest[:, 0] if down else 1 - rest[:, 0]) * (rest[:, 1] if right else 1 - rest[:, 1])
            place = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
            landed.scatter_add_(1, place.long().flatten(1), (share * inside).flatten(1))
    return landed.view(batch, 1, height, width)


def destinations(flow: Tensor) -> Tensor:
    """(B, 2, H, W), (y, x) of ``p + flow(p)`` in pixels, 0 at the centre of the first pixel."""
    height, width = flow.shape[-2:]
    rows = torch.arange(height, device=flow.device, dtype=flow.dtype)
    columns = torch.arange(width, device=flow.device, dtype=flow.dtype)
    return flow + torch.stack(torch.meshgrid(rows, columns, indexing="ij"))


def _unit(place: Tensor, size: int) -> Tensor:
    return place * (2 / max(size - 1, 1)) - 1
