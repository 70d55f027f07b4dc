"""The published objective: objects emerge on easy clips, and a copy of the pathways goes on with each clip."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_amd import made

from pixelkin.data import Dataset
from pixelkin.data.synthetic.clip import clip_dataset
from pixelkin.methods.amd_adapt import adapt_clips
from pixelkin.methods.amd_examples import PairExamples
from pixelkin.methods.base import Method
from pixelkin.training.budget import Budget


def drawn(count, seed, frames, *labels):
    lazy = clip_dataset(count, seed, frames=frames, labels=labels, preset="easy")
    return Dataset([sample.replace(image=sample.image) for sample in lazy], name="clips")


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    """A method fitted on two clips, each with a copy of its own, and these."""
    dataset, method = drawn(2, 0, 6), made(**{"clip.adapted": 4, "clip.look_every": 2})
    method.fit(dataset, out=tmp_path_factory.mktemp("fit"), device="cpu")
    return method, dataset


def test_objects_emerge_from_raw_clips_alone(tmp_path):
    """The published system at a small size: what moves by itself in easy clips is found in unseen stills."""
    method = made(head_channels=64, **{"training.batch_size": 4, "training.schedule": "constant"})
    method.fit(drawn(32, 0, 6), out=tmp_path, budget=Budget(iterations=110), device="cpu")
    overlaps = []
    for sample in drawn(8, 99, 1, "instances"):
        answer = method.group(method.fields(sample), sample)
        found, true = (each.masks().any(axis=0) for each in (answer, sample.instances))
        overlaps.append((found & true).sum() / max((found | true).sum(), 1))
    assert np.mean(overlaps) > 0.33  # a region that means nothing has less than 0.2


def test_every_clip_of_the_fit_has_a_copy_that_is_no_worse_on_pairs_held_out(adapted):
    method, dataset = adapted
    assert set(method.facts["heads"]) == {sample.clip for sample in dataset}
    assert all(head["best"] in (0, 2, 4) for head in method.facts["heads"].values())
    changed = [head["key"] for head in method.facts["heads"].values() if head["best"]]
    assert changed
    common = method.network.appearance.state_dict()
    for key in changed:
        own = method.network.of_clip(key).state_dict()
        assert any(not torch.equal(own[name], common[name]) for name in own)


def test_frames_are_divided_by_their_clips_own_pathway(adapted):
    method, dataset = adapted
    clip = next(name for name, head in method.facts["heads"].items() if head["best"])
    sample = next(each for each in dataset if each.clip == clip)
    own, common = (method.fields(each)["regions"] for each in (sample, sample.replace(clip=None, frame=None)))
    assert not np.array_equal(own, common)


def test_an_adapted_model_is_saved_whole(adapted, tmp_path):
    method, dataset = adapted
    method.save(tmp_path)
    loaded = Method.load(tmp_path, device="cpu")
    for sample in dataset:
        assert np.array_equal(loaded.fields(sample)["regions"], method.fields(sample)["regions"])
    assert "2 clips have an appearance pathway of their own" in (tmp_path / "README.md").read_text()


def test_new_clips_are_adapted_to_and_the_common_pathway_stays(adapted, tmp_path):
    method, dataset = adapted
    method.save(tmp_path / "model")
    loaded = Method.load(tmp_path / "model", device="cpu")
    before = {name: tensor.clone() for name, tensor in loaded.state().items()}
    new = Dataset([sample.replace(clip=f"new_{sample.clip}") for sample in dataset])
    loaded.adapt(new, out=tmp_path / "adapted", budget=Budget(iterations=2))
    assert len(loaded.facts["heads"]) == len({head["key"] for head in loaded.facts["heads"].values()}) == 4
    assert all(head["steps"] == 2 for name, head in loaded.facts["heads"].items() if name.startswith("new_"))
    for name, tensor in before.items():
        assert torch.equal(loaded.state()[name], tensor), name


def test_what_was_adapted_is_not_done_again(adapted, tmp_path, monkeypatch):
    method, dataset = adapted
    network = method.network.without_clips()
    first = adapt_clips(network, dataset, method.config, steps=2, out=tmp_path)
    kept = {name: tensor.clone() for name, tensor in network.clips.state_dict().items()}

    def forbidden(*_):
        raise AssertionError("drawn again")

    monkeypatch.setattr(PairExamples, "cut", forbidden)
    again = method.network.without_clips()
    assert adapt_clips(again, dataset, method.config, steps=2, out=tmp_path) == first
    for name, tensor in again.clips.state_dict().items():
        assert torch.equal(tensor, kept[name]), name
    with pytest.raises(AssertionError, match="drawn again"):
        adapt_clips(method.network.without_clips(), dataset, method.config, steps=3, out=tmp_path)
    longer = Budget(iterations=3)
    with pytest.raises(AssertionError, match="drawn again"):
        adapt_clips(method.network.without_clips(), dataset, method.config, steps=2, out=tmp_path, budget=longer)


def test_a_clip_of_two_frames_is_judged_on_what_teaches(tmp_path):
    method = made()
    method.fit(drawn(1, 0, 2), out=tmp_path / "fit", device="cpu")
    method.adapt(drawn(1, 1, 2), out=tmp_path, budget=Budget(iterations=2))
    assert len(method.facts["heads"]) == 1
