"""CenterFields: semantics, object centres and offsets to them, as in BESTIE (CVPR 2022)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from pixelkin.models.backbone import build_backbone
from pixelkin.models.class_rows import ClassScores, has_embedding
from pixelkin.models.grids import to_grid
from pixelkin.models.zoo import DEFAULT_BACKBONE

STRIDE = 4
"""Image pixels per field pixel."""

Rows = Sequence[int] | Tensor
"""Rows of the centre head: the same for all of a batch, or (B, K) integers, each image its own."""


class CenterOutput(NamedTuple):
    """Fields of a batch; of one image, without the first axis, from :meth:`CenterFields.predict`.

    Attributes:
        semantic: (B, 1 + C, h, w) logits, background first; probabilities from :meth:`CenterFields.predict`.
        center: (B, C or K, h, w), about 1 in the middle of an object of each class, 0 away from any; not clipped.
        offset: (B, 2, h, w), (dy, dx) in image pixels, as published, to the middle of the object. Cell (i, j) stands
            for the place (4i + 1.5, 4j + 1.5), pixel centres being whole numbers.
    """

    semantic: Tensor
    center: Tensor
    offset: Tensor


class CenterFields(nn.Module):
    """Three heads at stride 4: semantics, a centre heatmap for each class, and the offset to the centre.

    The published network keeps 48 channels at stride 4 through a whole HRNet. Here any backbone's maps are joined from
    coarse to fine, each step with the maps of that stride; a backbone of one stride is brought to stride 4 in steps of
    two at most. Maps finer than that are left out. The heads are as published: a 3x3 convolution, ReLU and a 1x1
    convolution, nothing after the last one.

    Args:
        classes: C, without background.
        backbone: name for :func:`pixelkin.models.backbone.build_backbone`.
        widths: channels after each step, from coarse to fine, multiples of 8; the last ones where there are fewer
            steps, the first one again where there are more.
        head_width: channels inside a head; published: 256.
        reach: image pixels that 1 from the last convolution of the offset stands for; published: 1. More makes short
            trainings reach far.
        init_std: standard deviation of the first weights of the heads' last convolutions; published: 0.001, and of the
            3x3 ones too, from which nothing is learned for the first hundred steps.
        output_stride: of the backbone's coarsest map; None: its own.
        class_scores: whether semantics also get coarse :class:`~pixelkin.models.class_rows.ClassScores`, which may
            start from what ImageNet knows of the classes; None: where the backbone has an embedding for them. Not
            published.
        pretrained: whether the backbone starts from its ImageNet weights.

    Raises:
        ValueError: no class, no or other widths, class scores without an embedding, or a backbone without a map of
            stride 4 or more.
        BackboneError: see :func:`~pixelkin.models.backbone.build_backbone`.
    """

    def __init__(
        self,
        classes: int,
        backbone: str = DEFAULT_BACKBONE,
        *,
        widths: tuple[int, ...] = (96, 64, 48),
        head_width: int = 128,
        reach: float = 1.0,
        init_std: float = 0.01,
        output_stride: int | None = None,
        class_scores: bool | None = None,
        pretrained: bool = True,
    ) -> None:
        super().__init__()
        if classes < 1:
            raise ValueError("centres need at least one class: give labels with classes")
        self.classes = classes
        self.reach = reach
        self.backbone = build_backbone(backbone, pretrained=pretrained, output_stride=output_stride)
        self.decoder = Decoder(self.backbone.channels, self.backbone.strides, widths)
        self.semantic = _head(self.decoder.width, head_width, 1 + classes, init_std)
        self.scores: ClassScores | None = None
        if has_embedding(self.backbone) if class_scores is None else class_scores:
            self.scores = ClassScores(self.backbone, classes, pretrained=pretrained)
        self.center = _head(self.decoder.width, head_width, classes, init_std)
        self.offset = _head(self.decoder.width, head_width, 2, init_std)

    def forward(self, image: Tensor, keep: Rows | None = None) -> CenterOutput:
        """(B, 3, H, W) RGB in 0..1 to fields of ceil(H / 4) x ceil(W / 4).

        Args:
            image: the batch.
            keep: only these rows of the centre head, in this order; hundreds of others then cost nothing. A column of
                (B, K) rows that stands for no class may name any row.

        Raises:
            ValueError: rows that the head has not, or (B, K) rows of another batch.
        """
        normal = self.backbone.normalise(image).contiguous(memory_format=torch.channels_last)
        maps = self.backbone(normal)
        x = self.decoder(maps, (image.shape[-2], image.shape[-1]))
        semantic = self.semantic(x)
        if self.scores is not None:
            cells = (semantic.shape[-2], semantic.shape[-1])
            semantic = semantic + to_grid(self.scores(maps[-1]), self.backbone.strides[-1], STRIDE, cells)
        return CenterOutput(semantic, self._center(x, keep), self.offset(x) * self.reach)

    @torch.inference_mode()
    def predict(
        self,
        image: Tensor,
        *,
        scales: Sequence[float] = (1.0,),
        flip: bool = True,
        keep: Sequence[int] | None = None,
        max_pixels: int = 4_000_000,
    ) -> CenterOutput:
        """The fields of one whole (3, H, W) image in eval mode: the mean over its scales and their mirror images.

        Every field is brought to the grid of the image itself, whose cell (i, j) covers the pixels from (4i, 4j). An
        offset seen at another scale is divided by it, on each axis by what the image was really resized by; the dx of a
        mirror image changes its sign. The image's edge is continued to a multiple of the coarsest stride after
        resizing, so that the mirrored grid is the same grid, and no scale depends on what was added.

        Args:
            image: RGB in 0..1, of any size.
            scales: of the image, each at the cost of its area.
            flip: whether to look at the mirror images too, for twice the time.
            keep: rows of the classes wanted, in this order; None: all.
            max_pixels: larger images, at any scale, are shrunk to about this.

        Returns:
            (1 + K, h, w) probabilities of the background and the classes wanted (those of all classes sum to 1),
            (K, h, w) centres and (2, h, w) offsets.

        Raises:
            ValueError: no scale, one that is not above 0, or rows that the head has not.
        """
        if not scales or not all(math.isfinite(scale) and scale > 0 for scale in scales):
            raise ValueError(f"scales are {tuple(scales)}: give at least one, all above 0")
        self.eval()
        height, width = image.shape[-2:]
        most = math.sqrt(max_pixels / (height * width))
        total: list[Tensor] | None = None
        for scale in scales:
            found = self._at_scale(image, min(scale, most), flip, keep)
            total = found if total is None else [a + b for a, b in zip(total, found, strict=True)]
        return CenterOutput(*(each[0] / len(scales) for each in cast("list[Tensor]", total)))

    def parameter_groups(self, head_rate: float = 10.0) -> list[dict[str, Any]]:
        """What is trained, for :func:`pixelkin.training.loop.train`.

        Args:
            head_rate: how much faster than the backbone the decoder and the heads learn; published: 1.
        """
        known: list[nn.Module] = [self.backbone, *([] if self.scores is None else [self.scores.embedding])]
        body = [p for part in known for p in part.parameters() if p.requires_grad]
        old = {id(p) for part in known for p in part.parameters()}
        new = [p for p in self.parameters() if id(p) not in old]
        groups: list[dict[str, Any]] = [{"params": new, "lr_scale": head_rate}]
        return [{"params": body}, *groups] if body else groups

    def train(self, mode: bool = True) -> CenterFields:
        """As ``nn.Module.train``; batch normalisation keeps its running statistics, as batches are small."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def _center(self, x: Tensor, keep: Rows | None) -> Tensor:
        if keep is None:
            return cast("Tensor", self.center(x))
        x = self.center[:-1](x)
        last = cast("nn.Conv2d", self.center[-1])
        if isinstance(keep, Tensor) and keep.ndim == 2:
            if len(keep) != len(x):
                raise ValueError(f"rows for {len(keep)} images, but {len(x)} images: give as many")
            rows = keep
        else:
            rows = self._rows(keep, x.device)[None]
        bias = cast("Tensor", last.bias)[rows]
        found = last.weight[..., 0, 0][rows] @ x.flatten(2) + bias[..., None]
        return found.reshape(*found.shape[:2], *x.shape[-2:])

    def _rows(self, keep: Rows, device: torch.device) -> Tensor:
        rows = [int(row) for row in keep]
        if rows and not 0 <= min(rows) <= max(rows) < self.classes:
            raise ValueError(f"rows {rows} of {self.classes} classes: give 0 to {self.classes - 1}")
        return torch.tensor(rows, dtype=torch.long, device=device)

    def _at_scale(self, image: Tensor, scale: float, flip: bool, keep: Sequence[int] | None) -> list[Tensor]:
        """Semantics, centres and offsets (1, ..., h, w) of an image seen at a scale, on the image's own grid."""
        height, width = image.shape[-2:]
        seen = max(1, round(height * scale)), max(1, round(width * scale))
        shown = image[None]
        if seen != (height, width):
            shown = functional.interpolate(shown, seen, mode="bicubic", align_corners=False, antialias=True)
            shown = shown.clamp(0, 1)
        step = math.lcm(STRIDE, max(self.backbone.strides))
        frame = functional.pad(shown, (0, -seen[1] % step, 0, -seen[0] % step), mode="replicate")
        fields = self._probable(self(frame, keep), keep)
        if flip:  # one after the other: half the memory of a batch of two
            mirrored = [each.flip(-1) for each in self._probable(self(frame.flip(-1), keep), keep)]
            mirrored[2] = mirrored[2] * mirrored[2].new_tensor([1.0, -1.0]).view(2, 1, 1)
            fields = [(a + b) / 2 for a, b in zip(fields, mirrored, strict=True)]
        really = (seen[0] / height, seen[1] / width)
        fields = [_on_image_grid(each, really, (height, width)) for each in fields]
        fields[2] = fields[2] / fields[2].new_tensor(really).view(2, 1, 1)
        return fields

    def _probable(self, found: CenterOutput, keep: Sequence[int] | None) -> list[Tensor]:
        semantic = found.semantic.float().softmax(dim=1)
        if keep is not None:
            semantic = semantic[:, [0, *(row + 1 for row in keep)]]
        return [semantic, found.center.float(), found.offset.float()]


