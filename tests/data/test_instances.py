from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pixelkin.data import Instances, decode_mask, encode_mask

sizes = st.tuples(st.integers(1, 12), st.integers(1, 12))


@st.composite
def mask_stacks(draw, least=0):
    """(N, H, W) with empty and full masks, holes, pieces and overlaps."""
    h, w = draw(sizes)
    n = draw(st.integers(least, 5))
    return draw(hnp.arrays(bool, (n, h, w), elements=st.booleans()))


@st.composite
def lists(draw, least=0):
    masks = draw(mask_stacks(least))
    n = len(masks)
    numbers = st.integers(-(2**40), 2**40)
    return Instances.from_masks(
        masks,
        labels=draw(st.lists(st.integers(1, 2**31 - 1), min_size=n, max_size=n)),
        scores=draw(st.lists(st.floats(0, 1, width=32), min_size=n, max_size=n)),
        sources=draw(st.lists(st.text(max_size=6).filter(lambda s: not s.endswith("\0")), min_size=n, max_size=n)),
        crowd=draw(st.lists(st.booleans(), min_size=n, max_size=n)),
        ids=draw(st.none() | st.lists(numbers, min_size=n, max_size=n)),
        tracks=draw(st.none() | st.lists(st.integers(0, 2**40), min_size=n, max_size=n)),
    )


def assert_same_rows(picked: Instances, whole: Instances, rows) -> None:
    rows = np.atleast_1d(np.asarray(rows, dtype=int))
    assert len(picked) == len(rows)
    assert picked.size == whole.size
    for column in ("labels", "scores", "sources", "crowd", "ids", "tracks"):
        assert getattr(picked, column).tolist() == getattr(whole, column)[rows].tolist()
        assert getattr(picked, column).dtype.kind == getattr(whole, column).dtype.kind
    assert np.array_equal(picked.masks(), whole.masks()[rows])


@given(mask_stacks())
def test_masks_survive_bit_for_bit(masks):
    instances = Instances.from_masks(masks)
    assert np.array_equal(instances.masks(), masks)
    assert instances.masks().dtype == bool
    assert len(instances) == len(masks)
    for i, mask in enumerate(masks):
        assert np.array_equal(instances.mask(i), mask)


@given(mask_stacks(least=1))
def test_codes_are_canonical(masks):
    """The same mask always has the same code, so that equality of codes is equality of masks."""
    for mask in masks:
        code = encode_mask(mask)
        assert encode_mask(decode_mask(code)) == code
        assert encode_mask(np.asfortranarray(mask)) == code
        assert encode_mask(mask.astype(np.float64) * -7) == code


@given(mask_stacks())
def test_areas_and_boxes_agree_with_dense_masks(masks):
    instances = Instances.from_masks(masks)
    assert instances.areas.tolist() == masks.sum(axis=(1, 2)).tolist()
    assert instances.boxes.shape == (len(masks), 4)
    for box, mask in zip(instances.boxes.tolist(), masks, strict=True):
        ys, xs = np.nonzero(mask)
        tight = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(ys) else [0, 0, 0, 0]
        assert box == tight


def test_a_hole_a_piece_and_an_overlap_stay():
    ring = np.zeros((9, 11), dtype=bool)
    ring[1:8, 1:8] = True
    ring[3:6, 3:6] = False
    ring[8, 10] = True
    disc = np.zeros_like(ring)
    disc[2:5, 2:5] = True
    both = Instances.from_masks(np.stack([ring, disc]))
    assert np.array_equal(both.masks(), np.stack([ring, disc]))
    assert both.areas.tolist() == [41, 9]
    assert (both.mask(0) & both.mask(1)).sum() == 5


