"""PairFields: displacement and class boundary of an image, from a frozen backbone."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pixelkin.models.backbone import build_backbone
from pixelkin.models.boundary import BoundaryHead
from pixelkin.models.displacement import DisplacementHead


class PairOutput(NamedTuple):
    """Fields of a batch.

    Attributes:
        displacement: (B, 2, h, w), (dy, dx) in field pixels to the middle of the object; centred in eval mode.
        boundary: (B, 1, h, w) logits.
    """

    displacement: Tensor
    boundary: Tensor


class PairFields(nn.Module):
    """The two heads of IRNet side by side on a backbone that is not trained, as in SISeg (arXiv 2308.00949).

    Args:
        backbone: name for :func:`pixelkin.models.backbone.build_backbone`.
        stride: image pixels per field pixel.
        width: channels of the displacement head; 256 as published.
        context: its layers that look around; 0 as published.
        output_stride: of the backbone's coarsest map; None: its own. The published ResNet-50 has 16.
        pretrained: whether the backbone has its ImageNet weights; without them only tests make sense.

    Raises:
        ValueError: a backbone whose maps do not fit the stride.
    """

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        *,
        stride: int = 4,
        width: int = 256,
        context: int = 0,
        output_stride: int | None = None,
        pretrained: bool = True,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.backbone = build_backbone(backbone, pretrained=pretrained, output_stride=output_stride).freeze()
        channels, strides = self.backbone.channels, self.backbone.strides
        self.displacement = DisplacementHead(channels, strides, target_stride=stride, width=width, context=context)
        self.boundary = BoundaryHead(channels, strides, target_stride=stride)

    def forward(self, image: Tensor) -> PairOutput:
        """(B, 3, H, W) RGB in 0..1 to fields of ceil(H / stride) x ceil(W / stride)."""
        size = (-(-image.shape[-2] // self.stride), -(-image.shape[-1] // self.stride))
        normal = self.backbone.normalise(image).contiguous(memory_format=torch.channels_last)
        features = [feature.detach() for feature in self.backbone(normal)]
        return PairOutput(self.displacement(features, size), self.boundary(features, size))

    @torch.inference_mode()
    def predict(self, image: Tensor, *, mirror: bool = True) -> PairOutput:
        """The fields of one whole (3, H, W) image, in eval mode, with the boundary as the probability.

        The boundary logits are the mean of the image's and its mirror image's, the displacement is the image's own. The
        image's edge is continued to a multiple of the coarsest stride, so that the mirrored grid is the same grid (in
        the mean colour, as published, there would be a boundary all along the edge). There is no largest size.

        Args:
            image: RGB in 0..1.
            mirror: whether to look at the mirror image too, for twice the time.

        Returns:
            (2, h, w) displacement and (h, w) boundary probability.
        """
        self.eval()
        height, width = image.shape[-2:]
        rows, columns = -(-height // self.stride), -(-width // self.stride)
        step = max(*self.backbone.strides, self.stride)
        beyond = (0, -width % step, 0, -height % step)
        frame = nn.functional.pad(image[None], beyond, mode="replicate")
        upright = self(frame)
        boundary = upright.boundary
        if mirror:  # one after the other: half the memory of a batch of two
            boundary = (boundary + self(frame.flip(-1)).boundary.flip(-1)) / 2
        boundary = torch.sigmoid(boundary)
        return PairOutput(upright.displacement[0, :, :rows, :columns], boundary[0, 0, :rows, :columns])
