"""Runs whose method says nothing of tracks: the things of a clip have one id in all files, kills and gaps or not."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pixelkin
from moving_squares import picture, place, write_video
from pixelkin.data import Instances
from pixelkin.formats import read_davis_masks
from pixelkin.methods.base import Fields, Method
from pixelkin.methods.registry import METHODS
from pixelkin.run import linking
from pixelkin.viz import instance_color

LEFT = (60, 90, 12, 12)
"""A blue square at rest: (y, x, height, width)."""


class Colors(Method):
    """Finds the red square and the blue one, in another order in every other frame."""

    name, summary, supervision, learns, links = "components", "finds colours", ("clip",), False, True

    def fit(self, dataset, *, out, budget=None, device="auto", seed=0):
        self.check(dataset)
        self.classes = {1: "object"}

    def fields(self, sample):
        return Fields(sample.size)

    def group(self, fields, sample):
        image = sample.image.astype(int)
        below = np.arange(sample.size[0])[:, None] > 20
        masks = [(image[..., c] - image[..., 1] > 80) & below for c in (0, 2)]
        masks = [mask for mask in masks if mask.any()]
        order = masks if (sample.frame or 0) % 2 else masks[::-1]
        return Instances.from_masks(np.stack(order), sources=["colors"] * len(order))


@pytest.fixture(autouse=True)
def colors(monkeypatch: pytest.MonkeyPatch) -> None:
    info = dataclasses.replace(METHODS["components"], target=f"{__name__}:Colors", supervision=("clip",))
    monkeypatch.setitem(METHODS, "components", dataclasses.replace(info, baseline=False))


def label(source: Path, out: Path, **options: object) -> pixelkin.api.RunSummary:
    return pixelkin.label(source, out=out, method="components", **options)


def frame(number: int, size: tuple[int, int] = (96, 128)) -> np.ndarray:
    image = picture(number, size)
    y, x, height, width = LEFT
    image[y + 4 : y + height + 4, x : x + width] = (30, 30, 230)
    return image


def write_clip(folder: Path, numbers: range, size: tuple[int, int] = (96, 128)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        Image.fromarray(frame(number, size)).save(folder / f"{number:05d}.png")
    return folder


def tracks_by_frame(run: Path) -> dict[str, dict[int, tuple[int, int]]]:
    """Image name to track to the upper left corner (x, y) of its box."""
    coco = json.loads((run / "instances.json").read_text())
    names = {image["id"]: image["file_name"] for image in coco["images"]}
    found: dict[str, dict[int, tuple[int, int]]] = {name: {} for name in names.values()}
    for annotation in coco["annotations"]:
        assert annotation["instance_id"] == annotation["track_id"]
        found[names[annotation["image_id"]]][annotation["track_id"]] = tuple(annotation["bbox"][:2])
    return found


def red_of(found: dict[int, tuple[int, int]]) -> int:
    """The track of the upper one."""
    return min(found, key=lambda track: found[track][1])


def gallery_of(run: Path) -> list[dict]:
    page = (run / "gallery.html").read_text()
    found = re.findall(r"<script[^>]*application/json[^>]*>(.*?)</script>", page, re.S)
    return [entry for entry in map(json.loads, found) if isinstance(entry, dict) and "paths" in entry]


def test_ids_are_the_same_in_every_frame_and_file(tmp_path: Path) -> None:
    write_clip(tmp_path / "clips/ride", range(6))
    write_clip(tmp_path / "clips/other", range(10, 13))
    summary = label(tmp_path / "clips", tmp_path / "run")
    assert (summary.done, summary.instances, summary.films) == (9, 18, 2)
    found = tracks_by_frame(tmp_path / "run")
    for clip in ("ride", "other"):
        frames = [tracks for name, tracks in found.items() if name.startswith(clip)]
        assert all(set(tracks) == {1, 2} for tracks in frames)
        assert len({red_of(tracks) for tracks in frames}) == 1
    for sample in read_davis_masks(tmp_path / "run/masks"):
        assert sample.instances is not None
        y, x = place(int(sample.name.rpartition("/")[2]))
        red = red_of(next(tracks for name, tracks in found.items() if name.startswith(sample.name)))
        kept = sample.instances[sample.instances.tracks == red]
        assert kept.boxes.tolist() == [[x, y, x + 24, y + 24]]
    entries = gallery_of(tmp_path / "run")
    assert len(entries) == 9
    for entry in entries:
        assert sorted(entry["tracks"]) == [1, 2]
        assert entry["colors"] == ["#{:02x}{:02x}{:02x}".format(*instance_color(track)) for track in entry["tracks"]]
    assert "link_s" in json.loads((tmp_path / "run/run.json").read_text())["timings"]


def test_a_broken_frame_is_stepped_over_and_linked_once_it_is_mended(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clips/ride", range(7))
    good = (clip / "00003.png").read_bytes()
    (clip / "00003.png").write_bytes(b"broken")
    assert label(tmp_path / "clips", tmp_path / "run").failed == 1
    found = tracks_by_frame(tmp_path / "run")
    assert len(found) == 6
    assert all(set(tracks) == {1, 2} for tracks in found.values())
    assert len({red_of(tracks) for tracks in found.values()}) == 1
    film = tmp_path / "run/overlays/ride.mp4"
    before = film.stat().st_mtime_ns
    (clip / "00003.png").write_bytes(good)
    assert label(tmp_path / "clips", tmp_path / "run").done == 7
    assert film.stat().st_mtime_ns > before
    label(tmp_path / "clips", tmp_path / "whole")
    same_files(tmp_path / "run", tmp_path / "whole")


def same_files(run: Path, other: Path) -> None:
    masks = sorted(path.relative_to(run) for path in (run / "masks").rglob("*.png"))
    assert masks
    for path in [Path("instances.json"), *masks]:
        assert (run / path).read_bytes() == (other / path).read_bytes(), path
    assert [(e["name"], e["tracks"], e["colors"]) for e in gallery_of(run)] == [
        (e["name"], e["tracks"], e["colors"]) for e in gallery_of(other)
    ]


class Killed(BaseException):
    """Not an Exception, so that nothing catches it, as nothing catches a kill."""


@pytest.mark.parametrize("after", [0, 3, 8])
def test_a_run_killed_while_linking_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    write_clip(tmp_path / "clips/a", range(5))
    write_clip(tmp_path / "clips/b", range(20, 25))
    label(tmp_path / "clips", tmp_path / "whole")
    calls = []

    def write(*arguments: object) -> None:
        if len(calls) == after:
            raise Killed
        calls.append(linked_frame(*arguments))

    linked_frame = linking.write_frame
    with monkeypatch.context() as patch:
        patch.setattr(linking, "write_frame", write)
        with pytest.raises(Killed):
            label(tmp_path / "clips", tmp_path / "run")
    assert not (tmp_path / "run/instances.json").exists()
    assert label(tmp_path / "clips", tmp_path / "run").continued == 10
    same_files(tmp_path / "run", tmp_path / "whole")


def test_what_is_linked_is_not_linked_again_unless_a_frame_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clip(tmp_path / "clips/ride", range(5))
    label(tmp_path / "clips", tmp_path / "run")
    whole = (tmp_path / "run/instances.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(linking, "write_frame", None)
        assert label(tmp_path / "clips", tmp_path / "run").continued == 5
    spool = tmp_path / "run/.spool/images.jsonl"
    spool.write_bytes(b"".join(spool.read_bytes().splitlines(keepends=True)[:3]))
    assert label(tmp_path / "clips", tmp_path / "run").continued == 3
    assert (tmp_path / "run/instances.json").read_bytes() == whole


def test_one_frame_two_sizes_and_photographs(tmp_path: Path) -> None:
    write_clip(tmp_path / "clips/one", range(1))
    write_clip(tmp_path / "clips/growing", range(3))
    write_clip(tmp_path / "clips/growing", range(3, 6), (144, 120))
    label(tmp_path / "clips", tmp_path / "run")
    found = tracks_by_frame(tmp_path / "run")
    assert [set(tracks) for name, tracks in found.items() if name.startswith("one")] == [{1, 2}]
    assert [set(t) for name, t in found.items() if name.startswith("growing")] == [{1, 2}] * 3 + [{3, 4}] * 3
    pixelkin.fit(tmp_path / "clips", out=tmp_path / "model", method="components")
    label(tmp_path / "clips", tmp_path / "photos", model=tmp_path / "model")
    coco = json.loads((tmp_path / "photos/instances.json").read_text())
    assert not any("track_id" in annotation for annotation in coco["annotations"])
    assert not (tmp_path / "photos/masks").exists()
    assert not any(any(entry["tracks"]) for entry in gallery_of(tmp_path / "photos"))


def test_large_frames_are_linked_small(tmp_path: Path) -> None:
    """A thing of few pixels in a large frame is still there when the frame is small."""
    clip = tmp_path / "clips/large"
    clip.mkdir(parents=True)
    for number in range(3):
        image = np.full((700, 1200, 3), 70, np.uint8)
        image[:, ::9] += np.uint8(30)
        image[301:302, 500:502] = (230, 30, 30)
        image[500:700, 300 + 40 * number : 600 + 40 * number] = (30, 30, 230)
        Image.fromarray(image).save(clip / f"{number}.png")
    label(tmp_path / "clips", tmp_path / "run")
    found = tracks_by_frame(tmp_path / "run")
    assert all(set(tracks) == {1, 2} for tracks in found.values())
    assert len({red_of(tracks) for tracks in found.values()}) == 1


def test_a_video_file_is_linked_too(tmp_path: Path) -> None:
    label(write_video(tmp_path / "ride.mp4", 5), tmp_path / "run")
    assert all(1 in tracks for tracks in tracks_by_frame(tmp_path / "run").values())
