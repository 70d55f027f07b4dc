"""A classifier of image tags whose class activation maps say where each tag comes from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pixelkin.models.backbone import Backbone, build_backbone
from pixelkin.models.class_rows import embedding_of, has_embedding, imagenet_weights
from pixelkin.models.imagenet_names import imagenet_rows
from pixelkin.models.multi_scale import ScaledMaps, check_scales, look_at_scales, scaled, to_device
from pixelkin.models.zoo import DEFAULT_BACKBONE, WHEELS

SCALES = (1.0, 0.5, 1.5, 2.0)
"""Of the image, as published."""


class CamClassifier(nn.Module):
    """Tags of an image, and an activation map for each (Ahn, Cho, Kwak, CVPR 2019, arXiv 1904.05044).

    A 1x1 convolution without bias scores every cell of the backbone's last map; the mean over the image is the logit of
    a tag. As published, stages up to stride 8 are not trained, and batch normalisation always uses its running
    statistics.

    Args:
        classes: how many.
        backbone: name for :func:`pixelkin.models.backbone.build_backbone`.
        embedding: score the map that the backbone's ImageNet head classifies (1280 channels), not the last one; the
            convolution between them is trained too. None: where there is one. Not in the paper, whose ResNet has none.
        output_stride: of the coarsest map; None: the backbone's own. The published ResNet-50 has 16.
        fixed_stride: stages up to this stride are not trained; 0: all are.
        pretrained: whether the backbone has its ImageNet weights; without them only tests make sense.

    Raises:
        ValueError: no class, or an embedding where the backbone has none.
        BackboneError: see :func:`~pixelkin.models.backbone.build_backbone`.
    """

    def __init__(
        self,
        classes: int,
        backbone: str = DEFAULT_BACKBONE,
        *,
        embedding: bool | None = None,
        output_stride: int | None = 16,
        fixed_stride: int = 8,
        pretrained: bool = True,
    ) -> None:
        super().__init__()
        if classes < 1:
            raise ValueError("a classifier needs at least one class: give image tags")
        self.backbone = build_backbone(backbone, pretrained=pretrained, output_stride=output_stride)
        known = has_embedding(self.backbone)
        if embedding and not known:
            raise ValueError(f"{backbone} has no embedding: leave embedding out, or use {', '.join(WHEELS)}")
        self.embedding: nn.Module = nn.Identity()
        width = self.backbone.channels[-1]
        if known and embedding is not False:
            self.embedding, width = embedding_of(self.backbone, pretrained=pretrained)
        self.head = nn.Conv2d(width, classes, 1, bias=False)
        nn.init.normal_(self.head.weight, std=0.01)
        for parameter in _stem_parameters(self.backbone, fixed_stride):
            parameter.requires_grad_(False)
        self.train(self.training)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in 0..1 to (B, classes) logits."""
        return self.head(self._features(image).mean(dim=(-2, -1), keepdim=True))[..., 0, 0]  # type: ignore[no-any-return]

    def activation(self, image: Tensor, keep: Sequence[int] | None = None) -> Tensor:
        """(B, 3, H, W) RGB in 0..1 to (B, classes, h, w) activation, at least 0, at the last map's stride.

        Args:
            image: the batch.
            keep: only these rows, in this order; hundreds of others then cost nothing.
        """
        weight = self.head.weight if keep is None else self.head.weight[list(keep)]
        return nn.functional.relu(nn.functional.conv2d(self._features(image), weight))

    def parameter_groups(self, head_rate: float = 10.0) -> list[dict[str, Any]]:
        """What is trained, for :func:`pixelkin.training.loop.train`; the head ``head_rate`` times as fast."""
        body = [p for p in (*self.backbone.parameters(), *self.embedding.parameters()) if p.requires_grad]
        groups: list[dict[str, Any]] = [{"params": list(self.head.parameters()), "lr_scale": head_rate}]
        return [{"params": body}, *groups] if body else groups

    def seed_from_imagenet(self, classes: Mapping[int, str]) -> dict[int, tuple[int, ...]]:
        """Start the head of classes that ImageNet knows from the rows of its own head.

        A class gets the mean of the rows with its name (see :func:`~pixelkin.models.imagenet_names.imagenet_rows`) less
        the mean of all rows; other classes keep what they have.

        Args:
            classes: id to name, in the order of the head's rows.

        Returns:
            id to ImageNet indices of the classes that were seeded.

        Raises:
            ValueError: not one name a class, or a classifier without embedding.
            BackboneError: the backbone has no ImageNet head.
        """
        if len(classes) != self.head.out_channels:
            raise ValueError(f"{len(classes)} class names for {self.head.out_channels} classes: give one each")
        found = imagenet_weights(self.backbone, classes)
        if found and next(iter(found.values())).shape[0] != self.head.in_channels:
            raise ValueError("ImageNet's head scores the embedding: build the classifier with embedding=True")
        with torch.no_grad():
            for row, class_id in enumerate(classes):
                if class_id in found:
                    self.head.weight[row, :, 0, 0] = found[class_id].to(self.head.weight)
        return {class_id: imagenet_rows(classes[class_id]) for class_id in found}

    def train(self, mode: bool = True) -> CamClassifier:
        """As ``nn.Module.train``, but batch normalisation stays in eval mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def _features(self, image: Tensor) -> Tensor:
        normal = self.backbone.normalise(image).contiguous(memory_format=torch.channels_last)
        return self.embedding(self.backbone(normal)[-1])  # type: ignore[no-any-return]


def tag_loss(logits: Tensor, tags: Tensor) -> Tensor:
    """Multi-label soft margin loss: the mean cross entropy of (B, classes) logits with tags, each 0 or 1."""
    return nn.functional.binary_cross_entropy_with_logits(logits.float(), tags.to(logits.device, torch.float32))


@torch.inference_mode()
def multi_scale_activation(
    model: CamClassifier,
    image: npt.NDArray[np.uint8],
    *,
    keep: Sequence[int] | None = None,
    scales: Sequence[float] = SCALES,
    flip: bool = True,
    max_pixels: int = 4_000_000,
) -> ScaledMaps:
    """Activation of one image at several scales, its mirror image's added (arXiv 1904.05044).

    Args:
        model: put into eval mode.
        image: (H, W, 3) RGB, of any size.
        keep: rows of the classes wanted, in this order; None: all.
        scales: of the image, each at the cost of its area.
        flip: whether to add the mirror image's, for twice the time.
        max_pixels: larger images, at any scale, are shrunk to about this.

    Raises:
        ValueError: no scale, or one that is not above 0.
    """
    check_scales(scales)
    model.eval()
    rows = range(model.head.out_channels) if keep is None else keep
    if not len(rows):
        return ScaledMaps((torch.zeros(0, 1, 1),), (image.shape[0], image.shape[1]))
    pixels, step = to_device(image, model.head.weight), max(model.backbone.strides)
    look = partial(model.activation, keep=rows)
    return look_at_scales(look, pixels, scales=scales, flip=flip, step=step, max_pixels=max_pixels)


@torch.inference_mode()
def tag_probabilities(
    model: CamClassifier, image: npt.NDArray[np.uint8], *, max_pixels: int = 4_000_000
) -> npt.NDArray[np.float32]:
    """(classes,) probability that each is in an (H, W, 3) RGB image: the mean logit of it and its mirror image."""
    model.eval()
    height, width = image.shape[:2]
    scale = min(1.0, math.sqrt(max_pixels / (height * width)))
    shown = scaled(to_device(image, model.head.weight), scale, step=max(model.backbone.strides))
    logits = (model(shown) + model(shown.flip(-1))) / 2
    return torch.sigmoid(logits[0].float()).cpu().numpy()


def _stem_parameters(backbone: Backbone, stride: int) -> list[nn.Parameter]:
    """The parameters that maps up to a stride depend on, found by following the gradient; works for any backbone."""
    parameters = [p for p in backbone.parameters() if p.requires_grad]
    side = 2 * max(backbone.strides)
    with torch.enable_grad():
        maps = backbone.eval()(torch.zeros(1, backbone.in_channels, side, side))
        early = [each.sum() for each, s in zip(maps, backbone.strides, strict=True) if s <= stride]
        if not early:
            return []
        gradients = torch.autograd.grad(torch.stack(early).sum(), parameters, allow_unused=True)
    return [p for p, gradient in zip(parameters, gradients, strict=True) if gradient is not None]
