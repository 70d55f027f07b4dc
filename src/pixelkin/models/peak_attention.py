"""Peak attention: a classifier of image tags whose activation is a few sharp peaks, as in BESTIE (CVPR 2022)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import timm
import torch
from timm.models import FeatureInfo, register_model
from torch import Tensor, nn

from pixelkin.models.classifier import CamClassifier
from pixelkin.models.multi_scale import ScaledMaps
from pixelkin.models.zoo import DEFAULT_BACKBONE, WHEELS

__all__ = ["VGG16", "PeakAttention", "PeakClassifier", "peak_attention", "peak_views"]

VGG16 = "vgg16_stride8"
"""Name of the published backbone, for :class:`PeakClassifier`. Its ImageNet weights (BSD-3-Clause) are in no wheel, so
timm downloads those of the whole VGG-16 (about 0.5 GB) at first use; offline, it is refused."""

_VGG16_SOURCE = "vgg16.tv_in1k"


def peak_attention(x: Tensor, alpha: float = 0.7) -> Tensor:
    """Only the peaks of each channel: ``relu(x)`` where that is at least ``alpha`` times its largest value, else 0.

    Peaks pass unchanged, with their gradient; the rest gets none.

    Args:
        x: (..., H, W); each channel of each sample has its own largest value.
        alpha: 0 keeps all of ``relu(x)``, 1 its largest values only.
    """
    kept = nn.functional.relu(x)
    largest = kept.detach().amax(dim=(-2, -1), keepdim=True)
    return torch.where(kept.detach() >= alpha * largest, kept, torch.zeros_like(kept))


class PeakAttention(nn.Module):
    """:func:`peak_attention` as a layer, without parameters.

    Raises:
        ValueError: an alpha outside 0..1.
    """

    def __init__(self, alpha: float = 0.7) -> None:
        super().__init__()
        if not 0 <= alpha <= 1:
            raise ValueError(
                f"alpha is {alpha}: it is a share of a channel's largest value, give 0 to 1 (published 0.7)"
            )
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape, 0 off the peaks."""
        return peak_attention(x, self.alpha)

    def extra_repr(self) -> str:
        """What printing the layer shows."""
        return f"alpha={self.alpha}"


class PeakClassifier(CamClassifier):
    """A :class:`~pixelkin.models.classifier.CamClassifier` that scores peaks only, so that its activation is sparse.

    As published: three 3x3 convolutions, each followed by peak attention, and a 1x1 convolution; its mean over the
    image is the logit of a tag, and its map is the activation. All stages of the backbone are trained. The loss is
    :func:`~pixelkin.models.classifier.tag_loss`.

    With few images the three convolutions learn little. With ``layers=0``, peak attention stands between the map that
    the backbone's ImageNet head classifies and the 1x1 convolution, which
    :meth:`~pixelkin.models.classifier.CamClassifier.seed_from_imagenet` can then start from that head's rows.

    Args:
        classes: how many.
        backbone: name for :func:`~pixelkin.models.backbone.build_backbone`, or :data:`VGG16`, the published one.
        alpha: see :func:`peak_attention`; the published 0.7 suits VOC, tune it on other data.
        layers: convolutions before the 1x1 one, each with its peak attention.
        width: channels of those.
        embedding: whether to start at the map that ImageNet's head classifies; None: where there is one
            and no layers.
        output_stride: of the coarsest map, at most; None: the backbone's own. The published one has 8.
        fixed_stride: stages up to this stride are not trained; 0: all are, as published.
        pretrained: whether the backbone has its ImageNet weights; without them only tests make sense.

    Raises:
        ValueError: no class, an alpha outside 0..1, less than no layers, or an embedding where the backbone has none.
        BackboneError: see :func:`~pixelkin.models.backbone.build_backbone`.
    """

    def __init__(
        self,
        classes: int,
        backbone: str = DEFAULT_BACKBONE,
        *,
        alpha: float = 0.7,
        layers: int = 3,
        width: int = 512,
        embedding: bool | None = None,
        output_stride: int | None = 16,
        fixed_stride: int = 0,
        pretrained: bool = True,
    ) -> None:
        if layers < 0:
            raise ValueError(f"layers is {layers}: give 0 or more (published 3)")
        super().__init__(
            classes,
            backbone,
            embedding=layers == 0 and backbone in WHEELS if embedding is None else embedding,
            output_stride=output_stride,
            fixed_stride=fixed_stride,
            pretrained=pretrained,
        )
        peaks: list[nn.Module] = [] if layers else [PeakAttention(alpha)]
        before = self.head.in_channels
        for _ in range(layers):
            peaks += [_he_normal(nn.Conv2d(before, width, 3, padding=1)), PeakAttention(alpha)]
            before = width
        self.peaks = nn.Sequential(*peaks)
        if layers:
            self.head = _he_normal(nn.Conv2d(before, classes, 1))

    def activation(self, image: Tensor, keep: Sequence[int] | None = None) -> Tensor:
        """As :meth:`CamClassifier.activation`."""
        weight, bias = self.head.weight, self.head.bias
        if keep is not None:
            weight, bias = weight[list(keep)], None if bias is None else bias[list(keep)]
        return nn.functional.relu(nn.functional.conv2d(self._features(image), weight, bias))

    def parameter_groups(self, head_rate: float = 10.0, bias_rate: float = 2.0) -> list[dict[str, Any]]:
        """What is trained, for :func:`pixelkin.training.loop.train`; both rates as published.

        Args:
            head_rate: how much faster than the backbone the layers with peak attention and the head learn.
            bias_rate: how much faster than weights biases learn, anywhere.
        """
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                rate = head_rate if name.startswith(("head.", "peaks.")) else 1.0
                rate *= bias_rate if name.endswith("bias") else 1.0
                groups.setdefault(rate, []).append(parameter)
        return [{"params": parameters, "lr_scale": rate} for rate, parameters in groups.items()]

    def seed_from_imagenet(self, classes: Mapping[int, str]) -> dict[int, tuple[int, ...]]:
        """As :meth:`CamClassifier.seed_from_imagenet`; only without layers in between."""
        if len(self.peaks) > 1:
            raise ValueError("ImageNet's head scores the embedding itself: build the classifier with layers=0")
        return super().seed_from_imagenet(classes)

    def _features(self, image: Tensor) -> Tensor:
        return cast("Tensor", self.peaks(super()._features(image)))


