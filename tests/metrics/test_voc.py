from __future__ import annotations

import numpy as np
import pytest
from drawing import boxes, random_instances
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelkin.data import Instances
from pixelkin.metrics import VOCAveragePrecision
from pixelkin.metrics.voc import IOUS, average_precision

SIZE = (40, 60)
A, B, C = (0, 0, 10, 10), (20, 0, 30, 10), (0, 30, 10, 40)
NOWHERE = (30, 50, 35, 55)


def judged(pred, truth, **kwargs):
    counter = VOCAveragePrecision({1: "thing"})
    counter.update(pred, truth, **kwargs)
    return counter.compute()


def test_all_right():
    found = judged(boxes(SIZE, [A, B]), boxes(SIZE, [A, B]))
    assert {key: found[key] for key in ("AP", "AP25", "AP50", "AP70", "AP75", "AR", "ABO")} == dict.fromkeys(
        ("AP", "AP25", "AP50", "AP70", "AP75", "AR", "ABO"), 100.0
    )


def test_right_wrong_right():
    """Precision 1, 1/2, 2/3 at recall 1/3, 1/3, 2/3: the envelope is 1 up to 1/3 and 2/3 up to 2/3."""
    found = judged(boxes(SIZE, [A, NOWHERE, B], scores=[0.9, 0.8, 0.7]), boxes(SIZE, [A, B, C]))
    assert found["AP50"] == pytest.approx(100 * (1 / 3 + 2 / 3 * 1 / 3))
    assert found["AR"] == pytest.approx(100 * 2 / 3)
    assert found["ABO"] == pytest.approx(100 * 2 / 3)


def test_precision_is_made_monotone():
    """Wrong, right, right: precision 0, 1/2, 2/3; the envelope is 2/3 over the whole recall."""
    found = judged(boxes(SIZE, [NOWHERE, A, B], scores=[0.9, 0.8, 0.7]), boxes(SIZE, [A, B]))
    assert found["AP50"] == pytest.approx(100 * 2 / 3)


def test_a_truth_is_matched_once_and_a_second_detection_is_wrong():
    found = judged(boxes(SIZE, [A, A, B], scores=[0.9, 0.8, 0.7]), boxes(SIZE, [A, B]))
    assert found["AP50"] == pytest.approx(100 * (1 / 2 + 2 / 3 * 1 / 2))


def test_a_detection_looks_at_its_best_truth_only():
    """Both overlap A most; COCO would let the second take the other truth, which it overlaps by 0.4."""
    truth = boxes(SIZE, [(0, 0, 10, 10), (0, 0, 10, 4)])
    found = judged(boxes(SIZE, [(0, 0, 10, 10), (0, 0, 10, 10)], scores=[0.9, 0.8]), truth)
    assert found["AP25"] == pytest.approx(50.0)


def test_overlap_thresholds():
    """IoU 0.6: right at 0.25 and 0.5, and at 3 of the 10 COCO thresholds; the truth's best overlap is 0.6."""
    found = judged(boxes(SIZE, [(0, 0, 6, 10)]), boxes(SIZE, [A]))
    assert (found["AP25"], found["AP50"], found["AP70"], found["AP75"]) == (100.0, 100.0, 0.0, 0.0)
    assert found["AP"] == found["AR"] == pytest.approx(30.0)
    assert found["ABO"] == pytest.approx(60.0)


def test_void_pixels_are_ignored():
    void = np.zeros(SIZE, dtype=bool)
    void[0:10, 10:20] = True
    pred = boxes(SIZE, [(0, 0, 10, 20)])
    assert judged(pred, boxes(SIZE, [A]))["AP75"] == 0.0
    assert judged(pred, boxes(SIZE, [A]), void=void)["AP75"] == 100.0


def test_detections_in_a_crowd_are_not_judged():
    truth = boxes(SIZE, [A, (0, 20, 40, 60)], crowd=[False, True])
    found = judged(boxes(SIZE, [C, A], scores=[0.9, 0.8]), truth)
    assert found["AP50"] == 100.0
    assert found["AR"] == 100.0


