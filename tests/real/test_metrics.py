"""The baselines of the real sets, from their semantic masks, through evaluate()."""

from __future__ import annotations

import contextlib
import io
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy import ndimage

from pixelkin.data import Dataset, Instances, Sample, encode_mask
from pixelkin.data.sample import read_label_image
from pixelkin.metrics import evaluate


def components(path: Path) -> Instances:
    """Every 8-connected component of every class of at least 16 pixels; score: the square root of its area."""
    semantic = read_label_image(path)
    rles, labels, scores = [], [], []
    for label in np.setdiff1d(semantic, (0, 255)):
        parts, count = ndimage.label(semantic == label, np.ones((3, 3)))
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        for i in np.flatnonzero(sizes[1:] >= 16) + 1:
            rles.append(encode_mask(parts == i))
            labels.append(label)
            scores.append(np.sqrt(sizes[i]))
    return Instances(semantic.shape, rles, labels=labels, scores=scores)


def components_of(folder: Path, classes: dict[int, str]) -> Dataset:
    def sample(path: Path) -> Sample:
        size = read_label_image(path).shape
        return Sample(path.stem, path, size=size, instances=partial(components, path))

    return Dataset([sample(path) for path in sorted(folder.glob("*.png"))], classes)


def classes_of(path: Path) -> dict[int, str]:
    lines = (line.split(maxsplit=1) for line in path.read_text().splitlines() if line.strip())
    return {int(number): name for number, name in lines if int(number) not in (0, 255)}


@pytest.mark.parametrize(
    ("semantic", "truth", "classes", "expected"),
    [
        ("dsb2018/val/semantic", "dsb2018/val/labels", "dsb2018", (72.3, 82.2, 9.2)),
        ("coco/val_semantic", "coco/instances_val.json", "coco", (76.1, 83.5, 8.9)),
        ("voc2007/SemanticPredicted", "voc2007", "voc2007", (33.6, 59.6, 15.0)),
    ],
)
def test_baselines_of_connected_components(shared_data, semantic, truth, classes, expected):
    pred = components_of(shared_data / semantic, classes_of(shared_data / classes / "classes.txt"))
    result = evaluate(pred, shared_data / truth)
    found = result.to_json()
    assert [found["AP"], found["AP50"], found["crowd_AR"]] == pytest.approx(expected, abs=0.1)
    assert found["images_without_prediction"] == 0
    assert found["predictions_without_truth"] == len(pred) - found["images"]


def test_coco_val_same_as_pycocotools(shared_data):
    """With the polygon areas of the file, the small, medium and large of pycocotools come out to the bit."""
    truth = shared_data / "coco" / "instances_val.json"
    pred = components_of(shared_data / "coco" / "val_semantic", classes_of(shared_data / "coco" / "classes.txt"))
    found = evaluate(pred, truth, max_detections=100).to_json()
    with contextlib.redirect_stdout(io.StringIO()):
        truth_set = COCO(str(truth))
        stems = {Path(image["file_name"]).stem: image["id"] for image in truth_set.dataset["images"]}
        detections = []
        for sample in pred:
            instances = sample.instances
            for rle, label, score in zip(instances.rles, instances.labels, instances.scores, strict=True):
                one = {"image_id": stems[sample.name], "category_id": int(label), "segmentation": dict(rle)}
                detections.append(one | {"score": float(score)})
        evaluation = COCOeval(truth_set, truth_set.loadRes(detections), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    keys = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR@1", None, "AR@100", "AR_small", "AR_medium")
    for key, value in zip(keys, evaluation.stats, strict=False):
        assert key is None or found[key] == pytest.approx(100 * value, abs=1e-9)


def test_voc_protocol_on_the_masked_images(shared_data):
    pred = components_of(shared_data / "voc2007" / "SemanticPredicted", classes_of(shared_data / "voc2007/classes.txt"))
    result = evaluate(pred, shared_data / "voc2007", protocol="voc")
    found = result.to_json()
    assert found["images"] == 20
    assert found["truths"] == 60
    assert found["AP25"] > found["AP50"] > found["AP70"] >= found["AP75"] > 20
    assert "void pixels ignored" in result.protocol_line
    json.dumps(found)


def test_miou_of_off_the_shelf_masks(shared_data):
    """The same pixels counted class by class."""
    voc = shared_data / "voc2007"
    found = evaluate(voc / "SemanticPredicted", voc, protocol="semantic").to_json()
    names = sorted(path.stem for path in (voc / "SegmentationClass").glob("*.png"))
    pred, truth = (
        np.concatenate([read_label_image(voc / kind / f"{name}.png").ravel() for name in names])
        for kind in ("SemanticPredicted", "SegmentationClass")
    )
    pred, truth = pred[truth != 255], truth[truth != 255]
    ious = [((pred == i) & (truth == i)).sum() / ((pred == i) | (truth == i)).sum() for i in np.unique(truth)]
    assert found["mIoU"] == pytest.approx(100 * np.mean(ious))
    assert found["accuracy"] == pytest.approx(100 * (pred == truth).mean())
    assert (found["images"], found["classes"]) == (len(names), len(ious))


def test_true_masks_are_perfect(shared_data):
    one = shared_data / "davis2016" / "Annotations" / "480p" / "car-shadow"
    found = evaluate(one, one, protocol="video").to_json()
    assert (found["J"], found["F"]) == (100.0, 100.0)
    found = evaluate(shared_data / "dsb2018/val/semantic", shared_data / "dsb2018/val/semantic", protocol="semantic")
    assert found.to_json()["mIoU"] == 100.0
    found = evaluate(shared_data / "coco/instances_val.json", shared_data / "coco/instances_val.json").to_json()
    assert found["AP"] == pytest.approx(100.0, abs=0.1)
    assert found["crowd_AR"] == 100.0
