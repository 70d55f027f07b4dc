"""The method contract: settings from text, saved and loaded models, and what every registered method must do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pytest

from pixelkin.data import Dataset, Instances, Point, Sample
from pixelkin.methods.base import ConfigError, Field, Fields, Method, MethodConfig
from pixelkin.methods.baselines import Components, ComponentsConfig, Watershed, WatershedConfig, count_baselines
from pixelkin.methods.registry import METHODS, UnknownMethodError, choose_method, get_method, list_methods


class Inner(MethodConfig):
    rate: float = 0.1
    steps: int = 3


class Config(MethodConfig):
    mode: Literal["paper", "crowding"] = "paper"
    radius: int | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = True
    stride: Literal[2, 4] | None = None
    training: Inner = Inner(steps=7)


def scene(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (40, 50)) -> np.ndarray:
    """A semantic map with boxes (y0, x0, y1, x1) of class 1."""
    semantic = np.zeros(size, dtype=np.uint8)
    for y0, x0, y1, x1 in boxes:
        semantic[y0:y1, x0:x1] = 1
    return semantic


def sample(name: str, semantic: np.ndarray | None) -> Sample:
    shape = (40, 50) if semantic is None else semantic.shape
    return Sample(name, np.zeros((*shape, 3), dtype=np.uint8), semantic=semantic)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {}),
        ({"mode": "crowding", "flip": "false"}, {"mode": "crowding", "flip": False}),
        ({"radius": "12"}, {"radius": 12}),
        ({"radius": "none"}, {"radius": None}),
        ({"stride": "4"}, {"stride": 4}),
        ({"stride": "none"}, {"stride": None}),
        ({"scales": "1, 0.5,2"}, {"scales": (1.0, 0.5, 2.0)}),
        ({"training.rate": "1e-3"}, {"training": Inner(rate=1e-3, steps=7)}),
    ],
)
def test_settings_from_text(settings: dict[str, str], expected: dict[str, object]) -> None:
    assert Config.from_settings(settings) == Config(**expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"raduis": "3"}, "unknown setting 'raduis': did you mean 'radius'?"),
        ({"zzz": "3"}, "unknown setting 'zzz': known are mode, radius, scales, flip, stride, training"),
        ({"training.stesp": "3"}, "unknown setting 'training.stesp': did you mean 'steps'?"),
        ({"mode.x": "3"}, "mode.x: 'mode' has no settings inside: remove what follows the dot"),
        ({"radius": "wide"}, "setting radius=wide: input should be a valid integer"),
        ({"mode": "free"}, "setting mode=free: input should be 'paper' or 'crowding'"),
    ],
)
def test_wrong_settings_say_the_mend_in_one_line(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Config.from_settings(settings)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_settings_change_a_base() -> None:
    base = Config(radius=5, training=Inner(rate=1.0))
    assert Config.from_settings({"training.steps": "1"}, base=base) == Config(
        radius=5, training=Inner(rate=1.0, steps=1)
    )


def test_a_config_is_strict() -> None:
    with pytest.raises(ValueError, match="radius"):
        Config(radius="3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="extra"):
        Config(extra=3)  # type: ignore[call-arg]


def test_fields() -> None:
    fields = Fields((8, 8), {"boundary": Field(np.ones((2, 2)), stride=4)})
    assert "boundary" in fields
    assert "center" not in fields
    assert fields["boundary"].shape == (2, 2)
    assert fields.stride("boundary") == 4


class Learner(Method):
    """A method with weights: the mean colour."""

    name: ClassVar[str] = "learner"
    summary: ClassVar[str] = "mean colour"
    supervision: ClassVar[tuple[str, ...]] = ("semantic", "tags")
    config_class: ClassVar[type[MethodConfig]] = Config
    tensors: ClassVar[dict] = {}

    def fit(self, dataset, *, out, budget=None, device="auto", seed=0):
        import torch

        self.check(dataset)
        self.facts = {"radius": 3}
        self.tensors = {"mean": torch.arange(6.0).reshape(2, 3).T}

    def fields(self, sample):
        return Fields(sample.size, {"image": Field(sample.image)})

    def group(self, fields, sample):
        if sample.name == "bad":
            raise RuntimeError("no")
        return Instances.empty(fields.size)

    def state(self):
        return self.tensors

    def restore(self, tensors):
        if tensors["mean"].shape != (3, 2):
            raise RuntimeError("size mismatch\nfor mean")
        self.tensors = tensors

    def card(self):
        return {"Backbone": "none"}


@pytest.fixture
def learner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Learner:
    from pixelkin.methods import registry

    info = registry.MethodInfo("learner", f"{__name__}:Learner", "mean colour", ("semantic", "tags"), "")
    monkeypatch.setitem(METHODS, "learner", info)
    method = Learner(Config(radius=9, scales=(0.5, 1.0)))
    method.fit(Dataset([sample("a", scene()), sample("b", None)], {4: "cat"}, name="two"), out=tmp_path / "t")
    return method


def test_a_model_comes_back_as_it_was(learner: Learner, tmp_path: Path) -> None:
    learner.save(tmp_path / "model")
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"config.json", "model.safetensors", "README.md"}
    again = Method.load(tmp_path / "model", device="cpu")
    assert type(again).__name__ == "Learner"
    assert again.config.model_dump() == learner.config.model_dump()
    assert (again.classes, again.facts, again.device) == ({4: "cat"}, {"radius": 3}, "cpu")
    assert again.state()["mean"].tolist() == learner.tensors["mean"].tolist()
    card = (tmp_path / "model" / "README.md").read_text()
    for words in ("learner", "two, 2 images", "semantic (1), tags (0)", "4 cat", "Backbone", "torch"):
        assert words in card


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "config.json").unlink(), "no config.json"),
        (lambda d: (d / "config.json").write_text("{"), "not a model's config"),
        (lambda d: (d / "config.json").write_text('{"method": "learnr"}'), "did you mean 'learner'"),
        (lambda d: (d / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda d: (d / "model.safetensors").write_bytes(b"\x80pickle"), "do not fit the config"),
    ],
)
def test_a_damaged_model_says_what_is_wrong(learner: Learner, tmp_path: Path, damage, message: str) -> None:
    learner.save(tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        Method.load(tmp_path)
    assert "\n" not in str(error.value)


def test_a_model_of_another_version_says_so(learner: Learner, tmp_path: Path) -> None:
    learner.save(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    saved["config"]["gone"] = 1
    (tmp_path / "config.json").write_text(json.dumps(saved))
    with pytest.raises(ValueError, match="another version"):
        Method.load(tmp_path)


def test_one_bad_image_does_not_end_the_labelling(learner: Learner) -> None:
    made = dict(learner.label(Dataset([sample(name, scene()) for name in ("a", "bad", "c")])))
    assert [type(result).__name__ for result in made.values()] == ["Instances", "RuntimeError", "Instances"]


def test_missing_labels_name_the_flag(learner: Learner) -> None:
    with pytest.raises(ValueError, match=r"--semantic DIR.* or .*--tags FILE"):
        learner.check(Dataset([sample("a", None)]))


def test_unknown_methods_name_the_nearest() -> None:
    with pytest.raises(UnknownMethodError, match="did you mean 'siseg'"):
        get_method("sisge")
    with pytest.raises(
        UnknownMethodError, match="this version has siseg, irnet, bestie, amd, oal, semantic, components"
    ):
        get_method("xyz")


def test_auto_takes_a_recipe_for_the_labels_there_are() -> None:
    name, why = choose_method(Dataset([sample("a", scene()), sample("b", None)]))
    assert name == "siseg"
    assert "1 of 2 images" in why
    with pytest.raises(ValueError, match="--semantic DIR"):
        choose_method(Dataset([sample("a", None)]))
    clicked = sample("a", None).replace(points=(Point(1, 2, 1),), tags=(1,))
    assert choose_method(Dataset([clicked]))[0] == "bestie"
    assert choose_method(Dataset([clicked.replace(points=None)]))[0] == "irnet"
    assert choose_method(Dataset([clicked.replace(semantic=scene())]))[0] == "bestie"
    assert choose_method(Dataset([clicked.replace(semantic=scene(), points=None)]))[0] == "siseg"
    assert choose_method(Dataset([clicked.replace(points=None, clip="x", frame=0)]))[0] == "irnet"
    assert choose_method(Dataset([sample("a", None).replace(clip="x", frame=0)]))[0] == "amd"


@pytest.mark.parametrize("info", list_methods(), ids=lambda info: info.name)
def test_the_table_agrees_with_the_class(info) -> None:
    method = get_method(info.name)
    assert (method.name, method.summary, method.supervision) == (info.name, info.summary, info.supervision)
    assert method.paper == info.paper
    assert type(method().config) is method.config_class


@pytest.mark.parametrize("info", [info for info in list_methods() if info.baseline], ids=lambda info: info.name)
def test_baselines_through_the_contract(info, tmp_path: Path) -> None:
    touching = scene((5, 5, 15, 15), (5, 14, 15, 24), (25, 30, 35, 45))
    dataset = Dataset([sample("a", touching), sample("b", None)], {1: "box"})
    method = get_method(info.name)()
    method.fit(dataset.with_label("semantic"), out=tmp_path / "training")
    method.save(tmp_path)
    results = [result for _, result in Method.load(tmp_path).label(dataset)]
    assert isinstance(results[0], Instances)
    assert np.array_equal(results[0].masks().any(axis=0), touching > 0)
    assert "give one or leave the image out" in str(results[1])


def test_the_baselines_settings_reach_the_kernels() -> None:
    semantic = scene((0, 0, 10, 10), (10, 10, 20, 20), (30, 30, 33, 33))
    one = sample("a", semantic)

    def count(method: Method) -> int:
        return len(method.group(method.fields(one), one))

    assert count(Components()) == 1
    assert count(Components(ComponentsConfig(connectivity=4))) == 2
    assert count(Components(ComponentsConfig(min_area=9))) == 2
    assert count(Watershed(WatershedConfig(min_distance=40))) <= count(Watershed(WatershedConfig(min_distance=3)))


def test_baseline_counts_of_a_huge_map_stay_near() -> None:
    semantic = np.zeros((3000, 3000), dtype=np.uint8)
    semantic[100:1000, 100:1000] = semantic[1500:2500, 1500:2500] = 1
    assert count_baselines(semantic) == {"components": 2, "watershed": 2}
