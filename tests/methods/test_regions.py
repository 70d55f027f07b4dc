"""Confident regions: what is kept on the disk, and that maps of different makers are never mixed."""

from __future__ import annotations

import importlib.util
import pickle

import numpy as np
import pydantic
import pytest

from pixelkin.data import Dataset, Sample
from pixelkin.formats.label_png import write_label_png
from pixelkin.methods import regions
from pixelkin.methods.base import ConfigError
from pixelkin.methods.regions import RegionConfig, check_refinement, regions_of, with_regions

PLAIN = RegionConfig(foreground=0.3, background=0.05, refinement="none")


def images(count=3, size=(30, 41)):
    rng = np.random.default_rng(0)
    samples = [Sample(f"clip/{k}", rng.integers(0, 255, (*size, 3)).astype(np.uint8), tags=(7,)) for k in range(count)]
    return Dataset(samples, {7: "a"})


class Ramp:
    """An activation of class 7 that grows from left to right; counts its calls."""

    def __init__(self, peak=1.0, ids=(7,)):
        self.peak, self.ids, self.calls = peak, list(ids), []

    def __call__(self, sample, size):
        self.calls.append(sample.name)
        ramp = np.linspace(0, self.peak, size[1], dtype=np.float32)
        return np.broadcast_to(ramp, (len(self.ids), *size)).copy(), self.ids


def made(dataset, activation, out, config=PLAIN, **identity):
    return with_regions(dataset, dataset, activation, config, out=out, identity={"classifier": "x"} | identity)


def test_regions_are_background_unknown_and_class(tmp_path):
    found = made(images(), Ramp(), tmp_path / "r")[0].semantic
    ramp = np.linspace(0, 1, 41, dtype=np.float32)
    assert np.array_equal(found[0], np.where(ramp > 0.3, 7, np.where(ramp > 0.05, 255, 0)))
    assert (found == found[0]).all()


def test_made_once_and_kept(tmp_path):
    dataset, activation = images(), Ramp()
    first = [s.semantic for s in made(dataset, activation, tmp_path / "r")]
    again = Ramp(peak=0.2)  # would give something else
    second = [s.semantic for s in made(dataset, again, tmp_path / "r")]
    assert activation.calls == [s.name for s in dataset]
    assert again.calls == []
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_killed_making_goes_on(tmp_path, monkeypatch):
    dataset, activation = images(4), Ramp()

    def killed(path, ids):
        if len(activation.calls) == 3:
            raise KeyboardInterrupt
        return write_label_png(path, ids)

    monkeypatch.setattr(regions, "write_label_png", killed)
    with pytest.raises(KeyboardInterrupt):
        made(dataset, activation, tmp_path / "r")
    monkeypatch.undo()
    rest = Ramp()
    made(dataset, rest, tmp_path / "r")
    assert rest.calls == [s.name for s in dataset][2:]


@pytest.mark.parametrize(
    ("config", "identity"),
    [(PLAIN, {"classifier": "y"}), (RegionConfig(refinement="none", foreground=0.5), {}), (PLAIN, {"tags": "z"})],
)
def test_maps_of_another_maker_are_thrown_away(tmp_path, config, identity):
    made(images(5), Ramp(), tmp_path / "r")
    other, few = Ramp(peak=0.6), images(2)
    found = made(few, other, tmp_path / "r", config, **identity)
    assert other.calls == ["clip/0", "clip/1"]
    assert len(list((tmp_path / "r").rglob("*.png"))) == 2
    assert np.array_equal(found[0].semantic, regions_of(few[0], Ramp(peak=0.6), config))
    made(few, other, tmp_path / "r", config, **identity)
    assert len(other.calls) == 2


@pytest.mark.parametrize("stamp", [None, "", "{", "null"])
def test_maps_that_say_not_how_they_were_made_are_thrown_away(tmp_path, stamp):
    made(images(), Ramp(), tmp_path / "r")
    file = tmp_path / "r" / regions.STAMP
    file.unlink() if stamp is None else file.write_text(stamp)
    other = Ramp(peak=0.6)
    made(images(), other, tmp_path / "r")
    assert len(other.calls) == 3


def test_an_image_said_to_hold_nothing_is_background(tmp_path):
    dataset = images(1).map(lambda s: s.replace(tags=()))
    assert not made(dataset, Ramp(ids=()), tmp_path / "r")[0].semantic.any()


def test_ignored_pixels_are_unknown(tmp_path):
    ignore = np.zeros((30, 41), bool)
    ignore[:9] = True
    found = made(images(1).map(lambda s: s.replace(ignore=ignore)), Ramp(), tmp_path / "r")[0].semantic
    assert (found[:9] == 255).all()
    assert (found[9:, 0] == 0).all()


def test_class_ids_over_255_survive(tmp_path):
    found = made(images(1), Ramp(ids=(900,)), tmp_path / "r")[0].semantic
    assert set(np.unique(found)) == {0, 255, 900}


def test_large_images_are_looked_at_in_a_smaller_size():
    sizes = []

    def activation(sample, size):
        sizes.append(size)
        return Ramp()(sample, size)

    sample = images(1, size=(120, 200))[0]
    config = RegionConfig(foreground=0.3, background=0.05, refinement="none", max_pixels=6000)
    found, whole = regions_of(sample, activation, config), regions_of(sample, Ramp(), PLAIN)
    assert sizes == [(60, 100)]
    assert found.shape == (120, 200)
    assert (found == whole).mean() > 0.98


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (47, 3)])
@pytest.mark.parametrize("refinement", ["affinity", "none"])
def test_any_size(size, refinement):
    assert regions_of(images(1, size)[0], Ramp(), RegionConfig(refinement=refinement)).shape == size


def test_a_plain_grey_image_keeps_its_regions():
    sample = Sample("a", np.full((30, 900, 3), 128, np.uint8), tags=(7,))
    found = regions_of(sample, Ramp(), RegionConfig())
    assert (found[:, 0] == 0).all()
    assert (found[:, 150] == 255).all()
    assert (found[:, -1] == 7).all()


def test_the_maps_travel_to_other_processes(tmp_path):
    dataset = made(images(2), Ramp(), tmp_path / "r")
    there = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(there[1].semantic, dataset[1].semantic)


def test_a_refinement_that_is_not_installed_is_said_at_once(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for allowed in ("affinity", "none"):
        check_refinement(RegionConfig(refinement=allowed))
    with pytest.raises(ConfigError, match=r"pixelkin\[crf\]"):
        check_refinement(RegionConfig(refinement="crf"))


def test_thresholds_in_order():
    with pytest.raises(pydantic.ValidationError, match="not above"):
        RegionConfig(foreground=0.1, background=0.2)
