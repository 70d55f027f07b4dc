"""What a backbone's own ImageNet head knows of classes, by their names."""

from __future__ import annotations

from collections.abc import Mapping

import timm
import torch
from torch import Tensor, nn

from pixelkin.models.backbone import Backbone, ImagenetHead
from pixelkin.models.imagenet_names import imagenet_rows
from pixelkin.models.zoo import WHEELS

GAIN = 0.3
"""Of ImageNet's rows: they score the mean over an image, and single cells are more extreme."""


class ClassScores(nn.Module):
    """Coarse scores of classes from a backbone's last map, to start semantics from.

    Classes that ImageNet knows by name can start from the rows of its head, times :data:`GAIN`; other classes, and the
    background, start from 0.

    Args:
        backbone: whose last map is scored; see :func:`has_embedding`.
        classes: C, without background.
        pretrained: whether the embedding has its ImageNet weights.
    """

    def __init__(self, backbone: Backbone, classes: int, *, pretrained: bool = True) -> None:
        super().__init__()
        self.embedding, width = embedding_of(backbone, pretrained=pretrained)
        self.rows = nn.Conv2d(width, 1 + classes, 1)
        nn.init.zeros_(self.rows.weight)
        if self.rows.bias is not None:
            nn.init.zeros_(self.rows.bias)

    def forward(self, last: Tensor) -> Tensor:
        """(B, channels, h, w) last map to (B, 1 + C, h, w) scores, background first."""
        scores: Tensor = self.rows(self.embedding(last))
        return scores

    @torch.no_grad()
    def seed_from_imagenet(self, backbone: Backbone, classes: Mapping[int, str]) -> tuple[int, ...]:
        """Start the rows of classes that ImageNet knows, and say which (ids).

        Args:
            backbone: with an ImageNet head.
            classes: id to name, in the order of the rows.

        Raises:
            BackboneError: the backbone has no ImageNet head.
        """
        found = imagenet_weights(backbone, classes)
        for row, class_id in enumerate(classes):
            if class_id in found:
                self.rows.weight[1 + row, :, 0, 0] = GAIN * found[class_id].to(self.rows.weight)
        return tuple(found)


def has_embedding(backbone: Backbone) -> bool:
    """Whether the backbone came with a head whose classes are rows over an embedding of its last map."""
    return backbone.name in WHEELS


def embedding_of(backbone: Backbone, *, pretrained: bool = True) -> tuple[nn.Sequential, int]:
    """What lies between the last map of a backbone and the rows of its ImageNet head, and its channels.

    Raises:
        ValueError: the backbone has none; see :func:`has_embedding`.
        BackboneError: pretrained weights are asked for and the backbone was built without.
    """
    if not has_embedding(backbone):
        raise ValueError(f"{backbone.name} has no embedding: use {', '.join(WHEELS)}")
    head = backbone.imagenet_head() if pretrained else ImagenetHead(timm.create_model(WHEELS[backbone.name].model))
    return nn.Sequential(head.conv_head, head.bn2), head.conv_head.out_channels


def imagenet_weights(backbone: Backbone, classes: Mapping[int, str]) -> dict[int, Tensor]:
    """Of each class that ImageNet knows by name, the mean of its rows less the mean of all rows.

    See :func:`~pixelkin.models.imagenet_names.imagenet_rows`.

    Raises:
        BackboneError: the backbone has no ImageNet head.
    """
    known = backbone.imagenet_head().classifier.weight.detach()
    known = known - known.mean(0)
    found = {class_id: imagenet_rows(name) for class_id, name in classes.items()}
    return {class_id: known[list(rows)].mean(0) for class_id, rows in found.items() if rows}
