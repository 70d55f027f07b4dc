from __future__ import annotations

import numpy as np
import pytest
import torch

from pixelkin.cues.pair_targets import LIKELY, OFFSETS, SAME, UNKNOWN
from pixelkin.data.synthetic import clip_dataset
from pixelkin.methods.oal import OAL, OALConfig
from pixelkin.methods.oal_belief import SHARES, SureFrames, still_one
from pixelkin.methods.oal_examples import PairExamples
from pixelkin.methods.oal_frames import FrameConfig, Frames, on_middles
from pixelkin.training.budget import Budget

SIZE = (128, 256)


@pytest.fixture(scope="module")
def clips():
    return clip_dataset(3, 3, frames=2, preset="driving", size=SIZE, objects=8, labels=("depth",))


class Judge:
    """Says that two pixels are one object where they lie on the same side of a column."""

    offsets = OFFSETS

    def __init__(self, column: int) -> None:
        self.column, self.calls = column, 0

    def parameters(self):
        return iter([torch.zeros(1)])

    def predict(self, image, *, flip):
        self.calls += 1
        assert not flip
        h, w = (-(-side // 4) for side in image.shape[-2:])
        left = torch.arange(w) < self.column
        affinity = torch.ones(len(OFFSETS), h, w)
        for channel, (_, dx) in enumerate(OFFSETS):
            other = left.roll(-dx)
            affinity[channel, :, left != other] = 0
        return type("Said", (), {"affinity": affinity, "foreground": torch.ones(h, w)})


def test_what_only_likely_is_one_object_is_left_out(clips):
    source = Frames(clips, FrameConfig(), OFFSETS)
    sure = SureFrames(source)
    assert sure.informative() == source.informative()
    assert (source[0].codes == LIKELY).any()
    assert not (sure[0].codes == LIKELY).any()
    changed = sure[0].codes != source[0].codes
    assert (source[0].codes[changed] == LIKELY).all()
    assert (sure[0].codes[changed] == UNKNOWN).all()
    assert sure[0].whole == source[0].whole


def test_the_judge_says_which_whole_objects_are_one(clips):
    source = Frames(clips, FrameConfig(), OFFSETS)
    index, number = next((i, k) for i in range(6) for k in source[i].whole)
    columns = np.nonzero(on_middles(source[index].objects) == number)[1]
    middle = Judge(int(np.median(columns)))
    frame = SureFrames(source, middle)[index]
    assert number not in frame.whole
    assert set(frame.sure) <= set(frame.whole) <= set(source[index].whole)
    aside = Judge(int(columns.min()) - 1 if columns.min() > 1 else int(columns.max()) + 2)
    judged = SureFrames(source, aside)
    assert number in judged[index].whole
    assert judged[index] is judged[index]
    assert judged.whole_of(index) == judged[index].whole
    assert aside.calls == 1


def test_still_one():
    objects = np.repeat(np.arange(1, 4), 10).reshape(1, 30)
    segments = np.ones((1, 30), np.int32)
    segments[0, 10:13] = 2
    segments[0, 20:29] = 0
    assert still_one((1, 2, 3), objects, segments) == (1,)
    segments[0, 11:13] = 1
    assert still_one((1, 2, 3), objects, segments) == (1, 2)
    assert still_one((), objects, segments) == ()


def test_pressed_objects_stand_where_others_do(clips):
    source = SureFrames(Frames(clips, FrameConfig(), OFFSETS))
    examples = PairExamples(source, OFFSETS, crop=(128, 256), pressing=1.0)
    made = [examples(np.random.default_rng(k))["codes"].numpy() for k in range(12)]
    assert any((codes == LIKELY).any() for codes in made)  # within what was pressed
    assert any((codes == SAME).any() for codes in made)


def test_a_fit_from_depth_has_two_stages_and_goes_on_where_it_was(clips, tmp_path):
    training = OALConfig().training.model_copy(update={"batch_size": 2})
    config = OALConfig(crop=(96, 160), training=training)
    whole = OAL(config)
    whole.fit(clips, out=tmp_path / "whole", budget=Budget(iterations=5), device="cpu")
    assert whole.facts["training"]["iterations"] == 5
    assert sorted(path.name for path in (tmp_path / "whole").iterdir()) == ["first", "second"]
    again = OAL(config)
    again.fit(clips, out=tmp_path / "whole", budget=Budget(iterations=5), device="cpu")
    first, second = whole.state(), again.state()
    assert all(torch.equal(first[key], second[key]) for key in first)
    plain = OAL(config.model_copy(update={"doubt": False}))
    plain.fit(clips, out=tmp_path / "plain", budget=Budget(iterations=2), device="cpu")
    assert plain.facts["training"]["iterations"] == 2
    assert not (tmp_path / "plain" / "first").exists()
    bare = clips.map(lambda sample: sample.replace(depth=None))
    moving = OAL(config)
    moving.fit(bare, out=tmp_path / "moving", budget=Budget(iterations=1), device="cpu")
    assert not (tmp_path / "moving" / "first").exists()
    assert sum(SHARES) == pytest.approx(1)


def test_how_segments_are_found_follows_what_was_learned():
    method = OAL()
    for learned, expected in (("geometry", "gasp"), ("labels", "mutex")):
        method.facts = {"learned": learned}
        assert method._partition() == expected
        method.config = OALConfig(partition="mutex")
        assert method._partition() == "mutex"
        method.config = OALConfig()