@given(lists(), st.data())
def test_indexing_is_like_numpy(instances, data):
    n = len(instances)
    rows = np.arange(n)
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), dtype=bool)
    assert_same_rows(instances[keep], instances, rows[keep])
    span = data.draw(st.slices(n))
    assert_same_rows(instances[span], instances, rows[span])
    assert_same_rows(instances[[]], instances, rows[[]])
    if n:
        some = data.draw(st.lists(st.integers(-n, n - 1), max_size=7))
        assert_same_rows(instances[some], instances, rows[some])
        one = data.draw(st.integers(-n, n - 1))
        assert_same_rows(instances[one], instances, rows[one])
        assert_same_rows(instances[np.int64(one)], instances, rows[one])
    assert [len(one) for one in instances] == [1] * n


def test_wrong_indices_are_refused():
    instances = Instances.from_masks(np.ones((3, 2, 2)))
    for index in (3, -4, [0, 3], np.ones(2, dtype=bool), np.zeros((1, 1), dtype=int), None, (0, 0), 0.5):
        with pytest.raises(IndexError):
            instances[index]


@given(lists(), st.integers(0, 5))
def test_concatenating_parts_gives_the_whole(instances, cut):
    assert Instances.concatenate([instances[:cut], instances[cut:]]) == instances
    assert Instances.concatenate([Instances.empty(instances.size), instances]) == instances


def test_equality_sees_every_column():
    one = Instances.from_masks(np.ones((1, 2, 3)))
    assert one == Instances.from_masks(np.ones((1, 2, 3)))
    assert one != Instances.from_masks(np.zeros((1, 2, 3)))
    assert one != Instances.from_masks(np.ones((1, 3, 2)))
    for change in (
        {"labels": [2]},
        {"scores": [0.5]},
        {"sources": ["x"]},
        {"crowd": [True]},
        {"ids": [9]},
        {"ids": [1], "tracks": [1]},
    ):
        assert one != Instances.from_masks(np.ones((1, 2, 3)), **change)
    assert one != "something else"


@given(lists())
def test_label_map_shows_the_best_on_top(instances):
    shown = instances.label_map()
    masks = instances.masks()
    for y, x in np.ndindex(*instances.size):
        here = np.flatnonzero(masks[:, y, x])
        # the highest score, and of equals the last
        best = max(here, key=lambda i: (instances.scores[i], i)) + 1 if len(here) else 0
        assert shown[y, x] == best


@given(lists())
def test_semantic_map_puts_small_over_large_and_crowds_below(instances):
    shown = instances.semantic_map(ignore_crowd=None)
    hidden = instances.semantic_map()
    masks, areas = instances.masks(), instances.areas
    for y, x in np.ndindex(*instances.size):
        here = np.flatnonzero(masks[:, y, x])
        if not len(here):
            assert shown[y, x] == hidden[y, x] == 0
            continue
        alone = [i for i in here if not instances.crowd[i]]
        least = min(areas[i] for i in (alone or here))
        wanted = {int(instances.labels[i]) for i in (alone or here) if areas[i] == least}
        assert shown[y, x] in wanted
        assert hidden[y, x] == (shown[y, x] if alone else 255)


@given(hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(-2, 9)))
def test_label_maps_come_back(label_map):
    instances = Instances.from_label_map(label_map, ignore=7)
    ids = [i for i in np.unique(label_map) if i not in (0, 7)]
    assert instances.ids.tolist() == ids
    assert list(instances.rles) == [encode_mask(label_map == i) for i in ids]
    back = np.concatenate([[0], instances.ids])[instances.label_map()]
    assert np.array_equal(back, np.where(label_map == 7, 0, label_map))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64, np.uint64, bool])
def test_label_maps_of_any_integer_type(dtype):
    label_map = np.array([[0, 1], [1, 0]], dtype=dtype)
    instances = Instances.from_label_map(label_map, labels=[4])
    assert instances.ids.tolist() == [1]
    assert instances.labels.tolist() == [4]
    assert np.array_equal(instances.mask(0), label_map == 1)


def test_unusable_label_maps_are_refused():
    for bad in (np.zeros((2, 2), dtype=float), np.zeros(4, dtype=int), np.zeros((0, 3), dtype=int)):
        with pytest.raises(ValueError, match="label map"):
            Instances.from_label_map(bad)


