from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from drawing import boxes, random_instances
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pixelkin.data import Instances
from pixelkin.metrics import AveragePrecision, crowded

SIZE = (64, 72)


def reference(pairs, classes, max_detections, agnostic, areas) -> tuple[dict[str, float | None], float | None]:
    """pycocotools' numbers, and crowd_AR from its matches."""
    annotations, detections, in_crowd = [], [], set()
    for image, (pred, truth) in enumerate(pairs, start=1):
        merged = Instances(truth.size, truth.rles, labels=np.ones(len(truth)), crowd=truth.crowd)
        together = crowded(merged if agnostic else truth)
        for i in range(len(truth)):
            rle = {"size": truth.rles[i]["size"], "counts": truth.rles[i]["counts"]}
            identity = len(annotations) + 1
            annotation = {"id": identity, "image_id": image, "category_id": int(truth.labels[i]), "segmentation": rle}
            annotation |= {"iscrowd": int(truth.crowd[i]), "area": float(areas[image - 1][i]), "bbox": [0, 0, 1, 1]}
            annotations.append(annotation)
            if together[i]:
                in_crowd.add(identity)
        for i in range(len(pred)):
            rle = {"size": pred.rles[i]["size"], "counts": pred.rles[i]["counts"]}
            detection = {"image_id": image, "category_id": int(pred.labels[i]), "segmentation": rle}
            detections.append(detection | {"score": float(pred.scores[i])})
    with contextlib.redirect_stdout(io.StringIO()):
        truth_set = COCO()
        truth_set.dataset = {
            "info": {},
            "images": [
                {"id": image, "height": truth.size[0], "width": truth.size[1]}
                for image, (_, truth) in enumerate(pairs, start=1)
            ],
            "annotations": annotations,
            "categories": [{"id": label, "name": name} for label, name in classes.items()],
        }
        truth_set.createIndex()
        found = truth_set.loadRes(detections) if detections else COCO()
        if not detections:
            found.dataset = {**truth_set.dataset, "annotations": []}
            found.createIndex()
        evaluation = COCOeval(truth_set, found, "segm")
        evaluation.params.maxDets = sorted({min(n, max_detections) for n in (1, 10, 100, max_detections)})
        evaluation.params.useCats = int(not agnostic)
        evaluation.evaluate()
        evaluation.accumulate()

    def percent(values):
        values = values[values > -1]
        return 100 * values.mean() if values.size else None

    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    out = {
        "AP": percent(precision[..., 0, -1]),
        "AP50": percent(precision[0, ..., 0, -1]),
        "AP75": percent(precision[5, ..., 0, -1]),
        "AR": percent(recall[..., 0, -1]),
    }
    for a, name in enumerate(("small", "medium", "large"), start=1):
        out[f"AP_{name}"] = percent(precision[..., a, -1])
        out[f"AR_{name}"] = percent(recall[..., a, -1])
    out |= {f"AR@{n}": percent(recall[..., 0, m]) for m, n in enumerate(evaluation.params.maxDets)}
    hits = 0.0
    for group in evaluation.evalImgs:
        if group is not None and tuple(group["aRng"]) == (0, 1e10):
            mine = [identity in in_crowd for identity in group["gtIds"]]
            hits += (group["gtMatches"] > 0)[:, mine].mean(axis=0).sum()
    return out, 100 * hits / len(in_crowd) if in_crowd else None


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    tied=st.booleans(),
    max_detections=st.sampled_from([1, 3, 5, 150, 1000]),
    agnostic=st.booleans(),
)
def test_same_as_pycocotools_to_the_bit(seed, tied, max_detections, agnostic):
    rng = np.random.default_rng(seed)
    classes = {7: "c", 2: "a", 90: "z", 3: "never there"}
    scores = [0.25, 0.5, 0.75] if tied and not agnostic else rng.random(500).astype(np.float32)
    counter = AveragePrecision(classes, max_detections=max_detections, agnostic=agnostic)
    pairs, areas = [], []
    for _ in range(int(rng.integers(1, 5))):
        truth = random_instances(rng, SIZE, int(rng.integers(0, 8)), [2, 7, 90], crowd=0.2)
        pred = random_instances(rng, SIZE, int(rng.integers(0, 12)), [2, 7, 90], scores=scores, around=truth)
        pairs.append((pred, truth))
        areas.append(truth.areas * rng.uniform(0.9, 1.1, len(truth)))
        if agnostic:  # pycocotools orders equal scores of several classes by class, which agnostic ones have not
            assume(len(np.unique(pred.scores)) == len(pred))
        counter.update(pred, truth, areas=areas[-1])
    found = counter.compute()
    expected, crowd_recall = reference(pairs, classes, max_detections, agnostic, areas)
    assert {key: found[key] for key in expected} == expected
    assert found["crowd_AR"] == pytest.approx(crowd_recall, abs=1e-9)


