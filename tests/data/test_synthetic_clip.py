from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest
from scipy import ndimage

from pixelkin.data.synthetic import clip_dataset, render_clip
from pixelkin.data.synthetic.clip import PRESETS

BOTH = pytest.mark.parametrize(("preset", "seed"), [(preset, seed) for preset in PRESETS for seed in range(3)])


@pytest.fixture(scope="module")
def clips():
    made = {}

    def get(preset, seed):
        if (preset, seed) not in made:
            made[preset, seed] = render_clip(seed, 4, preset=preset, noise=0.0)
        return made[preset, seed]

    return get


@BOTH
def test_shapes_and_labels_agree(clips, preset, seed):
    clip = clips(preset, seed)
    h, w = PRESETS[preset]["size"]
    assert len(clip) == 4
    assert clip.frames.shape == (4, h, w, 3)
    assert clip.flow.shape == (3, 2, h, w)
    assert clip.valid.shape == (3, h, w)
    assert clip.depth.shape == (4, h, w)
    assert np.isfinite(clip.depth).all()
    assert np.isfinite(clip.flow).all()
    assert (clip.depth > 0.4).all()
    for t in range(4):
        instances = clip.instances[t]
        assert (instances.masks().sum(axis=0) <= 1).all()
        assert np.array_equal(clip.semantic[t], instances.semantic_map())
        assert set(instances.labels.tolist()) <= set(clip.classes)
        assert set(instances.ids.tolist()) <= set(clip.moving)
        for i, track in enumerate(instances.ids.tolist()):
            if not clip.moving[track]:
                assert clip.static[t][instances.mask(i)].all()
            else:
                assert not clip.static[t][instances.mask(i)].any()
        assert clip.static[t][clip.semantic[t] == 0].all()


@BOTH
def test_tracks_keep_their_class(clips, preset, seed):
    classes: dict[int, set[int]] = {}
    for instances in clips(preset, seed).instances:
        assert len(set(instances.ids.tolist())) == len(instances)
        for track, label in zip(instances.ids.tolist(), instances.labels.tolist(), strict=True):
            classes.setdefault(track, set()).add(label)
    assert classes
    assert all(len(labels) == 1 for labels in classes.values())


@BOTH
def test_flow_brings_the_next_frame_back(clips, preset, seed):
    clip = clips(preset, seed)
    h, w = clip.frames.shape[1:3]
    y, x = np.mgrid[:h, :w].astype(np.float32)
    for t in range(3):
        dy, dx = clip.flow[t]
        warped = cv2.remap(clip.frames[t + 1].astype(np.float32), x + dx, y + dy, cv2.INTER_LINEAR)
        error = np.abs(warped - clip.frames[t]).mean(axis=-1)
        # one pixel from the edges of surfaces colours are mixed, by design
        inner = ndimage.binary_erosion(clip.valid[t] & ~edges(clip, t), np.ones((3, 3)))
        assert inner.mean() > 0.5
        assert error[inner].mean() < 2.0
        assert np.quantile(error[inner], 0.99) < 15
        resting = np.abs(clip.frames[t + 1].astype(np.float32) - clip.frames[t]).mean(axis=-1)
        assert error[inner].mean() < 0.5 * resting[inner].mean()


def edges(clip, t) -> np.ndarray:
    depth = clip.depth[t]
    jump = ndimage.grey_dilation(depth, size=3) > 1.05 * ndimage.grey_erosion(depth, size=3)
    ids = np.zeros(depth.shape, int)
    for i, track in enumerate(clip.instances[t].ids.tolist()):
        ids[clip.instances[t].mask(i)] = track
    return (jump & (ids > 0)) | (ndimage.grey_dilation(ids, size=3) != ndimage.grey_erosion(ids, size=3))


@BOTH
def test_static_flow_follows_from_depth_and_pose(clips, preset, seed):
    clip = clips(preset, seed)
    h, w = clip.frames.shape[1:3]
    y, x = np.mgrid[:h, :w].astype(np.float64)
    rays = np.linalg.inv(clip.intrinsics) @ np.stack([x, y, np.ones_like(x)]).reshape(3, -1)
    for t in range(3):
        points = rays * clip.depth[t].reshape(-1)
        step = np.linalg.inv(clip.poses[t + 1]) @ clip.poses[t]
        moved = clip.intrinsics @ (step[:3, :3] @ points + step[:3, 3:])
        ahead = (moved[2] > 0.1).reshape(h, w)
        predicted = (moved[:2] / np.maximum(moved[2], 1e-6)).reshape(2, h, w)[::-1] - np.stack([y, x])
        static = clip.static[t] & ahead
        assert static.mean() > 0.3
        assert np.abs(predicted - clip.flow[t])[:, static].max() < 0.05
        moving = ~clip.static[t] & clip.valid[t]
        if moving.sum() > 200:  # and what moves by itself does not follow the camera
            assert np.abs(predicted - clip.flow[t])[:, moving].max() > 0.2


