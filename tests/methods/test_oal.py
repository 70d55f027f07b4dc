from __future__ import annotations

import numpy as np
import pytest

from pixelkin.cues.geometry import FOREGROUND
from pixelkin.cues.pair_targets import DIFFERENT, LIKELY, OFFSETS, OUTSIDE, SAME, UNKNOWN
from pixelkin.data import Camera, Dataset, Instances, Sample
from pixelkin.data.synthetic import clip_dataset, render_clip, scene_dataset
from pixelkin.data.synthetic.sensing import noisy_depth
from pixelkin.methods.base import ConfigError, Field, Fields, Method
from pixelkin.methods.oal import OAL, OALConfig, _best
from pixelkin.methods.oal_examples import LabelFrames, PairExamples, _standing
from pixelkin.methods.oal_frames import (
    Frame,
    FrameConfig,
    Frames,
    moved_as_one,
    object_nearness,
    on_middles,
    whole_objects,
)
from pixelkin.methods.registry import choose_method
from pixelkin.training.budget import Budget

SIZE = (128, 256)


@pytest.fixture(scope="module")
def clips():
    return clip_dataset(3, 3, frames=2, preset="driving", size=SIZE, objects=8, labels=("depth", "instances"))


def tiny(**changes):
    training = OALConfig().training.model_copy(update={"batch_size": 2})
    return OALConfig(**({"crop": (96, 160), "training": training} | changes))


def test_frames_say_what_depth_and_motion_know(clips):
    frames = Frames(clips, FrameConfig(), OFFSETS)
    assert frames.following == {0: 1, 2: 3, 4: 5}
    assert frames.informative() == [0, 1, 2, 3, 4, 5]
    truth, frame = clips[0].instances.label_map(), frames[0]
    cells = truth[2::4, 2::4]
    assert frame.codes.shape == (len(OFFSETS), *cells.shape)
    assert frame.image.shape == (*SIZE, 3)
    for channel, (dy, dx) in enumerate(OFFSETS[:6]):
        y, x = np.nonzero(frame.codes[channel] != UNKNOWN)
        code = frame.codes[channel, y, x]
        a, b = cells[y, x], cells[y + dy, x + dx]
        assert ((a != b)[(code == DIFFERENT) | (code == OUTSIDE)]).mean() > 0.8
        if (code == SAME).sum() > 20:
            assert ((a == b)[code == SAME]).mean() > 0.9
    # pairs that touch at one depth and rest are only likely one
    assert (frame.codes == LIKELY).sum() > 50
    assert frame is frames[0]


def test_without_depth_only_clips_say_something(clips):
    bare = clips.map(lambda sample: sample.replace(depth=None))
    frames = Frames(bare, FrameConfig(), OFFSETS)
    assert frames.informative() == [0, 2, 4]
    assert not (frames[0].codes == LIKELY).any()
    assert Frames(bare, FrameConfig(flow=False), OFFSETS).informative() == []


def test_a_given_pose_goes_before_an_estimated_one():
    clip = render_clip(5, 2, preset="driving", size=SIZE, noise=0.0)
    samples = [
        Sample(
            f"{t}",
            clip.frames[t].copy,
            size=SIZE,
            depth=clip.depth[t].copy,
            clip="a",
            frame=t,
            camera=Camera(clip.intrinsics, clip.poses[t]),
        )
        for t in range(2)
    ]
    known = Frames(Dataset(samples), FrameConfig(), OFFSETS).look(0)
    wrong = samples[1].replace(camera=Camera(clip.intrinsics, clip.poses[0]))  # as if it had not moved
    misled = Frames(Dataset([samples[0], wrong]), FrameConfig(), OFFSETS).look(0)
    still = clip.static[0] & np.isfinite(known.own[0]) & (clip.depth[0] < 30)
    assert np.median(np.hypot(*known.own)[still]) < 0.5 * np.median(np.hypot(*misled.own)[still])


