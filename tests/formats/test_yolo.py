from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from made_up import instances, masks
from scipy import ndimage

from pixelkin.data import Dataset, ImageError, Instances, Sample
from pixelkin.formats import SourceError, open_dataset, read_yolo, write_yolo
from pixelkin.formats.contours import count_pieces_and_holes, fill_polygon, mask_to_polygon


@given(masks())
def test_one_piece_comes_back_exactly_holes_and_all(mask):
    pieces, n = ndimage.label(mask, np.ones((3, 3)))
    for i in range(1, n + 1):
        np.testing.assert_array_equal(fill_polygon(mask_to_polygon(pieces == i), mask.shape), pieces == i)


@given(masks())
def test_joining_pieces_only_adds(mask):
    polygon = mask_to_polygon(mask)
    assert len(polygon) == 0 if not mask.any() else len(polygon) >= 3
    filled = fill_polygon(polygon, mask.shape)
    assert not (mask & ~filled).any()
    if mask.any():
        assert count_pieces_and_holes(filled)[0] == 1


@given(masks())
def test_counting_agrees_with_labelling(mask):
    holes = ndimage.label(~np.pad(mask, 1))[1] - 1
    assert count_pieces_and_holes(mask) == (ndimage.label(mask, np.ones((3, 3)))[1], holes)


def folder_of(tmp_path, found: Instances, classes: dict[int, str]):
    image = np.zeros((*found.size, 3), np.uint8)
    dataset = Dataset([Sample("sub/a", image, instances=found)], classes)
    return write_yolo(tmp_path / "yolo", dataset, classes)


@given(instances())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_round_trip_loses_what_the_report_says(tmp_path, found):
    classes = {1: "a", 2: 'b: "x"', 3: "c"}
    report = folder_of(tmp_path, found, classes)
    dataset = read_yolo(tmp_path / "yolo")
    (sample,) = dataset
    kept = np.flatnonzero(~found.crowd & (found.areas > 0))
    read = sample.instances
    assert read is not None
    assert dataset.classes == classes
    assert sample.name == "sub/a"
    assert read.labels.tolist() == found.labels[kept].tolist()
    changed = [int((found.mask(int(i)) != read.mask(k)).sum()) for k, i in enumerate(kept)]
    loss = report.losses[0] if report.losses else None
    dropped = len(found) - len(kept)
    assert (loss.area_changed if loss else 0) == sum(changed) + int(found.areas[found.crowd].sum())
    assert (loss.dropped if loss else 0) == dropped
    joined = [count_pieces_and_holes(found.mask(int(i)))[0] > 1 for i in kept]
    assert (loss.pieces if loss else 0) == sum(joined)
    assert bool(loss) == bool(sum(joined) or dropped)


@given(st.integers(1, 9000), st.integers(1, 9000))
@example(1, 400)
def test_every_pixel_is_found_again_by_rounding_and_by_cutting_off(width, height):
    from pixelkin.formats.yolo import _to_text

    corners = np.array([[0, 0], [width - 1, height - 1], [width // 3, height // 7]])
    values = np.array(_to_text(corners, (height, width)).split(), dtype=float).reshape(-1, 2) * (width, height)
    np.testing.assert_array_equal(np.round(values), corners)
    np.testing.assert_array_equal(np.floor(values), corners)


def test_class_ids_survive(tmp_path):
    mask = np.ones((1, 4, 5), bool)
    folder_of(tmp_path, Instances.from_masks(mask, labels=[44]), {3: "car", 44: "bottle", 90: "brush"})
    assert (tmp_path / "yolo/labels/sub/a.txt").read_text().startswith("1 ")
    dataset = open_dataset(tmp_path / "yolo")
    assert dataset.classes == {3: "car", 44: "bottle", 90: "brush"}
    assert dataset[0].tags == (44,)


def test_report_in_words(tmp_path):
    two = np.zeros((6, 8), bool)
    two[0, 0] = two[5, 7] = True
    report = folder_of(tmp_path, Instances.from_masks(two[None]), {1: "a"})
    text = "\n".join(report.lines())
    assert "1 of 1 masks had pieces joined or lost" in text
    assert "sub/a" in text
    assert f"{report.losses[0].area_changed} px" in text
    assert "nothing lost" in folder_of(tmp_path, Instances.from_masks(np.ones((1, 2, 2), bool)), {1: "a"}).lines()[0]


def foreign(tmp_path, picture, text: str, names: object = ("cat", "dog")):
    picture("d/train/images/a.jpg", size=(10, 20))
    (tmp_path / "d/train/labels").mkdir(parents=True, exist_ok=True)
    (tmp_path / "d/train/labels/a.txt").write_text(text)
    (tmp_path / "d/data.yaml").write_text(json.dumps({"names": names}))
    return tmp_path / "d"


def test_boxes_from_elsewhere(tmp_path, picture):
    dataset = read_yolo(foreign(tmp_path, picture, "1 0.5 0.5 0.5 0.4\n"))
    assert dataset.classes == {1: "cat", 2: "dog"}
    assert dataset[0].name == "train/a"
    assert dataset[0].tags == (2,)
    assert not dataset[0].has("instances")
    assert dataset[0].boxes is not None
    np.testing.assert_allclose(dataset[0].boxes.xyxy, [[5, 3, 15, 7]])


def test_empty_and_missing_label_files(tmp_path, picture):
    folder = foreign(tmp_path, picture, "")
    picture("d/train/images/b.jpg")
    empty, missing = read_yolo(folder)
    assert empty.tags == ()
    assert empty.instances is not None
    assert len(empty.instances) == 0
    assert missing.tags is None
    assert not missing.has("instances")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5 0 0 1 1 1 0", "class 5"),
        ("0 0 0 1", "3 numbers"),
        ("0 0 0 100 100 1 0", "outside 0..1"),
        ("0 0 0 nan 1 1 0", "outside 0..1"),
        ("cat 0 0 1 1 1 0", "not a class index"),
        ("0 0.5 0.5 1 1\n0 0 0 1 1 1 0", "boxes and polygons"),
    ],
)
def test_bad_lines_are_named(tmp_path, picture, text, message):
    with pytest.raises(SourceError, match=message):
        read_yolo(foreign(tmp_path, picture, text))


@pytest.mark.parametrize("names", [None, "cat", {1: "cat"}, {"a": "cat"}])
def test_bad_names_are_refused(tmp_path, picture, names):
    with pytest.raises(SourceError, match="names"):
        read_yolo(foreign(tmp_path, picture, "", names))


def test_an_image_that_cannot_be_read_is_reported(tmp_path):
    def fail() -> Instances:
        raise ImageError("x: broken")

    report = write_yolo(tmp_path, Dataset([Sample("a", None, size=(2, 2), instances=fail)]), {1: "a"})
    assert report.failed == [("a", "x: broken")]


def test_labels_without_images(tmp_path):
    found = Instances.from_masks(np.ones((1, 2, 2), bool))
    report = write_yolo(tmp_path, [Sample("a", tmp_path / "gone.jpg", size=(2, 2), instances=found)], {1: "a"})
    assert report.without_image == 1
    assert "1 images were not found" in "\n".join(report.lines())
    assert (tmp_path / "labels/a.txt").is_file()