def test_classes_without_truth_do_not_count_but_their_absence_from_predictions_does():
    counter = VOCAveragePrecision({1: "cat", 2: "dog", 3: "sofa"})
    counter.update(boxes(SIZE, [A, B], labels=[1, 3]), boxes(SIZE, [A, C], labels=[1, 2]))
    found = counter.compute()
    assert found["AP50"] == pytest.approx(50.0)
    assert found["per_class"]["sofa"]["AP50"] is None
    assert found["per_class"]["dog"]["AP50"] == 0.0


def test_crowd_recall():
    truth = boxes(SIZE, [(0, 0, 10, 10), (0, 10, 10, 20), B])
    assert judged(boxes(SIZE, [(0, 0, 10, 10), B]), truth)["crowd_AR"] == pytest.approx(50.0)
    assert judged(B_only := boxes(SIZE, [B]), B_only)["crowd_AR"] is None


def test_max_detections_an_image_and_class():
    counter = VOCAveragePrecision({1: "thing"}, max_detections=1)
    counter.update(boxes(SIZE, [A, B], scores=[0.2, 0.3]), boxes(SIZE, [A, B]))
    assert counter.compute()["AP50"] == pytest.approx(50.0)
    with pytest.raises(ValueError, match="max_detections"):
        VOCAveragePrecision({}, max_detections=0)


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match="same size"):
        judged(Instances.empty((2, 3)), Instances.empty((3, 2)))
    with pytest.raises(ValueError, match="unnamed classes"):
        judged(Instances.empty(SIZE), boxes(SIZE, [A], labels=[5]))


def slow(images, threshold) -> float:
    """The devkit's loop over all detections of one class, and its integral."""
    flat = sorted(
        ((-pred.scores[i], image, i) for image, (pred, _) in enumerate(images) for i in range(len(pred))),
    )
    used, hits = set(), []
    for _, image, i in flat:
        pred, truth = images[image]
        best, best_j = 0.0, -1
        for j in range(len(truth)):
            a, b = pred.mask(i), truth.mask(j)
            iou = (a & b).sum() / max(1, (a | b).sum())
            if iou > best:
                best, best_j = iou, j
        right = best >= threshold and (image, best_j) not in used
        if right:
            used.add((image, best_j))
        hits.append(right)
    total = sum(len(truth) for _, truth in images)
    hits = np.array(hits, dtype=bool)
    recall = np.concatenate([[0], np.cumsum(hits) / total, [1]])
    precision = np.concatenate([[0], np.cumsum(hits) / np.arange(1, len(hits) + 1), [0]])
    for k in range(len(precision) - 1, 0, -1):
        precision[k - 1] = max(precision[k - 1], precision[k])
    return float(((recall[1:] - recall[:-1]) * precision[1:]).sum())


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_same_as_the_slow_loop(seed):
    rng = np.random.default_rng(seed)
    counter, images = VOCAveragePrecision({1: "thing"}), []
    for _ in range(3):
        truth = random_instances(rng, SIZE, int(rng.integers(1, 5)), [1])
        pred = random_instances(rng, SIZE, int(rng.integers(0, 7)), [1], scores=rng.random(300), around=truth)
        images.append((pred, truth))
        counter.update(pred, truth)
    found = counter.compute()
    for key, threshold in (("AP25", 0.25), ("AP50", 0.5), ("AP70", 0.7), ("AP75", 0.75)):
        assert found[key] == pytest.approx(100 * slow(images, threshold), abs=1e-9)


def test_average_precision_passes_over_what_is_not_judged():
    assert average_precision(np.array([2, 1, 2, 0, 1], dtype=np.int8), 2) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert average_precision(np.zeros(0, dtype=np.int8), 3) == 0.0


def test_thresholds_are_exact_hundredths():
    assert IOUS.tolist() == [0.25, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
