"""pixelkin.partition: scored instances from affinities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pixelkin
from pixelkin.grouping.partition import PartitionMethod, segment_scores

OFFSETS = [(-1, 0), (0, -1), (-3, 0), (0, -3), (2, -2), (0, -6)]


def affinities_of(labels: np.ndarray, yes: float = 0.9, no: float = 0.1) -> np.ndarray:
    """Affinities that are right about every pair, more or less surely."""
    out = np.full((len(OFFSETS), *labels.shape), 0.5)
    for c, (dy, dx) in enumerate(OFFSETS):
        for y, x in np.ndindex(*labels.shape):
            if 0 <= y + dy < labels.shape[0] and 0 <= x + dx < labels.shape[1]:
                out[c, y, x] = yes if labels[y, x] == labels[y + dy, x + dx] else no
    return out


def scene() -> np.ndarray:
    """Two objects that touch, one apart, one tiny."""
    labels = np.zeros((20, 30), np.int64)
    labels[2:12, 2:12], labels[2:12, 12:22], labels[14:19, 5:15], labels[0, 29] = 1, 2, 3, 4
    return labels


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_scores_are_the_means_they_say(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(1, 9, 2))
    labels, affinities = rng.integers(0, 4, size), rng.random((len(OFFSETS), *size)).astype(np.float32)
    found = segment_scores(labels, affinities, OFFSETS)
    assert len(found) == labels.max()
    for k in range(1, labels.max() + 1):
        within, out = [], []
        for c, y, x in np.ndindex(*affinities.shape):
            v, u = y + OFFSETS[c][0], x + OFFSETS[c][1]
            if 0 <= v < size[0] and 0 <= u < size[1]:
                ends = int(labels[y, x] == k) + int(labels[v, u] == k)
                (within if ends == 2 else out if ends == 1 else []).append(affinities[c, y, x])
        truth = (np.mean(within, dtype=float) if within else 0) * (1 - (np.mean(out, dtype=float) if out else 0))
        assert found[k - 1] == pytest.approx(truth, abs=1e-6)


@pytest.mark.parametrize("method", ["mutex", "gasp"])
@pytest.mark.parametrize("probable", [False, True])
def test_objects_scores_and_classes(probable: bool, method: PartitionMethod) -> None:
    labels = scene()
    foreground = np.where(labels > 0, 0.8, 0.3) if probable else labels > 0
    found = pixelkin.partition(affinities_of(labels), OFFSETS, foreground, method=method)
    order = np.array([0, 2, 3, 4, 1])  # in raster order the tiny one comes first
    np.testing.assert_array_equal(found.labels, order[labels])
    assert found.labels.dtype == np.int32
    expected = 0.9 * 0.9 * (0.8 if probable else 1)
    assert found.scores == pytest.approx([0, expected, expected, expected])
    assert found.scores.dtype == np.float32
    assert found.classes.tolist() == [1, 1, 1, 1]


def test_noise_is_averaged_out() -> None:
    labels = scene()
    rng = np.random.default_rng(0)
    affinities = np.clip(affinities_of(labels, 0.75, 0.25) + rng.normal(0, 0.2, (len(OFFSETS), 20, 30)), 0, 1)
    found = pixelkin.partition(affinities, OFFSETS, labels > 0, method="gasp")
    assert len(found.scores) == 4
    assert (np.array([0, 2, 3, 4, 1])[labels] == found.labels).mean() > 0.98
    assert len(pixelkin.partition(affinities, OFFSETS, labels > 0).scores) >= 6


def test_small_segments_are_left_out_and_the_rest_renumbered() -> None:
    labels = scene()
    found = pixelkin.partition(affinities_of(labels), OFFSETS, labels > 0, min_area=2)
    np.testing.assert_array_equal(found.labels, np.where(labels == 4, 0, labels))
    instances = found.instances("test")
    assert instances.areas.tolist() == [100, 100, 50]
    assert instances.scores == pytest.approx([0.81] * 3)
    assert set(instances.sources) == {"test"}
    np.testing.assert_array_equal(instances.label_map(), found.labels)


def test_a_wrong_segment_scores_less() -> None:
    labels = scene()
    affinities = affinities_of(labels)
    right = segment_scores(labels, affinities, OFFSETS)[0]
    merged, halved = np.where(labels == 2, 1, labels), labels.copy()
    halved[2:7, 2:12] = 5
    assert segment_scores(merged, affinities, OFFSETS)[0] < right - 0.05
    assert segment_scores(halved, affinities, OFFSETS)[0] < right - 0.05


def test_classes_divide_name_and_leave_out_the_background() -> None:
    labels = scene()
    affinities = affinities_of(np.where(labels == 2, 1, labels))  # blind to the border of the two that touch
    classes = np.zeros((3, *labels.shape))
    classes[0][labels == 0], classes[1][np.isin(labels, [1, 3, 4])], classes[2][labels == 2] = 0.95, 0.95, 0.95
    found = pixelkin.partition(affinities, OFFSETS, classes=classes, class_ids=[0, 7, 300], min_area=2)
    np.testing.assert_array_equal(found.labels, np.where(labels == 4, 0, labels))
    assert found.classes.tolist() == [7, 300, 7]
    assert found.instances().labels.tolist() == [7, 300, 7]
    plain = pixelkin.partition(affinities, OFFSETS, classes=classes, min_area=2)
    assert plain.classes.tolist() == [1, 2, 1]
    assert plain.scores[2] == pytest.approx(0.9 * 0.9 * 0.95)


def test_nothing_is_there() -> None:
    found = pixelkin.partition(np.ones((6, 4, 5)), OFFSETS, np.zeros((4, 5), bool))
    assert not found.labels.any()
    assert len(found.scores) == len(found.classes) == len(found.instances()) == 0


def test_the_inputs_stay_as_they_were() -> None:
    labels = scene()
    affinities, foreground = affinities_of(labels).astype(np.float32), labels > 0
    affinities.flags.writeable = foreground.flags.writeable = False
    before = affinities.copy()
    pixelkin.partition(affinities, OFFSETS, foreground, stride=(2, 4))
    np.testing.assert_array_equal(affinities, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offsets": [(-1, 0), (0, -1), (1, 1)]}, "long-range"),
        ({"affinities": np.full((3, 4, 5), -3.0)}, "sigmoid"),
        ({"foreground": np.full((4, 5), 255, np.uint8)}, "bool or probabilities"),
        ({"foreground": np.full((4, 5), np.nan)}, "probabilities in 0..1"),
        ({"foreground": np.ones((5, 4), bool)}, r"\(4, 5\)"),
        ({"class_ids": [0, 1]}, "give classes too"),
        ({"method": "multicut"}, "one of mutex, gasp"),
        ({"method": "gasp", "classes": np.ones((2, 4, 5))}, "no classes"),
        ({"classes": np.ones((2, 4, 5)), "class_ids": [0]}, "each of 2 classes"),
        ({"classes": np.full((2, 4, 5), np.nan)}, "softmax"),
    ],
)
def test_what_cannot_work_is_said(change: dict[str, object], message: str) -> None:
    call = {"affinities": np.ones((3, 4, 5)), "offsets": [(-1, 0), (0, -1), (0, -3)]} | change
    with pytest.raises(ValueError, match=message) as caught:
        pixelkin.partition(**call)
    assert "\n" not in str(caught.value)


def test_scores_of_labels_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="integers from 0 on"):
        segment_scores(np.ones((5, 4), int), np.ones((1, 4, 5)), [(0, -1)])
