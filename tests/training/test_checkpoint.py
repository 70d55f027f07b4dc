from __future__ import annotations

import os
import pickle

import pytest
import torch

from pixelkin.training import checkpoint as module
from pixelkin.training.checkpoint import Checkpoint, CheckpointError


def made(step, **changes):
    weights = {"w": torch.full((2, 3), float(step)), "n": torch.tensor(step)}
    return Checkpoint(
        **{"step": step, "seconds": 1.5, "settings": {"a": 1}, "losses": {"loss": 0.1}, "weights": weights, **changes}
    )


def test_round_trip(tmp_path):
    shared = torch.rand(3)
    optimizer = {
        "state": {0: {"step": torch.tensor(2.0), "m": torch.rand(2)}},
        "param_groups": [{"lr": 0.1, "betas": (0.9, 0.9)}],
    }
    saved = made(4, weights={"a": shared, "b": shared}, ema={"a": torch.rand(3)}, optimizer=optimizer)
    saved.save(tmp_path)
    read = Checkpoint.latest(tmp_path)
    assert (read.step, read.seconds, read.settings, read.losses, read.finished) == (
        4,
        1.5,
        {"a": 1},
        {"loss": 0.1},
        False,
    )
    assert torch.equal(read.weights["a"], shared)
    assert torch.equal(read.weights["b"], shared)
    assert torch.equal(read.ema["a"], saved.ema["a"])
    assert torch.equal(read.optimizer["state"][0]["m"], optimizer["state"][0]["m"])
    assert read.optimizer["param_groups"] == optimizer["param_groups"]


def test_none_in_an_empty_or_missing_folder(tmp_path):
    assert Checkpoint.latest(tmp_path) is None
    assert Checkpoint.latest(tmp_path / "missing") is None


def test_the_furthest_counts(tmp_path):
    made(2).save(tmp_path)
    made(10).save(tmp_path)
    assert Checkpoint.latest(tmp_path).step == 10
    made(10, finished=True).save(tmp_path)
    assert Checkpoint.latest(tmp_path).finished
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


@pytest.mark.parametrize("call", ["save_file", "replace", "save", "fsync"])
def test_a_failure_anywhere_leaves_the_one_before(tmp_path, monkeypatch, call):
    made(1).save(tmp_path)

    def fail(*args, **kwargs):
        raise OSError("disk full")

    owner = {"save_file": module, "replace": os, "fsync": os, "save": torch}[call]
    with monkeypatch.context() as patch:
        patch.setattr(owner, call, fail)
        with pytest.raises(OSError, match="disk full"):
            made(2).save(tmp_path)
        assert Checkpoint.latest(tmp_path).step == 1
    made(3).save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000003"]  # what the failure left is gone


class Exploit:
    def __reduce__(self):
        return (os.system, ("touch /dev/null/never",))


def test_code_in_a_checkpoint_is_refused(tmp_path):
    made(1).save(tmp_path)
    (tmp_path / "step-000000001" / "state.pt").write_bytes(pickle.dumps(Exploit()))
    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        Checkpoint.latest(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["state.pt", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"broken", None])
def test_a_broken_file_is_one_clear_line(tmp_path, name, content):
    made(1).save(tmp_path)
    file = tmp_path / "step-000000001" / name
    file.write_bytes(content) if content is not None else file.unlink()
    with pytest.raises(CheckpointError, match=r"step-000000001 cannot be read .*remove that folder") as caught:
        Checkpoint.latest(tmp_path)
    assert "\n" not in str(caught.value)


def test_differing_settings_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"\(a was 1, now 2; b was None, now 3\)"):
        made(1).check_settings({"a": 2, "b": 3}, tmp_path)
    made(1).check_settings({"a": 1}, tmp_path)
