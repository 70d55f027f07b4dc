from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pixelkin.metrics.video import boundary_accuracy, contour, judge_sequence, region_similarity

SIZE = (48, 64)


def square(y, x, side=12, value=1):
    out = np.zeros(SIZE, dtype=np.uint8)
    out[y : y + side, x : x + side] = value
    return out


def frames(preds, truths):
    return [(lambda p=p: p, lambda t=t: t) for p, t in zip(preds, truths, strict=True)]


def slow_contour(mask):
    out = np.zeros_like(mask)
    height, width = mask.shape
    for y in range(height):
        for x in range(width):
            for yy, xx in ((y, x + 1), (y + 1, x), (y + 1, x + 1)):
                if yy < height and xx < width and mask[yy, xx] != mask[y, x]:
                    out[y, x] = True
    return out


def slow_accuracy(pred, truth, radius):
    """Dilate both contours by a disk and count."""
    yy, xx = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = yy * yy + xx * xx <= radius * radius
    a, b = slow_contour(pred), slow_contour(truth)
    if not a.any() or not b.any():
        return float(not a.any() and not b.any())
    precision = (a & ndimage.binary_dilation(b, disk)).sum() / a.sum()
    recall = (b & ndimage.binary_dilation(a, disk)).sum() / b.sum()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), tolerance=st.sampled_from([0.008, 0.03, 0.12]))
def test_boundary_accuracy_same_as_dilation(seed, tolerance):
    rng = np.random.default_rng(seed)
    pred, truth = (ndimage.gaussian_filter(rng.standard_normal(SIZE), 4) > rng.normal(0, 0.08) for _ in range(2))
    assert np.array_equal(contour(pred), slow_contour(pred))
    radius = int(np.ceil(tolerance * np.hypot(*SIZE)))
    assert boundary_accuracy(pred, truth, tolerance=tolerance) == pytest.approx(slow_accuracy(pred, truth, radius))


def test_radius_at_the_size_of_davis():
    """0.008 of the diagonal of 854x480 is 7.84, so 8 pixels off is within tolerance and 9 is not."""
    truth = np.zeros((480, 854), dtype=bool)
    truth[:, :400] = True
    for shift, expected in ((8, 1.0), (9, 0.0)):
        pred = np.zeros_like(truth)
        pred[:, : 400 + shift] = True
        assert boundary_accuracy(pred, truth) == expected


def test_region_similarity():
    a, b = square(0, 0) != 0, square(0, 6) != 0
    assert region_similarity(a, b) == pytest.approx(1 / 3)
    assert region_similarity(a & ~a, a) == 0.0
    assert region_similarity(a & ~a, a & ~a) == 1.0
    assert boundary_accuracy(a & ~a, a & ~a) == 1.0
    assert boundary_accuracy(a & ~a, a) == 0.0


def test_first_and_last_frame_do_not_count():
    truth = [square(10, 10, value=255)] * 4
    pred = [np.zeros(SIZE, np.uint8), square(10, 10), square(30, 40), square(0, 0)]
    found = judge_sequence(frames(pred, truth))
    assert (found["J"], found["frames"], found["objects"]) == (50.0, 2, 1)
    assert judge_sequence(frames(pred[1:3], truth[1:3]))["frames"] == 2


def test_one_true_object_takes_all_predicted_ids():
    truth = [square(10, 10, 20, 255)] * 3
    halves = square(10, 10, 20)
    halves[:, 20:][halves[:, 20:] > 0] = 4
    found = judge_sequence(frames([halves] * 3, truth))
    assert (found["J"], found["F"]) == (100.0, 100.0)


def test_missing_prediction_is_empty():
    truth = [square(10, 10)] * 3
    assert judge_sequence(frames([None] * 3, truth)) == {"J": 0.0, "F": 0.0, "frames": 1, "objects": 1}


def test_several_objects_are_assigned_once_for_the_sequence():
    truth = [np.maximum(square(2, 2, value=1), square(30, 40, value=2))] * 5
    swapped = np.maximum(square(2, 2, value=9), square(30, 40, value=5))
    found = judge_sequence(frames([swapped] * 5, truth))
    assert (found["J"], found["F"], found["objects"]) == (100.0, 100.0, 2)
    flipped = np.maximum(square(2, 2, value=5), square(30, 40, value=9))
    found = judge_sequence(frames([swapped, swapped, swapped, flipped, flipped], truth))
    assert found["J"] == pytest.approx(100 * 2 / 3)  # identities change in the third of the three frames that count


def test_objects_without_prediction_count_zero_and_late_ids_count_from_the_start():
    truth = [np.maximum(square(2, 2, value=1), square(30, 40, value=2))] * 4
    late = [np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8), square(2, 2, value=3), square(2, 2, value=3)]
    found = judge_sequence(frames(late, truth))
    assert found["J"] == pytest.approx(25.0)  # object 1 in one of two frames, object 2 never


def test_void_beside_several_objects_is_not_judged():
    truth = np.maximum(square(2, 2, value=1), square(30, 40, value=2))
    truth[2:14, 14:20] = 255
    pred = np.maximum(square(2, 2, value=1), square(30, 40, value=2))
    pred[2:14, 14:20] = 1
    found = judge_sequence(frames([pred] * 3, [truth] * 3))
    assert (found["J"], found["objects"]) == (100.0, 2)


def test_sizes_must_agree():
    with pytest.raises(ValueError, match="same size"):
        judge_sequence(frames([np.zeros((3, 4), np.uint8)] * 3, [square(0, 0)] * 3))
