"""Colour edges: where they are, what they are worth, and odd images."""

from __future__ import annotations

import numpy as np
import pytest

from pixelkin.cues.edges import colour_edges


def halves(left, right, size=(64, 96)):
    image = np.empty((*size, 3), np.uint8)
    image[:, : size[1] // 2], image[:, size[1] // 2 :] = left, right
    return image


@pytest.mark.parametrize("stride", [1, 2, 4, 7])
def test_a_strong_edge_is_a_full_boundary_and_nothing_else_is(stride):
    found = colour_edges(halves((200, 40, 40), (40, 40, 200)), stride=stride)
    assert found.shape == (-(-64 // stride), -(-96 // stride))
    assert found.dtype == np.float32
    middle = 48 // stride
    assert (found[:, middle - 1 : middle + 1].max(axis=1) > 0.99).all()
    assert (found[:, : middle - 3] == 0).all()
    assert (found[:, middle + 4 :] == 0).all()


def test_an_edge_of_colour_alone_counts():
    grey = halves((119, 119, 119), (119, 119, 119))
    assert not colour_edges(grey).any()
    assert colour_edges(halves((160, 100, 60), (60, 115, 160))).max() == 1


def test_a_faint_edge_stays_faint_where_there_is_none_stronger():
    faint = colour_edges(halves((100, 100, 100), (102, 102, 102)))
    assert 0 < faint.max() < 0.5


def test_mirrored_and_turned_images_have_mirrored_and_turned_edges():
    image = np.random.default_rng(0).integers(0, 255, (32, 48, 3)).astype(np.uint8)
    found = colour_edges(image)
    assert np.allclose(colour_edges(image[:, ::-1]), found[:, ::-1], atol=1e-3)
    assert np.allclose(colour_edges(image.transpose(1, 0, 2)), found.T, atol=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (29, 2), (4, 4), (33, 41)])
def test_any_size_stays_in_range(size):
    image = np.random.default_rng(0).integers(0, 255, (*size, 3)).astype(np.uint8)
    found = colour_edges(image)
    assert found.shape == (-(-size[0] // 4), -(-size[1] // 4))
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 1
