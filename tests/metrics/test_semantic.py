from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pixelkin.metrics import MeanIoU


def test_by_hand():
    counter = MeanIoU({1: "cat", 2: "dog"})
    counter.update(np.array([[0, 1, 1], [2, 2, 0]]), np.array([[0, 1, 2], [2, 255, 1]]))
    found = counter.compute()
    # background: 1 of {1 true, 2 predicted} -> 1/2; cat: 1 of {2, 2} -> 1/3; dog: 1 of {2, 1 known} -> 1/2
    assert found["per_class"] == {
        "background": {"id": 0, "IoU": 50.0},
        "cat": {"id": 1, "IoU": pytest.approx(100 / 3)},
        "dog": {"id": 2, "IoU": 50.0},
    }
    assert found["mIoU"] == pytest.approx(100 * (1 / 2 + 1 / 3 + 1 / 2) / 3)
    assert found["accuracy"] == pytest.approx(60.0)


def test_pixels_add_up_over_images():
    one, two = MeanIoU(), MeanIoU()
    a, b = np.array([[0, 1], [1, 1]]), np.array([[0, 0], [1, 3]])
    one.update(np.hstack([a, b]), np.hstack([b, b]))
    two.update(a, b)
    two.update(b, b)
    assert one.compute() == two.compute()
    assert two.images == 2


def test_a_class_only_predicted_costs_the_class_that_is_there():
    counter = MeanIoU()
    counter.update(np.array([[0, 7]]), np.array([[0, 0]]))
    assert counter.compute()["per_class"]["7"] == {"id": 7, "IoU": None}
    assert counter.compute()["mIoU"] == pytest.approx(50.0)


def test_a_predicted_unknown_finds_nothing_and_is_no_class():
    counter = MeanIoU()
    counter.update(np.array([[1, 255]]), np.array([[1, 1]]))
    assert counter.compute()["per_class"] == {"1": {"id": 1, "IoU": 50.0}}


def test_nothing_known():
    counter = MeanIoU()
    counter.update(np.ones((2, 2), dtype=np.uint8), np.full((2, 2), 255, dtype=np.uint8))
    assert counter.compute() == {"mIoU": None, "accuracy": None, "per_class": {}}


@settings(max_examples=40, deadline=None)
@given(
    maps=hnp.arrays(np.int32, (2, 5, 6), elements=st.sampled_from([0, 1, 4, 90, 255, 300])),
)
def test_same_as_counting_pixels(maps):
    pred, truth = maps
    counter = MeanIoU()
    counter.update(pred, truth)
    known = truth != 255
    expected = {}
    for label in sorted(set(np.unique(truth[known])) | set(np.unique(pred[known])) - {255}):
        union = ((pred == label) | (truth == label)) & known
        both = (pred == label) & (truth == label) & known
        expected[int(label)] = 100 * both.sum() / union.sum() if (truth == label).any() else None
    assert {part["id"]: part["IoU"] for part in counter.compute()["per_class"].values()} == expected


@pytest.mark.parametrize(
    ("pred", "truth", "message"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2)), "same size"),
        (np.zeros((2, 2), int), np.full((2, 2), 5000), "map of instances"),
        (np.full((2, 2), -1), np.zeros((2, 2), int), "class ids"),
    ],
)
def test_what_does_not_fit_is_said(pred, truth, message):
    with pytest.raises(ValueError, match=message):
        MeanIoU().update(pred, truth)
