"""Train, predict and export from the command line and from Python."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pixelkin
from pixelkin import cli
from pixelkin.data import Dataset, Instances, Sample
from pixelkin.data.synthetic import render_scene
from pixelkin.formats import read_run
from pixelkin.formats.voc import write_voc
from pixelkin.run.teaching import bare_images, open_teaching

TINY = {"short_side": 64, "long_side": 96, "channels": 16, "hidden": 32, "epochs": 0, "training.warmup": 0}
SETTINGS = [part for key, value in TINY.items() for part in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, a run of the baseline on them with class ids 7 and 250, and a student of four steps."""
    folder = tmp_path_factory.mktemp("world")
    for name in ("images", "semantic"):
        (folder / name).mkdir()
    for seed in range(3):
        scene = render_scene(seed, size=(64, 96), classes=2)
        Image.fromarray(scene.image).save(folder / "images" / f"{seed}.png")
        ids = np.array([0, 7, 250], dtype=np.uint8)[scene.semantic]
        ids[:8, :8] = 255
        Image.fromarray(ids).save(folder / "semantic" / f"{seed}.png")
    (folder / "classes.txt").write_text("7 cat\n250 dog\n")
    call = ["label", str(folder / "images"), "--semantic", str(folder / "semantic"), "--method", "components"]
    assert cli.run([*call, "--out", str(folder / "run")]) == 0
    assert cli.run(train(folder)) == 0
    return folder


def train(folder: Path, *more: str, run: str = "run", out: str = "student") -> list[str]:
    return ["train", str(folder / run), "--out", str(folder / out), "--budget", "4it", *SETTINGS, *more]


def predict(folder: Path, *more: str, out: str) -> list[str]:
    return ["predict", str(folder / "student"), str(folder / "images"), "--out", str(folder / out), *more]


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert cli.run(arguments) == 2
    output = capsys.readouterr()
    assert output.err.startswith("error: ")
    assert output.err.count("\n") == 1
    return output.err


