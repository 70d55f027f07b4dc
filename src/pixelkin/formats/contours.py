"""Masks as one closed polygon of pixel centres, with holes and pieces joined by cuts."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def mask_to_polygon(mask: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """One closed polygon (N, 2) of pixel (x, y) that, filled by the even-odd rule with its edge, gives the mask.

    Outlines of holes and of further pieces are joined to the rest where they are nearest, there and back on the same
    line. A cut to a hole runs inside the mask and changes nothing; one between pieces adds a line of pixels.

    Returns:
        At least three points; none for an empty mask.
    """
    import cv2

    found, _ = cv2.findContours(np.ascontiguousarray(mask, dtype=np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    rings = [ring.reshape(-1, 2).astype(np.int32) for ring in sorted(found, key=len, reverse=True)]
    if not rings:
        return np.zeros((0, 2), dtype=np.int32)
    path = _join(rings)
    path = _straighten(path)
    return np.concatenate([path, np.repeat(path[-1:], max(0, 3 - len(path)), axis=0)])


def fill_polygon(polygon: npt.NDArray[np.int32], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The (H, W) mask of a polygon of pixel (x, y): even-odd rule, edge included."""
    import cv2

    canvas = np.zeros(size, dtype=np.uint8)
    if len(polygon):
        cv2.fillPoly(canvas, [polygon.astype(np.int32)], 1)
    return canvas.astype(bool)


def _join(rings: list[npt.NDArray[np.int32]]) -> npt.NDArray[np.int32]:
    """All rings as one closed path; always the ring that is nearest to those joined so far comes next."""
    from scipy.spatial import cKDTree

    path = rings[0]
    waiting = rings[1:]
    if not waiting:
        return path
    points = np.concatenate(waiting)
    ring_of = np.repeat(np.arange(len(waiting)), [len(ring) for ring in waiting])
    place = np.concatenate([np.arange(len(ring)) for ring in waiting])
    distance = np.full(len(points), np.inf)
    nearest = np.zeros((len(points), 2), dtype=np.int32)
    newest = path
    while len(points):
        reach, index = cKDTree(newest).query(points)
        closer = reach < distance
        distance = np.where(closer, reach, distance)
        nearest[closer] = newest[index[closer]]
        chosen = int(distance.argmin())
        ring = waiting[ring_of[chosen]]
        start = int(place[chosen])
        at = int(np.flatnonzero((path == nearest[chosen]).all(axis=1))[0])
        turned = np.concatenate([ring[start:], ring[: start + 1]])  # closed: it ends where it began
        path = np.concatenate([path[: at + 1], turned, path[at:]])
        newest = ring
        left = ring_of != ring_of[chosen]
        points, ring_of, place, distance, nearest = (
            array[left] for array in (points, ring_of, place, distance, nearest)
        )
    return path


def _straighten(path: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Without the points in the middle of straight runs of single steps."""
    before = path - np.roll(path, 1, axis=0)
    after = np.roll(path, -1, axis=0) - path
    middle = (before == after).all(axis=1) & (np.abs(after).max(axis=1) <= 1)
    return path[~middle] if not middle.all() else path[:1]


def count_pieces_and_holes(mask: npt.NDArray[Any]) -> tuple[int, int]:
    """8-connected pieces, and 4-connected holes, of an (H, W) mask."""
    import cv2

    found, hierarchy = cv2.findContours(
        np.ascontiguousarray(mask, dtype=np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    if not found:
        return 0, 0
    outer = int((hierarchy[0, :, 3] < 0).sum())
    return outer, len(found) - outer
