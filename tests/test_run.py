"""Runs: resumed after a kill, one bad image at a time, one process at a time, bounded memory."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pixelkin
from pixelkin.data import ALTERNATIVE, Instances, Sample
from pixelkin.formats import open_dataset
from pixelkin.methods.baselines import Components
from pixelkin.methods.registry import METHODS
from pixelkin.run.folder import RunError, continued, locked
from pixelkin.run.images import Failure, label_image, survey
from pixelkin.run.spool import Spool


def write_blobs(root: Path, count: int, size: int = 48) -> tuple[Path, Path]:
    """Images with square blobs and their semantic masks of two classes."""
    rng = np.random.default_rng(0)
    for folder in ("images", "semantic"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        semantic = np.zeros((size, size), dtype=np.uint8)
        for label in (1, 2):
            y, x = rng.integers(0, size - 12, 2)
            semantic[y : y + 10, x : x + 10] = label
        image = np.repeat(semantic[..., None] * 90, 3, axis=2) + rng.integers(0, 60, (size, size, 3), dtype=np.uint8)
        Image.fromarray(image.astype(np.uint8)).save(root / "images" / f"{i:04d}.png")
        Image.fromarray(semantic).save(root / "semantic" / f"{i:04d}.png")
    return root / "images", root / "semantic"


def command(images: Path, semantic: Path, out: Path, *more: str) -> list[str]:
    call = "import sys; from pixelkin.cli import run; sys.exit(run(sys.argv[1:]))"
    arguments = ["label", str(images), "--semantic", str(semantic), "--method", "components", "--out", str(out)]
    return [sys.executable, "-c", call, *arguments, *more]


def run_json(folder: Path) -> dict[str, object]:
    return json.loads((folder / "run.json").read_text())


def errors(folder: Path) -> dict[str, dict[str, str]]:
    lines = (folder / "errors.jsonl").read_text().splitlines()
    return {record["name"]: record for record in map(json.loads, lines)}


def test_a_killed_run_continues_and_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    images, semantic = write_blobs(tmp_path, 60)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert subprocess.run(command(images, semantic, whole), capture_output=True).returncode == 0

    process = subprocess.Popen(command(images, semantic, killed), stdout=subprocess.DEVNULL)
    spool = killed / ".spool" / "images.jsonl"
    try:
        deadline = time.monotonic() + 60
        while not (spool.exists() and spool.read_bytes().count(b"\n") >= 10):
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not (killed / "instances.json").exists()
    before = spool.read_bytes()
    finished = before[: before.rfind(b"\n") + 1]
    with spool.open("ab") as file:
        file.write(b'"0059"\t{"image": {"torn')

    again = subprocess.run(command(images, semantic, killed), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert f"({finished.count(bytes([10]))} before)" in again.stdout
    after = spool.read_bytes()
    assert after.startswith(finished), "finished images were done again"
    assert after.count(b"\n") == 60
    assert (killed / "instances.json").read_bytes() == (whole / "instances.json").read_bytes()
    assert (killed / "gallery.html").read_bytes() == (whole / "gallery.html").read_bytes()
    assert run_json(killed)["counts"] == run_json(whole)["counts"]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to a process there")
def test_ctrl_c_says_how_to_continue(tmp_path: Path) -> None:
    images, semantic = write_blobs(tmp_path, 150)
    process = subprocess.Popen(
        command(images, semantic, tmp_path / "run"), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    spool = tmp_path / "run" / ".spool" / "images.jsonl"
    while not (spool.exists() and spool.stat().st_size) and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "continues" in error
    assert "Traceback" not in error


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG with an honest header of a dishonest size and almost no data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def write_zoo(root: Path) -> tuple[Path, Path, set[str], set[str]]:
    """Good and bad image files of every sort, a semantic mask for each; the names of the good and of the bad."""
    images, semantic = root / "images", root / "semantic"
    images.mkdir(parents=True)
    semantic.mkdir()
    rng = np.random.default_rng(1)
    rgb = rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)
    upright = Image.fromarray(rgb)
    upright.save(images / "plain.png")
    upright.convert("L").save(images / "grey.png")
    upright.convert("RGBA").save(images / "rgba.png")
    upright.convert("CMYK").save(images / "cmyk.jpg")
    upright.convert("P").save(images / "palette.png")
    upright.convert("1").save(images / "bilevel.png")
    Image.fromarray(rng.integers(0, 4095, (40, 60)).astype(np.uint16)).save(images / "deep.png")
    Image.fromarray(rng.random((40, 60)).astype(np.float32)).save(images / "float.tiff")
    upright.save(images / "really_a_png.jpg", format="PNG")
    upright.save(images / "shouting.PNG")
    upright.save(images / "été no 1.png")
    turned = Image.fromarray(np.rot90(rgb).copy())
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(images / "turned.jpg", exif=exif, quality=95)
    good = {path.stem for path in images.iterdir()}

    (images / "empty.png").write_bytes(b"")
    (images / "text.jpg").write_text("not a picture")
    (images / "cut.png").write_bytes((images / "plain.png").read_bytes()[:300])
    (images / "bomb.png").write_bytes(png_that_claims(100_000, 100_000))
    upright.save(images / "wrong_mask_size.png")
    upright.save(images / "broken_mask.png")
    bad = {path.stem for path in images.iterdir()} - good

    mask = np.zeros((40, 60), dtype=np.uint8)
    mask[5:20, 5:20] = 3
    for name in good | bad:
        Image.fromarray(mask).save(semantic / f"{name}.png")
    Image.fromarray(mask[:30]).save(semantic / "wrong_mask_size.png")
    (semantic / "broken_mask.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (images / "notes.txt").write_text("no image, and never looked at")
    upright.save(images / "unlabelled.png")
    return images, semantic, good, bad


def test_every_sort_of_file(tmp_path: Path) -> None:
    images, semantic, good, bad = write_zoo(tmp_path)
    out = tmp_path / "run"
    (tmp_path / "classes.txt").write_text("3 thing\n")
    summary = pixelkin.label(images, out=out, method="components", semantic=semantic)
    coco = json.loads((out / "instances.json").read_text())
    assert {Path(image["file_name"]).stem for image in coco["images"]} == good
    assert all((image["height"], image["width"]) == (40, 60) for image in coco["images"])
    assert len(coco["annotations"]) == len(good)
    assert {annotation["category_id"] for annotation in coco["annotations"]} == {3}
    assert all({"score", "source"} <= annotation.keys() for annotation in coco["annotations"])
    found = errors(out)
    assert {name for name, error in found.items() if error["stage"] != "skipped"} == bad
    assert found["unlabelled"]["stage"] == "skipped"
    assert "10000000000 pixels" in found["bomb"]["reason"]
    assert found["wrong_mask_size"]["stage"] == "labels"
    assert (summary.done, summary.failed, summary.skipped) == (len(good), len(bad), 1)
    counts = run_json(out)["counts"]
    assert isinstance(counts, dict)
    assert (counts["done"], counts["failed"], counts["skipped"]) == (len(good), len(bad), 1)
    page = (out / "gallery.html").read_text()
    assert all(name in page for name in bad)


def test_a_mended_image_is_tried_again_and_the_ids_stay(tmp_path: Path) -> None:
    images, semantic = write_blobs(tmp_path, 5)
    good = (images / "0002.png").read_bytes()
    (images / "0002.png").write_bytes(good[:100])
    first = pixelkin.label(images, out=tmp_path / "run", method="components", semantic=semantic)
    ids = {i["file_name"]: i["id"] for i in json.loads((tmp_path / "run" / "instances.json").read_text())["images"]}
    assert (first.done, first.failed) == (4, 1)
    assert ids["0003.png"] == 4
    (images / "0002.png").write_bytes(good)
    second = pixelkin.label(images, out=tmp_path / "run", method="components", semantic=semantic)
    assert (second.done, second.failed, second.continued) == (5, 0, 4)
    assert errors(tmp_path / "run") == {}
    after = {i["file_name"]: i["id"] for i in json.loads((tmp_path / "run" / "instances.json").read_text())["images"]}
    assert after == {**ids, "0002.png": 3}


def test_nothing_readable_is_no_crash(tmp_path: Path) -> None:
    images, semantic = write_blobs(tmp_path, 3)
    for path in images.iterdir():
        path.write_bytes(b"")
    summary = pixelkin.label(images, out=tmp_path / "run", method="watershed", semantic=semantic)
    assert (summary.done, summary.failed) == (0, 3)
    assert set(errors(tmp_path / "run")) == {"0000", "0001", "0002"}
    assert json.loads((tmp_path / "run" / "instances.json").read_text())["images"] == []


def test_coco_ids_and_file_names_are_kept(tmp_path: Path) -> None:
    images, semantic = write_blobs(tmp_path, 3)
    records = [{"id": 70 + i, "file_name": f"{i:04d}.png", "width": 48, "height": 48} for i in (2, 0, 1)]
    source = images / "set.json"
    source.write_text(json.dumps({"images": records, "annotations": [], "categories": [{"id": 1, "name": "a"}]}))
    (tmp_path / "classes.txt").write_text("1 a\n2 b\n")
    pixelkin.label(
        source, out=tmp_path / "run", method="components", semantic=semantic, classes=tmp_path / "classes.txt"
    )
    coco = json.loads((tmp_path / "run" / "instances.json").read_text())
    assert [(i["id"], i["file_name"]) for i in coco["images"]] == [(70 + i, f"{i:04d}.png") for i in (2, 0, 1)]
    assert {annotation["image_id"] for annotation in coco["annotations"]} <= {70, 71, 72}


def test_a_run_reads_back_as_it_was_labelled(tmp_path: Path) -> None:
    images, semantic = write_blobs(tmp_path, 4)
    pixelkin.label(images, out=tmp_path / "run", method="components", semantic=semantic)
    method = Components()
    run = {sample.name: sample.instances for sample in open_dataset(tmp_path / "run")}
    for sample in open_dataset(images, semantic=semantic):
        made = method.group(method.fields(sample), sample)
        read = run[sample.name]
        assert isinstance(read, Instances)
        assert read.rles == made.rles
        assert read.labels.tolist() == made.labels.tolist()
        assert read.scores.tolist() == made.scores.tolist()


def test_a_fitted_model_labels_other_images(tmp_path: Path) -> None:
    images, semantic = write_blobs(tmp_path, 4)
    fitted = pixelkin.fit(images, out=tmp_path / "model", method="watershed", semantic=semantic)
    assert fitted.images == 4
    assert pixelkin.fit(images, out=tmp_path / "model", method="watershed", semantic=semantic).finished_before
    with pytest.raises(RunError, match="sigma"):
        pixelkin.fit(images, out=tmp_path / "model", method="watershed", semantic=semantic, settings={"sigma": "2"})
    summary = pixelkin.label(images, out=tmp_path / "run", semantic=semantic, model=tmp_path / "model")
    assert summary.method == "watershed"
    assert not (tmp_path / "run" / "model").exists()


def test_the_record_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    images, semantic = write_blobs(tmp_path, 2)
    pixelkin.label(images, out=tmp_path / "run", method="components", semantic=semantic)
    for path in (tmp_path / "run").rglob("*.json*"):
        assert str(tmp_path) not in path.read_text()
    request = run_json(tmp_path / "run")["request"]
    assert isinstance(request, dict)
    assert request["source"] == "../images"


def test_a_run_may_move_with_its_source(tmp_path: Path) -> None:
    images, semantic = write_blobs(tmp_path / "here", 2)
    pixelkin.label(images, out=tmp_path / "here" / "run", method="components", semantic=semantic)
    (tmp_path / "here").rename(tmp_path / "there")
    there = tmp_path / "there"
    again = pixelkin.label(there / "images", out=there / "run", method="components", semantic=there / "semantic")
    assert again.continued == 2


def test_one_process_at_a_time(tmp_path: Path) -> None:
    holder = "import sys; from pathlib import Path; from pixelkin.run.folder import locked\n"
    holder += "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(RunError, match=str(process.pid)), locked(tmp_path):
        pass
    process.kill()  # the lock of a dead process is nobody's
    process.communicate()
    with locked(tmp_path):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_a_spool_forgets_only_its_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "spool.jsonl"
    spool = Spool(path)
    spool.append('odd\tname "é"\n', {"n": 1})
    spool.append("two", {"n": 2})
    spool.append("two", {"n": 3})
    spool.close()
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        spool = Spool(path)
        lines = whole[:cut].count(b"\n")
        assert list(spool) == ['odd\tname "é"\n', "two"][: min(lines, 2)]
        spool.append("last", {"n": 4})
        assert spool.get("last") == {"n": 4}
        if lines:
            assert spool.get('odd\tname "é"\n') == {"n": 1}
        if lines > 1:
            assert spool.get("two") == {"n": lines}
        spool.close()


def test_what_differs_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    assert continued(path, {"seed": 0}) == {}
    path.write_text(json.dumps({"request": {"method": "a", "seed": 0, "config": {"x": 1, "y": [1, 2]}}}))
    assert continued(path, {"method": "a", "seed": 0, "config": {"x": 1, "y": [1, 2]}})
    with pytest.raises(RunError, match=r"\(config.x 1, now 2; config.y"):
        continued(path, {"method": "a", "seed": 0, "config": {"x": 2, "y": [1]}})
    with pytest.raises(RunError, match=r"\(method a, now b\)"):
        continued(path, {"method": "b", "seed": 0, "config": {"z": 2}})
    for key, goes_on in (("workers", True), ("batch_size", False)):
        path.write_text(json.dumps({"request": {"method": "a", "config": {"training": {key: 1}}}}))
        with contextlib.nullcontext() if goes_on else pytest.raises(RunError, match=key):
            continued(path, {"method": "a", "config": {"training": {key: 2}}})
    path.write_text("{")
    with pytest.raises(RunError, match="not a record"):
        continued(path, {})


class Doubter(Components):
    """Calls the second instance of every image an alternative."""

    def group(self, fields, sample):
        instances = super().group(fields, sample)
        sources = ["x" + ALTERNATIVE * (i == 1) for i in range(len(instances))]
        return Instances(instances.size, instances.rles, labels=instances.labels, sources=sources)


def test_alternatives_are_counted_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, semantic = write_blobs(tmp_path, 3)
    info = dataclasses.replace(METHODS["components"], target=f"{__name__}:Doubter")
    monkeypatch.setitem(METHODS, "components", info)
    summary = pixelkin.label(images, out=tmp_path / "run", method="components", semantic=semantic)
    assert summary.alternatives == 3
    assert sum(summary.per_class.values()) == summary.instances - 3
    assert len(json.loads((tmp_path / "run" / "instances.json").read_text())["annotations"]) == summary.instances


class Moody(Components):
    """Fails on some images in every way there is."""

    def group(self, fields, sample):
        if sample.name == "bug":
            raise IndexError("list index out of range")
        if sample.name == "nan":
            instances = super().group(fields, sample)
            return Instances(instances.size, instances.rles, scores=np.full(len(instances), np.nan))
        return super().group(fields, sample)


def test_a_fault_stays_with_its_image() -> None:
    semantic = np.zeros((20, 20), dtype=np.uint8)
    semantic[2:12, 2:12] = 1
    image = np.zeros((20, 20, 3), dtype=np.uint8)
    for name, reason in (("bug", "IndexError: list index out of range"), ("nan", "a score is not a finite number")):
        made = label_image(Moody(), Sample(name, image, semantic=semantic))
        assert isinstance(made, Failure)
        assert made.reason == reason
    assert not isinstance(label_image(Moody(), Sample("fine", image, semantic=semantic)), Failure)


def test_learning_sees_only_what_can_be_read(tmp_path: Path) -> None:
    images, semantic, good, bad = write_zoo(tmp_path)
    dataset = open_dataset(images, semantic=semantic, classes={3: "thing"})
    read = survey(dataset, dataset, ("semantic",))
    assert {sample.name for sample in read.usable} == good | {"unlabelled"}
    assert set(read.failures) == bad


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """Fifty images more are 24 MB of pixels, which would show."""
    measure = "import resource, sys; from pixelkin.cli import run; code = run(sys.argv[1:])\n"
    measure += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"
    peaks = []
    for count in (10, 60):
        images, semantic = write_blobs(tmp_path / str(count), count, size=400)
        arguments = command(images, semantic, tmp_path / f"run{count}")[3:]
        done = subprocess.run([sys.executable, "-c", measure, *arguments], capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.splitlines()[-1]))
    assert peaks[1] < 1.1 * peaks[0]
