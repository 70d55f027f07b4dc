from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from made_up import instances
from pycocotools.coco import COCO

from pixelkin.data import Dataset, ImageError, Instances, Sample
from pixelkin.formats import (
    SourceError,
    annotation_record,
    image_record,
    instances_from_annotations,
    read_coco,
    read_coco_results,
    write_coco,
)

CLASSES = {1: "cat", 2: "dog", 7: "Straße"}


def write(path: Path, **content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def minimal(path: Path, file_name: str = "a.jpg", annotations: list[dict] | None = None, **image: object) -> Path:
    return write(
        path,
        images=[{"id": 5, "file_name": file_name, "width": 8, "height": 6, **image}],
        categories=[{"id": 3, "name": "cat"}],
        **({} if annotations is None else {"annotations": annotations}),
    )


@given(instances())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip_is_exact(tmp_path, found):
    records = [annotation_record(found, i, 1, i + 40, identity=True) for i in range(len(found))]
    image = {"id": 1, "file_name": "a.png", "height": found.size[0], "width": found.size[1]}
    write_coco(tmp_path / "x.json", [(image, records)], {1: "a", 2: "b", 3: "c"})
    dataset = read_coco(tmp_path / "x.json")
    assert dataset[0].instances == found
    assert dataset.classes == {1: "a", 2: "b", 3: "c"}


def test_written_records_are_coco(tmp_path):
    mask = np.zeros((6, 8), dtype=bool)
    mask[1:4, 2:7] = True
    found = Instances.from_masks(mask[None], labels=[7], scores=[0.3], sources=["m"], crowd=[True], ids=[9])
    record = annotation_record(found, 0, image_id=4, annotation_id=11)
    assert isinstance(record["segmentation"]["counts"], str)
    assert record == {
        "id": 11,
        "image_id": 4,
        "category_id": 7,
        "segmentation": record["segmentation"],
        "area": 15,
        "bbox": [2, 1, 5, 3],
        "iscrowd": 1,
        "score": 0.3,
        "source": "m",
    }
    write_coco(tmp_path / "x.json", [({"id": 4, "file_name": "a.jpg", "width": 8, "height": 6}, [record])], CLASSES)
    reference = COCO(str(tmp_path / "x.json"))
    np.testing.assert_array_equal(reference.annToMask(reference.anns[11]).astype(bool), mask)
    assert {c["id"]: c["name"] for c in reference.dataset["categories"]} == CLASSES
    assert list(tmp_path.iterdir()) == [tmp_path / "x.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.json"
    write_coco(path, [], CLASSES)
    before = path.read_bytes()

    def broken():
        yield {"id": 1, "file_name": "a.jpg"}, []
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        write_coco(path, broken(), CLASSES)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


MEMORY = """
import sys, tracemalloc
from pixelkin.formats import read_coco, write_coco

counts = "a" * 20_000
def records():
    for i in range(500):
        segmentation = {"size": [4, 4], "counts": counts}
        record = {"id": i, "image_id": i, "category_id": 1, "segmentation": segmentation, "bbox": [0, 0, 1, 1]}
        yield {"id": i, "file_name": f"{i}.jpg", "width": 4, "height": 4}, [record]

tracemalloc.start()
write_coco(sys.argv[1], records(), {1: "cat"})
print(tracemalloc.get_traced_memory()[1])
tracemalloc.reset_peak()
dataset = read_coco(sys.argv[1])
print(tracemalloc.get_traced_memory()[1], len(dataset))
"""
"""In a process of its own, where no thread that another test left counts."""


def test_writing_and_reading_hold_neither_masks_nor_records(tmp_path):
    said = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / "x.json")], capture_output=True, text=True, check=True
    ).stdout
    written, read, images = map(int, said.split())
    assert (tmp_path / "x.json").stat().st_size > 10_000_000
    assert written < 1_000_000
    assert read < 3_000_000
    assert images == 500


