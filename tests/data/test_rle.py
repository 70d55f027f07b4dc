from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from pixelkin.data.rle import box_of, code_of, decode_mask, encode_label_map, encode_mask, normal, paint, runs_of

masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=14))


def theirs(mask) -> bytes:
    return coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]


@given(masks)
def test_the_bytes_are_those_of_pycocotools(mask):
    code = encode_mask(mask)
    assert code["counts"] == theirs(mask)
    assert code["size"] == list(mask.shape)
    assert np.array_equal(decode_mask(code), mask)
    x, y, w, h = coco_mask.toBbox(code).tolist()
    assert box_of(code) == (x, y, x + w, y + h)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (700, 900)])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999, 1.0])
def test_large_masks_and_long_runs(shape, share):
    mask = np.random.default_rng(0).random(shape) < share
    assert encode_mask(mask)["counts"] == theirs(mask)
    assert np.array_equal(decode_mask(encode_mask(mask)), mask)


@given(st.lists(st.integers(0, 2**31), min_size=1, max_size=9))
def test_runs_of_any_length_come_back(runs):
    size = (sum(runs), 1)
    if not 0 < size[0] < 2**32:
        return
    code = code_of(runs, size)
    assert runs_of(code).tolist() == runs
    if size[0] < 2**29:  # beyond, pycocotools writes over its own memory: six characters for what needs seven
        assert code["counts"] == coco_mask.frPyObjects({"size": size, "counts": runs}, *size)["counts"]


@given(st.binary(max_size=12), st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_any_bytes_are_a_mask_or_an_error(text, size):
    try:
        mask = decode_mask({"size": list(size), "counts": text})
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert mask.shape == size
        assert np.array_equal(mask, coco_mask.decode({"size": list(size), "counts": text}).astype(bool))


def test_runs_that_do_not_fill_the_image_are_refused():
    for size in ((2, 2), (200, 200)):
        with pytest.raises(ValueError, match="fill"):
            runs_of({"size": list(size), "counts": encode_mask(np.ones((9, 9)))["counts"]})
    for runs in ([3], [5], [-1, 5], [[4]]):
        with pytest.raises(ValueError, match="fill"):
            code_of(runs, (2, 2))


def test_every_form_of_a_coco_file():
    mask = np.eye(3, dtype=bool)
    code = encode_mask(mask)
    assert normal({"size": (3, 3), "counts": code["counts"].decode()}) == code
    assert normal({"size": [3, 3], "counts": [0, 1, 3, 1, 3, 1]}) == code
    with pytest.raises(ValueError, match="broken"):
        runs_of(normal({"size": [3, 3], "counts": "0 4"}))


def test_empty_runs_in_the_middle_make_no_box():
    code = code_of([4, 0, 3, 1, 1, 0, 0], (3, 3))
    assert box_of(code) == (2, 1, 3, 2)
    assert box_of(code_of([0, 0, 9], (3, 3))) == (0, 0, 0, 0)


@given(hnp.arrays(np.int16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(-3, 6)))
def test_label_maps(label_map):
    codes = encode_label_map(label_map)
    assert list(codes) == sorted(set(label_map.ravel().tolist()))
    for value, code in codes.items():
        assert code == encode_mask(label_map == value)


@given(masks)
def test_painting_is_assignment(mask):
    flat = np.arange(mask.size)
    paint(flat, encode_mask(mask), -1)
    wanted = np.arange(mask.size).reshape(mask.shape[::-1]).T.copy()
    wanted[mask] = -1
    assert np.array_equal(flat.reshape(mask.shape[::-1]).T, wanted)


def test_painting_very_ragged_masks():
    mask = np.random.default_rng(1).random((300, 200)) < 0.5
    flat = np.zeros(mask.size, dtype=int)
    paint(flat, encode_mask(mask), 3)
    assert np.array_equal(flat.reshape(200, 300).T == 3, mask)
