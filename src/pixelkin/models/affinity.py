"""AffinityFields: which pairs of pixels are one object, as logits for a set of offsets, from a single image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from pixelkin.data.lattice import Offset, pair_slices
from pixelkin.models.backbone import build_backbone
from pixelkin.models.center_fields import STRIDE, Decoder
from pixelkin.models.zoo import DEFAULT_BACKBONE

TILE, OVERLAP = 1024, 128
"""Side of the tiles in which a large image passes the network, and how much they overlap, in pixels."""


class AffinityOutput(NamedTuple):
    """Fields of a batch at stride 4; of one image, without the first axis, from :meth:`AffinityFields.predict`.

    Attributes:
        affinity: (B, C, h, w) logits: channel c at p says whether p and p + offsets[c] are one object; probabilities
            from :meth:`AffinityFields.predict`.
        foreground: (B, h, w) logits of being an object; probabilities likewise.
        embedding: (B, E, h, w), near within an object, far between two; None where the network has none.
    """

    affinity: Tensor
    foreground: Tensor
    embedding: Tensor | None = None


class AffinityFields(nn.Module):
    """Heads for affinity, foreground and, if wanted, an embedding on any backbone; our own design.

    The abstract of Object Affinity Learning speaks of a learned feature that says whether two pixels are one object:
    that is the embedding. Logits for fixed offsets are what the mutex watershed reads, and the stronger of the two.

    Args:
        offsets: (dy, dx) in field pixels, one channel each.
        backbone: name for :func:`pixelkin.models.backbone.build_backbone`.
        widths: see :class:`pixelkin.models.center_fields.Decoder`.
        head_width: channels inside a head.
        embedding: channels of the embedding, 0 for none.
        pretrained: whether the backbone starts from its ImageNet weights.

    Raises:
        ValueError: no offset, or a backbone without a map of stride 4 or more.
        BackboneError: see :func:`~pixelkin.models.backbone.build_backbone`.
    """

    def __init__(
        self,
        offsets: Sequence[Offset],
        backbone: str = DEFAULT_BACKBONE,
        *,
        widths: tuple[int, ...] = (96, 64, 64),
        head_width: int = 64,
        embedding: int = 0,
        pretrained: bool = True,
    ) -> None:
        super().__init__()
        if not offsets:
            raise ValueError("affinities need at least one offset: give (dy, dx) pairs")
        self.offsets = tuple((int(dy), int(dx)) for dy, dx in offsets)
        self.backbone = build_backbone(backbone, pretrained=pretrained)
        self.decoder = Decoder(self.backbone.channels, self.backbone.strides, widths)
        self.affinity = _head(self.decoder.width, head_width, len(self.offsets))
        self.foreground = _head(self.decoder.width, head_width, 1)
        self.embedding = _head(self.decoder.width, head_width, embedding) if embedding else None

    def forward(self, image: Tensor) -> AffinityOutput:
        """(B, 3, H, W) RGB in 0..1 to fields of ceil(H / 4) x ceil(W / 4)."""
        normal = self.backbone.normalise(image).contiguous(memory_format=torch.channels_last)
        x = self.decoder(self.backbone(normal), (image.shape[-2], image.shape[-1]))
        embedding = None if self.embedding is None else self.embedding(x)
        return AffinityOutput(self.affinity(x), self.foreground(x)[:, 0], embedding)

    @torch.inference_mode()
    def predict(self, image: Tensor, *, flip: bool = True) -> AffinityOutput:
        """The probabilities of one whole (3, H, W) image in 0..1, in eval mode.

        Args:
            image: of any size; its edge is continued to a multiple of the coarsest stride.
            flip: average over the mirror image, where its channels stand for the mirrored offsets.
        """
        self.eval()
        height, width = image.shape[-2:]
        step = math.lcm(STRIDE, max(self.backbone.strides))
        frame = functional.pad(image[None], (0, -width % step, 0, -height % step), mode="replicate")
        said = self(frame)
        affinity, foreground = said.affinity.float().sigmoid(), said.foreground.float().sigmoid()
        if flip:
            other = self(frame.flip(-1))
            turned, known = mirrored(other.affinity.float().sigmoid(), self.offsets)
            known = known.to(affinity.device)
            affinity = torch.where(known, (affinity + torch.where(known, turned, 0.0)) / 2, affinity)
            foreground = (foreground + other.foreground.float().sigmoid().flip(-1)) / 2
        cells = (slice(None, -(-height // STRIDE)), slice(None, -(-width // STRIDE)))
        embedding = None if said.embedding is None else said.embedding[0, :, cells[0], cells[1]].float()
        return AffinityOutput(affinity[0, :, cells[0], cells[1]], foreground[0, cells[0], cells[1]], embedding)

    def parameter_groups(self, head_rate: float = 10.0) -> list[dict[str, Any]]:
        """What is trained, for :func:`pixelkin.training.loop.train`: the heads ``head_rate`` times as fast."""
        body = [p for p in self.backbone.parameters() if p.requires_grad]
        old = {id(p) for p in self.backbone.parameters()}
        heads = [{"params": [p for p in self.parameters() if id(p) not in old], "lr_scale": head_rate}]
        return [{"params": body}, *heads] if body else heads

    def train(self, mode: bool = True) -> AffinityFields:
        """As ``nn.Module.train``; batch normalisation keeps its running statistics, as batches are small."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self


