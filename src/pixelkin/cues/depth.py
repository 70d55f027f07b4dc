"""Depth where no sensor gave it: from a stereo pair, or guessed from one picture by a pretrained network."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Map = npt.NDArray[np.float32]

MONOCULAR = "depth-anything/Depth-Anything-V2-Metric-Outdoor-Small-hf"
"""Metric depth of streets; Apache-2.0, 25 million parameters."""


class DepthError(ValueError):
    """Depth cannot be had; the message is one line with the mend."""


def stereo_depth(
    left: npt.NDArray[np.uint8],
    right: npt.NDArray[np.uint8],
    *,
    focal: float,
    baseline: float,
    shift: float = 0.0,
    reach: int | None = None,
) -> Map:
    """Depth of the left picture of a rectified pair, by semi-global matching (OpenCV), both ways.

    Args:
        left: (H, W, 3) RGB.
        right: likewise.
        focal: length in pixels.
        baseline: between the cameras; depth has its unit.
        shift: difference of the cameras' x principal points (right - left) in pixels.
        reach: largest disparity looked for in pixels. Default: a fifth of the width.

    Returns:
        (H, W) float32, 0 where the two ways disagree or nothing was found.

    Raises:
        ValueError: pictures of different sizes.
    """
    if left.shape != right.shape:
        raise ValueError(f"left picture {left.shape}, right {right.shape}: rectify both to one size")
    most = max(16, 16 * round((reach or left.shape[1] / 5) / 16))
    settings: dict[str, Any] = {"numDisparities": most, "blockSize": 5, "P1": 8 * 3 * 25, "P2": 32 * 3 * 25}
    settings |= {"uniquenessRatio": 5, "speckleWindowSize": 100, "speckleRange": 2, "mode": cv2.STEREO_SGBM_MODE_SGBM}
    matcher: Any = cv2.StereoSGBM_create(minDisparity=0, disp12MaxDiff=1, **settings)  # type: ignore[attr-defined]
    sides = [np.pad(side, ((0, 0), (most, 0), (0, 0)), mode="edge") for side in (left, right)]  # it skips the first
    disparity = matcher.compute(*sides)[:, most:].astype(np.float32) / 16
    return depth_of_disparity(disparity, focal=focal, baseline=baseline, shift=shift)


def depth_of_disparity(disparity: npt.NDArray[Any], *, focal: float, baseline: float, shift: float = 0.0) -> Map:
    """(H, W) disparity in pixels, not above 0 where unknown, to depth in the unit of ``baseline``."""
    far = np.asarray(disparity, np.float32) + shift
    valid = (disparity > 0) & (far > 0)
    return np.where(valid, focal * baseline / np.where(valid, far, 1), 0).astype(np.float32)


def monocular_depth(image: npt.NDArray[np.uint8], *, model: str = MONOCULAR, device: str = "cpu") -> Map:
    """Depth of an (H, W, 3) RGB picture by a network of ``transformers`` (the extra ``[depth]``), (H, W) float32.

    Metric models give metres. Others give inverse depth up to scale and shift; it is brought to 0..1 and inverted,
    which keeps planes flat and gaps where they are, but has no unit.

    Args:
        image: the picture.
        model: name on the Hugging Face hub, or a folder. Downloaded on first use.
        device: ``cpu`` or ``cuda``.

    Raises:
        DepthError: ``transformers`` is not installed, or there is no such model.
    """
    import torch

    processor, network, metric = _network(model, device)
    inputs = processor(images=image, return_tensors="pt").to(device)
    with torch.inference_mode():
        found = network(**inputs).predicted_depth
    full = torch.nn.functional.interpolate(found[:, None].float(), image.shape[:2], mode="bicubic", align_corners=False)
    values = np.asarray(full[0, 0].cpu().numpy(), np.float32)
    if metric:
        return np.maximum(values, 0)
    low, high = float(values.min()), float(values.max())
    return np.asarray(1 / (0.02 + 0.98 * (values - low) / max(high - low, 1e-6)), np.float32)


@lru_cache(maxsize=1)
def _network(model: str, device: str) -> tuple[Any, Any, bool]:
    """The processor, the network, and whether it speaks of metres."""
    try:
        from transformers import AutoImageProcessor, AutoModelForDepthEstimation
    except ImportError:
        raise DepthError("depth from one picture needs transformers: pip install 'pixelkin[depth]'") from None
    try:
        processor = AutoImageProcessor.from_pretrained(model)
        network = AutoModelForDepthEstimation.from_pretrained(model, use_safetensors=True).to(device).eval()
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DepthError(
            f"no depth model {model!r} ({reason}): give the name of one, or a folder that holds it"
        ) from None
    return processor, network, getattr(network.config, "depth_estimation_type", "relative") == "metric"
