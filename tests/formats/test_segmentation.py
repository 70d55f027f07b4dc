from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import masks
from pycocotools import mask as coco_mask

from pixelkin.data import ImageError, decode_mask, encode_mask
from pixelkin.formats.segmentation import segmentation_to_rle


def runs_of(mask: np.ndarray) -> list[int]:
    """Run lengths in column order, background first: the slow way."""
    runs, value, length = [], False, 0
    for pixel in mask.ravel(order="F"):
        if bool(pixel) != value:
            runs.append(length)
            value, length = bool(pixel), 0
        length += 1
    return [*runs, length]


@given(masks(), st.sampled_from(["text", "bytes", "numbers"]))
def test_every_way_to_write_a_code_gives_the_mask(mask, way):
    rle = encode_mask(mask)
    counts = {"text": rle["counts"].decode(), "bytes": rle["counts"], "numbers": runs_of(mask)}[way]
    read = segmentation_to_rle({"size": list(mask.shape), "counts": counts}, mask.shape, "x")
    assert read == rle


@pytest.mark.parametrize(
    "counts", ["~~~", "o", "0" * 50, "ooooooooooo1", "é", [3, -1, 10], [1.5], [12, 1], [2**70], 7, None]
)
def test_broken_codes_are_refused(counts):
    with pytest.raises(ImageError, match="run-length code"):
        segmentation_to_rle({"size": [3, 4], "counts": counts}, (3, 4), "annotation 7")


@given(st.binary(max_size=30))
def test_any_bytes_are_refused_or_a_mask(counts):
    try:
        rle = segmentation_to_rle({"size": [5, 6], "counts": counts}, (5, 6), "x")
    except ImageError:
        return
    assert rle is not None
    assert decode_mask(rle).shape == (5, 6)


def test_a_code_for_another_size_is_refused():
    with pytest.raises(ImageError, match=r"\[3, 4\].*\[4, 3\]"):
        segmentation_to_rle({"size": [3, 4], "counts": [12]}, (4, 3), "x")


@given(
    st.lists(
        st.lists(st.floats(-5, 25), min_size=6, max_size=12).filter(lambda p: len(p) % 2 == 0), min_size=1, max_size=3
    )
)
def test_polygons_are_filled_as_coco_does(polygons):
    expected = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, 15, 20))).astype(bool)
    rle = segmentation_to_rle(polygons, (15, 20), "x")
    assert rle is not None
    np.testing.assert_array_equal(decode_mask(rle), expected)


def test_two_corners_are_no_box():
    rle = segmentation_to_rle([[1, 1, 5, 5], [0, 0, 3, 0, 3, 3]], (9, 9), "x")
    assert rle is not None
    assert not decode_mask(rle)[5:, 5:].any()
    assert segmentation_to_rle([[1, 1, 5, 5]], (9, 9), "x") is None


@pytest.mark.parametrize(
    "polygon", [[0, 0, 1e12, 0, 5, 5], [0, 0, float("nan"), 1, 2, 2], [0, 0, 1, 1, 2], ["a"] * 6, [[1, 2]] * 3]
)
def test_bad_polygons_are_refused(polygon):
    with pytest.raises(ImageError, match="polygon"):
        segmentation_to_rle([polygon], (9, 9), "x")
