"""Semantic fine-tuning from end to end: what is learned, saved, labelled, and from which backbone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pixelkin
from pixelkin.cli import run
from pixelkin.data import Dataset, Sample
from pixelkin.data.synthetic.scene import scene_dataset
from pixelkin.grouping.components import connected_components
from pixelkin.methods.amd import AMD
from pixelkin.methods.amd_config import AMDConfig
from pixelkin.methods.amd_flow import build_flow_network
from pixelkin.methods.amd_regions import build_network
from pixelkin.methods.base import ConfigError, Field, Fields, Method
from pixelkin.methods.class_labels import MapExamples
from pixelkin.methods.registry import choose_method
from pixelkin.methods.semantic import CLASSES, SemanticSegmenter, mapped_classes
from pixelkin.methods.semantic_config import PUBLISHED, SemanticConfig
from pixelkin.metrics.semantic import MeanIoU
from pixelkin.models.backbone import build_backbone

SMALL = {
    "backbone": "test_resnet",
    "pretrained": "false",
    "output_stride": "8",
    "head_channels": "32",
    "head_rate": "1",
    "crop": "64",
    "long_side": "64,96",
    "longest": "80",
    "epochs": "0",
    "training.iterations": "60",
    "training.learning_rate": "3e-3",
}
BRIEF = SMALL | {"training.iterations": "3", "training.batch_size": "2", "training.checkpoint_every": "1e-9"}
IDS = np.array([0, 3, 40, 200], np.uint8)
"""The user's ids of the background and the three classes of the scenes."""


def made(settings=BRIEF, **more):
    return SemanticSegmenter(SemanticConfig.from_settings(settings | {key: str(value) for key, value in more.items()}))


