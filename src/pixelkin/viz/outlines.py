"""Outlines: masks as compact vector paths."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pixelkin.data import Instances

TOLERANCE = 1.2
"""How far, in units of the result, a simplified outline may leave the true one."""


def outline_paths(instances: Instances, scale: float) -> list[str]:
    """Every mask's outline as SVG path data, to be filled by the even-odd rule; holes and separate pieces included.

    Args:
        instances: the masks.
        scale: units of the result a pixel; coordinates are whole units from the image's upper left corner.

    Returns:
        N strings; an empty mask gives an empty one, any other at least a visible speck.
    """
    paths = []
    for i, (x0, y0, x1, y1) in enumerate(instances.boxes):
        crop = instances.mask(i)[y0:y1, x0:x1]
        origin = np.array((x0, y0))
        rings = [np.round((ring + origin) * scale).astype(np.int64) for ring in _rings(crop, TOLERANCE / scale)]
        text = "".join(_path(ring) for ring in rings)
        if not text and crop.size:
            text = f"M{round(x0 * scale)} {round(y0 * scale)}h1v1h-1z"
        paths.append(text)
    return paths


def _rings(mask: npt.NDArray[np.bool_], tolerance: float) -> list[npt.NDArray[np.float64]]:
    """Closed outlines of a mask along the pixels' edges: (K, 2) corner coordinates (x, y), holes among them."""
    if mask.size == 0:
        return []
    import cv2

    # Tracing runs through pixel centres and would lose half a pixel all round. On the lattice of the pixels' corners
    # (a corner is set when it touches the mask) the same tracing runs along the edges.
    corners = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), dtype=np.uint8)
    for y in (0, 1):
        for x in (0, 1):
            corners[y : y + mask.shape[0], x : x + mask.shape[1]] |= mask
    contours: Any = cv2.findContours(corners, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)[0]
    rings = [_squared(contour.reshape(-1, 2), corners) for contour in contours]
    return [cv2.approxPolyDP(ring, tolerance, True).reshape(-1, 2).astype(np.float64) for ring in rings]


def _squared(ring: npt.NDArray[np.int32], corners: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """Put back the inner corners that the tracing cut off by diagonal steps: of the two candidates, the one set."""
    following = np.roll(ring, -1, axis=0)
    turn = np.column_stack([ring[:, 0], following[:, 1]])
    other = np.column_stack([following[:, 0], ring[:, 1]])
    turn = np.where(corners[turn[:, 1], turn[:, 0], None] != 0, turn, other)
    diagonal = np.flatnonzero((ring != following).all(axis=1))
    return np.ascontiguousarray(np.insert(ring, diagonal + 1, turn[diagonal], axis=0))


def _path(ring: npt.NDArray[np.int64]) -> str:
    """One closed ring as relative path data, or nothing where rounding left no area."""
    ring = ring[np.any(ring != np.roll(ring, 1, axis=0), axis=1)]
    if len(ring) < 3:
        return ""
    start, *steps = [ring[0], *np.diff(ring, axis=0)]
    return f"M{start[0]} {start[1]}l" + " ".join(f"{x} {y}" for x, y in steps).replace(" -", "-") + "z"
