"""Boxes as a detector needs them: anchors, deltas, shares of a region, suppression. All are (x0, y0, x1, y1), float."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou, nms, roi_align

MOST_GROWTH = math.log(1000 / 16)
"""A box is never predicted wider than this (in logarithm) times its reference."""

ROI_CELLS = 14
"""A region is pooled from the coarsest map on which its side still has as many cells, as 224 pixels at stride 16."""


def anchor_boxes(
    shapes: Sequence[tuple[int, int]],
    strides: Sequence[float],
    *,
    scale: float,
    ratios: Sequence[float],
    device: torch.device,
) -> list[Tensor]:
    """The anchors of maps of (rows, columns) cells: for each map (rows * columns * ratios, 4), cell by cell.

    Args:
        shapes: rows and columns of each map.
        strides: pixels per cell of each map.
        scale: side of an anchor of ratio 1, in cells.
        ratios: heights over widths; anchors of one cell have one area.
        device: where to make them.
    """
    found = []
    root = torch.tensor(ratios, device=device).sqrt()
    for (rows, columns), stride in zip(shapes, strides, strict=True):
        half = torch.stack([-1 / root, -root, 1 / root, root], dim=1) * (0.5 * scale * stride)
        y, x = ((torch.arange(n, device=device) + 0.5) * stride for n in (rows, columns))
        y, x = torch.meshgrid(y, x, indexing="ij")
        found.append((torch.stack([x, y, x, y], dim=-1)[:, :, None] + half).reshape(-1, 4))
    return found


def encode(boxes: Tensor, references: Tensor, weights: Tensor) -> Tensor:
    """(N, 4) deltas from references to boxes: shift in reference sides, logarithm of growth, times the weights."""
    size, wanted = references[:, 2:] - references[:, :2], boxes[:, 2:] - boxes[:, :2]
    shift = (boxes[:, :2] + boxes[:, 2:] - references[:, :2] - references[:, 2:]) / (2 * size)
    return torch.cat([shift, (wanted / size).log()], dim=1) * weights


def decode(deltas: Tensor, references: Tensor, weights: Tensor) -> Tensor:
    """The boxes that deltas (..., 4) make of references (broadcast to them); the inverse of :func:`encode`."""
    deltas = deltas / weights
    size = references[..., 2:] - references[..., :2]
    middle = 0.5 * (references[..., :2] + references[..., 2:]) + deltas[..., :2] * size
    half = 0.5 * size * deltas[..., 2:].clamp(max=MOST_GROWTH).exp()
    return torch.cat([middle - half, middle + half], dim=-1)


def clip(boxes: Tensor, size: Tensor) -> Tensor:
    """Boxes (..., 4) cut at an image of ``size`` (height, width)."""
    limit = size.flip(-1).to(boxes).repeat(2)
    return torch.minimum(boxes.clamp(min=0), limit)


def share_inside(boxes: Tensor, region: Tensor) -> Tensor:
    """(N,) the share of each box's own area, within the image, that lies in a region ((H, W) bool).

    Box sides are rounded to whole pixels; a box outside the image has share 0.
    """
    height, width = region.shape
    sums = torch.nn.functional.pad(region.to(torch.int64), (1, 0, 1, 0)).cumsum(0).cumsum(1)
    x0, x1 = (boxes[:, i].round().long().clamp(0, width) for i in (0, 2))
    y0, y1 = (boxes[:, i].round().long().clamp(0, height) for i in (1, 3))
    inside = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
    return inside / ((x1 - x0) * (y1 - y0)).clamp(min=1)


def match(truth: Tensor, boxes: Tensor, *, low: float, high: float, rescue: bool = False) -> tuple[Tensor, Tensor]:
    """Which true box each box answers for.

    Args:
        truth: (M, 4).
        boxes: (N, 4).
        low: below this overlap (IoU) with all true boxes a box is background.
        high: from this overlap on it answers for the true box it overlaps most; in between for nothing.
        rescue: the boxes that overlap a true box most answer for theirs, however little that is.

    Returns:
        (N,) index of the true box, and (N,) 1 where it answers for it, 0 for background, -1 for nothing.
    """
    if len(truth) == 0:
        nothing = torch.zeros(len(boxes), dtype=torch.long, device=boxes.device)
        return nothing, nothing.clone()
    overlap = box_iou(truth, boxes)
    best, index = overlap.max(dim=0)
    state = (best >= high).long() - ((best >= low) & (best < high)).long()
    if rescue:
        most = overlap.max(dim=1, keepdim=True).values
        state[((overlap == most) & (most > 0)).any(dim=0)] = 1
    return index, state


def sample(state: Tensor, count: int, positives: float) -> Tensor:
    """Indices of at most ``count`` entries of state 1 and 0, at most a share ``positives`` of them 1, by chance."""
    ones, zeros = (torch.nonzero(state == value).flatten() for value in (1, 0))
    kept = ones[torch.randperm(len(ones), device=state.device)[: int(count * positives)]]
    rest = zeros[torch.randperm(len(zeros), device=state.device)[: count - len(kept)]]
    return torch.cat([kept, rest])


def suppress(boxes: Tensor, scores: Tensor, groups: Tensor, *, overlap: float, keep: int) -> tuple[Tensor, Tensor]:
    """The best boxes of which no two of one group overlap much; as many for any input, so that it can be exported.

    Args:
        boxes: (N, 4).
        scores: (N,); those that are not above 0 are out of the running.
        groups: (N,) numbers.
        overlap: IoU above which the worse box goes.
        keep: how many to return.

    Returns:
        Indices and scores, (min(keep, N),), best first; a score of 0 marks an empty place.
    """
    apart = boxes + (groups * (boxes.max() + 1))[:, None]
    kept = torch.zeros_like(scores).index_fill(0, nms(apart, scores, overlap), 1.0)
    best, index = (kept * scores.clamp(min=0)).topk(min(keep, len(scores)))
    return index, best


def pool(
    maps: Sequence[Tensor], strides: Sequence[float], boxes: Tensor, images: Tensor, *, size: int, samples: int = 2
) -> Tensor:
    """(N, C, size, size) features of regions, each from the map that suits its size (FPN, equation 1).

    Args:
        maps: (B, C, h, w), each of twice the stride of the one before.
        strides: pixels per cell.
        boxes: (N, 4) in pixels.
        images: (N,) which image of the batch.
        size: cells of a side.
        samples: points per cell and axis.
    """
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=1e-6).sqrt()
    level = (side / (ROI_CELLS * strides[0])).log2().floor().clamp(0, len(maps) - 1)
    rois = torch.cat([images[:, None].to(boxes), boxes], dim=1)
    pooled = boxes.new_zeros((len(boxes), maps[0].shape[1], size, size))
    for i, (features, stride) in enumerate(zip(maps, strides, strict=True)):
        mine = torch.nonzero(level == i).flatten()
        part = roi_align(features.float(), rois[mine], size, 1 / stride, samples, aligned=True)
        pooled = pooled.index_copy(0, mine, part)
    return pooled
