"""SISeg on real nuclei: that it runs, not how well."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from pixelkin.data import Instances
from pixelkin.formats import open_dataset
from pixelkin.methods.base import Method
from pixelkin.methods.siseg import SISeg, SISegConfig


def test_fit_and_label_nuclei(shared_data: Path, tmp_path: Path):
    folder = shared_data / "dsb2018" / "train"
    dataset = open_dataset(folder / "images", semantic=folder / "semantic", limit=6)
    assert len(dataset) == 6
    config = SISegConfig.from_settings(
        {"crowding.window": "64", "crowding.training.iterations": "30", "crowding.training.batch_size": "2"}
    )
    method = SISeg(config)
    method.fit(dataset, out=tmp_path / "training", device="cpu")
    assert method.facts["kind"] == "scene"
    assert method.facts["unreadable"] == []
    losses = [json.loads(line)["losses"]["loss"] for line in (tmp_path / "training" / "log.jsonl").open()]
    assert np.isfinite(losses).all()
    method.save(tmp_path / "model")
    loaded = Method.load(tmp_path / "model", device="cpu")
    for sample, found in method.label(dataset[:3]):
        assert isinstance(found, Instances), found
        height, width = sample.size
        x0, y0, x1, y1 = found.boxes.T
        assert len(found) > 0
        assert (x0 >= 0).all()
        assert (y0 >= 0).all()
        assert (x1 <= width).all()
        assert (y1 <= height).all()
        assert ((x1 > x0) & (y1 > y0)).all()
        assert set(found.labels) == {1}
        standing = found[found.scores >= 0.5]
        semantic = sample.semantic
        assert standing.masks().sum(axis=0).max() == 1
        assert (semantic[standing.masks().any(axis=0)] == 1).all()
        assert loaded.group(loaded.fields(sample), sample) == found
