from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from made_up import instances, save
from PIL import Image

from pixelkin.data import Dataset, Instances, Sample
from pixelkin.formats import SourceError, convert, open_dataset, read_coco, read_labelled, read_run, write_voc
from pixelkin.formats.coco import annotation_record, image_record, write_coco

CLASSES = {1: "a", 2: "b", 3: "c"}


def run_of(folder, found: Instances, file_name: str = "a.png"):
    """A run folder with one image."""
    folder.mkdir(parents=True, exist_ok=True)
    image = {"id": 1, "file_name": file_name, "height": found.size[0], "width": found.size[1]}
    records = [annotation_record(found, i, 1, i + 1, identity=True) for i in range(len(found))]
    write_coco(folder / "instances.json", [(image, records)], CLASSES)
    (folder / "run.json").write_text(json.dumps({"request": {"source": "../images"}}))
    return folder


@given(instances())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_coco_to_coco_is_exact(tmp_path, found):
    report = convert(run_of(tmp_path / "run", found), tmp_path / "out.json", "coco")
    assert report.lossless
    assert report.instances == len(found)
    assert read_coco(tmp_path / "out.json")[0].instances == found


@pytest.mark.parametrize("to", ["voc", "label-png"])
@given(found=instances(overlaps=False, crowds=False))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
def test_there_and_back_is_exact_without_overlaps(tmp_path, to, found):
    found = found[found.areas > 0]
    found = found[np.argsort(found.ids)]
    run = run_of(tmp_path / "run", found)
    convert(run, tmp_path / to, to)
    convert(tmp_path / to, tmp_path / "back.json", "coco", classes=None if to == "voc" else {1: "a"}, images=None)
    back = read_coco(tmp_path / "back.json")[0].instances
    assert back is not None
    assert back.rles == found.rles
    assert back.ids.tolist() == found.ids.tolist()
    if to == "voc":
        assert back.labels.tolist() == found.labels.tolist()


@pytest.fixture
def run(tmp_path, picture):
    picture("images/a.png", size=(4, 6))
    return run_of(tmp_path / "run", Instances.from_masks(np.ones((1, 4, 6), bool), labels=[2]))


def test_images_of_a_run_are_those_it_was_made_from(run, tmp_path):
    assert read_run(run)[0].path == run / "../images/a.png"
    assert read_run(run)[0].image.shape == (4, 6, 3)
    assert open_dataset(run)[0].image.shape == (4, 6, 3)
    assert read_run(run, tmp_path / "images")[0].path == tmp_path / "images/a.png"
    with pytest.raises(SourceError, match="finished run"):
        read_run(tmp_path)


@pytest.mark.parametrize(("to", "copied"), [("voc", "JPEGImages/a.png"), ("yolo", "images/a.png")])
def test_images_are_copied(run, tmp_path, to, copied):
    report = convert(run, tmp_path / "out", to)
    assert report.without_image == 0
    assert (tmp_path / "out" / copied).read_bytes() == (tmp_path / "images/a.png").read_bytes()
    assert len(read_labelled(tmp_path / "out").with_label("instances")) == 1


def test_a_folder_gets_instances_json(run, tmp_path):
    convert(run, tmp_path / "out", "coco")
    assert read_coco(tmp_path / "out/instances.json").classes == CLASSES


def test_losing_classes_is_reported(run, tmp_path):
    report = convert(run, tmp_path / "out", "label-png")
    assert "classes lost" in "\n".join(report.lines())


def test_bad_calls(run, tmp_path, picture):
    with pytest.raises(SourceError, match="unknown format 'png'"):
        convert(run, tmp_path / "x", "png")
    with pytest.raises(SourceError, match="no such file"):
        convert(tmp_path / "none", tmp_path / "x")
    with pytest.raises(SourceError, match="same folder"):
        convert(run, run, "coco")
    with pytest.raises(SourceError, match="is a folder"):
        convert(run, run / "run.json", "voc")
    write_voc(tmp_path / "tagged", Dataset([Sample("a", np.zeros((2, 2, 3), np.uint8), tags=(1,))]), CLASSES)
    with pytest.raises(SourceError, match="nothing to convert"):
        convert(tmp_path / "tagged", tmp_path / "x")
    (tmp_path / "a.csv").touch()
    with pytest.raises(SourceError, match=r"\.csv file holds no instances"):
        convert(tmp_path / "a.csv", tmp_path / "x")