def test_whole_objects_are_cut_by_nothing():
    objects = np.zeros((20, 40), np.int32)
    objects[2:7, 2:7] = 1
    objects[2:7, 8:13] = 2  # one cell from the first
    objects[10:16, 4:10] = 3
    objects[10:16, 34:40] = 4  # cut by the picture
    objects[12, 18] = 5  # a crumb
    objects[9:15, 22:28], objects[9:15, 28:34] = 6, 7  # the first covers the second
    assert whole_objects(objects, None, gap=0.1) == (3,)
    inverse = np.full((20, 40), 0.1, np.float32)
    assert whole_objects(objects, inverse, gap=0.1) == (3,)
    inverse[9:15, 28:34] = 0.05
    assert whole_objects(objects, inverse, gap=0.1) == (3, 6)
    inverse[9:15, 28:34] = np.nan  # nobody knows which is behind
    assert whole_objects(objects, inverse, gap=0.1) == (3,)


def test_what_moved_as_one_is_surely_one():
    objects = np.repeat(np.array([[1, 1, 1, 2, 2, 2]], np.int32), 4, axis=0)
    codes = np.full((3, 4, 6), LIKELY, np.uint8)
    codes[:2, :, :2] = SAME
    assert moved_as_one(objects, codes, (1, 2)) == (1,)
    assert moved_as_one(objects, codes, (2,)) == ()


def test_crops_teach_nothing_about_pairs_that_leave_them(clips):
    examples = PairExamples(Frames(clips, FrameConfig(), OFFSETS), OFFSETS, crop=(96, 192), pressing=1.0)
    pressed = 0
    for k in range(12):
        made = examples(np.random.default_rng(k))
        assert made["image"].shape == (3, 96, 192)
        assert made["codes"].shape == (len(OFFSETS), 24, 48)
        assert made["foreground"].shape == (24, 48)
        codes = made["codes"].numpy()
        y, x = np.mgrid[:24, :48]
        for channel, (dy, dx) in enumerate(OFFSETS):
            outside = (y + dy < 0) | (y + dy >= 24) | (x + dx < 0) | (x + dx >= 48)
            assert (codes[channel][outside] == UNKNOWN).all()
        again = examples(np.random.default_rng(k))
        assert all(np.array_equal(made[key], again[key]) for key in made)
        plain = PairExamples(examples.source, OFFSETS, crop=(96, 192), pressing=0.0)(np.random.default_rng(k))
        joined, before = (np.isin(each, (SAME, LIKELY)).sum() for each in (codes, plain["codes"].numpy()))
        pressed += int(joined > before)
    assert pressed > 3


def test_labels_as_frames():
    image = np.full((40, 64, 3), 90, np.uint8)
    semantic = np.zeros((40, 64), np.uint8)
    semantic[4:20, 4:28], semantic[4:20, 40:60], semantic[28:40, :20] = 1, 2, 255
    frame = LabelFrames(Dataset([Sample("a", image, semantic=semantic)], {1: "x", 2: "y"}), OFFSETS, {}, longest=640)[0]
    left = frame.codes[1]  # (0, -1)
    assert left[2, 4] == LIKELY
    assert left[2, 1] == OUTSIDE
    assert left[8, 2] == UNKNOWN
    assert (frame.foreground[8:] == UNKNOWN)[:, :4].all()
    masks = np.zeros((2, 40, 64), bool)
    masks[0, 4:20, 4:16] = masks[1, 4:20, 16:28] = True
    found = Instances.from_masks(masks, scores=[0.9, 0.8])
    touching = LabelFrames(Dataset([Sample("a", image, instances=found)]), OFFSETS, {}, longest=640)[0]
    assert touching.codes[1][2, 2] == SAME
    assert touching.codes[1][2, 4] == DIFFERENT
    unsure = Instances.from_masks(masks, scores=[0.9, 0.3])
    doubtful = LabelFrames(Dataset([Sample("a", image, instances=unsure)]), OFFSETS, {}, longest=640)[0]
    assert doubtful.codes[1][2, 4] == UNKNOWN


