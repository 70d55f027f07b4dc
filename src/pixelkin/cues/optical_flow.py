"""Optical flow between two frames, as a given: OpenCV's DIS by default, torchvision's RAFT where its weights are.

DIS is Kroeger, Timofte, Dai, Van Gool (ECCV 2016) with variational refinement; RAFT is Teed and Deng (ECCV 2020).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, get_args
from urllib.error import URLError

import cv2
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import nn

Image = npt.NDArray[np.uint8]
Flow = npt.NDArray[np.float32]

Estimator = Literal["dis", "raft_small", "raft_large"]
FlowOf = Callable[[Image, Image], Flow]
"""From (H, W, 3) uint8 RGB and another frame of that size to (2, H, W) float32 (dy, dx) in pixels, on the first's grid:
what stands at p in the first stands at ``p + flow(p)`` in the second."""

SMALLEST = 16
"""DIS needs so many pixels on each side; frames with fewer are enlarged."""

RAFT_STEP, RAFT_SMALLEST = 8, 128
"""RAFT takes sides that are multiples of this, and at least so long."""


class FlowError(ValueError):
    """Flow that cannot be had; the message is one line with the mend."""


def flow_estimator(name: Estimator = "dis", *, device: str = "cpu") -> FlowOf:
    """The function that estimates flow.

    Args:
        name: ``dis``, or ``raft_small`` or ``raft_large`` with the weights of torchvision, which it downloads once.
        device: of RAFT.

    Raises:
        FlowError: an unknown name, or no weights of RAFT here and no network.
    """
    if name == "dis":
        return dis_flow
    if name not in get_args(Estimator):
        raise FlowError(f"unknown flow {name!r}: give {', '.join(get_args(Estimator))}")
    from torchvision.models import get_model

    try:
        model = get_model(name, weights="DEFAULT")
    except (URLError, OSError, RuntimeError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise FlowError(
            f"no weights of {name} ({said}): connect to the network once, or use dis, which needs none"
        ) from error
    return raft_flow(model.to(device).eval())


def dis_flow(first: Image, second: Image, *, finest: int = 0) -> Flow:
    """Dense inverse search with the settings of OpenCV's MEDIUM preset. See :data:`FlowOf`.

    Args:
        first: (H, W, 3) uint8 RGB.
        second: likewise.
        finest: of the pyramid, the level that is looked at last: 0 down to single pixels, 1 to pairs of them, which is
            the preset's and smoother.

    Raises:
        FlowError: frames of two sizes.
    """
    _same_size(first, second)
    height, width = first.shape[:2]
    size = max(height, SMALLEST), max(width, SMALLEST)
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(finest)
    grey = [_resized(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), size) for image in (first, second)]
    xy = search.calc(grey[0], grey[1], None)  # type: ignore[call-overload]
    return resized_flow(np.stack([xy[..., 1], xy[..., 0]]), (height, width))


def raft_flow(model: nn.Module) -> FlowOf:
    """The flow of one of torchvision's RAFT models, in eval mode, on its own device."""
    import torch

    def estimate(first: Image, second: Image) -> Flow:
        _same_size(first, second)
        height, width = first.shape[:2]
        size = tuple(max(RAFT_SMALLEST, round(side / RAFT_STEP) * RAFT_STEP) for side in (height, width))
        device = next(model.parameters()).device
        pair = [torch.from_numpy(_resized(image, size)).to(device) for image in (first, second)]
        scaled = [image.permute(2, 0, 1)[None].float() / 127.5 - 1 for image in pair]
        with torch.inference_mode():
            xy = model(*scaled)[-1][0].float().cpu().numpy()
        return resized_flow(xy[::-1], (height, width))

    return estimate


def resized_flow(flow: npt.NDArray[Any], size: tuple[int, int]) -> Flow:
    """A (2, h, w) flow on the grid of a (height, width), its vectors in pixels of that grid; averaged where it shrinks.

    Raises:
        FlowError: not such an array.
    """
    if flow.ndim != 3 or flow.shape[0] != 2:
        raise FlowError(f"a flow of shape {flow.shape}: give (2, h, w), (dy, dx)")
    ratio = np.array([size[0] / flow.shape[1], size[1] / flow.shape[2]], np.float32)
    planes = [_resized(np.ascontiguousarray(plane, np.float32), size) for plane in flow]
    return np.asarray(np.stack(planes) * ratio[:, None, None], np.float32)


def _resized(values: npt.NDArray[Any], size: tuple[int, ...]) -> npt.NDArray[Any]:
    if values.shape[:2] == tuple(size):
        return values
    mode = cv2.INTER_AREA if size[0] < values.shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(values, (size[1], size[0]), interpolation=mode))


def _same_size(first: Image, second: Image) -> None:
    if first.shape != second.shape:
        raise FlowError(f"frames of {first.shape[:2]} and {second.shape[:2]}: bring them to one size")