def test_train_and_predict(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert {"config.json", "model.safetensors", "README.md", "fit.json"} <= {
        p.name for p in (world / "student").iterdir()
    }
    record = json.loads((world / "student" / "fit.json").read_text())
    assert record["status"] == "done"
    assert record["request"]["run"] == "../run"
    saved = json.loads((world / "student" / "config.json").read_text())
    assert saved["facts"]["class_ids"] == [7, 250]
    assert saved["facts"]["teacher"] == "components"
    assert cli.run(predict(world, "--set", "score=0.0", "--set", "detections=5", out="found")) == 0
    said = capsys.readouterr().out
    assert "3 of 3 images done" in said
    coco = json.loads((world / "found" / "instances.json").read_text())
    assert {c["id"]: c["name"] for c in coco["categories"]} == {7: "cat", 250: "dog"}
    assert 0 < len(coco["annotations"]) <= 15
    assert {a["category_id"] for a in coco["annotations"]} <= {7, 250}
    assert {a["source"] for a in coco["annotations"]} == {"mask_rcnn:components"}
    assert all(a["segmentation"]["size"] == [64, 96] for a in coco["annotations"])
    before = (world / "found" / "instances.json").read_bytes()
    assert cli.run(predict(world, "--set", "score=0.0", "--set", "detections=5", out="found")) == 0
    assert "(3 before)" in capsys.readouterr().out
    assert (world / "found" / "instances.json").read_bytes() == before


def test_what_is_found_in_a_clip_keeps_its_id(world: Path, tmp_path: Path) -> None:
    frames = tmp_path / "davis/JPEGImages/480p/still"
    frames.mkdir(parents=True)
    for number in range(3):
        Image.open(world / "images/0.png").save(frames / f"{number:05d}.jpg", quality=95)
    found = tmp_path / "found"
    settings = {"score": "0.0", "detections": "3"}
    summary = pixelkin.predict(world / "student", tmp_path / "davis", out=found, settings=settings)
    assert (summary.done, summary.films) == (3, 1)
    coco = json.loads((found / "instances.json").read_text())
    tracks: dict[int, set[int]] = {}
    for annotation in coco["annotations"]:
        tracks.setdefault(annotation["image_id"], set()).add(annotation["track_id"])
    assert len(tracks) == 3
    assert len({frozenset(each) for each in tracks.values()}) == 1  # nothing moves


def test_tags_say_what_may_be_found(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = sorted(p.name for p in (world / "images").iterdir())
    rows = [f"{names[0]},dog", f"{names[1]},cat", f"{names[2]},"]
    (tmp_path / "tags.csv").write_text("\n".join(["image,tags", *rows]) + "\n")
    tags = ("--tags", str(tmp_path / "tags.csv"))
    assert cli.run(predict(world, "--set", "score=0.0", *tags, out="told")) == 0
    coco = json.loads((world / "told" / "instances.json").read_text())
    stems = {image["id"]: Path(image["file_name"]).name for image in coco["images"]}
    found = {name: {a["category_id"] for a in coco["annotations"] if stems[a["image_id"]] == name} for name in names}
    assert [found[name] for name in names] == [{250}, {7}, set()]
    assert "other" in error_of(predict(world, "--set", "score=0.0", out="told"), capsys)


def test_tags_of_a_source_with_other_ids_are_found_by_name() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    source = Dataset([Sample("a", image, tags=(1, 2, 3)), Sample("b", image)], {1: "dog", 2: "bird"})
    tagged = bare_images(source, {3: "cow", 7: "cat", 250: "dog"}, tagged=True)
    assert [sample.tags for sample in tagged] == [(3, 250), None]
    assert [sample.tags for sample in bare_images(source, {250: "dog"})] == [None, None]


def test_training_again_finds_it_finished(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (world / "student" / "model.safetensors").read_bytes()
    assert cli.run(train(world)) == 0
    assert "finished before" in capsys.readouterr().out
    assert (world / "student" / "model.safetensors").read_bytes() == before
    assert "other settings" in error_of(train(world, "--seed", "5"), capsys)


def test_a_run_knows_its_images_and_its_unknown(world: Path) -> None:
    dataset = open_teaching(world / "run")
    assert dataset.name == "run"
    assert dataset.classes == {7: "cat", 250: "dog"}
    for sample in dataset:
        assert sample.image.shape == (64, 96, 3)
        assert (sample.semantic[:8, :8] == 255).all()
        assert len(sample.instances)
    assert len(open_teaching(world / "run", limit=2)) == 2


def test_images_that_moved(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(world / "run", tmp_path / "run")  # from there, nothing is where the record says
    line = error_of(train(tmp_path), capsys)
    assert "--images DIR" in line
    assert not (tmp_path / "student").exists()
    moved = open_teaching(tmp_path / "run", world / "images")
    assert [sample.image.shape for sample in moved] == [(64, 96, 3)] * 3
    (tmp_path / "others").mkdir()
    Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(tmp_path / "others" / "x.png")
    assert "none of the run's images" in error_of(train(tmp_path, "--images", str(tmp_path / "others")), capsys)


def test_a_broken_image_is_left_out_and_reported(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("images", "semantic", "run"):
        shutil.copytree(world / name, tmp_path / name)
    (tmp_path / "images" / "1.png").write_bytes(b"nothing")
    (tmp_path / "semantic" / "2.png").write_bytes(b"nothing")
    assert cli.run(train(tmp_path)) == 1
    output = capsys.readouterr()
    assert "trained on 1 images" in output.out
    failures = [json.loads(line) for line in (tmp_path / "student" / "errors.jsonl").read_text().splitlines()]
    assert [(f["name"], f["stage"]) for f in failures] == [("1", "image"), ("2", "labels")]


def test_wrong_calls_are_one_line(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such run" in error_of(["train", str(tmp_path / "none"), "--out", str(tmp_path / "o")], capsys)
    assert "no instances" in error_of(["train", str(world / "images"), "--out", str(tmp_path / "o")], capsys)
    assert "did you mean" in error_of(train(world, "--set", "min_scor=1", out="other"), capsys)
    line = error_of(predict(world, "--set", "channels=8", out="other"), capsys)
    assert "channels was settled when the student was trained: predict has detections, long_side, nms" in line
    line = error_of(
        ["predict", str(world / "run" / "model"), str(world / "images"), "--out", str(tmp_path / "o")], capsys
    )
    assert "a model of components, not a student" in line
    assert "no model here" in error_of(["predict", str(tmp_path), str(world / "images"), "--out", "o"], capsys)
    export = ["export", str(world / "student"), "--out", str(tmp_path / "s.onnx"), "--size"]
    assert "--size 320,448" in error_of([*export, "320"], capsys)
    assert "height and width are at least 1" in error_of([*export, "0,5"], capsys)


def test_the_same_from_python(world: Path, tmp_path: Path) -> None:
    """A student can teach another, and a COCO file can."""
    pixelkin.predict(world / "student", world / "images", out=tmp_path / "found", settings={"score": "0.0"}, limit=2)
    assert len(read_run(tmp_path / "found")) == 2
    settings = {key: str(value) for key, value in TINY.items()} | {"min_score": "0"}
    summary = pixelkin.train_student(
        tmp_path / "found", out=tmp_path / "second", settings=settings, budget="1it", backbone="efficientnet_lite0"
    )
    assert (summary.method, summary.images) == ("mask_rcnn", 2)
    assert json.loads((tmp_path / "second" / "config.json").read_text())["facts"]["teacher"] == "mask_rcnn"


# scores on a truth ---


@pytest.fixture
def student(world: Path, tmp_path: Path) -> Path:
    """A copy of the world, in which things may be changed."""
    for name in ("images", "semantic", "run", "student"):
        shutil.copytree(world / name, tmp_path / name)
    return tmp_path


def devkit(folder: Path) -> Path:
    """A VOC devkit of three images, two with masks, of which one is in the set ``val``."""
    samples = []
    for seed in range(5, 8):
        scene = render_scene(seed, size=(64, 96), classes=2)
        labels = np.array([0, 7, 250])[scene.instances.labels]
        true = Instances(scene.instances.size, scene.instances.rles, labels=labels)
        samples.append(Sample(f"p{seed}", scene.image, instances=true if seed < 7 else None))
    write_voc(folder, samples, {7: "cat", 250: "dog"})
    (folder / "ImageSets" / "Segmentation" / "val.txt").write_text("p6\n")
    return folder


def beside_images(folder: Path, change=lambda coco: None) -> str:
    """The run's instances as a truth in a COCO file beside the images; the third image has no annotation."""
    coco = json.loads((folder / "run" / "instances.json").read_text())
    last = coco["images"][-1]["id"]
    coco["annotations"] = [a for a in coco["annotations"] if a["image_id"] != last]
    change(coco)
    (folder / "images" / "truth.json").write_text(json.dumps(coco))
    return str(folder / "images" / "truth.json")


def test_scores_on_a_coco_truth_are_those_of_evaluate(student: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = beside_images(student)
    capsys.readouterr()
    assert cli.run(train(student, "--truth", truth, out="new")) == 0
    said = capsys.readouterr().out
    for words in ("trained on 3", "evaluating on 3 images", "AP50", "coco: 3 images of images/truth.json"):
        assert words in said
    folder = student / "new" / "evaluation"
    assert {"instances.json", "run.json", "gallery.html", "scores.json"} <= {path.name for path in folder.iterdir()}
    scores = json.loads((folder / "scores.json").read_text())
    assert scores == {"coco": pixelkin.evaluate(folder, truth).to_json()}
    ids = [image["id"] for image in json.loads((folder / "instances.json").read_text())["images"]]
    assert ids == [image["id"] for image in json.loads(Path(truth).read_text())["images"]]
    before = (folder / "instances.json").read_bytes()
    weights = (student / "new" / "model.safetensors").stat().st_mtime_ns
    (folder / "scores.json").unlink()
    assert cli.run(train(student, "--truth", truth, out="new")) == 0
    said = capsys.readouterr().out
    assert "finished before" in said
    assert "AP50" in said
    assert (student / "new" / "model.safetensors").stat().st_mtime_ns == weights
    assert (folder / "instances.json").read_bytes() == before
    assert json.loads((folder / "scores.json").read_text()) == scores
    assert json.loads((folder / "run.json").read_text())["status"] == "done"


@pytest.mark.parametrize(("part", "images"), [("", 2), ("ImageSets/Segmentation/val.txt", 1)])
def test_scores_on_a_devkit_are_of_both_protocols(student: Path, part: str, images: int) -> None:
    summary = pixelkin.train_student(
        student / "run",
        out=student / "student",
        truth=devkit(student / "voc") / part,
        budget="4it",
        settings={key: str(value) for key, value in TINY.items()},
    )
    assert summary.finished_before
    assert summary.evaluation is not None
    assert (summary.evaluation.run.done, summary.evaluation.run.failed) == (images, 0)
    assert list(summary.evaluation.results) == ["coco", "voc"]
    scores = json.loads(summary.evaluation.scores.read_text())
    assert [scores[name]["images"] for name in ("coco", "voc")] == [images, images]
    assert "ABO" in scores["voc"]
    if not part:
        by_hand = pixelkin.evaluate(student / "student" / "evaluation", student / "voc", protocol="voc")
        assert scores["voc"] == by_hand.to_json()


def test_a_wrong_truth_is_said_before_training(student: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def line(truth: str) -> str:
        said = error_of(train(student, "--truth", truth, out="new"), capsys)
        assert not (student / "new").exists()
        return said

    assert "no such file or folder" in line(str(student / "nowhere"))
    assert "no image in it has instances" in line(str(student / "images"))
    (student / "broken.json").write_text("{")
    assert "not a whole JSON file" in line(str(student / "broken.json"))
    assert "no images in it" in line(beside_images(student, lambda coco: coco["images"].clear()))
    truth = Path(beside_images(student))
    moved = truth.rename(student / "alone.json")
    shutil.rmtree(student / "images")
    assert "its images are not" in line(str(moved))


def test_a_truth_of_other_classes_is_said_before_training(student: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def renumber(coco) -> None:
        for entry in coco["categories"]:
            entry["id"] += 1
        for entry in coco["annotations"]:
            entry["category_id"] += 1

    said = error_of(train(student, "--truth", beside_images(student, renumber), out="new"), capsys)
    assert "no class id in common with run (8 'cat', ... and 7 'cat', ...)" in said
    assert not (student / "new").exists()


def test_a_broken_image_of_the_truth_counts_as_empty(student: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = beside_images(student)
    (student / "images" / "1.png").write_bytes(b"nothing")
    capsys.readouterr()
    assert cli.run(train(student, "--truth", truth)) == 1
    output = capsys.readouterr()
    assert "(1 without prediction count as empty" in output.out
    assert "1.png" in output.err
    assert str(Path("evaluation") / "errors.jsonl") in output.err
