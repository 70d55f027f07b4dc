from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from pixelkin.cues.depth import DepthError, depth_of_disparity, monocular_depth, stereo_depth


def test_disparity_to_depth():
    disparity = np.array([[10.0, 0.0, -1.0, 5.0]])
    assert depth_of_disparity(disparity, focal=100, baseline=0.5).tolist() == [[5.0, 0.0, 0.0, 10.0]]
    assert depth_of_disparity(disparity, focal=100, baseline=0.5, shift=15)[0, 0] == pytest.approx(2.0)


def test_stereo_of_a_shifted_picture():
    rng = np.random.default_rng(0)
    wide = np.kron(rng.integers(0, 255, (24, 50, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    left, right = wide[:, 20:180], wide[:, 28:188]
    near = left.copy()
    near[30:60, 60:110] = wide[30:60, 72:122]
    seen = right.copy()
    seen[30:60, 44:94] = wide[30:60, 72:122]  # 16 pixels apart
    depth = stereo_depth(near, seen, focal=200, baseline=0.4, reach=32)
    assert depth.shape == (96, 160)
    assert np.median(depth[5:25, 70:150]) == pytest.approx(10, rel=0.02)
    assert np.median(depth[35:55, 65:105]) == pytest.approx(5, rel=0.02)
    with pytest.raises(ValueError, match="rectify"):
        stereo_depth(left, right[:, 1:], focal=1, baseline=1)


def test_without_transformers_the_mend_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(DepthError, match=r"pixelkin\[depth\]"):
        monocular_depth(np.zeros((8, 8, 3), np.uint8), model="nobody/nothing")


def test_motorcycle_agrees_with_its_measured_disparity():
    data = pytest.importorskip("skimage.data")
    try:
        left, right, disparity = data.stereo_motorcycle()
    except Exception as error:  # not in this wheel, and no network
        pytest.skip(f"no motorcycle: {error}")
    camera = {"focal": 994.978, "baseline": 0.193001, "shift": 31.086}
    found = stereo_depth(left, right, **camera, reach=96)
    true = depth_of_disparity(np.where(np.isfinite(disparity), disparity, 0), **camera)
    both = (found > 0) & (true > 0)
    assert both.mean() > 0.5
    assert (np.abs(found[both] / true[both] - 1) < 0.03).mean() > 0.85


@pytest.mark.parametrize("kind", ["relative", "metric"])
def test_depth_from_one_picture(tmp_path, kind):
    """By a Depth Anything of random weights: what is checked is the way there and back, not the depth."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=56, patch_size=14, out_features=stages,
        reshape_hidden_states=False,
    )  # fmt: skip
    settings = transformers.DepthAnythingConfig(
        backbone_config=backbone, patch_size=14, reassemble_hidden_size=16, neck_hidden_sizes=[8] * 4,
        fusion_hidden_size=8, head_hidden_size=8, depth_estimation_type=kind, max_depth=80 if kind == "metric" else 1,
    )  # fmt: skip
    transformers.DepthAnythingForDepthEstimation(settings).save_pretrained(tmp_path)
    size = {"height": 56, "width": 56}
    transformers.DPTImageProcessor(size=size, keep_aspect_ratio=True, ensure_multiple_of=14).save_pretrained(tmp_path)
    picture = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    found = monocular_depth(picture, model=str(tmp_path))
    assert found.shape == (60, 90)
    assert found.dtype == np.float32
    assert (found > 0).all()
    assert found.max() == pytest.approx(50, rel=1e-4) if kind == "relative" else found.max() < 80
