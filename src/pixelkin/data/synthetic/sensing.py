"""Depth as a sensor or a network would give it: exact depth made worse."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt


def noisy_depth(
    depth: npt.NDArray[np.float32],
    rng: np.random.Generator,
    *,
    noise: float = 0.05,
    width: float = 10.0,
    ragged: float = 0.7,
    holes: float = 0.02,
    far: float = 80.0,
) -> npt.NDArray[np.float32]:
    """Depth with smooth relative errors, grain, ragged edges and holes.

    Args:
        depth: (H, W) exact depth.
        rng: decides everything.
        noise: standard deviation of the smooth relative error; the grain has a third of it.
        width: pixels over which the smooth error changes.
        ragged: standard deviation of how far edges are displaced, in pixels.
        holes: share of the picture where nothing is known (0), in blots.
        far: what is deeper is infinite, as a sensor sees nothing there and a network sees sky.
    """
    height, wide = depth.shape
    y, x = np.mgrid[:height, :wide].astype(np.float32)
    moved = [_smooth(rng, depth.shape, 2.0) * ragged for _ in range(2)]
    out = cv2.remap(depth, x + moved[0], y + moved[1], cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    error = noise * _smooth(rng, depth.shape, width) + noise / 3 * rng.standard_normal(depth.shape)
    out = out * np.exp(error)
    out[depth > far] = np.inf
    if holes > 0:
        blots = _smooth(rng, depth.shape, 4.0)
        out[blots > np.quantile(blots, 1 - holes)] = 0
    return np.asarray(out, np.float32)


def _smooth(rng: np.random.Generator, size: tuple[int, ...], width: float) -> npt.NDArray[np.float32]:
    """Noise of standard deviation 1 that changes over ``width`` pixels."""
    pad = int(3 * width)
    grid = rng.standard_normal((size[0] + 2 * pad, size[1] + 2 * pad)).astype(np.float32)
    smooth = cv2.GaussianBlur(grid, (0, 0), width)
    return np.asarray((smooth / max(float(smooth.std()), 1e-9))[pad : pad + size[0], pad : pad + size[1]], np.float32)