class Decoder(nn.Module):
    """Feature maps of any strides, joined from coarse to fine, to one map at stride 4.

    Each is normalised first: in pretrained backbones the fine ones, which say little, are many times as large.

    Args:
        channels: of each feature map.
        strides: image pixels per cell of each map; those below 4 are left out, several of one stride go together.
        widths: see :class:`CenterFields`.

    Attributes:
        width: channels of what comes out.

    Raises:
        ValueError: no stride of 4 or more, or widths that are none or no multiples of 8.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        if not widths or any(width < 8 or width % 8 for width in widths):
            raise ValueError(f"the widths of a decoder are {tuple(widths)}: give at least one, multiples of 8")
        self.rungs = _rungs(strides)
        steps = len(self.rungs) - 1
        outs = [*[widths[0]] * (steps - len(widths)), *widths[len(widths) - min(steps, len(widths)) :]]
        before = outs[0] if outs else widths[-1]
        wide = [sum(channels[i] for i in maps) for _, maps in self.rungs]
        used = {i for _, maps in self.rungs for i in maps}
        self.norms = nn.ModuleList(
            [nn.GroupNorm(1, each) if i in used else nn.Identity() for i, each in enumerate(channels)]
        )
        self.top = nn.Conv2d(wide[0], before, 1)
        self.steps = nn.ModuleList()
        for skip, width in zip(wide[1:], outs, strict=True):
            self.steps.append(_step(before + skip, width))
            before = width
        self.width = before

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """The (B, C_i, h_i, w_i) maps of images of (height, width) ``size`` to (B, width, h, w)."""
        (stride, chosen), *rest = self.rungs
        maps = [norm(each) for norm, each in zip(self.norms, maps, strict=True)]
        y: Tensor = self.top(torch.cat([maps[i] for i in chosen], dim=1))
        for (target, chosen), step in zip(rest, self.steps, strict=True):
            cells = math.ceil(size[0] / target), math.ceil(size[1] / target)
            y = to_grid(y, stride, target, cells)
            y = step(torch.cat([y, *(maps[i] for i in chosen)], dim=1))
            stride = target
        return y


def _rungs(strides: Sequence[int]) -> list[tuple[float, list[int]]]:
    """The strides on the way down to 4, each at least half of the one before, and which maps have it."""
    known = sorted({stride for stride in strides if stride >= STRIDE}, reverse=True)
    if not known:
        raise ValueError(f"maps of strides {tuple(strides)} are all finer than {STRIDE}: use another backbone")
    rungs: list[tuple[float, list[int]]] = []
    for stride, finer in itertools.pairwise([*known, STRIDE]):
        if stride == finer:
            break
        rungs.append((stride, [i for i, s in enumerate(strides) if s == stride]))
        between = stride / 2
        while between > finer:
            rungs.append((between, []))
            between /= 2
    return [*rungs, (STRIDE, [i for i, s in enumerate(strides) if s == STRIDE])]


def _on_image_grid(field: Tensor, scale: tuple[float, float], size: tuple[int, int]) -> Tensor:
    """A (1, C, h, w) field of a resized image to the grid of the image of (height, width) ``size``."""
    cells = -(-size[0] // STRIDE), -(-size[1] // STRIDE)
    if not field.shape[1]:  # which no layer takes
        return field.new_zeros((*field.shape[:2], *cells))
    if scale != (1.0, 1.0):
        beyond = 1 + math.ceil(max(scale))  # rounding down must not lose the last cell
        field = functional.pad(field, (0, beyond, 0, beyond), mode="replicate")
        # By the factor and not to a size, which would stretch: what was added at the edge is no part of the image.
        back = (1 / scale[0], 1 / scale[1])
        field = functional.interpolate(field, scale_factor=back, mode="bilinear", align_corners=False)
    return field[..., : cells[0], : cells[1]]


def _head(before: int, width: int, out: int, std: float) -> nn.Sequential:
    layers = nn.Sequential(nn.Conv2d(before, width, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(width, out, 1))
    nn.init.normal_(cast("Tensor", layers[2].weight), std=std)
    for layer in (layers[0], layers[2]):
        nn.init.zeros_(cast("Tensor", layer.bias))
    return layers


def _step(before: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for given in (before, width):
        layers += [nn.Conv2d(given, width, 3, padding=1, bias=False), nn.GroupNorm(8, width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
