"""KITTI-style drives: pictures of one camera, and what there is of a second one, disparity, depth, calibration, poses.

The layouts of the odometry set (``sequences/00/image_2``), of the raw drives (``DATE/DRIVE/image_02/data``) and of the
stereo and scene flow sets (``training/image_2/000000_10.png``) are known; what is missing is done without.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pixelkin.data import Camera, Dataset, Sample
from pixelkin.formats.classes import as_classes
from pixelkin.formats.files import IMAGE_SUFFIXES, SourceError, list_files, read_lines, require_folder
from pixelkin.formats.maps import load_ids

LEFT, RIGHT = ("image_2", "image_02"), ("image_3", "image_03")
DEPTH = ("depth", "proj_depth/groundtruth/image_02", "groundtruth/image_02")
DISPARITY = ("disp_occ_0", "disp_noc_0", "disp_occ", "disp_noc", "disparity")
POSES = ("poses.txt", "pose.txt")

PARTS = 256.0
"""16-bit PNG of KITTI hold metres, or pixels of disparity, times this; 0 is unknown."""

Matrix = npt.NDArray[np.float64]


class _Calibration(NamedTuple):
    """Of the left colour camera: intrinsics, its shift from camera 0 in metres, and what is known of the right one."""

    intrinsics: Matrix
    offset: Matrix
    baseline: float
    shift: float


def is_kitti(folder: Path) -> bool:
    """Whether a folder is a drive or holds some."""
    return next(_drives(folder), None) is not None


def read_kitti(folder: Path | str, *, classes: Mapping[int, str] | Path | str | None = None) -> Dataset:
    """Read drives. Every drive is a clip (of the scene flow set every scene); samples are named by their path.

    Depth is read from ``depth`` or ``proj_depth/groundtruth/image_02`` (16-bit PNG of metres times 256), else made from
    ``disp_occ_0``, ``disp_noc_0`` or ``disparity`` (16-bit PNG of pixels times 256) with the calibration. Where there
    is neither, a right picture lets a method match the pair. Calibration is ``calib.txt``, ``calib_cam_to_cam.txt``
    (also above the drive) or a folder of such; poses are ``poses.txt`` in the drive or ``poses/DRIVE.txt`` above it,
    twelve numbers a line, camera 0 to world.

    Args:
        folder: a drive, or a folder that holds some, as the odometry set's ``dataset`` or a date of the raw set.
        classes: class list to give the dataset.

    Raises:
        SourceError: no drive in it, or a calibration or pose file that cannot be read.
    """
    folder = require_folder(Path(folder), "KITTI folder")
    samples = [sample for drive in _drives(folder) for sample in _read_drive(drive, folder)]
    if not samples:
        raise SourceError(f"{folder}: no drive in it: give a folder with image_2 or image_02")
    return Dataset(samples, as_classes(classes), name=folder.name)


def _drives(folder: Path) -> Iterator[Path]:
    for pattern in ("", "*", "*/*"):
        found = sorted({path.parent for name in LEFT for path in folder.glob(f"{pattern}/{name}" if pattern else name)})
        if found:
            yield from found
            return


def _read_drive(drive: Path, root: Path) -> Iterator[Sample]:
    left = _folder(drive, LEFT)
    if left is None:
        return
    paths = list_files(left, IMAGE_SUFFIXES)
    right, depth, disparity = (_folder(drive, names) for names in (RIGHT, DEPTH, DISPARITY))
    calibration = _calibrations(drive)
    poses = _poses(drive)
    scenes = bool(paths) and all(re.fullmatch(r"\d+_\d+", path.stem) for path in paths)
    if poses is not None and len(poses) < len(paths) and not scenes:
        raise SourceError(f"{drive}: {len(poses)} poses for {len(paths)} pictures: give one a line")
    place = drive.name if drive == root else drive.relative_to(root).as_posix()
    for number, path in enumerate(paths):
        scene, _, moment = path.stem.partition("_")
        known = calibration(scene if scenes else "")
        name = (left.relative_to(root) / path).with_suffix("").as_posix()
        other = None if right is None else _same(right, path.stem)
        yield Sample(
            name,
            left / path,
            clip=f"{place}/{scene}" if scenes else place,
            frame=int(moment) if scenes else number,
            depth=_depth(path.stem, depth, disparity, known),
            camera=None if known is None else _camera(known, None if scenes or poses is None else poses[number], other),
        )


def _folder(drive: Path, names: tuple[str, ...]) -> Path | None:
    for name in names:
        if (drive / name).is_dir():
            return drive / name / "data" if (drive / name / "data").is_dir() else drive / name
    return None


def _same(folder: Path, stem: str) -> Path | None:
    return next((folder / (stem + end) for end in (".png", ".jpg") if (folder / (stem + end)).is_file()), None)


def _camera(known: _Calibration, pose: Matrix | None, right: Path | None) -> Camera:
    seen = None
    if pose is not None:  # of camera 0; the colour camera stands a little beside it
        beside = np.eye(4)
        beside[:3, 3] = -known.offset
        seen = pose @ beside
    pair = right if known.baseline > 0 else None
    return Camera(known.intrinsics, seen, pair, known.baseline, known.shift)


def _depth(
    stem: str, depth: Path | None, disparity: Path | None, known: _Calibration | None
) -> Callable[[], npt.NDArray[np.float32]] | None:
    measured = None if depth is None else _same(depth, stem)
    if measured is not None:
        return partial(_load_depth, measured)
    matched = None if disparity is None else _same(disparity, stem)
    if matched is not None and known is not None and known.baseline > 0:
        return partial(_load_disparity, matched, float(known.intrinsics[0, 0]) * known.baseline, known.shift)
    return None


def _load_depth(path: Path) -> npt.NDArray[np.float32]:
    return np.asarray(load_ids(path) / PARTS, np.float32)


def _load_disparity(path: Path, product: float, shift: float) -> npt.NDArray[np.float32]:
    pixels = load_ids(path) / PARTS
    apart = np.where(pixels > 0, pixels + shift, 0)
    return np.where(apart > 0, product / np.where(apart > 0, apart, 1), 0).astype(np.float32)


def _calibrations(drive: Path) -> Callable[[str], _Calibration | None]:
    """From the number of a scene (empty: of the drive) to its calibration, None where there is none."""
    for path in (drive / "calib.txt", drive / "calib_cam_to_cam.txt", drive.parent / "calib_cam_to_cam.txt"):
        if path.is_file():
            one = _read_calibration(path)
            return lambda scene: one
    folder = drive / "calib_cam_to_cam"
    if folder.is_dir():
        return lambda scene: _read_calibration(folder / f"{scene}.txt") if (folder / f"{scene}.txt").is_file() else None
    return lambda scene: None


def _read_calibration(path: Path) -> _Calibration:
    matrices: dict[str, Matrix] = {}
    for line in read_lines(path):
        name, _, rest = line.partition(":")
        try:
            values = [float(value) for value in rest.split()]
        except ValueError:
            continue  # times and the like
        if len(values) == 12:
            matrices[name.strip().removeprefix("P_rect_0").removeprefix("P")] = np.array(values).reshape(3, 4)
    left, right = matrices.get("2"), matrices.get("3")
    if left is None or left[0, 0] <= 0:
        raise SourceError(f"{path}: no projection P2 or P_rect_02 of the left colour camera: give KITTI's own file")
    intrinsics = left[:, :3].copy()
    offset = np.linalg.solve(intrinsics, left[:, 3])
    baseline = shift = 0.0
    if right is not None:
        baseline = float(offset[0] - np.linalg.solve(right[:, :3], right[:, 3])[0])
        shift = float(right[0, 2] - left[0, 2])
    return _Calibration(intrinsics, offset, baseline, shift)


def _poses(drive: Path) -> list[Matrix] | None:
    """(4, 4) camera 0 to world, a frame each."""
    above = [drive.parent.parent / "poses" / f"{drive.name}.txt", drive.parent / "poses" / f"{drive.name}.txt"]
    path = next((path for path in [*(drive / name for name in POSES), *above] if path.is_file()), None)
    if path is None:
        return None
    found = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        try:
            values = np.array([float(value) for value in line.split()])
        except ValueError:
            values = np.zeros(0)
        if len(values) != 12 or not np.isfinite(values).all():
            raise SourceError(f"{path}, line {number}: a pose is twelve numbers, camera to world: correct it")
        found.append(np.vstack([values.reshape(3, 4), [0, 0, 0, 1]]))
    return found