@BOTH
def test_valid_pixels_reach_the_same_object(clips, preset, seed):
    clip = clips(preset, seed)
    for t in range(3):
        ids = []
        for k in (t, t + 1):
            here = np.zeros(clip.semantic.shape[1:], int)
            for i, track in enumerate(clip.instances[k].ids.tolist()):
                here[clip.instances[k].mask(i)] = track
            ids.append(here)
        ys, xs = np.nonzero(clip.valid[t])
        to_y = np.rint(ys + clip.flow[t, 0, ys, xs]).astype(int)
        to_x = np.rint(xs + clip.flow[t, 1, ys, xs]).astype(int)
        assert ((to_y >= 0) & (to_y < ids[1].shape[0]) & (to_x >= 0) & (to_x < ids[1].shape[1])).all()
        agree = ids[0][ys, xs] == ids[1][to_y, to_x]
        assert agree.mean() > 0.9999  # a flow of exactly half a pixel may round either way
        assert 0.4 < clip.valid[t].mean() < 1


@pytest.mark.parametrize("preset", ["layers", "driving"])
def test_pairs_put_together_touch_at_one_depth(preset):
    pairs = 0
    for seed in range(4):
        clip = render_clip(seed, 1, preset=preset, touching=1.0)
        tracks = {int(track): i for i, track in enumerate(clip.instances[0].ids)}
        for a, b in clip.contacts:
            pairs += 1
            first, second = (clip.instances[0].mask(tracks[i]) for i in (a, b))
            assert clip.instances[0].labels[tracks[a]] == clip.instances[0].labels[tracks[b]]
            border = ndimage.binary_dilation(first, np.ones((3, 3))) & second
            assert border.any()
            near = ndimage.binary_dilation(border, np.ones((3, 3))) & first
            depth = clip.depth[0]
            gaps = np.abs(np.median(depth[near]) / np.median(depth[border]) - 1)
            assert gaps < 0.15
    assert pairs >= 6


def test_moving_decides_who_moves():
    for preset in ("layers", "driving"):
        rest = render_clip(2, 3, preset=preset, moving=0.0, camera=0.0)
        assert not any(rest.moving.values())
        assert np.abs(rest.flow).max() < 1e-6
        assert rest.valid.all()
        busy = render_clip(2, 3, preset=preset, moving=1.0)
        assert all(busy.moving.values())


def test_parts_move_by_themselves():
    """A worm bends: within one object the flow is no similarity."""
    clip = render_clip(3, 4, classes=8, objects=8, scale=(0.1, 0.16), moving=1.0, camera=0.0)
    worst = 0.0
    for i in range(len(clip.instances[0])):
        ys, xs = np.nonzero(clip.instances[0].mask(i))
        dy, dx = clip.flow[0][:, ys, xs]
        ones, zeros = np.ones_like(xs), np.zeros_like(xs)
        design = np.concatenate([np.stack([xs, -ys, ones, zeros], 1), np.stack([ys, xs, zeros, ones], 1)])
        target = np.concatenate([dx, dy])
        left = target - design @ np.linalg.lstsq(design, target, rcond=None)[0]
        worst = max(worst, float(np.abs(left).max()))
    assert worst > 0.3


def test_the_seed_decides_everything():
    for preset in PRESETS:
        one, same, other = (render_clip(seed, 2, preset=preset) for seed in (4, 4, 5))
        assert np.array_equal(one.frames, same.frames)
        assert np.array_equal(one.flow, same.flow)
        assert one.instances == same.instances
        assert not np.array_equal(one.frames, other.frames)


def test_one_frame_has_no_flow():
    clip = render_clip(0, 1)
    assert clip.flow.shape == (0, 2, 128, 160)
    assert clip.valid.shape == (0, 128, 160)
    assert len(clip.instances) == 1


def test_wrong_options_are_refused():
    for wrong in ({"preset": "flying"}, {"frames": 0}, {"classes": 99}, {"preset": "driving", "classes": 4}):
        with pytest.raises(ValueError, match=r"use one of|at least one|classes"):
            render_clip(0, **wrong)
    with pytest.raises(TypeError, match="no option 'colour'"):
        render_clip(0, colour=3)


def test_dataset_of_frames():
    dataset = clip_dataset(2, 9, frames=3, size=(48, 64))
    assert [sample.name for sample in dataset][:4] == [
        "clip_0000/00000",
        "clip_0000/00001",
        "clip_0000/00002",
        "clip_0001/00000",
    ]
    clip = render_clip((9, 1), 3, size=(48, 64))
    sample = dataset[5]
    assert (sample.clip, sample.frame) == ("clip_0001", 2)
    assert np.array_equal(sample.image, clip.frames[2])
    assert np.array_equal(sample.depth, clip.depth[2])
    assert np.array_equal(sample.semantic, clip.semantic[2])
    assert sample.instances == clip.instances[2]
    assert dataset.classes == clip.classes
    assert np.array_equal(pickle.loads(pickle.dumps(sample)).image, clip.frames[2])
    assert clip_dataset(1, preset="driving")[0].size == (128, 256)
