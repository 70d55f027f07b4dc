"""A small three-dimensional world of textured planes before a moving pinhole camera: colour, depth and flow, all exact.

Axes are x right, y down, z forward; lengths are metres; poses are 4x4 camera-to-world.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pixelkin.data.synthetic.raster import Array, Canvas, Matrix, Patch, coverage
from pixelkin.data.synthetic.shapes import Contour

_NEAR = 0.5  # metres; nothing closer is drawn


class Surface(Protocol):
    """The look of a plane."""

    def seen(self, units_from_pixels: Matrix, patch: Patch) -> Array:
        """Colours (h, w, 3) through a patch; the matrix maps (x, y, 1) pixels to (u, v, 1) / depth."""


@dataclass(frozen=True)
class Plane:
    """A flat outline with a surface.

    Attributes:
        contour: (n, 2) outline in the plane's units (u, v).
        surface: its look.
        frames: (T, 3, 3): the world point of (u, v) in frame t is ``frames[t] @ (u, v, 1)``.
        track: identity of the object it belongs to, 0 for none.
        centre: (T, 3) world point by whose distance the planes are sorted; one object's planes may share it.
        static: whether it stands still in the world.
        outward: (T, 3) the side that can be seen; None for both.
    """

    contour: Contour
    surface: Surface
    frames: Matrix
    track: int
    centre: Matrix
    static: bool
    outward: Matrix | None = None


@dataclass(frozen=True)
class View:
    """One frame: ``image`` (H, W, 3) in 0..1, ``owner`` (H, W) index of the plane seen plus 1, ``depth`` (H, W)."""

    image: Array
    owner: npt.NDArray[np.int32]
    depth: Matrix


class World:
    """Planes, a camera and its path.

    Args:
        size: (height, width) of the picture.
        planes: everything there is; together they should fill the picture.
        intrinsics: (3, 3).
        poses: (T, 4, 4) camera to world.
    """

    def __init__(self, size: tuple[int, int], planes: list[Plane], intrinsics: Matrix, poses: Matrix) -> None:
        self.size, self.planes, self.intrinsics, self.poses = size, planes, intrinsics, poses

    def metric(self, plane: Plane, t: int) -> Matrix:
        """(3, 3) from (u, v, 1) to camera coordinates at frame t."""
        frame = plane.frames[t].copy()
        frame[:, 2] -= self.poses[t, :3, 3]
        return np.asarray(self.poses[t, :3, :3].T @ frame)

    def homography(self, plane: Plane, t: int) -> Matrix:
        """(3, 3) from (u, v, 1) to pixels times depth."""
        return np.asarray(self.intrinsics @ self.metric(plane, t))

    def view(self, t: int) -> View:
        """Draw frame t."""
        canvas = Canvas(np.zeros((*self.size, 3), dtype=np.float32))
        ahead = [float(self.poses[t, :3, 2] @ (plane.centre[t] - self.poses[t, :3, 3])) for plane in self.planes]
        for k in sorted(range(len(self.planes)), key=lambda k: -ahead[k]):  # stable: at equal distance the later on top
            plane = self.planes[k]
            if plane.outward is not None and plane.outward[t] @ (plane.frames[t][:, 2] - self.poses[t, :3, 3]) >= 0:
                continue
            contour = _clip(plane.contour, self.metric(plane, t)[2])
            if len(contour) < 3:
                continue
            homography = self.homography(plane, t)
            pixels = np.c_[contour, np.ones(len(contour))] @ homography.T
            patch = coverage(pixels[:, :2] / pixels[:, 2:], self.size)
            if patch is None or not patch.mask.any():
                continue
            inverse = np.asarray(np.linalg.inv(homography), dtype=np.float64)
            canvas.paint(patch, plane.surface.seen(inverse, patch), k + 1, inverse[2])
        return View(canvas.image, canvas.owner, canvas.depth)

    def flow(self, view: View, following: View, t: int) -> tuple[Array, npt.NDArray[np.bool_]]:
        """Motion of every pixel of frame t to frame t + 1.

        Returns:
            (2, H, W) float32 displacement (dy, dx) in pixels of the surface seen, also where it gets hidden, and (H, W)
            bool, true where the same surface point shows in frame t + 1.
        """
        h, w = self.size
        flow, valid = np.zeros((2, h, w), dtype=np.float32), np.zeros((h, w), dtype=bool)
        for number in np.flatnonzero(np.bincount(view.owner.ravel())):
            if number == 0:
                continue
            plane = self.planes[number - 1]
            step = self.homography(plane, t + 1) @ np.linalg.inv(self.homography(plane, t))
            ys, xs = np.nonzero(view.owner == number)
            moved = step @ np.stack([xs, ys, np.ones_like(xs)])
            ahead = moved[2] > 1e-9
            x, y = moved[:2] / np.where(ahead, moved[2], 1)
            flow[0, ys, xs], flow[1, ys, xs] = np.where(ahead, y - ys, 0), np.where(ahead, x - xs, 0)
            ix, iy = np.rint(x).astype(int), np.rint(y).astype(int)
            inside = ahead & (ix >= 0) & (iy >= 0) & (ix < w) & (iy < h)
            seen = np.zeros_like(inside)
            seen[inside] = following.owner[iy[inside], ix[inside]] == number
            valid[ys, xs] = seen
        return flow, valid


def _clip(contour: Contour, depth: Matrix) -> Contour:
    """The part of an outline farther than the near plane; ``depth`` . (u, v, 1) is the distance ahead."""
    far = contour @ depth[:2] + depth[2] - _NEAR
    if (far > 0).all():
        return contour
    kept: list[npt.NDArray[np.float64]] = []
    for here, there, a, b in zip(contour, np.roll(contour, -1, 0), far, np.roll(far, -1), strict=True):
        if a > 0:
            kept.append(here)
        if (a > 0) != (b > 0):
            kept.append(here + (there - here) * (a / (a - b)))
    return np.array(kept).reshape(-1, 2)