def test_labels_come_over(tmp_path):
    path = minimal(
        tmp_path / "x.json",
        annotations=[
            {
                "id": 90,
                "image_id": 5,
                "category_id": 3,
                "bbox": [1, 2, 3, 2],
                "segmentation": [[1, 2, 4, 2, 4, 4, 1, 4]],
            },
            {
                "id": 91,
                "image_id": 5,
                "category_id": 3,
                "bbox": [0, 0, 8, 6],
                "iscrowd": 1,
                "segmentation": {"size": [6, 8], "counts": [0, 48]},
            },
        ],
    )
    sample = read_coco(path)[0]
    found = sample.instances
    assert sample.tags == (3,)
    assert sample.boxes is not None
    assert sample.boxes.xyxy.tolist() == [[1, 2, 4, 4]]  # a crowd has no box
    assert found is not None
    assert found.ids.tolist() == [90, 91]
    assert found.crowd.tolist() == [False, True]
    assert found.areas.tolist() == [6, 48]
    assert found.scores.tolist() == [1, 1]


def test_no_annotations_means_no_labels_and_an_empty_list_means_none_there(tmp_path):
    unlabelled = read_coco(minimal(tmp_path / "x.json"))[0]
    assert not any(unlabelled.has(kind) for kind in ("tags", "boxes", "instances"))
    empty = read_coco(minimal(tmp_path / "y.json", annotations=[]))[0]
    assert empty.tags == ()
    assert empty.instances is not None
    assert len(empty.instances) == 0


def test_boxes_alone_are_no_masks(tmp_path):
    path = minimal(tmp_path / "x.json", annotations=[{"id": 1, "image_id": 5, "category_id": 3, "bbox": [1, 2, 3, 2]}])
    sample = read_coco(path)[0]
    assert sample.has("boxes")
    assert not sample.has("instances")


def test_the_order_of_the_lists_does_not_matter(tmp_path):
    annotation = {
        "segmentation": [[0, 0, 3, 0, 3, 3]],
        "category_id": 3,
        "image_id": 5,
        "id": 1,
        "note": 'a "}]{[" b\\',
    }
    write(
        tmp_path / "x.json",
        annotations=[annotation],
        info={"annotations": [{"id": 1}], "text": "images"},
        categories=[{"id": 3, "name": "cat"}],
        images=[{"file_name": "a.jpg", "id": 5, "width": 8, "height": 6}],
    )
    (found,) = (sample.instances for sample in read_coco(tmp_path / "x.json"))
    assert found is not None
    assert len(found) == 1


@pytest.mark.parametrize(
    "name",
    ["../a.jpg", "/etc/a.jpg", "x/../../a.jpg", "C:\\a.jpg", "..\\a.jpg", "\\\\host\\a.jpg", "", None, 5, "a\0.jpg"],
)
def test_names_that_lead_out_are_refused(tmp_path, name):
    path = minimal(tmp_path / "x.json", file_name=name)
    with pytest.raises(SourceError, match="folder of the images") as caught:
        read_coco(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("json_path", "image_path", "file_name"),
    [
        ("x.json", "a.jpg", "a.jpg"),
        ("x.json", "images/a.jpg", "a.jpg"),
        ("instances_val.json", "val/a.jpg", "a.jpg"),
        ("annotations/instances_val2017.json", "val2017/a.jpg", "a.jpg"),
        ("annotations/instances_val2017.json", "images/val2017/a.jpg", "a.jpg"),
        ("x.json", "sub/a.jpg", "sub/a.jpg"),
        ("_annotations.coco.json", "a.jpg", "a.jpg"),
    ],
)
def test_images_are_found(tmp_path, picture, json_path, image_path, file_name):
    picture(image_path, size=(6, 8))
    sample = read_coco(minimal(tmp_path / json_path, file_name=file_name))[0]
    assert sample.path == tmp_path / image_path
    assert sample.image.shape == (6, 8, 3)
    assert sample.name == file_name.removesuffix(".jpg")


