from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelkin.formats import SourceError, convert, open_dataset, read_coco, read_wis, read_wis_frame
from pixelkin.metrics import evaluate

VEHICLE, PEDESTRIAN = {"TYPE_VEHICLE": {}}, {"TYPE_PEDESTRIAN": {}}


def box(identity, corners, result=VEHICLE, polygons=()):
    return {"id": identity, "data": corners, "result": result, "refObjectId": list(polygons)}


def polygon(identity, corners, references, result=VEHICLE):
    return {"id": identity, "data": corners, "result": result, "refObjectId": list(references), "dataProperty": []}


def square(x0, y0, x1, y1):
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def write(root: Path, frames) -> Path:
    for name, data in frames.items():
        path = root / "segment-1" / "images" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"frame_id": f"{name}.png", "data": data}))
    return root


FRAME = {
    "lane": [],
    "points": [],
    "bbox": [
        box(1, [0.1, 0.1, 0.4, 0.3], polygons=[11, 12]),
        box(2, [0.5, 0.5, 0.7, 0.7], polygons=[13]),
        box(3, [0.75, 0.75, 0.8, 0.8], PEDESTRIAN),
        box(4, [0.9, 0.9, 0.92, 0.95], polygons=[14]),
        box(4, [0.95, 0.5, 0.97, 0.55]),  # the same id again
    ],
    "poly": [
        polygon(11, square(0.1, 0.1, 0.2, 0.3), [1]),
        polygon(12, square(0.3, 0.1, 0.4, 0.3), [1]),
        polygon(13, square(0.5, 0.5, 0.7, 0.7), [2, 1], PEDESTRIAN),  # its own class, and the first of its boxes
        polygon(14, square(0.9, 0.9, 1.0014, 0.95), [4]),  # a little outside
        polygon(15, square(0.0, 0.8, 0.1, 0.9), []),  # an orphan
        polygon(16, [0.2, 0.2, 0.3, 0.3], [3]),  # encloses nothing
        polygon(17, square(0.3, 0.8, 0.4, 0.9), [99, 3]),  # the first valid box
    ],
}


@pytest.fixture
def release(tmp_path):
    empty = {"lane": [], "points": [], "bbox": [box(1, [0.1, 0.1, 0.2, 0.2])]}  # no "poly" at all
    frames = {"frame_000000": FRAME, "frame_000020": "unmarkable", "frame_000040": empty}
    return write(tmp_path / "waymo_val_anno", frames)


def test_rules_of_one_frame(release):
    found = read_wis_frame(release / "segment-1/images/frame_000000.json")
    assert found is not None
    assert [(one.identity, one.class_id, len(one.polygons)) for one in found] == [
        (1, 1, 2),
        (2, 2, 1),
        (4, 1, 1),
        (15, 1, 1),
        (3, 1, 1),
        (4, 1, 0),
    ]
    assert max(one.polygons[0].max() for one in found if one.polygons) <= 1
    assert found[3].box is None
    assert found[5].box == pytest.approx((0.95, 0.5, 0.97, 0.55))
    assert read_wis_frame(release / "segment-1/images/frame_000020.json") is None


def test_masks_are_unions_of_polygons_in_pixels(release):
    dataset = read_wis(release.parent)
    assert [sample.name for sample in dataset] == ["segment-1/frame_000000", "segment-1/frame_000040"]
    assert dataset.classes == {1: "vehicle", 2: "pedestrian", 3: "cyclist"}
    found = dataset[0].instances
    assert found.size == (1280, 1920)
    expected = np.zeros((1280, 1920), bool)
    expected[128:384, 192:384] = expected[128:384, 576:768] = True
    np.testing.assert_array_equal(found.mask(0), expected)
    assert not found.crowd.any()
    assert len(dataset[1].instances) == 0
    assert (dataset[1].clip, dataset[1].frame) == ("segment-1", 40)


def test_boxes_without_masks_are_ignored_regions_if_wanted(release):
    dataset = read_wis(release, unmarked=True)
    assert [len(sample.instances) for sample in dataset] == [6, 1]
    assert dataset[0].instances.crowd.tolist() == [False] * 5 + [True]
    assert dataset[1].instances.boxes.tolist() == [[192, 128, 384, 256]]


@pytest.mark.parametrize("inner", ["segment-1/images", "segment-1"])
def test_images_of_any_size_beside_or_elsewhere(release, tmp_path, inner):
    folder = tmp_path / "pictures"
    (folder / inner).mkdir(parents=True)
    Image.fromarray(np.zeros((128, 192, 3), np.uint8)).save(folder / inner / "frame_000000.jpg")
    dataset = read_wis(release, folder)
    assert dataset[0].image.shape == (128, 192, 3)
    assert dataset[0].instances.size == (128, 192)
    assert dataset[0].instances.areas[0] == pytest.approx(2 * 19.2 * 25.6, rel=0.05)


def test_as_source_as_truth_and_converted(release, tmp_path):
    assert len(open_dataset(release)) == 2
    report = convert(release, tmp_path / "wis.json", "coco", unmarked=True)
    assert report.lossless
    again = read_coco(tmp_path / "wis.json")
    assert [s.name for s in again] == ["segment-1/frame_000000", "segment-1/frame_000040"]
    assert [int(s.instances.crowd.sum()) for s in again] == [1, 1]
    result = evaluate(tmp_path / "wis.json", release, protocol="agnostic")
    assert result.scores["AR"] == pytest.approx(100)
    assert result.scores["split_AR"] == pytest.approx(100)
    assert result.counts["split_truths"] == 1


def test_what_is_no_release_is_refused(tmp_path):
    with pytest.raises(SourceError, match="waymo_val_anno"):
        read_wis(tmp_path)
    root = write(tmp_path, {"frame_000000": {"bbox": [{"id": 1}], "poly": []}})
    with pytest.raises(SourceError, match="not an annotation"):
        read_wis_frame(root / "segment-1/images/frame_000000.json")
    (root / "segment-1/images/frame_000000.json").write_text('{"images": []}')
    with pytest.raises(SourceError, match="no 'data'"):
        read_wis(root)
