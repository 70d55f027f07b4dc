"""Maps of an image at several scales: places kept, sides of whole cells, nothing larger than allowed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d

from pixelkin.models.multi_scale import look_at_scales, scaled, to_device


def looked(pixels, **options):
    seen = []

    def look(shown):
        seen.append(tuple(shown.shape[-2:]))
        return avg_pool2d(shown, 8)

    settings = {"scales": (1.0,), "flip": False, "step": 16, "max_pixels": 10**6, **options}
    return look_at_scales(look, pixels, **settings), seen


def ramp(height, width):
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 255 // height, columns * 255 // width, 0 * rows], -1).astype(np.uint8)


@pytest.mark.parametrize("size", [(64, 96), (50, 70), (5, 200), (1, 1)])
def test_every_scale_covers_the_image_in_whole_cells(size):
    found, seen = looked(to_device(ramp(*size), torch.zeros(1)), scales=(1.0, 0.5, 1.7))
    assert found.size == size
    assert all(side % 16 == 0 and side > 0 for shown in seen for side in shown)
    assert found.resized((7, 9)).shape == (3, 7, 9)


def test_what_is_seen_stays_in_its_place_whatever_the_scale():
    image = ramp(64, 96)
    found, _ = looked(to_device(image, torch.zeros(1)), scales=(1.0, 0.5, 2.0), flip=True)
    mean = found.resized((8, 12)) / 6
    wanted = image.reshape(8, 8, 12, 8, 3).mean((1, 3)).transpose(2, 0, 1) / 255
    assert np.abs(mean - wanted)[:, 1:-1, 1:-1].max() < 0.02


def test_large_images_are_shrunk_at_any_scale():
    _, seen = looked(torch.zeros(1, 3, 400, 800), scales=(1.0, 2.0), max_pixels=20_000)
    assert all(0.7 < height * width / 20_000 < 1.3 for height, width in seen)


def test_a_picture_of_whole_cells_is_not_touched():
    pixels = torch.rand(1, 3, 32, 48)
    assert scaled(pixels, 1.0, step=16) is pixels
    assert scaled(pixels, 1.5, step=16).shape == (1, 3, 48, 64)  # 4.5 cells are 4


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, float("nan"))])
def test_scales_that_cannot_be(scales):
    with pytest.raises(ValueError, match="above 0"):
        looked(torch.zeros(1, 3, 32, 32), scales=scales)