def test_a_missing_image_fails_when_it_is_loaded(tmp_path):
    sample = read_coco(minimal(tmp_path / "x.json"))[0]
    with pytest.raises(ImageError, match="no such file"):
        _ = sample.image


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("{}", "no images"),
        ("hello", "no images"),
        ('{"images": [{"id": 1', "brackets do not close"),
        ('{"images": [{"id": 1,}]}', "not JSON"),
        ('[{"image_id": 1}]', "a list"),
        ('{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}]}', "twice"),
        ('{"images": [{"id": 1, "file_name": "a"}, {"id": 2, "file_name": "a"}]}', "a"),
        ('{"images": [{"id": 1, "file_name": "a", "width": 1000000, "height": 1000000}]}', "width and height"),
        ('{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"id": 3, "image_id": 1}]}', "category_id"),
        ('{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, "category_id": 0}]}', "background"),
        (
            '{"images": [{"id": 1, "file_name": "a"}], "categories": [{"id": 2, "name": "b"}],'
            ' "annotations": [{"image_id": 1, "category_id": 4}]}',
            "category 4",
        ),
    ],
)
def test_what_is_no_coco_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(SourceError, match=message) as caught:
        read_coco(tmp_path / "x.json")
    assert "\n" not in str(caught.value)


def test_an_unused_category_zero_is_left_out(tmp_path):
    path = write(
        tmp_path / "x.json",
        images=[{"id": 1, "file_name": "a.jpg", "width": 8, "height": 6}],
        categories=[{"id": 0, "name": "all"}, {"id": 1, "name": "cat"}],
        annotations=[{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 3, 0, 3, 3]]}],
    )
    assert read_coco(path).classes == {1: "cat"}


def test_annotations_without_their_image_are_named(tmp_path):
    path = minimal(tmp_path / "x.json", annotations=[{"id": 1, "image_id": 77, "category_id": 3}])
    with pytest.warns(UserWarning, match="1 annotations belong to no image"):
        read_coco(path)


def test_a_broken_mask_fails_with_its_sample_only(tmp_path):
    path = write(
        tmp_path / "x.json",
        images=[{"id": i, "file_name": f"{i}.jpg", "width": 8, "height": 6} for i in (1, 2)],
        categories=[{"id": 1, "name": "cat"}],
        annotations=[
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": {"size": [6, 8], "counts": "!!"}},
            {"id": 2, "image_id": 2, "category_id": 1, "segmentation": {"size": [6, 8], "counts": [40, 8]}},
        ],
    )
    broken, good = read_coco(path)
    with pytest.raises(ImageError, match="annotation 1"):
        _ = broken.instances
    assert good.instances is not None
    assert good.instances.areas.tolist() == [8]


def test_a_file_that_changes_meanwhile_is_noticed(tmp_path):
    path = minimal(
        tmp_path / "x.json",
        annotations=[{"id": 1, "image_id": 5, "category_id": 3, "segmentation": [[0, 0, 3, 0, 3, 3]]}],
    )
    sample = read_coco(path)[0]
    path.write_text("{}")
    with pytest.raises(ImageError, match="changed"):
        _ = sample.instances


def test_results_take_images_from_their_truth(tmp_path):
    truth = minimal(tmp_path / "truth.json", annotations=[])
    (tmp_path / "results.json").write_text(
        json.dumps(
            [{"image_id": 5, "category_id": 3, "score": 0.25, "segmentation": {"size": [6, 8], "counts": [40, 8]}}]
        )
    )
    found = read_coco_results(tmp_path / "results.json", truth)[0].instances
    assert found is not None
    assert found.scores.tolist() == [0.25]
    assert found.areas.tolist() == [8]


def test_image_records_keep_paths_and_suffixes(tmp_path, picture):
    picture("sub/a.v1.png", size=(6, 8))
    sample = Dataset([Sample("sub/a.v1", tmp_path / "sub/a.v1.png")])[0]
    assert image_record(sample, 3) == {"id": 3, "file_name": "sub/a.v1.png", "width": 8, "height": 6}


def test_odd_scores_and_ids():
    rle = {"size": [2, 2], "counts": [0, 4]}
    found = instances_from_annotations([{"id": "x", "category_id": 2, "segmentation": rle, "score": None}], (2, 2))
    assert found.ids.tolist() == [1]
    assert found.scores.tolist() == [1]
    with pytest.raises(ImageError, match="no number"):
        instances_from_annotations([{"category_id": 2, "segmentation": rle, "score": "high"}], (2, 2))
