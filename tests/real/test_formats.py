"""The readers on real data, against counts made without them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from pixelkin.formats import convert, open_dataset, read_coco, read_label_maps, read_voc, read_yolo, write_yolo


@pytest.mark.parametrize(("split", "images"), [("train", 180), ("val", 77)])
def test_coco_masks_are_those_of_pycocotools(shared_data: Path, split: str, images: int):
    path = shared_data / f"coco/instances_{split}.json"
    reference = COCO(str(path))
    dataset = read_coco(path)
    assert len(dataset) == images
    assert dataset.classes == {c["id"]: c["name"] for c in reference.dataset["categories"]}
    for sample in dataset[::2]:
        annotations = reference.loadAnns(reference.getAnnIds(imgIds=int(sample.name)))
        found = sample.instances
        assert found is not None
        assert found.ids.tolist() == [a["id"] for a in annotations]
        assert found.labels.tolist() == [a["category_id"] for a in annotations]
        assert found.crowd.tolist() == [bool(a["iscrowd"]) for a in annotations]
        for i, annotation in enumerate(annotations):
            np.testing.assert_array_equal(found.mask(i), reference.annToMask(annotation).astype(bool))
    assert sum(len(sample.instances or ()) for sample in dataset) == len(reference.anns)
    assert all(sample.image.shape[:2] == sample.size for sample in dataset[::10])


def test_coco_semantic_masks_are_the_instances_painted(shared_data: Path):
    dataset = open_dataset(shared_data / "coco/instances_val.json", semantic=shared_data / "coco/val_semantic")
    assert all(sample.has("semantic") for sample in dataset)
    assert len(dataset.classes) == 80
    for sample in dataset:
        found = sample.instances
        assert found is not None
        assert np.mean(found.semantic_map() == sample.semantic) > 0.99


def test_voc(shared_data: Path):
    folder = shared_data / "voc2007"
    dataset = read_voc(folder)
    masked = dataset.with_label("instances")
    listed = (folder / "ImageSets/Segmentation/train.txt").read_text().split()
    assert len(dataset) == 497
    assert [sample.name for sample in masked] == listed
    assert [sample.name for sample in open_dataset(folder / "ImageSets/Segmentation/train.txt")] == listed
    assert all(sample.tags and sample.boxes is not None for sample in dataset)
    gaps = []
    for sample in masked:
        ids = np.asarray(Image.open(folder / f"SegmentationObject/{sample.name}.png"))
        found, semantic = sample.instances, sample.semantic
        assert found is not None
        assert semantic is not None
        assert found.ids.tolist() == sorted(set(np.unique(ids).tolist()) - {0, 255})
        for i in range(len(found)):
            assert (semantic[ids == found.ids[i]] == found.labels[i]).all()
        np.testing.assert_array_equal(sample.ignore, ids == 255)
        assert sample.boxes is not None
        assert sorted(sample.boxes.labels.tolist()) == sorted(found.labels.tolist())
        order = np.array([np.abs(sample.boxes.xyxy - box).sum(axis=1).argmin() for box in found.boxes])
        gaps.append(sample.boxes.xyxy[order] - found.boxes)
    # boxes are drawn around the void rim of the same masks: as much wider on one side as on the other
    x0, y0, x1, y1 = np.median(np.concatenate(gaps), axis=0)
    assert abs(x0 + x1) < 1
    assert abs(y0 + y1) < 1
    assert max(-x0, -y0, x1, y1) <= 3


def test_voc_with_predicted_masks(shared_data: Path):
    folder = shared_data / "voc2007"
    dataset = open_dataset(folder, semantic=folder / "SemanticPredicted")
    assert len(dataset.with_label("semantic")) == 497
    assert dataset.classes[20] == "tvmonitor"
    seen: set[int] = set()
    for sample in dataset[:100]:
        assert sample.semantic is not None
        seen |= set(np.unique(sample.semantic).tolist())
    assert seen <= {0, 255, *range(1, 21)}
    assert len(seen) > 15


def test_nuclei(shared_data: Path):
    folder = shared_data / "dsb2018/val"
    dataset = open_dataset(folder / "images", semantic=folder / "semantic")
    assert len(dataset) == 30
    assert dataset.classes == {1: "nucleus"}
    labels = read_label_maps(folder / "labels", classes=dataset.classes)
    assert [sample.name for sample in labels] == [sample.name for sample in dataset]
    for sample, truth in zip(dataset, labels, strict=True):
        ids = np.asarray(Image.open(folder / f"labels/{truth.name}.png"))
        found = truth.instances
        assert found is not None
        assert len(found) == len(np.unique(ids)) - 1
        assert sample.semantic is not None
        np.testing.assert_array_equal(sample.semantic > 0, found.label_map() > 0)


def test_davis(shared_data: Path):
    dataset = open_dataset(shared_data / "davis2016")
    assert len({sample.clip for sample in dataset}) == 10
    assert len(dataset) == len(dataset.with_label("instances")) == 576
    for sample in list(dataset)[::50]:
        mask = np.asarray(Image.open(shared_data / f"davis2016/Annotations/480p/{sample.name}.png")) > 0
        found = sample.instances
        assert found is not None
        assert len(found) == int(mask.any())
        np.testing.assert_array_equal(found.masks().any(axis=0), mask)
        assert sample.image.shape == (480, 854, 3)


@pytest.mark.parametrize("source", ["coco/instances_val.json", "voc2007", "dsb2018/val/labels"])
def test_converting_to_coco_loses_nothing(shared_data: Path, tmp_path: Path, source: str):
    report = convert(shared_data / source, tmp_path / "out.json", "coco")
    assert report.lossless
    assert len(COCO(str(tmp_path / "out.json")).anns) == report.instances
    again = convert(tmp_path / "out.json", tmp_path / "again.json", "coco")
    assert again.instances == report.instances
    first, second = (json.loads((tmp_path / name).read_text())["annotations"] for name in ("out.json", "again.json"))
    assert [a["segmentation"] for a in first] == [a["segmentation"] for a in second]


def test_yolo_says_what_it_changed(shared_data: Path, tmp_path: Path):
    dataset = read_coco(shared_data / "coco/instances_val.json")
    report = write_yolo(tmp_path, dataset[:30], dataset.classes)
    losses = {loss.name: loss for loss in report.losses}
    written = {sample.name: sample for sample in read_yolo(tmp_path)}
    joined = 0
    for sample in dataset[:30]:
        before, after = sample.instances, written[sample.name].instances
        assert before is not None
        assert after is not None
        kept = before[~before.crowd & (before.areas > 0)]
        assert after.labels.tolist() == kept.labels.tolist()
        changed = sum(int((kept.mask(i) != after.mask(i)).sum()) for i in range(len(kept)))
        loss = losses.get(sample.name)
        assert changed + int(before.areas[before.crowd].sum()) == (loss.area_changed if loss else 0)
        joined += loss.pieces if loss else 0
    assert joined > 10
    # one polygon a mask costs a few lines of pixels
    share = sum(loss.area_changed for loss in report.losses if not loss.dropped) / sum(
        loss.area_before for loss in report.losses
    )
    assert share < 0.002


def test_depth_is_in_metres(shared_data: Path, tmp_path: Path):
    for kind in ("image", "depth"):
        (tmp_path / kind).mkdir()
        for path in (shared_data / "nyu2_mini").glob(f"{kind}_*.png"):
            shutil.copy(path, tmp_path / kind / path.name.removeprefix(f"{kind}_"))
    dataset = open_dataset(tmp_path / "image", depth=tmp_path / "depth")
    assert len(dataset) == len(dataset.with_label("depth")) == 10
    depths = [sample.depth for sample in dataset]
    assert all(depth is not None and 0.5 < np.median(depth[depth > 0]) < 8 for depth in depths)  # rooms
