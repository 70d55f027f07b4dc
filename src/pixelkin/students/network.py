"""Mask R-CNN on any backbone: the network and what it finds; how it learns is in :mod:`pixelkin.students.losses`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads
from torchvision.models.detection.rpn import RPNHead

from pixelkin.models.backbone import Backbone
from pixelkin.students.boxes import anchor_boxes, clip, decode, pool, suppress
from pixelkin.students.pyramid import make_pyramid

RATIOS = (0.5, 1.0, 2.0)
RPN_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""What deltas are multiplied by, so that they are of the order of 1: of proposals, and of final boxes."""

BOX_CELLS, MASK_CELLS = 7, 14
MASK_SIDE = 2 * MASK_CELLS
"""Cells of a side of a predicted mask."""

RPN_OVERLAP = 0.7
LEAST_SIDE = 1e-2
CANDIDATES = 1000
"""Final boxes that go into suppression."""


class Detections(NamedTuple):
    """What is found in one image, best first; a score of 0 marks an empty place.

    Attributes:
        boxes: (D, 4) in pixels of the network's input.
        scores: (D,).
        classes: (D,) indices from 1.
        masks: (D, 28, 28) probabilities, stretched over the box.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    masks: Tensor


class Proposals(NamedTuple):
    """What the first stage says of a batch.

    Attributes:
        anchors: (A, 4), the same for every image.
        objectness: (B, A) logits.
        deltas: (B, A, 4).
        boxes: (B, P, 4) the best boxes after suppression, without gradient.
        scores: (B, P), 0 for an empty place.
    """

    anchors: Tensor
    objectness: Tensor
    deltas: Tensor
    boxes: Tensor
    scores: Tensor


class MaskRCNN(nn.Module):
    """Mask R-CNN (arXiv 1703.06870) with torchvision's feature pyramid and heads.

    All stages have fixed numbers of boxes with empty places, which makes the network exportable as it is.

    Args:
        backbone: its normalisation layers are frozen here, as batches are small.
        classes: number of classes, without background.
        channels: of the pyramid and the heads.
        hidden: units of the box head.
        anchor_scale: side of the anchors in cells of their map.
        candidates: boxes that each map of the pyramid proposes, before suppression.
        proposals: boxes of an image after it.

    Raises:
        StudentError: a backbone whose maps are of no use for this.
    """

    box_weights: Tensor
    rpn_weights: Tensor

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        *,
        channels: int = 256,
        hidden: int = 1024,
        anchor_scale: float = 8.0,
        candidates: int = 1000,
        proposals: int = 1000,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.anchor_scale, self.candidates, self.proposals = anchor_scale, candidates, proposals
        self.pyramid = make_pyramid(backbone, channels)
        self.rpn_head = RPNHead(channels, len(RATIOS))
        self.box_head = TwoMLPHead(channels * BOX_CELLS**2, hidden)
        self.box_predictor = FastRCNNPredictor(hidden, 1 + classes)
        self.mask_head = MaskRCNNHeads(channels, [channels] * 4, 1)
        self.mask_rise = nn.ConvTranspose2d(channels, channels, 2, 2)
        self.mask_classes = nn.Linear(channels, 1 + classes)  # class 0 has no mask
        nn.init.kaiming_normal_(self.mask_rise.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.mask_classes.weight, std=0.01)
        for layer in (self.mask_rise, self.mask_classes):
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.register_buffer("rpn_weights", torch.tensor(RPN_WEIGHTS), persistent=False)
        self.register_buffer("box_weights", torch.tensor(BOX_WEIGHTS), persistent=False)
        for norm in self._norms():
            norm.requires_grad_(False)

    def _norms(self) -> Iterator[nn.Module]:
        return (module for module in self.backbone.modules() if isinstance(module, _BatchNorm))

    def train(self, mode: bool = True) -> MaskRCNN:
        """As ``nn.Module.train``; the normalisation of the backbone keeps its statistics."""
        super().train(mode)
        for norm in self._norms():
            norm.train(False)
        return self

    def features(self, images: Tensor, sizes: Tensor) -> list[Tensor]:
        """The pyramid of a batch.

        Args:
            images: (B, 3, H, W) RGB in 0..1, sides multiples of ``pyramid.divisor``.
            sizes: (B, 2) height and width of each image in it; what is right of and below it counts as mean colour.
        """
        rows = torch.arange(images.shape[-2], device=images.device)[:, None]
        columns = torch.arange(images.shape[-1], device=images.device)
        inside = (rows < sizes[:, 0, None, None]) & (columns < sizes[:, 1, None, None])
        return list(self.pyramid(self.backbone(self.backbone.normalise(images) * inside[:, None])))

    def propose(self, maps: Sequence[Tensor], sizes: Tensor) -> Proposals:
        """Boxes of objects of any class, from the pyramid of images of ``sizes`` ((B, 2) height, width)."""
        objectness, deltas = self.rpn_head(maps)
        shapes = [(int(m.shape[-2]), int(m.shape[-1])) for m in maps]
        anchors = anchor_boxes(
            shapes, self.pyramid.strides, scale=self.anchor_scale, ratios=RATIOS, device=maps[0].device
        )
        flat = [m.permute(0, 2, 3, 1).flatten(1).float() for m in objectness]
        moves = [m.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3).float() for m in deltas]
        boxes, scores = [], []
        for i, size in enumerate(sizes):
            chosen = [
                self._candidates(scores_of[i].detach(), moves_of[i].detach(), anchors_of, size)
                for scores_of, moves_of, anchors_of in zip(flat, moves, anchors, strict=True)
            ]
            groups = torch.cat([torch.full_like(part[1], level) for level, part in enumerate(chosen)])
            found, chance = (torch.cat(part) for part in zip(*chosen, strict=True))
            index, kept = suppress(found, chance, groups, overlap=RPN_OVERLAP, keep=self.proposals)
            boxes.append(found[index])
            scores.append(kept)
        return Proposals(
            torch.cat(anchors), torch.cat(flat, 1), torch.cat(moves, 1), torch.stack(boxes), torch.stack(scores)
        )

    def _candidates(self, logits: Tensor, deltas: Tensor, anchors: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        """The boxes of one map with the highest logits, and their chances; 0 for those outside the image."""
        best, index = logits.topk(min(self.candidates, len(logits)))
        boxes = clip(decode(deltas[index], anchors[index], self.rpn_weights), size)
        return boxes, best.sigmoid() * _there(boxes)

    def classify(self, maps: Sequence[Tensor], boxes: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 1 + classes) logits and (N, 1 + classes, 4) deltas of boxes (N, 4) in images (N,) of the batch."""
        pooled = pool(maps[:-1], self.pyramid.strides[:-1], boxes, images, size=BOX_CELLS)
        logits, deltas = self.box_predictor(self.box_head(pooled))
        return logits.float(), deltas.float().unflatten(1, (-1, 4))

    def masks(self, maps: Sequence[Tensor], boxes: Tensor, images: Tensor, classes: Tensor) -> Tensor:
        """(N, 28, 28) logits of the masks of boxes, each for its class (N,)."""
        pooled = pool(maps[:-1], self.pyramid.strides[:-1], boxes, images, size=MASK_CELLS)
        features: Tensor = self.mask_rise(self.mask_head(pooled)).relu().float()
        # only the map of the own class, where a convolution would make those of all
        weight, bias = self.mask_classes.weight[classes], self.mask_classes.bias[classes]
        return (features * weight[..., None, None]).sum(dim=1) + bias[:, None, None]

    def detect(
        self,
        image: Tensor,
        size: Tensor,
        *,
        score: float,
        overlap: float,
        keep: int,
        allowed: Tensor | None = None,
        empty_places: bool = False,
    ) -> Detections:
        """What is in one image.

        Args:
            image: (3, H, W) RGB in 0..1, sides multiples of ``pyramid.divisor``.
            size: (2,) height and width of the image in it.
            score: least score.
            overlap: IoU above which the worse of two boxes of one class goes.
            keep: how many to find at most.
            allowed: (1 + C,) bool, of background and classes: the others are known not to be there.
            empty_places: return as many whatever there is, with scores of 0.
        """
        maps = self.features(image[None], size[None])
        proposals = self.propose(maps, size[None])
        boxes = proposals.boxes[0]
        first = torch.zeros(len(boxes), dtype=torch.long, device=boxes.device)
        logits, deltas = self.classify(maps, boxes, first)
        if allowed is not None:
            logits = logits.masked_fill(~allowed, -torch.inf)
        chances = logits.softmax(dim=1)[:, 1:] * (proposals.scores[0] > 0)[:, None]
        found = clip(decode(deltas[:, 1:], boxes[:, None], self.box_weights), size)
        chances = chances * (chances > score) * _there(found)
        best, index = chances.flatten().topk(min(CANDIDATES, chances.numel()))
        found, classes = found.flatten(0, 1)[index], index % chances.shape[1]
        kept, best = suppress(found, best, classes.to(found), overlap=overlap, keep=keep)
        if not empty_places:
            kept, best = kept[best > 0], best[best > 0]
        found, classes = found[kept], classes[kept] + 1
        first = torch.zeros(len(found), dtype=torch.long, device=boxes.device)
        return Detections(found, best, classes, self.masks(maps, found, first, classes).sigmoid())


def _there(boxes: Tensor) -> Tensor:
    """1 for boxes (..., 4) that have an area, else 0."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return (sides > LEAST_SIDE).all(dim=-1).to(boxes)
