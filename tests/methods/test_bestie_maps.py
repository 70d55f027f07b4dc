"""The semantic maps given to BESTIE are part of what a training is: with others none goes on."""

from __future__ import annotations

import weakref
from functools import partial

import numpy as np
import pytest

from pixelkin.data import Dataset, ImageError, Point, Sample
from pixelkin.methods import bestie
from pixelkin.methods.bestie import BESTIE
from pixelkin.methods.bestie_examples import maps_digest


def images(*maps):
    """A photo with a point for each map."""
    photo = np.zeros((4, 5, 3), np.uint8)
    return Dataset([Sample(str(k), photo, semantic=each, points=(Point(1, 1, 7),)) for k, each in enumerate(maps)])


def drawn(*values):
    return [np.full((4, 5), value, np.uint8) for value in values]


def identity(dataset, out, monkeypatch):
    """What a training would have to agree with to go on; nothing is trained."""

    class Asked(Exception):
        pass

    def ask(*args, identity, **settings):
        raise Asked(identity)

    monkeypatch.setattr(bestie, "train", ask)
    with pytest.raises(Asked) as asked:
        BESTIE().fit(dataset, out=out, device="cpu")
    return asked.value.args[0]


def test_another_pixel_is_another_training(tmp_path, monkeypatch):
    one, other = drawn(7, 0), drawn(7, 0)
    other[1][3, 4] = 7
    before, again, after = (identity(images(*maps), tmp_path, monkeypatch) for maps in (one, drawn(7, 0), other))
    assert before == again
    assert {key for key in before if before[key] != after[key]} == {"maps"}


def test_the_digest_tells_maps_apart():
    seen = [(7, 0), (0, 7), (7,), (7, 1), (7, 0, 0)]
    assert len({maps_digest(images(*drawn(*values))) for values in seen}) == len(seen)
    wide = [ids.astype(np.int32) for ids in drawn(7, 0)]
    turned = [ids.reshape(5, 4).T for ids in drawn(7, 0)]  # not contiguous
    assert maps_digest(images(*wide)) != maps_digest(images(*drawn(7, 0))) == maps_digest(images(*turned))


def test_one_map_is_held_at_a_time():
    held = []

    def read(value):
        assert not any(old() is not None for old in held)
        (ids,) = drawn(value)
        held.append(weakref.ref(ids))
        return ids

    lazy = images(*(partial(read, value) for value in (7, 0, 7)))
    assert maps_digest(lazy) == maps_digest(images(*drawn(7, 0, 7)))
    assert len(held) == 3


def test_a_map_that_cannot_be_read_is_said_before_training(tmp_path):
    def broken():
        raise ImageError("map.png: broken image: replace or remove it")

    with pytest.raises(ImageError, match="replace"):
        BESTIE().fit(images(broken), out=tmp_path, device="cpu")
    assert not list(tmp_path.iterdir())