@pytest.mark.parametrize(
    ("source", "image", "name"),
    [
        ("images", "images/sub/a.jpg", "sub/a"),
        ("voc", "voc/JPEGImages/a.jpg", "a"),
        ("davis", "davis/JPEGImages/480p/bear/00000.jpg", "bear/00000"),
        ("split.txt", "clips/bear/00000.jpg", "clips/bear/00000"),
        ("coco/instances_val.json", "coco/val/a.jpg", "a"),
    ],
)
def test_a_run_finds_its_images_whatever_its_source(tmp_path, picture, source, image, name):
    picture(image, size=(4, 6))
    if source.endswith(".json"):
        (tmp_path / source).write_text(
            json.dumps({"images": [{"id": 1, "file_name": "a.jpg", "width": 6, "height": 4}]})
        )
    elif source.endswith(".txt"):
        (tmp_path / source).write_text("clips/bear 00000.jpg\n")
    (sample,) = open_dataset(tmp_path / source)
    assert sample.name == name
    run = run_of(tmp_path / "runs/one", Instances.from_masks(np.ones((1, 4, 6), bool)), f"{name}.jpg")
    (run / "run.json").write_text(json.dumps({"request": {"source": f"../../{source}"}}))
    (read,) = read_run(run)
    assert read.path is not None
    assert read.path.resolve() == tmp_path / image
    assert read.image.shape == (4, 6, 3)
    assert read.instances is not None


def test_a_run_whose_source_is_gone_still_has_its_masks(run, tmp_path):
    (tmp_path / "images/a.png").unlink()
    assert read_run(run)[0].instances is not None
    (tmp_path / "images").rmdir()
    assert read_run(run)[0].instances is not None


def test_label_maps_find_their_images(tmp_path, picture):
    for name in ("data/images/a.tif", "elsewhere/a.png"):
        picture(name, size=(4, 6))
    save(tmp_path / "data/labels/a.png", np.full((4, 6), 3, np.uint16))
    assert read_labelled(tmp_path / "data/labels")[0].path == tmp_path / "data/images/a.tif"
    assert (
        read_labelled(tmp_path / "data/labels", images=tmp_path / "elsewhere")[0].path == tmp_path / "elsewhere/a.png"
    )
    assert convert(tmp_path / "data/labels", tmp_path / "out", "yolo").without_image == 0
    assert (tmp_path / "out/images/a.tif").is_file()
    with pytest.raises(SourceError, match="no such folder of images"):
        read_labelled(tmp_path / "data/labels", images=tmp_path / "none")


def test_a_broken_label_map_beside_images_fails_alone(tmp_path, picture):
    for name in ("a", "b"):
        picture(f"data/images/{name}.png", size=(4, 6))
    save(tmp_path / "data/labels/a.png", np.full((4, 6), 3, np.uint16))
    (tmp_path / "data/labels/b.png").write_bytes(b"broken")
    report = convert(tmp_path / "data/labels", tmp_path / "out.json", "coco")
    assert report.images == 1
    assert [name for name, _ in report.failed] == ["b"]


@pytest.mark.parametrize(("to", "kept"), [("coco", 2), ("voc", 1), ("yolo", 1), ("label-png", 1)])
def test_formats_without_scores_leave_alternatives_out(tmp_path: Path, to: str, kept: int) -> None:
    masks = np.zeros((2, 12, 16), bool)
    masks[0, 2:6, 2:6] = masks[1, 2:6, 2:12] = True
    sources = ["siseg/crowding:semantic", "siseg/crowding:semantic:alternative"]
    instances = Instances.from_masks(masks, sources=sources, scores=[0.7, 0.3])
    image = np.zeros((12, 16, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    dataset = Dataset([Sample("a", tmp_path / "a.png", instances=instances)], {1: "thing"})
    records = [(image_record(dataset[0], 1), [annotation_record(instances, i, 1, i + 1) for i in range(2)])]
    write_coco(tmp_path / "instances.json", records, dataset.classes)
    convert(tmp_path / "instances.json", tmp_path / "out", to)
    back = read_labelled(tmp_path / "out").with_label("instances")[0].instances
    assert back is not None
    assert len(back) == kept
