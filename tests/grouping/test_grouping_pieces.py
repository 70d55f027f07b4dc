from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from pixelkin.grouping.pieces import merge_small, split_pieces


@given(st.integers(0, 2**32 - 1), st.sampled_from([4, 8]))
def test_pieces_are_the_connected_parts_of_each_label(seed, connectivity):
    labels = np.random.default_rng(seed).integers(0, 4, (9, 11))
    pieces = split_pieces(labels, connectivity=connectivity)
    structure = np.ones((3, 3)) if connectivity == 8 else None
    assert np.array_equal(pieces > 0, labels > 0)
    expected = []
    for value in (1, 2, 3):
        reference, n = ndimage.label(labels == value, structure)
        expected += [reference == i + 1 for i in range(n)]
    found = [pieces == i + 1 for i in range(pieces.max())]
    assert sorted(mask.tobytes() for mask in found) == sorted(mask.tobytes() for mask in expected)
    values = [int(labels[mask][0]) for mask in found]
    assert values == sorted(values)


def test_a_small_piece_joins_the_neighbour_it_shares_most_border_with():
    labels = np.zeros((6, 12), np.int32)
    labels[:, :5], labels[:, 5:10] = 1, 2
    labels[1:4, 4] = 3  # borders 1 above, below and left, and 2 on the right
    merged = merge_small(labels, np.array([1, 1, 1]), below=4)
    assert np.array_equal(merged[:, :5], np.ones((6, 5)))
    assert np.array_equal(merged[:, 5:10], np.full((6, 5), 2))


def test_only_pieces_of_one_group_join():
    labels = np.array([[1, 1, 1, 2, 3, 3, 3]])
    assert merge_small(labels, np.array([5, 6, 7]), below=3).tolist() == [[1, 1, 1, 2, 3, 3, 3]]
    assert merge_small(labels, np.array([5, 7, 7]), below=3).tolist() == [[1, 1, 1, 2, 2, 2, 2]]


def test_small_pieces_join_each_other_until_they_are_large_enough():
    labels = np.arange(1, 7)[None]
    merged = merge_small(labels, np.ones(6, int), below=2)
    assert np.bincount(merged.ravel())[1:].min() >= 2


def test_a_lone_piece_stays():
    labels = np.array([[1, 0, 2, 2, 2]])
    assert merge_small(labels, np.array([1, 1]), below=3).tolist() == [[1, 0, 2, 2, 2]]


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (3, 3)])
def test_nothing_to_do(shape):
    nothing = np.zeros(shape, np.int32)
    assert not split_pieces(nothing).any()
    assert not merge_small(nothing, np.zeros(0, int), below=5).any()


@given(st.integers(0, 2**32 - 1))
def test_merging_keeps_the_pixels_and_the_groups(seed):
    rng = np.random.default_rng(seed)
    labels = split_pieces(rng.integers(0, 5, (8, 9)))
    groups = rng.integers(1, 3, labels.max())
    merged = merge_small(labels, groups, below=4)
    assert np.array_equal(merged > 0, labels > 0)
    assert np.array_equal(np.unique(merged[merged > 0]), np.arange(1, merged.max() + 1))
    group_of = np.concatenate([[0], groups])[labels]
    for i in range(1, merged.max() + 1):
        inside = merged == i
        assert len(np.unique(group_of[inside])) == 1
        if inside.sum() < 4:  # then nobody of its group is beside it
            ring = ndimage.binary_dilation(inside, np.ones((3, 3))) & ~inside
            assert group_of[inside][0] not in group_of[ring]