@torch.inference_mode()
def peak_views(
    model: CamClassifier,
    image: npt.NDArray[np.uint8],
    *,
    keep: Sequence[int] | None = None,
    size: tuple[int, int] | None = (320, 320),
    flip: bool = True,
    max_pixels: int = 4_000_000,
) -> tuple[ScaledMaps, ...]:
    """Activation of an image and of its mirror image (turned back), apart, as each is divided by its own largest value.

    See :func:`pixelkin.cues.peaks.average_views` for that.

    Args:
        model: put into eval mode; a :class:`PeakClassifier` or its parent.
        image: (H, W, 3) RGB, of any size.
        keep: rows of the classes wanted, in this order; None: all.
        size: (height, width) the image is shown at, whatever its shape, rounded to multiples of the coarsest stride so
            that the mirror image has the same cells. Published: 321, of which 40 cells of 8 pixels see 320. None: the
            image's own size.
        flip: whether to look at the mirror image too, for twice the time.
        max_pixels: where the image's own size is asked for, larger ones are shrunk to about this.

    Returns:
        One :class:`~pixelkin.models.multi_scale.ScaledMaps` a view, over the whole image.
    """
    model.eval()
    height, width = image.shape[:2]
    rows = range(model.head.out_channels) if keep is None else keep
    if not len(rows):
        return (ScaledMaps((torch.zeros(0, 1, 1),), (height, width)),) * (2 if flip else 1)
    scale = min(1.0, math.sqrt(max_pixels / (height * width)))
    wanted = (height * scale, width * scale) if size is None else size
    step = max(model.backbone.strides)
    rounded = [max(1, round(side / step)) * step for side in wanted]
    pixels = torch.from_numpy(np.ascontiguousarray(image)).to(model.head.weight.device).permute(2, 0, 1)[None] / 255
    shown = nn.functional.interpolate(pixels, rounded, mode="bicubic", align_corners=False, antialias=True).clamp_(0, 1)
    views = [model.activation(shown, rows)]
    if flip:  # one after the other: half the memory of a batch of two
        views.append(model.activation(shown.flip(-1), rows).flip(-1))
    return tuple(ScaledMaps((view[0],), (height, width)) for view in views)


def _he_normal(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class _Vgg16(nn.Module):
    """VGG-16's convolutions at stride 8: the fourth pooling has stride 1, the fifth is gone, its stage is dilated."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for stage, (channels, convolutions) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]):
            spread = 2 if stage == 4 else 1
            for _ in range(convolutions):
                layers += [nn.Conv2d(before, channels, 3, padding=spread, dilation=spread), nn.ReLU(inplace=True)]
                before = channels
            if stage < 3:
                layers.append(nn.MaxPool2d(2, 2))
            elif stage == 3:
                layers.append(nn.MaxPool2d(3, 1, padding=1))
        self.features = nn.Sequential(*layers)  # numbered as in timm and torchvision, whose weights therefore fit
        for module in layers:
            if isinstance(module, nn.Conv2d):
                _he_normal(module)
        self.feature_info = FeatureInfo([{"num_chs": before, "reduction": 8, "module": "features"}], out_indices=(0,))
        self.pretrained_cfg: dict[str, Any] = {}

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.features(x)]


@register_model
def vgg16_stride8(pretrained: bool = False, cache_dir: str | None = None, **_: Any) -> nn.Module:
    """The feature extractor :data:`VGG16`, under a name that :func:`timm.create_model` knows."""
    model = _Vgg16()
    config = cast("Any", timm.get_pretrained_cfg(_VGG16_SOURCE))
    model.pretrained_cfg = config.to_dict()
    if pretrained:
        whole = cast("Any", timm.create_model(_VGG16_SOURCE, pretrained=True, cache_dir=cache_dir))
        model.features.load_state_dict(whole.features.state_dict())
    return model
