from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from pixelkin.cues.pieces import Picture
from pixelkin.methods import mask_fields
from pixelkin.methods.base import Field, Fields
from pixelkin.methods.mask_fields import piece_fields, predict, scene_fields, whole_fields
from pixelkin.models.mask_unet import Division


class Echo(nn.Module):
    """Says what it sees in the mask, averaged over 2 x 2 pixels: displacement green and blue, boundary red."""

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))
        self.reach = 3.0
        self.sizes = []

    def forward(self, image, mask):
        self.sizes.append(tuple(image.shape))
        seen = functional.avg_pool2d(image * mask[:, :1], 2, ceil_mode=True)
        return Division(seen[:, 1:], torch.logit(seen[:, 0].clamp(1e-4, 1 - 1e-4)), seen.mean((1, 2, 3)))


def picture_of(labels, zoom=1.0, seed=0):
    image = np.random.default_rng(seed).integers(0, 256, (*labels.shape, 3)).astype(np.uint8)
    return Picture(image, labels, np.ones(labels.max(), np.int64), np.zeros(labels.max(), bool), zoom)


def halves(picture):
    """(3, h, w) of what Echo should say of the whole picture."""
    seen = torch.from_numpy(picture.image * (picture.labels > 0)[..., None] / 255.0).permute(2, 0, 1)[None]
    return functional.avg_pool2d(seen, 2, ceil_mode=True)[0].numpy()


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (64, 64), (100, 131), (63, 128)])
def test_tiles_join_without_a_seam(size, monkeypatch):
    monkeypatch.setattr(mask_fields, "TILE", 64)
    monkeypatch.setattr(mask_fields, "OVERLAP", 16)
    labels = np.zeros(size, np.int32)
    labels[: size[0] * 2 // 3 + 1] = 1
    picture, model = picture_of(labels, zoom=0.5), Echo()
    maps = scene_fields(model, picture, 5.0, flips=False)
    half = (-(-size[0] // 2), -(-size[1] // 2))
    assert maps["boundary"].array.shape == half
    assert maps["displacement"].array.shape == (2, *half)
    assert maps["boundary"].stride == maps["displacement"].stride == 4.0
    whole = (slice(0, size[0] // 2), slice(0, size[1] // 2))  # an odd last row or column is averaged with the padding
    expected = halves(picture)
    np.testing.assert_allclose(maps["boundary"].array[whole], expected[0][whole].clip(1e-4, 1 - 1e-4), atol=1e-4)
    for axis in (0, 1):
        np.testing.assert_allclose(maps["displacement"].array[axis][whole], 3 * expected[1 + axis][whole], atol=1e-4)
    assert max(shape[2] for shape in model.sizes) <= 64 + 32


def test_tiles_without_objects_are_skipped(monkeypatch):
    monkeypatch.setattr(mask_fields, "TILE", 64)
    labels = np.zeros((64, 512), np.int32)
    model = Echo()
    assert not scene_fields(model, picture_of(labels), 5.0, flips=True)["boundary"].array.any()
    assert not model.sizes


def test_mirror_images_are_averaged_with_their_vectors_turned_back():
    class Sideways(Echo):
        """Points up and to the left, and sees a boundary in the upper left corner, however the image is turned."""

        def forward(self, image, mask):
            boundary = torch.full((len(image), image.shape[2] // 2, image.shape[3] // 2), -50.0)
            boundary[:, 0, 0] = 50.0
            return Division(-torch.ones(len(image), 2, *boundary.shape[1:]), boundary, torch.zeros(len(image)))

    image, mask = np.zeros((8, 12, 3), np.uint8), np.ones((8, 12), bool)
    arrows, ridges = predict(Sideways(), [image] * 2, [mask] * 2, 1.0, flips=True)
    assert not arrows.any()
    corners = np.zeros((4, 6))
    corners[[0, 0, -1, -1], [0, -1, 0, -1]] = 0.25
    np.testing.assert_allclose(ridges, np.stack([corners] * 2), atol=1e-6)
    arrows, ridges = predict(Sideways(), [image], [mask], 1.0, flips=False)
    assert (arrows == -3).all()
    assert ridges[0, 0, 0] == 1


def test_each_piece_has_its_window():
    labels = np.zeros((60, 80), np.int32)
    labels[10:20, 10:30], labels[40:60, 60:80] = 1, 3  # the zoom has lost number 2
    picture, model = picture_of(labels, zoom=0.5), Echo()
    maps = piece_fields(model, picture, 8.0, side=32, margin=0.25, flips=False)
    assert set(maps) == {"displacement/1", "boundary/1", "displacement/3", "boundary/3"}
    first = maps["boundary/1"]
    assert first.array.shape == (16, 16)
    assert first.stride == pytest.approx(30 / 0.5 / 16)  # a side of 30 pixels, in image pixels, over 16 cells
    assert first.origin == (0.0, 10.0)
    assert maps["displacement/3"].origin == (70.0, 110.0)
    assert model.sizes == [(2, 3, 32, 32)]


def test_windows_are_laid_over_each_other():
    size = (21, 30)
    big = Field(np.full((4, 4), 0.25), stride=6.0, origin=(-4.0, 0.0))
    small = Field(np.full((4, 4), 0.75), stride=2.0, origin=(4.0, 8.0))
    arrows = {"displacement/1": Field(np.ones((2, 4, 4)), 6.0, big.origin)}
    arrows["displacement/2"] = Field(np.ones((2, 4, 4)), 2.0, small.origin)
    displacement, boundary = whole_fields(Fields(size, {"boundary/2": small, "boundary/1": big, **arrows}))
    assert boundary.shape == (11, 15)
    expected = np.zeros((11, 15))
    expected[:10, :12] = 0.25
    expected[2:6, 4:8] = 0.75
    np.testing.assert_allclose(boundary, expected)
    assert displacement[:, 0, 0].tolist() == [3.0, 3.0]  # 6 image pixels are 3 cells here
    assert displacement[:, 3, 5].tolist() == [1.0, 1.0]
    outside = Field(np.ones((4, 4)), stride=2.0, origin=(90.0, -40.0))
    fields = Fields(size, {"boundary/1": outside, "displacement/1": Field(np.ones((2, 4, 4)), 2.0, outside.origin)})
    assert not whole_fields(fields)[1].any()
    assert whole_fields(Fields((5, 7)))[0].shape == (2, 3, 4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_fields_of_a_model_on_a_gpu():
    picture = picture_of(np.ones((40, 50), np.int32))
    here = scene_fields(Echo(), picture, 5.0, flips=True)["boundary"].array
    there = scene_fields(Echo().cuda(), picture, 5.0, flips=True)["boundary"].array
    np.testing.assert_allclose(here, there, atol=1e-5)
