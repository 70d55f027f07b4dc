"""What depth says: where the ground and the sky are, and whether the way between two pixels is one piece in space.

Spatial continuity as a cue for objects is the published idea of Object Affinity Learning; how it is measured here is
our own. All of it works on inverse depth, which is affine over every plane in the picture: no calibration is needed,
and the noise of stereo is even in it. Depth is along the optical axis in any unit, 0 or not finite where unknown.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from pixelkin.data.lattice import Offset, pair_slices

Map = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

BACKGROUND, FOREGROUND, UNKNOWN = 0, 1, 255


class Ground(NamedTuple):
    """The plane that things stand on: inverse depth ``a * x + b * y + c`` at pixel (x, y), and how much lies on it.

    The height of a point above it, as a share of the camera's height, is 1 - (inverse depth of the plane) / (its own).
    """

    a: float
    b: float
    c: float
    share: float

    def inverse_depth(self, size: tuple[int, int]) -> Map:
        """(H, W), not above 0 beyond the horizon."""
        y, x = np.mgrid[: size[0], : size[1]]
        return np.asarray(self.a * x + self.b * y + self.c, np.float32)

    def height(self, inverse: npt.NDArray[Any]) -> Map:
        """(H, W) height above the plane in heights of the camera; NaN where depth is unknown."""
        plane = self.inverse_depth((inverse.shape[0], inverse.shape[1]))
        return np.asarray(1 - plane / np.where(inverse > 0, inverse, np.nan), np.float32)


def inverse_of(depth: npt.NDArray[Any]) -> Map:
    """(H, W) inverse depth, 0 where depth is infinite (sky), NaN where it is unknown (0, negative or NaN).

    Raises:
        ValueError: not (H, W).
    """
    depth = np.asarray(depth)
    if depth.ndim != 2:
        raise ValueError(f"a depth map must be (H, W), got shape {depth.shape}")
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(depth > 0, 1 / depth, np.nan).astype(np.float32)


def find_ground(
    depth: npt.NDArray[Any],
    *,
    tolerance: float = 0.06,
    least: float = 0.03,
    trials: int = 400,
    seed: int = 0,
) -> Ground | None:
    """The plane below the camera that most pixels lie on, by RANSAC and then least squares on what fits.

    A plane is a candidate if it comes nearer downwards, leans to the side by less than 20 degrees in the picture, and
    has its horizon no more than half a picture above and 0.8 below the top edge; so no wall is one.

    Args:
        depth: (H, W).
        tolerance: how far from it a pixel may lie, in heights of the camera.
        least: share of the known pixels that must lie on it.
        trials: planes tried.
        seed: of the trials.

    Returns:
        The plane, or None where there is none.
    """
    inverse = inverse_of(depth)
    height = inverse.shape[0]
    ys, xs = np.nonzero(inverse > 0)
    if len(ys) < 50:
        return None
    rng = np.random.default_rng(seed)
    some = rng.choice(len(ys), min(len(ys), 4000), replace=False)
    points = np.stack([xs[some], ys[some], np.ones(len(some))], axis=1).astype(np.float64)
    values = inverse[ys[some], xs[some]].astype(np.float64)
    low = np.flatnonzero(points[:, 1] > 0.5 * height)
    if len(low) < 10:
        return None
    triples = low[rng.integers(len(low), size=(trials, 3))]
    corners = points[triples]
    regular = np.abs(np.linalg.det(corners)) > 1e-6 * height**2
    planes = np.linalg.solve(corners[regular], values[triples[regular]][..., None])[..., 0]
    planes = planes[_level(planes, inverse.shape)]
    if not len(planes):
        return None
    fits = np.abs(planes @ points.T / values - 1) < tolerance
    best = planes[int(fits.sum(axis=1).argmax())]
    for _ in range(3):
        near = np.abs(points @ best / values - 1) < tolerance
        better = np.linalg.lstsq(points[near] / values[near, None], np.ones(int(near.sum())), rcond=None)[0]
        if not _level(better[None], inverse.shape)[0]:
            break
        best = better
    share = float((np.abs(points @ best / values - 1) < tolerance).mean())
    return Ground(float(best[0]), float(best[1]), float(best[2]), share) if share >= least else None


def _level(planes: npt.NDArray[np.float64], size: tuple[int, ...]) -> Mask:
    """(N,) which of (N, 3) planes may be the ground."""
    a, b, c = planes.T
    down = b > 0
    safe = np.where(down, b, 1.0)
    horizon = -(a * (size[1] - 1) / 2 + c) / safe
    lean = np.abs(a) < np.tan(np.radians(20)) * safe
    return np.asarray(down & lean & (horizon > -0.5 * size[0]) & (horizon < 0.8 * size[0]))


def object_mask(
    depth: npt.NDArray[Any],
    ground: Ground | None,
    *,
    far: float = 60.0,
    touching: float = 0.04,
    standing: float = 0.1,
    tallest: float = 4.0,
) -> npt.NDArray[np.uint8]:
    """What may be an object: neither ground nor sky.

    Args:
        depth: (H, W).
        ground: see :func:`find_ground`; None: only the sky is taken away.
        far: everything deeper is background, in the unit of ``depth``.
        touching: heights below this are ground, in heights of the camera.
        standing: heights above this are objects; between the two nobody knows.
        tallest: heights above this are neither (bridges, crowns, facades); nobody knows.

    Returns:
        (H, W) BACKGROUND, FOREGROUND or UNKNOWN, specks of less than 3x3 taken away.
    """
    inverse = inverse_of(depth)
    sky = (inverse < 1 / far) & ~np.isnan(inverse)
    codes = np.where(np.isnan(inverse), UNKNOWN, FOREGROUND).astype(np.uint8)
    if ground is not None:
        height = ground.height(inverse)
        codes[height < standing] = UNKNOWN
        codes[height > tallest] = UNKNOWN
        codes[height < touching] = BACKGROUND
    codes[sky] = BACKGROUND
    firm = cv2.morphologyEx((codes == FOREGROUND).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    codes[(codes == FOREGROUND) & (firm == 0)] = UNKNOWN
    return codes


def on_cells(values: npt.NDArray[Any], stride: int) -> Map:
    """The median of the known values of each ``stride`` x ``stride`` block: (ceil(H / stride), ceil(W / stride)).

    A block of which less than half is known is NaN.
    """
    blocks = np.sort(_blocks(np.asarray(values, np.float32), stride, np.nan), axis=-1)  # NaN goes last
    known = (~np.isnan(blocks)).sum(axis=-1)
    two = np.stack([np.maximum(known - 1, 0) // 2, known // 2], axis=-1).clip(max=stride * stride - 1)
    middle = np.take_along_axis(blocks, two, axis=-1).mean(axis=-1)
    inside = _blocks(np.ones(values.shape, np.float32), stride, 0).sum(axis=-1)
    return np.where(known >= inside / 2, middle, np.nan).astype(np.float32)


def codes_on_cells(codes: npt.NDArray[np.uint8], stride: int) -> npt.NDArray[np.uint8]:
    """(h, w) the code that at least two thirds of each block have, else UNKNOWN."""
    blocks = _blocks(codes.astype(np.float32), stride, np.nan)
    inside = (~np.isnan(blocks)).sum(axis=-1)
    out = np.full(blocks.shape[:2], UNKNOWN, np.uint8)
    for code in (BACKGROUND, FOREGROUND):
        out[(blocks == code).sum(axis=-1) * 3 >= 2 * inside] = code
    return out


def _blocks(values: Map, stride: int, fill: float) -> Map:
    h, w = (-(-side // stride) for side in values.shape)
    padded = np.full((h * stride, w * stride), fill, np.float32)
    padded[: values.shape[0], : values.shape[1]] = values
    parts = padded.reshape(h, stride, w, stride).transpose(0, 2, 1, 3)
    return np.asarray(parts.reshape(h, w, stride * stride), np.float32)


STEPS: tuple[Offset, ...] = ((0, 1), (1, 0), (1, 1), (1, -1))
"""The steps to half of the eight neighbours, (dy, dx)."""


def jumps(inverse: npt.NDArray[Any]) -> dict[Offset, Map]:
    """How much each step to a neighbour breaks off: relative change of depth that the surface does not explain.

    Of the change itself, and of the change against what either side's slope foretells, the least counts: over a plane,
    however steep, it is 0; over an edge it is the gap. NaN where depth is unknown.

    Args:
        inverse: (h, w) inverse depth.

    Returns:
        For each of STEPS an (h, w) map, the step leading from (y, x) to (y, x) + step; NaN where that is outside.
    """
    w = np.asarray(inverse, np.float32)
    found = {}
    for step in STEPS:
        before, after, beyond = (
            _shifted(w, (-step[0], -step[1])),
            _shifted(w, step),
            _shifted(w, (2 * step[0], 2 * step[1])),
        )
        gap = np.abs(after - w)
        gap = np.fmin(gap, np.where(np.isnan(gap), np.nan, np.abs(after - (2 * w - before))))
        gap = np.fmin(gap, np.where(np.isnan(gap), np.nan, np.abs(w - (2 * after - beyond))))
        with np.errstate(divide="ignore", invalid="ignore"):
            found[step] = np.asarray(gap / ((w + after) / 2), np.float32)
    return found


def _shifted(values: Map, offset: Offset) -> Map:
    """The value at each pixel + offset, NaN outside."""
    out = np.full(values.shape, np.nan, np.float32)
    slices = pair_slices(offset, (values.shape[0], values.shape[1]))
    if slices is not None:
        out[slices[0]] = values[slices[1]]
    return out


class Path(NamedTuple):
    """The largest step on the way from each pixel to pixel + offset, (h, w); and whether all steps are known.

    ``largest`` is 0 where no step is known; both say nothing (0, False) where the way leads out of the picture.
    """

    largest: Map
    known: Mask


def path_maximum(steps: dict[Offset, Map], offset: Offset) -> Path:
    """Follow the straight way of an offset over a map of steps, by maxima of shifted slices.

    Args:
        steps: see :func:`jumps`.
        offset: (dy, dx) in field pixels.

    Raises:
        ValueError: the offset (0, 0).
    """
    way = line(offset)
    if len(way) < 2:
        raise ValueError("an offset of (0, 0) leads nowhere: leave it out")
    shape = next(iter(steps.values())).shape
    size = (shape[0], shape[1])
    largest, known = np.zeros(size, np.float32), np.zeros(size, bool)
    slices = pair_slices(offset, size)
    if slices is None:
        return Path(largest, known)
    (rows, columns), _ = slices
    top, total = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.float32), None
    for here, there in itertools.pairwise(way):
        step = (there[0] - here[0], there[1] - here[1])
        start = here if step in steps else there
        step = step if step in steps else (-step[0], -step[1])
        seen = steps[step][
            rows.start + start[0] : rows.stop + start[0], columns.start + start[1] : columns.stop + start[1]
        ]
        sure = ~np.isnan(seen)
        top = np.fmax(top, seen)
        total = sure if total is None else total & sure
    largest[rows, columns], known[rows, columns] = top, total
    return Path(largest, known)


def line(offset: Offset) -> list[Offset]:
    """The pixels of the straight 8-connected way from (0, 0) to ``offset``, both included."""
    dy, dx = offset
    count = max(abs(dy), abs(dx))
    return [(_rounded(i * dy, count), _rounded(i * dx, count)) for i in range(count + 1)] if count else [(0, 0)]


def _rounded(part: int, whole: int) -> int:
    """Part / whole to the nearest, halves towards 0, so that the way back is the same way mirrored."""
    size = (2 * abs(part) + whole - 1) // (2 * whole)
    return size if part >= 0 else -size
