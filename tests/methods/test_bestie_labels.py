"""From the network of BESTIE to the fields of an image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixelkin.data import Sample
from pixelkin.methods.bestie_config import BESTIEConfig
from pixelkin.methods.bestie_labels import fields_of
from pixelkin.methods.bestie_training import build_fields


@pytest.fixture(scope="module")
def model():
    settings = {"fields.imagenet_seed": "false", "fields.widths": "8", "fields.head_width": "8"}
    torch.manual_seed(0)
    return build_fields(BESTIEConfig.from_settings(settings), {1: "a", 2: "b"}, pretrained=False)


def seen(model, monkeypatch, size, **settings):
    """The sizes of the images that reach the network."""
    sizes, forward = [], type(model).forward
    monkeypatch.setattr(type(model), "forward", lambda *a, **k: sizes.append(a[1].shape[-2:]) or forward(*a, **k))
    config = BESTIEConfig.from_settings({"fields.long_side": "100,156", "flip": "false", **settings})
    fields = fields_of(model, Sample("a", np.zeros((*size, 3), np.uint8)), [1, 2], config)
    assert fields["offset"].shape[1:] == (-(-size[0] // 4), -(-size[1] // 4))
    return [tuple(each) for each in sizes]


@pytest.mark.parametrize("size", [(192, 256), (96, 128), (48, 64)])
def test_images_are_shown_as_large_as_in_training_whatever_the_camera(model, monkeypatch, size):
    assert seen(model, monkeypatch, size) == [(96, 128)]
    assert seen(model, monkeypatch, size, scales="1,0.5") == [(96, 128), (64, 64)]  # whole strides


def test_images_may_be_shown_as_they_are(model, monkeypatch):
    assert seen(model, monkeypatch, (192, 256), shown="image") == [(192, 256)]


def test_without_a_possible_class_no_network_is_asked(model):
    sample = Sample("a", np.zeros((40, 50, 3), np.uint8), tags=())
    fields = fields_of(model, sample, [1, 2], BESTIEConfig())
    assert set(fields.maps) == {"semantic"}
    assert not fields["semantic"].any()
