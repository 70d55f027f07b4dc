"""What movement says: optical flow both ways, how the camera moved, and what is left when that is taken away.

Motion consistency as a cue for objects is the published idea of Object Affinity Learning; how it is measured here is
our own. Flow is (2, H, W), (dy, dx) in pixels. A camera's motion is a 4x4 matrix that takes points in the axes of the
first camera (x right, y down, z forward) to those of the second.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from pixelkin.cues.optical_flow import Estimator, FlowOf, dis_flow, flow_estimator

Map = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Matrix = npt.NDArray[np.float64]

COARSE_DIS: FlowOf = partial(dis_flow, finest=1)
"""Down to pairs of pixels: what :mod:`pixelkin.cues.pair_targets` was tuned on."""

SAMPLES = 4000
"""Pixels that the camera's motion is estimated from."""


class Flow(NamedTuple):
    """Optical flow from one frame to another: ``forward`` (2, H, W) and ``valid`` (H, W), where the way back agrees."""

    forward: Map
    valid: Mask


def motion_estimator(name: Estimator, *, device: str = "cpu") -> FlowOf:
    """As :func:`flow_estimator`, ``dis`` down to pairs of pixels."""
    return COARSE_DIS if name == "dis" else flow_estimator(name, device=device)


def flow_between(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8], flow_of: FlowOf = COARSE_DIS) -> Flow:
    """Flow of two (H, W, 3) RGB frames both ways, and where they agree; see :func:`agreement`.

    Raises:
        FlowError: frames of two sizes.
    """
    forward, backward = flow_of(first, second), flow_of(second, first)
    return Flow(forward, agreement(forward, backward))


def agreement(forward: Map, backward: Map, *, least: float = 1.0, share: float = 0.05, rest: float = 0.5) -> Mask:
    """(H, W) where going forward and back again ends near the start, inside the picture all the way.

    Args:
        forward: (2, H, W).
        backward: (2, H, W), of the second frame.
        least: pixels that are always near enough,
        share: of the flow's length, with
        rest: pixels added, for fast movement.
    """
    back, inside = sample_at(backward, forward)
    error = np.hypot(*(forward + back))
    return np.asarray(inside & (error <= np.maximum(least, share * np.hypot(*forward) + rest)))


def sample_at(field: npt.NDArray[Any], flow: Map) -> tuple[Map, Mask]:
    """A (C, H, W) field of the second frame seen from the first, bilinear; and (H, W) where that is inside."""
    height, width = flow.shape[1:]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    to_y, to_x = y + flow[0], x + flow[1]
    inside = (to_y >= 0) & (to_x >= 0) & (to_y <= height - 1) & (to_x <= width - 1)
    moved = [
        cv2.remap(np.asarray(each, np.float32), to_x, to_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for each in field
    ]
    return np.stack(moved), np.asarray(inside)


def usual_intrinsics(size: tuple[int, int], *, view: float = 60.0) -> Matrix:
    """(3, 3) of a camera nobody calibrated: square pixels, the axis in the middle, ``view`` degrees wide."""
    height, width = size
    focal = width / 2 / np.tan(np.radians(view) / 2)
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])


def back_project(depth: npt.NDArray[Any], intrinsics: Matrix) -> Matrix:
    """(3, H, W) points (x right, y down, z forward) of an (H, W) depth map; pixel centres at whole numbers."""
    y, x = np.mgrid[: depth.shape[0], : depth.shape[1]]
    rays = np.einsum("ij,jhw->ihw", np.linalg.inv(intrinsics), np.stack([x, y, np.ones_like(x)]).astype(np.float64))
    return np.asarray(rays * depth)


def camera_flow(depth: npt.NDArray[Any], intrinsics: Matrix, motion: Matrix) -> tuple[Map, Mask]:
    """The flow of a world at rest, (2, H, W), and (H, W) where it is known: depth is, and stays before the camera.

    Where depth is infinite only the turning counts.

    Args:
        depth: (H, W), 0 or NaN unknown.
        intrinsics: (3, 3).
        motion: (4, 4) from the first camera's axes to the second's, in the unit of ``depth``.
    """
    known = (np.nan_to_num(depth, nan=0.0, posinf=np.inf) > 0) & ~np.isnan(depth)
    far = np.isinf(depth)
    points = back_project(np.where(known & ~far, depth, 1.0), intrinsics)
    moved = np.einsum("ij,jhw->ihw", motion[:3, :3], points) + np.where(far, 0.0, motion[:3, 3][:, None, None])
    seen = np.einsum("ij,jhw->ihw", intrinsics, moved)
    ahead = seen[2] > 1e-6
    y, x = np.mgrid[: depth.shape[0], : depth.shape[1]]
    scale = np.where(ahead, seen[2], 1.0)
    flow = np.stack([seen[1] / scale - y, seen[0] / scale - x])
    valid = known & ahead
    return np.where(valid, flow, 0).astype(np.float32), np.asarray(valid)


