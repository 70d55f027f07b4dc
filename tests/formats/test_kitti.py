from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelkin.data.synthetic import render_clip
from pixelkin.formats import SourceError, open_dataset, read_kitti
from pixelkin.formats.kitti import is_kitti

SIZE = (32, 64)
FOCAL, BASELINE = 50.0, 0.54


def png(path: Path, array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def row(name, matrix) -> str:
    return f"{name}: " + " ".join(f"{v:.9e}" for v in np.asarray(matrix).ravel())


def projection(x: float, focal: float = FOCAL):
    """Of a camera x metres to the right of camera 0."""
    k = np.array([[focal, 0, 31.5], [0, focal, 13.0], [0, 0, 1]])
    return np.hstack([k, k @ np.array([[-x], [0], [0]])])


@pytest.fixture
def odometry(tmp_path):
    """Two sequences of three frames; the first with poses, a second camera and disparity."""
    clip = render_clip(0, 3, preset="driving", size=SIZE)
    root = tmp_path / "dataset"
    for sequence in ("00", "01"):
        for t in range(3):
            png(root / f"sequences/{sequence}/image_2/{t:06d}.png", clip.frames[t])
    first = root / "sequences/00"
    for t in range(3):
        png(first / f"image_3/{t:06d}.png", clip.frames[t])
        disparity = np.where(clip.depth[t] < 80, FOCAL * BASELINE / clip.depth[t], 0)
        png(first / f"disparity/{t:06d}.png", (disparity * 256).round().astype(np.uint16))
    lines = ["calib_time: 09-Jan-2012 13:57:47", row("P0", projection(0)), row("P2", projection(-0.06))]
    (first / "calib.txt").write_text("\n".join([*lines, row("P3", projection(-0.06 + BASELINE))]))
    (root / "poses").mkdir()
    (root / "poses/00.txt").write_text("\n".join(row("", pose[:3])[2:] for pose in clip.poses))
    return root, clip


def test_odometry(odometry):
    root, clip = odometry
    assert is_kitti(root)
    dataset = read_kitti(root)
    assert [sample.name for sample in dataset][:2] == [
        "sequences/00/image_2/000000",
        "sequences/00/image_2/000001",
    ]
    assert [(sample.clip, sample.frame) for sample in dataset][2:4] == [("sequences/00", 2), ("sequences/01", 0)]
    sample = dataset[1]
    assert np.array_equal(sample.image, clip.frames[1])
    near = clip.depth[1] < 40
    assert np.abs(sample.depth[near] / clip.depth[1][near] - 1).max() < 0.01
    assert (sample.depth[clip.depth[1] >= 80] == 0).all()
    camera = sample.camera
    assert camera.baseline == pytest.approx(BASELINE)
    assert camera.intrinsics[0].tolist() == [FOCAL, 0, 31.5]
    assert camera.right.name == "000001.png"
    np.testing.assert_allclose(camera.pose[:3, :3], clip.poses[1][:3, :3], atol=1e-6)
    # the colour camera stands 6 cm to the left of the one that the poses are of
    np.testing.assert_allclose(camera.pose[:3, 3], clip.poses[1][:3, 3] - 0.06 * clip.poses[1][:3, 0], atol=1e-6)
    assert dataset[4].camera is None
    assert not dataset[4].has("depth")
    assert len(open_dataset(root)) == 6


def test_raw_drives_and_measured_depth(tmp_path):
    drive = tmp_path / "2011_09_26/2011_09_26_drive_0001_sync"
    png(drive / "image_02/data/0000000000.png", np.zeros((*SIZE, 3), np.uint8))
    png(drive / "proj_depth/groundtruth/image_02/0000000000.png", np.full(SIZE, 256 * 7, np.uint16))
    calibration = [row("P_rect_02", projection(-0.06)), row("P_rect_03", projection(0.48))]
    (tmp_path / "2011_09_26/calib_cam_to_cam.txt").write_text("\n".join(calibration))
    for source in (tmp_path, tmp_path / "2011_09_26", drive):
        (sample,) = read_kitti(source)
        assert (sample.depth == 7).all()
        assert sample.camera.baseline == pytest.approx(BASELINE)
        assert sample.camera.right is None


def test_scenes_of_two_frames(tmp_path):
    root = tmp_path / "training"
    for name in ("000000_10", "000000_11", "000001_10", "000001_11"):
        png(root / f"image_2/{name}.png", np.zeros((*SIZE, 3), np.uint8))
    png(root / "disp_occ_0/000001_10.png", np.full(SIZE, 256 * 9, np.uint16))
    (root / "calib_cam_to_cam").mkdir()
    calibration = [row("P_rect_02", projection(0, 90)), row("P_rect_03", projection(0.5, 90))]
    (root / "calib_cam_to_cam/000001.txt").write_text("\n".join(calibration))
    dataset = read_kitti(root)
    assert [(sample.clip, sample.frame) for sample in dataset][1:3] == [
        ("training/000000", 11),
        ("training/000001", 10),
    ]
    assert [sample.has("depth") for sample in dataset] == [False, False, True, False]
    assert dataset[2].depth[0, 0] == pytest.approx(90 * 0.5 / 9)


def test_what_is_wrong_is_said(odometry, tmp_path):
    root, _ = odometry
    with pytest.raises(SourceError, match="image_02"):
        read_kitti(root / "poses")
    (root / "poses/00.txt").write_text("1 2 3\n")
    with pytest.raises(SourceError, match="twelve numbers"):
        read_kitti(root)
    (root / "poses/00.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n")
    with pytest.raises(SourceError, match="1 poses for 3"):
        read_kitti(root)
    (root / "sequences/00/calib.txt").write_text("P0: 1 2")
    with pytest.raises(SourceError, match="P2"):
        read_kitti(root)