def scenes(count, seed=0):
    lazy = scene_dataset(count, seed, size=(64, 80))
    samples = [Sample(each.name, each.image, semantic=IDS[each.semantic]) for each in lazy]
    return Dataset(samples, {int(IDS[i]): name for i, name in lazy.classes.items()}, name="scenes")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A method that learned scenes."""
    method = made(SMALL)
    method.fit(scenes(24), out=tmp_path_factory.mktemp("fit"), device="cpu")
    return method


def mean_iou(dataset, label):
    meter = MeanIoU(dataset.classes)
    for sample in dataset:
        meter.update(label(sample), sample.semantic)
    return meter.compute()["mIoU"]


def test_new_scenes_are_segmented_far_better_than_by_the_commonest_class(fitted):
    new = scenes(8, 1000).map(lambda sample: sample.replace(name=f"new {sample.name}"))
    learned = mean_iou(new, lambda sample: fitted.semantic(sample, fitted.fields(sample)))
    majority = mean_iou(new, lambda sample: np.zeros(sample.size, np.uint8))
    assert majority < 25
    assert learned > majority + 12


def test_ids_are_the_users_and_an_image_needs_no_mask(fitted):
    bare = [sample.replace(semantic=None) for sample in scenes(4, 5)]
    found = set()
    for sample, instances in fitted.label(Dataset(bare)):
        ids = fitted.semantic(sample, fitted.fields(sample))
        assert (ids.shape, ids.dtype) == (sample.size, np.uint8)
        found |= set(np.unique(ids).tolist())
        assert set(instances.labels.tolist()) <= set(np.unique(ids).tolist())
    assert found <= set(IDS.tolist())
    assert len(found) > 2
    assert list(fitted.classes) == fitted.facts["classes"] == [3, 40, 200]


def test_the_mask_of_an_image_to_be_labelled_is_not_looked_at(fitted):
    def forbidden():
        raise AssertionError("a label was read")

    sample = scenes(1)[0]
    closed = sample.replace(semantic=forbidden)
    assert np.array_equal(fitted.fields(closed)[CLASSES], fitted.fields(sample)[CLASSES])


def test_instances_are_components_scored_by_the_mean_probability_of_their_class():
    method = made(min_area=6)
    method.facts = {"classes": [7, 300]}
    odds = np.zeros((3, 6, 8), np.float32)
    odds[0] = 0.6
    odds[1, :3, :3], odds[1, 5, 7] = 0.7, 0.9  # the second is too small to be an instance
    odds[2, 3:6, 3:6] = 0.8
    odds[2, 5, 5] = 0.9
    fields = Fields((6, 8), {CLASSES: Field(odds)})
    sample = Sample("x", np.zeros((6, 8, 3), np.uint8))
    ids = method.semantic(sample, fields)
    assert ids.dtype == np.int32
    assert np.array_equal(ids == 7, odds[1] > 0)
    assert np.array_equal(ids == 300, odds[2] > 0)
    instances = method.group(fields, sample)
    assert instances.labels.tolist() == [7, 300]
    assert np.allclose(instances.scores, [0.7, (8 * 0.8 + 0.9) / 9])
    same = connected_components(ids, min_area=6)
    assert np.array_equal(instances.masks(), same.masks())
    assert set(instances.sources) == {"semantic:semantic"}
    assert set(method.pictures(fields, sample)) == {"classes", "confidence", "probability: 7", "probability: 300"}


def test_pixels_that_nobody_knows_teach_nothing(tmp_path, monkeypatch):
    unknown = scenes(2).map(lambda sample: sample.replace(semantic=np.full(sample.size, 255, np.uint8)))
    monkeypatch.setattr("pixelkin.methods.semantic.mapped_classes", lambda dataset: {3: "a", 40: "b"})
    method = made(**{"training.weight_decay": 0})
    method.fit(unknown, out=tmp_path, device="cpu")
    torch.manual_seed(0)
    start = method._build(pretrained=False)
    for name, parameter in method.network.named_parameters():
        assert torch.equal(parameter, start.state_dict()[name]), name


def test_unknown_is_no_class(tmp_path):
    sample = scenes(1)[0]
    partly = sample.semantic.copy()
    partly[:, 40:] = 255
    dataset = Dataset([sample.replace(semantic=partly)])
    found = mapped_classes(dataset)
    assert set(found) == set(np.unique(partly).tolist()) - {0, 255}
    assert set(found.values()) == {f"class {i}" for i in found}
    labels = [MapExamples(made().config, dataset, list(found))(np.random.default_rng(k))["labels"] for k in range(8)]
    assert {int(v) for each in labels for v in each.unique()} == set(range(-1, len(found) + 1))


def test_a_saved_model_says_the_same(fitted, tmp_path):
    fitted.save(tmp_path)
    loaded = Method.load(tmp_path, device="cpu")
    assert loaded.classes == fitted.classes
    for sample in scenes(2, 3):
        assert np.array_equal(loaded.fields(sample)[CLASSES], fitted.fields(sample)[CLASSES])
    card = (tmp_path / "README.md").read_text()
    assert "test_resnet, from random weights" in card
    assert "Backbone licence" not in card


def test_the_same_seed_gives_the_same_and_a_stopped_fit_goes_on(tmp_path, monkeypatch):
    dataset, whole, calls = scenes(3), made(), []
    whole.fit(dataset, out=tmp_path / "whole", device="cpu")
    example = MapExamples.__call__

    def stops(self, rng):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return example(self, rng)

    monkeypatch.setattr(MapExamples, "__call__", stops)
    again = made()
    with pytest.raises(KeyboardInterrupt):
        again.fit(dataset, out=tmp_path / "stopped", device="cpu")
    again.fit(dataset, out=tmp_path / "stopped", device="cpu")
    assert len(calls) < 5 + 6
    for name, tensor in whole.state().items():
        assert torch.equal(tensor, again.state()[name]), name


def test_a_training_on_other_masks_or_from_other_weights_is_not_continued(tmp_path):
    dataset = scenes(2)
    made().fit(dataset, out=tmp_path, device="cpu")
    other = dataset.map(lambda sample: sample.replace(semantic=np.flipud(sample.semantic)))
    with pytest.raises(ValueError, match="maps"):
        made().fit(other, out=tmp_path, device="cpu")
    with pytest.raises(ValueError, match="start"):
        made().fit(dataset, out=tmp_path, device="cpu", seed=1)


def amd_model(folder, objective):
    """An AMD of random weights, saved."""
    config = AMDConfig.from_settings(
        {"objective": objective, "backbone": "test_resnet", "pretrained": "false", "head_channels": "8"}
    )
    method = AMD(config)
    torch.manual_seed(3)
    if objective == "flow":
        method.network = build_flow_network(config.backbone_name, config.flow, pretrained=False)
    else:
        method.network = build_network(config, pretrained=False)
    method.save(folder)
    return folder


@pytest.mark.parametrize("objective", ["photometric", "flow"])
def test_the_backbone_of_raw_video_is_gone_on_from_and_no_longer_needed_then(objective, tmp_path):
    folder = amd_model(tmp_path / "amd", objective)
    method = made(BRIEF | {"backbone": str(folder), "pretrained": "true"}, **{"training.learning_rate": 1e-9})
    sample = scenes(1)[0]
    method.fit(Dataset([sample]), out=tmp_path / "fit", device="cpu")
    wanted, found = build_backbone(str(folder)).state_dict(), method.network.backbone.state_dict()
    for name, tensor in wanted.items():
        if name.endswith("weight"):  # statistics of normalisation move whatever the learning rate
            assert torch.allclose(found[name], tensor, atol=1e-6), name
    assert all(parameter.requires_grad for parameter in method.network.parameters())
    assert method.facts["own_dilations"] is (objective == "flow")
    method.save(tmp_path / "model")
    shutil.rmtree(folder)
    loaded = Method.load(tmp_path / "model", device="cpu")
    assert np.array_equal(loaded.fields(sample)[CLASSES], method.fields(sample)[CLASSES])
    assert loaded.config.backbone == "test_resnet"
    assert "from a model of amd" in (tmp_path / "model" / "README.md").read_text()
    further = made(BRIEF | {"backbone": str(tmp_path / "model")})
    further.fit(Dataset([sample]), out=tmp_path / "further", device="cpu")
    assert further.facts["own_dilations"] is (objective == "flow")


def test_what_cannot_be_learned_from_says_so(tmp_path):
    bare = Sample("a", np.zeros((8, 9, 3), np.uint8))
    for dataset, message in (
        ([bare], "--semantic DIR"),
        ([bare.replace(semantic=np.zeros((8, 9), np.uint8))], "hold no class"),
        ([bare.replace(semantic=np.full((8, 9), 70_000))], "class id 70000"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            made().fit(Dataset(dataset), out=tmp_path, device="cpu")
        assert "\n" not in str(error.value)
    with pytest.raises(RuntimeError, match="no model yet"):
        made().fields(bare)
    (tmp_path / "config.json").write_text("{}")
    dataset = scenes(1)
    with pytest.raises(ValueError, match="fit it again"):
        made(backbone=tmp_path).fit(dataset, out=tmp_path / "t", device="cpu")


def test_settings():
    for settings in ({"output_stride": "4"}, {"crop": "50"}, {"long_side": "9,5"}, {"dropout": "1"}):
        with pytest.raises(ConfigError):
            SemanticConfig.from_settings(settings)
    assert SemanticConfig.from_settings({"output_stride": "none"}).output_stride is None
    training = PUBLISHED.training
    assert (training.optimizer, training.learning_rate, training.momentum) == ("sgd", 0.01, 0.9)
    assert (training.iterations, training.batch_size, training.weight_decay) == (40_000, 16, 5e-4)
    assert PUBLISHED.output_stride == 8


def test_auto_never_chooses_it():
    assert choose_method(scenes(1))[0] == "siseg"


def write(folder: Path, dataset: Dataset, masks: int) -> None:
    """Images, and masks of the first ones."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for number, sample in enumerate(dataset):
        Image.fromarray(sample.image).save(folder / "images" / f"{number}.png")
        if number < masks:
            Image.fromarray(sample.semantic).save(folder / "masks" / f"{number}.png")
    lines = [f"{i} {name}\n" for i, name in dataset.classes.items()]
    (folder / "classes.txt").write_text("".join(lines))


def test_from_the_command_line(tmp_path, capsys):
    write(tmp_path, scenes(4), masks=3)
    images, masks, model, out = (str(tmp_path / name) for name in ("images", "masks", "model", "run"))
    settings = [part for key, value in BRIEF.items() if key != "backbone" for part in ("--set", f"{key}={value}")]
    common = ["--semantic", masks, "--classes", str(tmp_path / "classes.txt"), "--device", "cpu"]
    call = ["fit", images, "--method", "semantic", "--backbone", "test_resnet", *common, *settings]
    assert run([*call, "--out", model]) == 0
    assert run(["label", images, "--model", model, "--device", "cpu", "--out", out]) == 0
    done = json.loads((tmp_path / "run" / "run.json").read_text())
    assert done["counts"]["done"] == 4
    assert {int(i) for i in done["classes"]} == {3, 40, 200}
    assert len(list((tmp_path / "run" / "semantic").glob("*.png"))) == 4
    assert run(["evaluate", out, masks, "--protocol", "semantic"]) == 0
    assert "mIoU" in capsys.readouterr().out
    assert pixelkin.evaluate(out, masks, protocol="semantic").counts["images"] == 3