def test_what_is_learned_from(clips):
    frames = FrameConfig()
    assert _best(clips, frames) == "geometry"
    masks = scene_dataset(2, 0, labels=("semantic",))
    assert _best(masks, frames) == "labels"
    assert choose_method(masks)[0] == "siseg"
    assert choose_method(clips.map(lambda sample: sample.replace(clip=None, frame=None)))[0] == "oal"
    with pytest.raises(ConfigError, match="multiples of 32"):
        OALConfig.from_settings({"crop": "100,200"})
    with pytest.raises(ValueError, match="--depth DIR"):
        OAL().check(Dataset([Sample("a", np.zeros((8, 8, 3), np.uint8))]))


def test_from_clips_to_instances_and_back_from_disk(clips, tmp_path):
    method = OAL(tiny())
    method.fit(clips, out=tmp_path / "training", budget=Budget.parse("3it"), device="cpu")
    assert method.facts["learned"] == "geometry"
    fields = method.fields(clips[0])
    assert fields["affinity"].shape == (len(OFFSETS), 48, 96)
    found = method.group(fields, clips[0])
    assert found.size == SIZE
    assert set(method.pictures(fields, clips[0])) == {"apart", "apart, 3 cells", "foreground"}
    method.save(tmp_path / "model")
    loaded = Method.load(tmp_path / "model", device="cpu")
    assert loaded.group(loaded.fields(clips[0]), clips[0]) == found


def test_the_partition_can_be_chosen():
    """A few far pairs say no to what most say yes to."""
    affinity = np.full((len(OFFSETS), 16, 24), 0.7, np.float32)
    affinity[3, 8, 12:15] = 0
    fields = Fields((64, 96), {"affinity": Field(affinity, 4), "foreground": Field(np.ones((16, 24), np.float32), 4)})
    bare = Sample("a", np.zeros((64, 96, 3), np.uint8))
    for learned, sample in (("geometry", bare), ("labels", bare.replace(semantic=np.ones((64, 96), np.uint8)))):
        numbers = []
        for partition in ("mutex", "gasp"):
            method = OAL(tiny(partition=partition))
            method.facts = {"learned": learned, "offsets": [list(offset) for offset in OFFSETS]}
            found = method.group(fields, sample)
            assert (found.masks().sum(axis=0) == 1).all()
            numbers.append(len(found))
        assert numbers[0] > numbers[1] == 1
    with pytest.raises(ConfigError, match="mutex"):
        OALConfig.from_settings({"partition": "multicut"})


def test_from_semantic_masks(tmp_path):
    dataset = scene_dataset(3, 1, labels=("semantic", "instances"), size=(96, 96))
    masks = dataset.map(lambda sample: sample.replace(instances=None))
    method = OAL(tiny(crop=(64, 64)))
    method.fit(masks, out=tmp_path, budget=Budget.parse("2it"), device="cpu")
    assert method.facts["learned"] == "labels"
    for sample in masks:
        found = method.group(method.fields(sample), sample)
        covered = found.masks().sum(axis=0)
        assert covered.max() <= 1
        assert (covered[sample.semantic == 0] == 0).all()
        for i in range(len(found)):
            assert (sample.semantic[found.mask(i)] == found.labels[i]).all()


def test_tiles_are_the_whole(monkeypatch):
    import torch

    from pixelkin.models import affinity

    torch.manual_seed(0)
    model = affinity.AffinityFields(OFFSETS, pretrained=False).eval()
    image = np.random.default_rng(0).integers(0, 255, (70, 300, 3)).astype(np.uint8)
    whole = affinity.predict_tiled(model, image, flips=False)
    monkeypatch.setattr(affinity, "TILE", 64)
    monkeypatch.setattr(affinity, "OVERLAP", 32)
    tiled = affinity.predict_tiled(model, image, flips=False)
    assert tiled[0].shape == whole[0].shape == (len(OFFSETS), 18, 75)
    assert np.abs(tiled[1] - whole[1]).max() < 0.2