def predict_tiled(
    model: AffinityFields, image: npt.NDArray[np.uint8], *, flips: bool
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """(C, h, w) affinities and (h, w) foreground of an (H, W, 3) image, tile by tile where it is large."""
    height, width = image.shape[:2]
    h, w = -(-height // 4), -(-width // 4)
    affinity, foreground = np.ones((len(model.offsets), h, w), np.float32), np.zeros((h, w), np.float32)
    device = next(model.parameters()).device
    whole = max(height, width) <= TILE + 2 * OVERLAP
    step = max(height, width) if whole else TILE
    for y in range(0, height, step):
        for x in range(0, width, step):
            top, left = max(y - OVERLAP, 0), max(x - OVERLAP, 0)
            part = image[top : y + step + OVERLAP, left : x + step + OVERLAP]
            tensor = torch.from_numpy(np.ascontiguousarray(part)).permute(2, 0, 1).to(device).float() / 255
            said = model.predict(tensor, flip=flips)
            rows, columns = slice(y // 4, min((y + step) // 4, h)), slice(x // 4, min((x + step) // 4, w))
            if whole:
                rows, columns = slice(0, h), slice(0, w)
            here = (
                slice(rows.start - top // 4, rows.stop - top // 4),
                slice(columns.start - left // 4, columns.stop - left // 4),
            )
            affinity[:, rows, columns] = said.affinity[:, here[0], here[1]].cpu().numpy()
            foreground[rows, columns] = said.foreground[here].cpu().numpy()
    return affinity, foreground


def mirrored(values: Tensor, offsets: Sequence[Offset], *, axis: int = -1) -> tuple[Tensor, Tensor]:
    """Affinities of a mirror image as those of the image itself.

    The pair of p and p + (dy, dx) is, in the mirror, one of (dy, -dx). Where that is an offset too, or its way back is,
    it is read from there: from the other end of the pair if only the way back is. A pair that leaves the picture has no
    other end, and an offset without a mirror no channel; both are not known.

    Args:
        values: (..., C, h, w) of the mirror image.
        offsets: of the channels.
        axis: -1 mirrored left to right, -2 top to bottom.

    Returns:
        The same shape, 0 where not known; and (C, h, w) bool, where it is known.
    """
    size = (int(values.shape[-2]), int(values.shape[-1]))
    turned = values.flip(axis)
    index = {(int(dy), int(dx)): c for c, (dy, dx) in enumerate(offsets)}
    out, known = torch.zeros_like(values), torch.zeros(len(index), *size, dtype=torch.bool)
    for c, (dy, dx) in enumerate(offsets):
        seen = (dy, -dx) if axis == -1 else (-dy, dx)
        slices = pair_slices((dy, dx), size)
        if slices is None:
            continue
        here, there = slices
        if seen in index:
            source, place = index[seen], here
        elif (-seen[0], -seen[1]) in index:
            source, place = index[(-seen[0], -seen[1])], there
        else:
            continue
        out[..., c, here[0], here[1]] = turned[..., source, place[0], place[1]]
        known[c, here[0], here[1]] = True
    return out, known


def embedding_affinity(embedding: Tensor, offsets: Sequence[Offset], *, margin: float = 1.0) -> Tensor:
    """(B, E, h, w) to (B, C, h, w) logits: ``margin`` minus the L1 distance of both ends, 0 where one is outside."""
    size = (int(embedding.shape[-2]), int(embedding.shape[-1]))
    out = embedding.new_zeros(embedding.shape[0], len(offsets), *size)
    for c, offset in enumerate(offsets):
        slices = pair_slices(offset, size)
        if slices is not None:
            (a, b), (p, q) = slices
            distance = (embedding[:, :, a, b] - embedding[:, :, p, q]).abs().sum(1)
            out[:, c, a, b] = margin - distance
    return out


def _head(before: int, width: int, out: int) -> nn.Sequential:
    layers = nn.Sequential(nn.Conv2d(before, width, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(width, out, 1))
    nn.init.normal_(cast("Tensor", layers[2].weight), std=0.01)
    for layer in (layers[0], layers[2]):
        nn.init.zeros_(cast("Tensor", layer.bias))
    return layers
