"""Feature maps of several strides brought to one grid, aligned at the upper left corner."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


def check_taps(channels: Sequence[int], strides: Sequence[float], target_stride: int) -> None:
    """Whether feature maps of these channels and strides can be brought to ``target_stride``.

    Raises:
        ValueError: none, not one stride a map, or a finer stride that does not divide the target.
    """
    if not channels or len(channels) != len(strides):
        raise ValueError(
            f"a head needs one stride for each feature map, got {len(channels)} maps, {len(strides)} strides"
        )
    for stride in strides:
        if stride < target_stride and target_stride % stride:
            raise ValueError(f"a map of stride {stride} does not fit a field of stride {target_stride}: leave it out")


def field_size(
    features: Sequence[Tensor], strides: Sequence[float], target_stride: int, size: tuple[int, int] | None
) -> tuple[int, int]:
    """(h, w) of the field: as asked, else from the first feature map that is at least as fine.

    Raises:
        ValueError: no size is given and every map is coarser than the field.
    """
    if size is not None:
        return size
    for feature, stride in zip(features, strides, strict=True):
        if stride <= target_stride:
            step = int(target_stride // stride)
            return -(-feature.shape[-2] // step), -(-feature.shape[-1] // step)
    raise ValueError(f"every feature map is coarser than stride {target_stride}: give the (h, w) of the field")


def to_grid(x: Tensor, stride: float, target_stride: float, size: tuple[int, int]) -> Tensor:
    """(B, C, h, w) at ``stride`` to ``size`` at ``target_stride``, cut or continued at the lower right.

    Maps of an image whose sides are no multiple of their stride reach beyond it, each by its own rest. Scaling by the
    ratio of the strides keeps every cell over its pixels, where scaling to a size would stretch.
    """
    if stride < target_stride and target_stride % stride == 0:
        x = nn.functional.avg_pool2d(x, int(target_stride // stride), ceil_mode=True, count_include_pad=False)
    elif stride != target_stride:
        scale = stride / target_stride
        if scale < 1:
            x = nn.functional.pad(x, (0, 1, 0, 1), mode="replicate")  # rounding down must not lose the last cell
        x = nn.functional.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)
    x = x[..., : size[0], : size[1]]
    below, right = size[0] - x.shape[-2], size[1] - x.shape[-1]
    return nn.functional.pad(x, (0, right, 0, below), mode="replicate") if below or right else x
