"""Colour edges of an image, as a stand-in for a learned boundary."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

STRONG = 0.98
"""The share of the image whose edges are weaker than one that counts as a full boundary."""


def colour_edges(image: npt.NDArray[np.uint8], *, stride: int = 4) -> npt.NDArray[np.float32]:
    """How likely each field pixel is crossed by a boundary, judged by colour alone.

    The gradient of the CIELAB colours, smoothed by half a field pixel, its largest value within each field pixel, over
    the value that a strong edge has in this image. A plain image has none.

    Args:
        image: (H, W, 3) RGB.
        stride: image pixels per field pixel.

    Returns:
        (ceil(H / stride), ceil(W / stride)) in 0..1.
    """
    lab = cv2.cvtColor(np.ascontiguousarray(image, np.float32) / 255, cv2.COLOR_RGB2LAB)
    smooth = cv2.GaussianBlur(lab, (0, 0), max(stride / 2, 0.5), borderType=cv2.BORDER_REPLICATE)
    gy, gx = (cv2.Sobel(smooth, cv2.CV_32F, *way, ksize=3, scale=1 / 8) for way in ((0, 1), (1, 0)))
    height, width = image.shape[:2]
    strength = np.sqrt((gy**2 + gx**2).sum(axis=2))
    padded = np.pad(strength, ((0, -height % stride), (0, -width % stride)), mode="edge")
    cells = padded.reshape(padded.shape[0] // stride, stride, padded.shape[1] // stride, stride).max(axis=(1, 3))
    full = max(float(np.quantile(cells, STRONG)), 1.0)
    return np.asarray(np.minimum(cells / full, 1), np.float32)
