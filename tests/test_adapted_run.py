"""A finished model that a run adapts to the clips it labels, and keeps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pixelkin
from pixelkin.data.synthetic.clip import clip_dataset
from pixelkin.methods.amd import AMD

SMALL = {
    "objective": "flow",
    "backbone": "test_resnet",
    "pretrained": "false",
    "flow.long_side": "64",
    "flow.components": "8",
    "flow.hidden": "8",
    "flow.common": "12",
    "flow.look_every": "6",
}


def write_clips(folder: Path, seed: int) -> Path:
    for sample in clip_dataset(2, seed, frames=4, labels=(), preset="easy", size=(48, 64)):
        path = folder / str(sample.clip) / f"{sample.frame:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sample.image).save(path)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("amd")
    source = write_clips(folder / "old", 0)
    pixelkin.fit(source, out=folder / "model", method="amd", settings=SMALL, budget="12it", device="cpu")
    return folder / "model"


def heads_of(model: Path) -> dict:
    return json.loads((model / "config.json").read_text())["facts"]["heads"]


def test_each_new_clip_gets_a_head_which_is_kept(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = write_clips(tmp_path / "new", 5)
    (new / "broken").mkdir()
    (new / "broken/000.png").write_bytes(b"broken")
    before = (model / "model.safetensors").read_bytes()

    def label(run: str, adapt: str = "true") -> pixelkin.api.RunSummary:
        settings = {"flow.adapt": adapt}
        return pixelkin.label(new, out=tmp_path / run, model=model, settings=settings, budget="10it", device="cpu")

    summary = label("run")
    clips = {sample.clip for sample in pixelkin.open_dataset(tmp_path / "run")}
    assert (summary.done, summary.failed) == (8, 1)
    assert set(heads_of(tmp_path / "run/model")) == clips
    assert len(clips) == 2
    assert heads_of(model) == {}
    assert (model / "model.safetensors").read_bytes() == before
    whole = (tmp_path / "run/instances.json").read_bytes()
    (tmp_path / "run/.spool/images.jsonl").write_bytes(b"")  # as if it was killed before the first frame
    with monkeypatch.context() as patch:
        patch.setattr(AMD, "adapt", None)
        assert label("run").continued == 0
        plain = label("plain", adapt="false")
    assert (tmp_path / "run/instances.json").read_bytes() == whole
    assert plain.done == 8
    assert not (tmp_path / "plain/model").exists()
    assert not (tmp_path / "plain/masks").exists()  # photographs


def test_what_cannot_be_adapted_says_so(model: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(tmp_path / "photos/one.png")
    with pytest.raises(ValueError, match="give clips of several frames"):
        pixelkin.label(
            tmp_path / "photos", out=tmp_path / "run", model=model, settings={"flow.adapt": "true"}, device="cpu"
        )