class Boxes:
    """Two frames with a box each, 40 pixels high; the second was 1.5 times as near."""

    def __init__(self) -> None:
        self.frames = []
        for nearness in (0.1, 0.15):
            objects = np.zeros((96, 128), np.int32)
            objects[30:70, 40:64] = 1
            codes = np.full((len(OFFSETS), 24, 32), UNKNOWN, np.uint8)
            inside = (on_middles(objects) > 0).astype(np.uint8)
            image = np.full((96, 128, 3), 90, np.uint8)
            nearness = np.array([np.nan, nearness], np.float32)
            self.frames.append(Frame(image, codes, inside, objects, nearness, (1,), (1,)))

    def __getitem__(self, i):
        return self.frames[i]

    def informative(self):
        return [0, 1]


def test_what_is_set_beside_an_object_is_as_large_as_it_would_be_there():
    examples = PairExamples(Boxes(), OFFSETS, crop=(96, 128), pressing=1.0)
    place = _standing(examples.source[0], 10)[1]
    assert place == (pytest.approx(0.1), 60, 40)
    heights = []
    for seed in range(60):
        donor, sure = examples._beside(place, np.random.default_rng(seed))
        assert sure
        heights.append(np.ptp(np.nonzero(donor.mask)[0]) + 1)
    alike = np.abs(np.array(heights) - 38) <= 7  # a rim of one pixel is lost
    smaller = np.abs(np.array(heights) - 40 / 1.5 + 2) <= 5
    assert (alike | smaller).all()
    assert alike.mean() > 0.75 > 0.02 < smaller.mean()
    far = place._replace(nearness=0.02)
    assert examples._beside(far, np.random.default_rng(0)) is None
    feet = [np.nonzero(examples(np.random.default_rng(seed))["foreground"].numpy() == 1)[0].max() for seed in range(20)]
    assert np.abs(np.array(feet) - 17).max() <= 1


def test_how_near_objects_are():
    objects = np.array([[1, 1, 0, 2], [1, 1, 0, 2]], np.int32)
    inverse = np.array([[0.1, 0.2, 0.5, np.nan], [0.2, np.nan, 0.5, np.nan]], np.float32)
    near = object_nearness(objects, inverse)
    assert np.isnan(near[[0, 2]]).all()
    assert near[1] == pytest.approx(0.2)
    assert np.isnan(object_nearness(objects, None)).all()


def test_images_are_enlarged_for_what_was_learned_from_geometry():
    sample = Sample("a", np.full((40, 60, 3), 90, np.uint8))
    for learned, settings, size, zoom in (
        ("geometry", {}, (60, 90), 1.5),
        ("labels", {}, (40, 60), 1.0),
        ("geometry", {"zoom": "1"}, (40, 60), 1.0),
        ("labels", {"zoom": "2"}, (80, 120), 2.0),
        ("geometry", {"frames.longest": "64", "zoom": "0.5"}, (20, 30), 0.5),
    ):
        method = OAL(OALConfig.from_settings(settings))
        method.facts = {"learned": learned, "kind": "frames"}
        image, found = method._picture(sample)
        assert image.shape == (*size, 3)
        assert found == zoom


def test_objects_are_completed_unless_told_otherwise(clips):
    noisy = clips.map(lambda sample: sample.replace(depth=noisy_depth(sample.depth, np.random.default_rng(1))))
    masks = [
        Frames(noisy, FrameConfig(extent=extent), OFFSETS).look(0).foreground == FOREGROUND for extent in (False, True)
    ]
    assert masks[1][masks[0]].all()
    truth = clips[0].instances.label_map() > 0
    covered = [(mask & truth).sum() / truth.sum() for mask in masks]
    assert covered[1] > covered[0] + 0.02
