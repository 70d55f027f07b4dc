"""A student that goes on from the backbone of another model."""

from __future__ import annotations

import shutil

import torch

from pixelkin.data.synthetic import scene_dataset
from pixelkin.methods.base import Method
from pixelkin.students.mask_rcnn import MaskRCNNConfig, MaskRCNNStudent

SMALL = {
    "short_side": "64",
    "long_side": "96",
    "channels": "16",
    "hidden": "16",
    "epochs": "0",
    "training.iterations": "1",
    "training.learning_rate": "1e-12",
    "training.ema": "0",
}


def test_it_starts_from_there_and_needs_it_no_more_once_it_is_saved(tmp_path):
    dataset = scene_dataset(2, 0, size=(64, 80), labels=("instances",))
    first = MaskRCNNStudent(MaskRCNNConfig.from_settings(SMALL))
    first.fit(dataset, out=tmp_path / "a", device="cpu")
    with torch.no_grad():
        for parameter in first.network.backbone.parameters():
            parameter.add_(0.25)
    first.save(tmp_path / "model")
    second = MaskRCNNStudent(MaskRCNNConfig.from_settings(SMALL | {"backbone": str(tmp_path / "model")}))
    second.fit(dataset, out=tmp_path / "b", device="cpu", seed=1)
    for one, other in zip(first.network.backbone.parameters(), second.network.backbone.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    second.save(tmp_path / "again")
    shutil.rmtree(tmp_path / "model")
    third = Method.load(tmp_path / "again", device="cpu")
    assert third.config.backbone == "efficientnet_lite0"
    image = dataset[0]
    assert len(third.group(third.fields(image), image)) == len(second.group(second.fields(image), image))
