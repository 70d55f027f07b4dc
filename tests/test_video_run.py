"""Runs on video: masks, tracks, films and galleries of clips, from files and from folders of frames."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pixelkin
from moving_squares import mask, number_of, picture, place, write_video
from pixelkin.cli import run
from pixelkin.data import Instances
from pixelkin.formats import open_dataset, read_coco, read_davis_masks
from pixelkin.formats.video import open_video
from pixelkin.methods.base import Fields, Method
from pixelkin.methods.registry import METHODS


class Reds(Method):
    """Finds the red square of every frame: a method that learns from video, with a track."""

    name, summary, supervision, learns = "components", "finds red", ("clip",), False

    def fit(self, dataset, *, out, budget=None, device="auto", seed=0):
        self.check(dataset)
        self.classes = {1: "object"}

    def fields(self, sample):
        return Fields(sample.size)

    def group(self, fields, sample):
        red = (sample.image[..., 0].astype(int) - sample.image[..., 1] > 80) & (np.arange(sample.size[0])[:, None] > 20)
        return Instances.from_masks(red[None], labels=[1], sources=["reds"], tracks=[7])


@pytest.fixture
def reds(monkeypatch: pytest.MonkeyPatch) -> None:
    info = dataclasses.replace(METHODS["components"], target=f"{__name__}:Reds", supervision=("clip",), baseline=False)
    monkeypatch.setitem(METHODS, "components", info)


def label(source: Path, out: Path, **options: object) -> pixelkin.api.RunSummary:
    return pixelkin.label(source, out=out, method="components", **options)


def write_frames(folder: Path, numbers: range, size: tuple[int, int] = (96, 128)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        Image.fromarray(picture(number, size)).save(folder / f"{number:05d}.png")
    return folder


def test_a_video_file_from_end_to_end(tmp_path: Path, reds: None, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(tmp_path / "ride.mp4", 12)
    assert run(["label", str(tmp_path / "ride.mp4"), "--method", "components", "--out", str(tmp_path / "run")]) == 0
    out = tmp_path / "run"
    assert f"watch: {out / 'overlays'} (1 mp4)" in capsys.readouterr().out
    assert sorted(path.name for path in (out / "masks/ride").iterdir()) == [f"{i:06d}.png" for i in range(12)]
    with Image.open(out / "masks/ride/000003.png") as png:
        assert png.mode == "P"
        ids = np.array(png)
    y, x = place(3)
    assert set(np.unique(ids)) == {0, 7}
    assert (ids[y + 3 : y + 21, x + 3 : x + 21] == 7).all()
    coco = json.loads((out / "instances.json").read_text())
    assert coco["videos"] == [{"id": 1, "name": "ride", "length": 12, "fps": 20.0}]
    assert [(i["file_name"], i["video_id"], i["frame_id"]) for i in coco["images"]][5] == ("ride/000005", 1, 5)
    assert {(a["track_id"], a["instance_id"]) for a in coco["annotations"]} == {(7, 7)}
    film = open_video(out / "overlays/ride.mp4")
    assert (len(film), film.size, round(film.fps)) == (12, (96, 128), 20)
    assert [number_of(film.frame(i)) for i in range(12)] == list(range(12))
    pixel = film.frame(3)[y + 12, x + 12]
    assert np.abs(pixel.astype(int) - (230, 30, 30)).max() > 30  # painted
    assert list((out / "overlays").iterdir()) == [out / "overlays/ride.mp4"]


def test_a_run_reads_back_with_its_frames_and_tracks(tmp_path: Path, reds: None) -> None:
    write_video(tmp_path / "ride.mp4", 5)
    label(tmp_path / "ride.mp4", tmp_path / "run")
    dataset = open_dataset(tmp_path / "run")
    assert [(s.name, s.clip, s.frame, s.fps) for s in dataset][4] == ("ride/000004", "ride", 4, 20)
    assert [number_of(s.image) for s in dataset] == list(range(5))
    for sample, masks in zip(dataset, read_davis_masks(tmp_path / "run/masks"), strict=True):
        assert sample.instances is not None
        assert masks.instances is not None
        assert sample.instances.tracks.tolist() == masks.instances.tracks.tolist() == [7]
        assert sample.instances.rles == masks.instances.rles


def test_finished_frames_are_not_done_again(tmp_path: Path, reds: None) -> None:
    write_video(tmp_path / "ride.mp4", 8)
    label(tmp_path / "ride.mp4", tmp_path / "run")
    film = tmp_path / "run/overlays/ride.mp4"
    spool = tmp_path / "run/.spool/images.jsonl"
    whole = (tmp_path / "run/instances.json").read_bytes()
    before = film.stat().st_mtime_ns
    assert label(tmp_path / "ride.mp4", tmp_path / "run").continued == 8
    assert film.stat().st_mtime_ns == before
    spool.write_bytes(b"".join(spool.read_bytes().splitlines(keepends=True)[:5]))  # as if killed there
    summary = label(tmp_path / "ride.mp4", tmp_path / "run")
    assert (summary.done, summary.continued, summary.films) == (8, 5, 1)
    assert film.stat().st_mtime_ns > before
    assert (tmp_path / "run/instances.json").read_bytes() == whole


def test_a_killed_run_continues(tmp_path: Path) -> None:
    write_video(tmp_path / "ride.mp4", 60)
    for number in range(60):
        (tmp_path / "masks/ride").mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask(number)).save(tmp_path / f"masks/ride/{number:06d}.png")
    call = "import sys; from pixelkin.cli import run; sys.exit(run(sys.argv[1:]))"
    command = [sys.executable, "-c", call, "label", str(tmp_path / "ride.mp4"), "--method", "components"]
    command += ["--semantic", str(tmp_path / "masks"), "--out", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    spool = tmp_path / "run/.spool/images.jsonl"
    while process.poll() is None and not (spool.exists() and spool.read_bytes().count(b"\n") >= 3):
        time.sleep(0.005)
    process.kill()
    process.wait()
    before = spool.read_bytes().count(b"\n")
    summary = pixelkin.label(
        tmp_path / "ride.mp4", out=tmp_path / "run", method="components", semantic=tmp_path / "masks"
    )
    assert summary.continued == before
    assert summary.done == 60
    coco = json.loads((tmp_path / "run/instances.json").read_text())
    assert not any("track_id" in annotation for annotation in coco["annotations"])  # connected components track nothing
    assert {annotation["instance_id"] for annotation in coco["annotations"]} == {1}
    assert len(open_video(tmp_path / "run/overlays/ride.mp4")) == 60


def test_limit_and_a_clip_of_one_frame(tmp_path: Path, reds: None) -> None:
    write_video(tmp_path / "ride.mp4", 9)
    assert label(tmp_path / "ride.mp4", tmp_path / "run", limit=4).images == 4
    assert len(open_video(tmp_path / "run/overlays/ride.mp4")) == 4
    summary = label(write_video(tmp_path / "one.mp4", 1), tmp_path / "one")
    assert (summary.done, summary.films) == (1, 0)
    assert not (tmp_path / "one/overlays").exists()
    assert [path.name for path in (tmp_path / "one/masks/one").iterdir()] == ["000000.png"]


def test_folders_of_frames_are_clips_for_a_method_of_video(tmp_path: Path, reds: None) -> None:
    """One with a broken frame in its middle, one whose frames differ in size, one in portrait and of odd sides."""
    broken = write_frames(tmp_path / "clips/broken", range(5))
    (broken / "00002.png").write_bytes(b"broken")
    write_frames(tmp_path / "clips/growing", range(3))
    write_frames(tmp_path / "clips/growing", range(3, 6), (144, 120))
    write_frames(tmp_path / "clips/portrait", range(3), (161, 121))
    summary = label(tmp_path / "clips", tmp_path / "run")
    assert (summary.images, summary.done, summary.failed, summary.films) == (14, 13, 1, 3)
    assert [failure.name for failure in summary.first_failures] == ["broken/00002"]
    sizes = {path.stem: open_video(path) for path in (tmp_path / "run/overlays").iterdir()}
    assert {name: (len(film), film.size) for name, film in sizes.items()} == {
        "broken": (4, (96, 128)),
        "growing": (6, (96, 128)),
        "portrait": (3, (160, 120)),
    }
    assert number_of(sizes["broken"].frame(2)) == 3
    with Image.open(tmp_path / "run/masks/growing/00004.png") as png:
        assert png.size == (120, 144)
    coco = json.loads((tmp_path / "run/instances.json").read_text())
    assert [video["name"] for video in coco["videos"]] == ["broken", "growing", "portrait"]
    assert [i["frame_id"] for i in coco["images"] if i["video_id"] == 1] == [0, 1, 3, 4]


def test_with_a_model_a_folder_is_photos(tmp_path: Path, reds: None) -> None:
    write_frames(tmp_path / "frames", range(3))
    pixelkin.fit(tmp_path / "frames", out=tmp_path / "model", method="components")
    label(tmp_path / "frames", tmp_path / "run", model=tmp_path / "model")
    assert not (tmp_path / "run/masks").exists()
    coco = json.loads((tmp_path / "run/instances.json").read_text())
    assert "videos" not in coco
    assert "video_id" not in coco["images"][0]


def test_unreadable_videos(tmp_path: Path, reds: None, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(tmp_path / "videos/good.mp4", 3)
    (tmp_path / "videos/torn.mp4").write_bytes((tmp_path / "videos/good.mp4").read_bytes()[:900])
    summary = label(tmp_path / "videos", tmp_path / "run")
    assert (summary.done, summary.failed) == (3, 1)
    assert "not a video that can be read" in summary.first_failures[0].reason
    arguments = ["--method", "components", "--out", str(tmp_path / "run2")]
    assert run(["label", str(tmp_path / "videos/torn.mp4"), *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("pred", ["run", "run/instances.json", "run/masks"])
@pytest.mark.parametrize("truth", ["davis", "truth.json"])
def test_evaluate_by_masks_and_by_tracks(tmp_path: Path, reds: None, pred: str, truth: str) -> None:
    write_video(tmp_path / "ride.mp4", 6)
    label(tmp_path / "ride.mp4", tmp_path / "run")
    (tmp_path / "davis/Annotations/480p/ride").mkdir(parents=True)
    for number in range(6):
        Image.fromarray(255 * mask(number)).save(tmp_path / f"davis/Annotations/480p/ride/{number:06d}.png")
    truths = read_davis_masks(tmp_path / "davis")
    pixelkin.formats.convert(tmp_path / "davis", tmp_path / "truth.json")
    assert [s.clip for s in read_coco(tmp_path / "truth.json")] == ["ride"] * 6
    assert len(truths) == 6
    result = pixelkin.evaluate(tmp_path / pred, tmp_path / truth, protocol="video")
    assert result.scores["J"] is not None
    assert 85 < result.scores["J"] < 100
    assert result.counts["frames_counted"] == 4


def test_a_student_learns_from_frames_of_a_video(tmp_path: Path, reds: None) -> None:
    from pixelkin.run.teaching import open_teaching

    write_video(tmp_path / "ride.mp4", 3)
    label(tmp_path / "ride.mp4", tmp_path / "run")
    assert [number_of(s.image) for s in open_teaching(tmp_path / "run")] == [0, 1, 2]
    shutil.move(tmp_path / "ride.mp4", tmp_path / "elsewhere.mp4")
    shutil.copytree(tmp_path / "run", tmp_path / "away/run")
    write_video(tmp_path / "moved/ride.mp4", 3)
    taught = open_teaching(tmp_path / "away/run", tmp_path / "moved/ride.mp4")
    assert [number_of(s.image) for s in taught] == [0, 1, 2]