def test_no_instances():
    nothing = Instances.empty((4, 6))
    assert len(nothing) == 0
    assert nothing.masks().shape == (0, 4, 6)
    assert nothing.boxes.shape == (0, 4)
    assert nothing.areas.shape == (0,)
    assert not nothing.label_map().any()
    assert nothing.labels.dtype == np.int64
    assert nothing.sources.dtype.kind == "U"
    assert nothing == Instances.from_masks(np.zeros((0, 4, 6)))
    assert len(Instances.from_label_map(np.zeros((4, 6), dtype=int))) == 0


def test_defaults():
    instances = Instances.from_masks(np.ones((2, 1, 1)))
    assert instances.labels.tolist() == [1, 1]
    assert instances.scores.tolist() == [1.0, 1.0]
    assert instances.sources.tolist() == ["", ""]
    assert instances.crowd.tolist() == [False, False]
    assert instances.ids.tolist() == [1, 2]
    assert instances.tracks.tolist() == [0, 0]


def test_ids_follow_the_tracks():
    masks = np.ones((4, 1, 1))
    assert Instances.from_masks(masks, tracks=[3, 0, 7, 0]).ids.tolist() == [3, 8, 7, 9]
    assert Instances.from_masks(masks, tracks=[2, 2, 1, 1]).ids.tolist() == [2, 2, 1, 1]
    assert Instances.from_masks(masks, tracks=[3, 0, 7, 0], ids=[1, 2, 3, 4]).ids.tolist() == [1, 2, 3, 4]
    with pytest.raises(ValueError, match="track -1"):
        Instances.from_masks(masks, tracks=[1, 2, 3, -1])


def test_columns_and_sizes_must_agree():
    code = encode_mask(np.ones((2, 3)))
    for column in ("labels", "scores", "sources", "crowd", "ids", "tracks"):
        with pytest.raises(ValueError, match=column):
            Instances((2, 3), [code], **{column: [1, 1]})
    with pytest.raises(ValueError, match="resize"):
        Instances((3, 2), [code])
    with pytest.raises(ValueError, match="mask must be"):
        encode_mask(np.ones((1, 2, 3)))
    with pytest.raises(ValueError, match="masks must be"):
        Instances.from_masks(np.ones((2, 3)))
    with pytest.raises(ValueError, match="sizes differ"):
        Instances.concatenate([Instances.empty((1, 2)), Instances.empty((2, 1))])
    with pytest.raises(ValueError, match="nothing"):
        Instances.concatenate([])


def test_an_image_without_pixels_is_refused():
    """pycocotools divides by the height: a size of 0 from a file would end the process."""
    with pytest.raises(ValueError, match="no pixels"):
        Instances((0, 0), [{"size": [0, 0], "counts": b"04"}])


def test_codes_may_be_text_as_in_json():
    code = encode_mask(np.eye(3))
    text = {"size": code["size"], "counts": code["counts"].decode()}
    assert Instances((3, 3), [text]) == Instances((3, 3), [code])


def test_a_code_of_another_length_is_an_error_not_a_crash():
    long = encode_mask(np.ones((100, 100)))
    with pytest.raises(ValueError, match="fill"):
        decode_mask({"size": [2, 2], "counts": long["counts"]})


def test_many_instances():
    """More than a byte can count: pycocotools' area fails there."""
    label_map = np.arange(1, 601).reshape(20, 30)
    instances = Instances.from_label_map(label_map)
    assert instances.areas.tolist() == [1] * 600
    assert instances.boxes[599].tolist() == [29, 19, 30, 20]
    assert np.array_equal(instances.label_map(), label_map)
    assert np.array_equal(instances.semantic_map(), np.ones((20, 30)))


def test_alternatives_are_known_by_their_source():
    masks = np.ones((3, 2, 2), bool)
    instances = Instances.from_masks(masks, sources=["a:semantic", "a:semantic:alternative", ""])
    assert instances.alternative.tolist() == [False, True, False]
    assert Instances.empty((2, 2)).alternative.shape == (0,)
