from __future__ import annotations

import numpy as np
import pytest

from pixelkin.cues.motion import (
    COARSE_DIS,
    Flow,
    agreement,
    back_project,
    background_flow,
    camera_flow,
    flow_between,
    motion_between,
    motion_estimator,
    motion_from_depth,
    motion_from_flow,
    residual_motion,
    sample_at,
    usual_intrinsics,
)
from pixelkin.cues.optical_flow import FlowError
from pixelkin.data.synthetic import render_clip


@pytest.fixture(scope="module")
def clip():
    return render_clip(3, 2, preset="driving", size=(96, 192), noise=0.0)


def exact(clip) -> Flow:
    return Flow(clip.flow[0], clip.valid[0])


def turn_of(motion) -> float:
    return float(np.degrees(np.arccos(np.clip((np.trace(motion[:3, :3]) - 1) / 2, -1, 1))))


def test_flow_of_a_shifted_picture_is_the_shift():
    rng = np.random.default_rng(0)
    picture = np.kron(rng.integers(0, 255, (20, 25, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    flow = flow_between(picture, np.roll(picture, (2, -3), axis=(0, 1)))
    assert flow.valid[12:-12, 12:-12].mean() > 0.9
    inner = flow.forward[:, 12:-12, 12:-12]
    assert np.median(inner[0]) == pytest.approx(2, abs=0.1)
    assert np.median(inner[1]) == pytest.approx(-3, abs=0.1)


def test_frames_must_fit():
    with pytest.raises(FlowError, match="size"):
        flow_between(np.zeros((20, 20, 3), np.uint8), np.zeros((20, 21, 3), np.uint8))


def test_there_and_back_must_meet_inside():
    forward = np.zeros((2, 10, 12), np.float32)
    forward[1] = 2
    back = -forward
    assert agreement(forward, back)[:, :-2].all()
    assert not agreement(forward, back)[:, -2:].any()  # leaves the picture
    back[1, :, 6:] = 0
    assert not agreement(forward, back)[:, 5:10].any()
    assert agreement(forward, back)[:, :3].all()


def test_sampling_a_field_by_flow():
    field = np.arange(30, dtype=np.float32).reshape(1, 5, 6)
    flow = np.zeros((2, 5, 6), np.float32)
    flow[0], flow[1] = 1, 0.5
    seen, inside = sample_at(field, flow)
    assert seen[0, 0, 0] == pytest.approx(6.5)
    assert inside.tolist() == [[True] * 5 + [False]] * 4 + [[False] * 6]


def test_points_project_where_they_came_from(clip):
    points = back_project(clip.depth[0], clip.intrinsics)
    np.testing.assert_allclose(points[2], clip.depth[0], rtol=1e-6)
    seen = np.einsum("ij,jhw->ihw", clip.intrinsics, points)
    y, x = np.mgrid[:96, :192]
    np.testing.assert_allclose(seen[0] / seen[2], x, atol=1e-6)
    np.testing.assert_allclose(seen[1] / seen[2], y, atol=1e-6)


def test_the_camera_explains_what_stands_still(clip):
    motion = motion_between(clip.poses[0], clip.poses[1])
    flow, known = camera_flow(clip.depth[0], clip.intrinsics, motion)
    assert known.all()
    assert np.abs(flow - clip.flow[0])[:, clip.static[0]].max() < 0.05
    infinite = np.full((96, 192), np.inf)
    turned = motion.copy()
    turned[:3, 3] = 0
    expected, _ = camera_flow(np.full((96, 192), 50.0), clip.intrinsics, turned)
    np.testing.assert_allclose(camera_flow(infinite, clip.intrinsics, motion)[0], expected, atol=1e-4)
    assert not camera_flow(np.full((4, 4), np.nan), clip.intrinsics, motion)[1].any()


def test_motion_is_found_from_exact_flow(clip):
    true = motion_between(clip.poses[0], clip.poses[1])
    found = motion_from_depth(exact(clip), clip.depth[0], clip.intrinsics)
    assert found is not None
    np.testing.assert_allclose(found[:3, 3], true[:3, 3], atol=0.01)
    assert turn_of(found @ np.linalg.inv(true)) < 0.05
    bare = motion_from_flow(exact(clip), clip.intrinsics)
    assert bare is not None
    assert np.linalg.norm(bare[:3, 3]) == pytest.approx(1)
    assert bare[:3, 3] @ true[:3, 3] / np.linalg.norm(true[:3, 3]) > 0.99
    assert turn_of(bare @ np.linalg.inv(true)) < 0.2


def test_motion_is_found_from_estimated_flow_and_noisy_depth(clip):
    rng = np.random.default_rng(0)
    true = motion_between(clip.poses[0], clip.poses[1])
    depth = clip.depth[0] * rng.lognormal(0, 0.05, clip.depth[0].shape)
    found = motion_from_depth(flow_between(clip.frames[0], clip.frames[1]), depth, clip.intrinsics)
    assert found is not None
    assert np.abs(found[:3, 3] - true[:3, 3]).max() < 0.1
    assert turn_of(found @ np.linalg.inv(true)) < 0.5


def test_nothing_to_go_by_gives_nothing(clip):
    nowhere = Flow(clip.flow[0], np.zeros_like(clip.valid[0]))
    assert motion_from_depth(nowhere, clip.depth[0], clip.intrinsics) is None
    assert motion_from_flow(nowhere, clip.intrinsics) is None
    assert not background_flow(nowhere).any()
    still = Flow(np.zeros_like(clip.flow[0]), np.ones_like(clip.valid[0]))
    assert motion_from_flow(still, clip.intrinsics) is None


def test_what_moves_by_itself_is_left_over(clip):
    motion = motion_between(clip.poses[0], clip.poses[1])
    left, known = residual_motion(exact(clip), clip.depth[0], clip.intrinsics, motion)
    speed = np.hypot(*left)
    assert speed[clip.static[0] & known & (clip.depth[0] < 60)].max() < 0.02
    assert any(clip.moving.values())
    assert np.median(speed[~clip.static[0] & known]) > 0.03


def test_a_homography_stands_for_the_camera_without_depth():
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:60, :80].astype(np.float64)
    matrix = np.array([[1.01, 0.02, 3], [-0.01, 0.99, -2], [1e-4, -5e-5, 1]])
    moved = np.einsum("ij,jhw->ihw", matrix, np.stack([x, y, np.ones_like(x)]))
    true = np.stack([moved[1] / moved[2] - y, moved[0] / moved[2] - x]).astype(np.float32)
    seen = true.copy()
    seen[:, 20:40, 20:45] += 4  # something that moves
    found = background_flow(Flow(seen, rng.random((60, 80)) < 0.9))
    assert np.abs(found - true).max() < 0.1


def test_usual_intrinsics_see_the_angle_asked_for():
    k = usual_intrinsics((60, 80), view=90)
    assert np.degrees(2 * np.arctan(40 / k[0, 0])) == pytest.approx(90)
    assert (k[0, 2], k[1, 2]) == (39.5, 29.5)


def test_flow_may_come_from_another_estimator(monkeypatch):
    picture = np.zeros((24, 32, 3), np.uint8)

    def shift(first, second):
        return np.full((2, *first.shape[:2]), 2.0 if second.any() else -2.0, np.float32)

    monkeypatch.setattr("pixelkin.cues.motion.flow_estimator", lambda name, device: shift)
    found = flow_between(picture, picture + 1, motion_estimator("raft_small"))
    assert (found.forward == 2).all()
    assert found.valid[:20, :28].all()
    assert not found.valid[22:].any()  # leads out of the picture
    assert motion_estimator("dis") is COARSE_DIS