def motion_between(first: Matrix, second: Matrix) -> Matrix:
    """The camera's motion from the (4, 4) camera-to-world poses of two frames."""
    return np.asarray(np.linalg.inv(second) @ first)


def motion_from_depth(flow: Flow, depth: npt.NDArray[Any], intrinsics: Matrix, *, seed: int = 0) -> Matrix | None:
    """The motion that most pixels agree on: points of the first frame to pixels of the second (PnP, RANSAC).

    Things that move by themselves must be less than half of what is seen. In the unit of ``depth``.

    Returns:
        (4, 4), or None where too few pixels agree.
    """
    ys, xs = _some(flow.valid & (np.nan_to_num(depth, posinf=0) > 0), seed)
    if len(ys) < 50:
        return None
    points = back_project(np.where(np.isfinite(depth), depth, 0), intrinsics)[:, ys, xs].T
    pixels = np.stack([xs + flow.forward[1, ys, xs], ys + flow.forward[0, ys, xs]], axis=1).astype(np.float64)
    cv2.setRNGSeed(seed)
    error = 1.0 * max(1.0, max(depth.shape) / 1000)
    found, turn, shift, inliers = cv2.solvePnPRansac(
        np.ascontiguousarray(points), pixels, intrinsics, None, iterationsCount=300, reprojectionError=error
    )
    if not found or inliers is None or len(inliers) < 0.3 * len(ys):
        return None
    kept = inliers[:, 0]
    turn, shift = cv2.solvePnPRefineLM(np.ascontiguousarray(points[kept]), pixels[kept], intrinsics, None, turn, shift)
    motion = np.eye(4)
    motion[:3, :3], motion[:3, 3] = cv2.Rodrigues(turn)[0], np.asarray(shift)[:, 0]
    return motion


def motion_from_flow(flow: Flow, intrinsics: Matrix, *, seed: int = 0) -> Matrix | None:
    """The motion by the essential matrix (RANSAC), without depth: its shift has length 1, as its scale cannot be seen.

    Returns:
        (4, 4), or None where too few pixels agree or nothing moves.
    """
    ys, xs = _some(flow.valid, seed)
    if len(ys) < 50 or np.median(np.hypot(*flow.forward[:, ys, xs])) < 0.25:
        return None
    before = np.stack([xs, ys], axis=1).astype(np.float64)
    after = before + flow.forward[::-1, ys, xs].T
    cv2.setRNGSeed(seed)
    essential, _ = cv2.findEssentialMat(before, after, intrinsics, cv2.RANSAC, 0.999, 0.5)
    if essential is None or essential.shape != (3, 3):
        return None
    count, turn, shift, _ = cv2.recoverPose(essential, before, after, intrinsics)
    if count < 0.3 * len(ys):
        return None
    motion = np.eye(4)
    motion[:3, :3], motion[:3, 3] = turn, shift[:, 0]
    return motion


def background_flow(flow: Flow, *, seed: int = 0) -> Map:
    """The flow of most pixels as a homography (RANSAC), (2, H, W): what the camera does where depth is not known.

    Without enough valid pixels it is 0.
    """
    height, width = flow.valid.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    ys, xs = _some(flow.valid, seed)
    if len(ys) < 50:
        return np.zeros((2, height, width), np.float32)
    before = np.stack([xs, ys], axis=1).astype(np.float64)
    after = before + flow.forward[::-1, ys, xs].T
    cv2.setRNGSeed(seed)
    matrix, _ = cv2.findHomography(before, after, cv2.RANSAC, max(1.0, width / 640))
    if matrix is None:
        return np.zeros((2, height, width), np.float32)
    moved = np.einsum("ij,jhw->ihw", matrix, np.stack([x, y, np.ones_like(x)]))
    scale = np.where(np.abs(moved[2]) > 1e-6, moved[2], 1.0)
    return np.stack([moved[1] / scale - y, moved[0] / scale - x]).astype(np.float32)


def residual_motion(flow: Flow, depth: npt.NDArray[Any], intrinsics: Matrix, motion: Matrix) -> tuple[Map, Mask]:
    """What moves by itself: the flow that the camera's motion does not explain, at the depth where it happens.

    Depth is needed once only, so its noise is not doubled as in the difference of two clouds of points.

    Returns:
        (2, H, W), (dy, dx) in the unit of ``depth`` across the line of sight; (H, W) where it is known.
    """
    still, known = camera_flow(depth, intrinsics, motion)
    scale = np.where(known & np.isfinite(depth), depth, 0) / intrinsics[0, 0]
    return np.asarray((flow.forward - still) * scale, np.float32), np.asarray(known & flow.valid & np.isfinite(depth))


def _some(mask: Mask, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows and columns of at most SAMPLES true pixels."""
    ys, xs = np.nonzero(mask)
    if len(ys) > SAMPLES:
        chosen = np.random.default_rng(seed).choice(len(ys), SAMPLES, replace=False)
        ys, xs = ys[chosen], xs[chosen]
    return ys, xs