def test_up_to_a_thousand_detections_count():
    """150 objects found behind 100 wrong guesses of a better score: none of pycocotools' first 100 is right."""
    cells = [(y, x, y + 4, x + 4) for y in range(0, 60, 6) for x in range(0, 90, 6)]
    size = (72, 100)
    truth = boxes(size, cells)
    wrong = [(64, x % 90, 70, x % 90 + 6) for x in range(100)]
    pred = Instances.concatenate(
        [boxes(size, wrong, scores=np.full(100, 0.9)), boxes(size, cells, scores=np.full(150, 0.5))]
    )
    many, few = AveragePrecision({1: "cell"}), AveragePrecision({1: "cell"}, max_detections=100)
    many.update(pred, truth)
    few.update(pred, truth)
    assert many.compute()["AR"] == 100.0
    assert many.compute()["AR@100"] == 0.0
    assert many.compute()["AP"] == pytest.approx(60.0)  # at every recall the best precision is 150 of 250
    assert few.compute()["AP"] == 0.0


def test_more_images_after_reading_the_numbers():
    truth = boxes(SIZE, [(0, 0, 9, 9), (20, 20, 40, 40)])
    counter = AveragePrecision({1: "thing"})
    counter.update(truth, truth)
    assert counter.compute()["AP"] == pytest.approx(100.0)
    counter.update(Instances.empty(SIZE), truth)
    assert counter.compute()["AR"] == pytest.approx(50.0)
    assert (counter.images, counter.truths, counter.detections) == (2, 4, 2)


def test_crowd_recall_counts_touching_truths_only():
    truth = boxes(SIZE, [(0, 0, 10, 10), (0, 10, 10, 20), (30, 30, 50, 50)])
    merged = boxes(SIZE, [(0, 0, 10, 20), (30, 30, 50, 50)])
    counter = AveragePrecision({1: "thing"})
    counter.update(merged, truth)
    # the merged mask has IoU exactly 0.5 with the first of the two: found at 1 of 10 thresholds, 1 of 2 truths
    assert counter.compute()["crowd_AR"] == pytest.approx(5.0)
    assert counter.crowded_truths == 2
    assert counter.compute()["AR"] == pytest.approx(100 * (1 + 0.1) / 3)


def test_no_crowd_no_number():
    truth = boxes(SIZE, [(0, 0, 10, 10)])
    counter = AveragePrecision({1: "thing"})
    counter.update(truth, truth)
    found = counter.compute()
    assert found["crowd_AR"] is None
    assert found["AP_large"] is None
    assert found["per_class"]["thing"]["AP"] == pytest.approx(100.0)


def test_nothing_at_all():
    counter = AveragePrecision({1: "thing"})
    counter.update(Instances.empty(SIZE), Instances.empty(SIZE))
    assert counter.compute()["AP"] is None


def test_predictions_of_other_classes_are_left_out():
    truth = boxes(SIZE, [(0, 0, 10, 10)])
    pred = boxes(SIZE, [(0, 0, 10, 10), (0, 0, 10, 10)], labels=[1, 44])
    counter = AveragePrecision({1: "thing"})
    counter.update(pred, truth)
    assert counter.detections == 1
    agnostic = AveragePrecision({1: "thing"}, agnostic=True)
    agnostic.update(pred, truth)
    assert agnostic.detections == 2


@pytest.mark.parametrize(
    ("pred", "truth", "message"),
    [
        (Instances.empty((5, 6)), Instances.empty((6, 5)), "same size"),
        (Instances.empty(SIZE), boxes(SIZE, [(0, 0, 3, 3)], labels=[8]), "unnamed classes"),
    ],
)
def test_what_does_not_fit_is_said(pred, truth, message):
    with pytest.raises(ValueError, match=message):
        AveragePrecision({1: "thing"}).update(pred, truth)


def test_max_detections_must_be_positive():
    with pytest.raises(ValueError, match="max_detections"):
        AveragePrecision({1: "thing"}, max_detections=0)


def test_split_recall_counts_truths_in_several_pieces():
    truth = boxes(SIZE, [(0, 0, 10, 10), (30, 30, 50, 50)])
    behind = np.zeros((1, *SIZE), dtype=bool)
    behind[0, 15:25, :10] = behind[0, 15:25, 20:30] = True
    truth = Instances.concatenate([truth, Instances.from_masks(behind)])
    one_piece = boxes(SIZE, [(0, 0, 10, 10), (15, 0, 25, 10)])  # IoU exactly 0.5 with the divided one
    counter = AveragePrecision({1: "thing"}, agnostic=True)
    counter.update(one_piece, truth)
    assert counter.split_truths == 1
    assert counter.compute()["split_AR"] == pytest.approx(10.0)
    assert counter.compute()["crowd_AR"] is None
    assert "split_AR" not in AveragePrecision({1: "thing"}).compute()
    assert {"AR@1", "AR@10", "AR@100", "AR@1000"} <= set(counter.compute())
