"""A network of class maps that starts as a classifier of image tags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pixelkin.models.classifier import CamClassifier
from pixelkin.models.multi_scale import ScaledMaps, check_scales, look_at_scales, to_device

FINE_STRIDE = 8
"""Of the map that corrects the coarse one, or the next coarser that the backbone has."""

WIDTHS = (48, 96)
"""Channels that the fine and the coarse map are reduced to."""


class ClassMaps(nn.Module):
    """The class of every cell of a fine map, background first.

    The coarse scores are those of a classifier that was trained on tags, so that with its weights this network says
    from the start what the class activation says; a column for the background joins them. A correction from the fine
    and the coarse map together, zero at first, learns where objects end.

    Args:
        classifier: whose backbone, embedding and head this network goes on from; they become part of it, all trained.
    """

    def __init__(self, classifier: CamClassifier) -> None:
        super().__init__()
        self.classifier = classifier.requires_grad_(True)
        backbone, classes = classifier.backbone, classifier.head.out_channels
        self.fine_map = next((i for i, s in enumerate(backbone.strides) if s >= FINE_STRIDE), len(backbone.strides) - 1)
        fine, coarse = WIDTHS
        self.background = nn.Conv2d(classifier.head.in_channels, 1, 1)
        self.gain = nn.Parameter(torch.ones(1))
        self.fine = nn.Conv2d(backbone.channels[self.fine_map], fine, 1)
        self.coarse = nn.Conv2d(backbone.channels[-1], coarse, 1)
        self.join = nn.Sequential(
            nn.Conv2d(fine + coarse, coarse, 3, padding=1, bias=False), nn.GroupNorm(8, coarse), nn.ReLU()
        )
        self.correction = nn.Conv2d(coarse, 1 + classes, 1)
        for parameter in (*self.background.parameters(), *self.correction.parameters()):
            nn.init.zeros_(parameter)

    @property
    def classes(self) -> int:
        """How many, without the background."""
        return self.classifier.head.out_channels

    def forward(self, image: Tensor, keep: Sequence[int] | None = None) -> Tensor:
        """(B, 3, H, W) RGB in 0..1 to (B, 1 + classes, h, w) logits at the fine map's stride, background first.

        Args:
            image: the batch.
            keep: only these classes, in this order, after the background.
        """
        body = self.classifier
        maps = body.backbone(body.backbone.normalise(image).contiguous(memory_format=torch.channels_last))
        fine, coarse = maps[self.fine_map], maps[-1]
        embedded = body.embedding(coarse)
        rows = list(range(self.classes) if keep is None else keep)
        scores = nn.functional.conv2d(embedded, body.head.weight[rows]) * self.gain
        scores = torch.cat([self.background(embedded), scores], dim=1)
        joined = self.join(torch.cat([self.fine(fine), _enlarged(self.coarse(coarse), fine)], dim=1))
        shown = [0, *(row + 1 for row in rows)]
        corrected: Tensor = _enlarged(scores, fine) + self.correction(joined)[:, shown]
        return corrected

    def parameter_groups(self, head_rate: float = 10.0) -> list[dict[str, Any]]:
        """What is trained, for :func:`pixelkin.training.loop.train`; the heads ``head_rate`` times as fast."""
        body = [*self.classifier.backbone.parameters(), *self.classifier.embedding.parameters()]
        known = {id(parameter) for parameter in body}
        heads = [parameter for parameter in self.parameters() if id(parameter) not in known]
        return [{"params": body}, {"params": heads, "lr_scale": head_rate}]


def map_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy over the known cells; 0 where there are none.

    Args:
        logits: (B, 1 + classes, h, w).
        labels: (B, H, W) 0 background, 1 + row of a class, -1 unknown; looked at in the middle of each cell.
    """
    rows, columns = (_middles(few, many) for few, many in zip(logits.shape[-2:], labels.shape[-2:], strict=True))
    cells = labels[:, rows][:, :, columns].long().to(logits.device)
    known = (cells >= 0).sum()
    total = nn.functional.cross_entropy(logits.float(), cells, ignore_index=-1, reduction="sum")
    return total / known.clamp(min=1)


@torch.inference_mode()
def class_scores(
    model: ClassMaps,
    image: npt.NDArray[np.uint8],
    *,
    keep: Sequence[int],
    scales: Sequence[float] = (1.0,),
    flip: bool = True,
    max_pixels: int = 4_000_000,
) -> ScaledMaps:
    """Logits of one image, the sum over its scales and mirror image; background first, then the classes of ``keep``.

    Args:
        model: put into eval mode.
        image: (H, W, 3) RGB, of any size.
        keep: the classes wanted, in this order.
        scales: of the image.
        flip: whether to add the mirror image's.
        max_pixels: larger images, at any scale, are shrunk to about this.

    Raises:
        ValueError: no scale, or one that is not above 0.
    """
    check_scales(scales)
    model.eval()
    backbone = model.classifier.backbone
    return look_at_scales(
        lambda shown: model(shown, keep),
        to_device(image, model.gain),
        scales=scales,
        flip=flip,
        step=max(backbone.strides),
        max_pixels=max_pixels,
    )


def _enlarged(maps: Tensor, like: Tensor) -> Tensor:
    if maps.shape[-2:] == like.shape[-2:]:
        return maps
    return nn.functional.interpolate(maps, like.shape[-2:], mode="bilinear", align_corners=False)


def _middles(few: int, many: int) -> Tensor:
    """Index among ``many`` pixels of the middle of each of ``few`` cells."""
    return ((torch.arange(few) + 0.5) * many / few).long()
