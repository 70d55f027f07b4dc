"""IRNet through the command line on real photos: what a run holds after a training far too short."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelkin import cli
from pixelkin.data.sample import read_label_image
from pixelkin.formats import read_classes

SMALL = {
    "classifier.crop": 96,
    "classifier.long_side": "96,128",
    "classifier.scales": "0.5",
    "classifier.flip": "false",
    "classifier.training.batch_size": 2,
    "pairs.crop": 96,
    "pairs.width": 64,
    "pairs.offsets": 16,
    "pairs.training.batch_size": 2,
    "maps.crop": 96,
    "maps.long_side": "96,128",
    "maps.scales": "0.5",
    "maps.flip": "false",
    "maps.training.batch_size": 2,
}


@pytest.fixture(scope="module")
def run(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of four photos with their tags from XML."""
    out = tmp_path_factory.mktemp("irnet") / "run"
    settings = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
    call = ["label", str(shared_data / "voc2007"), "--tags", "xml", "--limit", "4", "--budget", "2it"]
    assert cli.run([*call, "--device", "cpu", "--out", str(out), *settings]) == 0
    return out


@pytest.fixture(scope="module")
def names(shared_data: Path) -> dict[int, str]:
    """The classes of the set."""
    return read_classes(shared_data / "voc2007" / "classes.txt")


def tags_of(shared_data: Path, stem: str) -> set[str]:
    text = (shared_data / "voc2007" / "Annotations" / f"{stem}.xml").read_text()
    return set(re.findall(r"<object>\s*<name>([^<]+)</name>", text))


def test_the_method_is_chosen_and_every_image_done(run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    assert record["method"] == "irnet"
    assert "tags" in record["why"]
    assert record["counts"]["done"] == record["counts"]["images"] == 4
    assert (run / "errors.jsonl").read_text() == ""
    facts = json.loads((run / "model" / "config.json").read_text())["facts"]
    assert {stage: spent["iterations"] for stage, spent in facts["training"].items()} == {
        "classifier": 2,
        "relations": 2,
        "class maps, round 1": 2,
        "class maps, round 2": 2,
    }


def test_instances_are_of_the_tags_and_within_their_image(run: Path, shared_data: Path, names: dict[int, str]) -> None:
    coco = json.loads((run / "instances.json").read_text())
    assert {c["id"]: c["name"] for c in coco["categories"]} == names
    images = {image["id"]: image for image in coco["images"]}
    assert len(images) == 4
    for annotation in coco["annotations"]:
        image = images[annotation["image_id"]]
        assert names[annotation["category_id"]] in tags_of(shared_data, Path(image["file_name"]).stem)
        assert annotation["segmentation"]["size"] == [image["height"], image["width"]]
        assert annotation["source"] == "irnet:tags"
        assert 0 < annotation["score"] <= 1


def test_semantic_maps_hold_the_users_ids(run: Path, shared_data: Path, names: dict[int, str]) -> None:
    maps = sorted((run / "semantic").rglob("*.png"))
    assert len(maps) == 4
    for path in maps:
        found = read_label_image(path)
        photo = next((shared_data / "voc2007" / "JPEGImages").glob(f"{path.stem}.*"))
        assert found.shape == Image.open(photo).size[::-1]
        assert {names[i] for i in np.unique(found).tolist() if i} <= tags_of(shared_data, path.stem)


def test_the_gallery_shows_every_stage(run: Path, shared_data: Path) -> None:
    page = (run / "gallery.html").read_text()
    entries = [json.loads(text) for text in re.findall(r'class="entry">(.*?)</script>', page)]
    assert len(entries) == 4
    for entry in entries:
        captions = [picture["caption"] for picture in entry["pictures"]]
        tags = tags_of(shared_data, entry["name"].rsplit("/", 1)[-1])
        of_classes = {f"{kind}: {tag}" for kind in ("activation", "probability") for tag in tags}
        assert set(captions) == {*of_classes, "boundary", "displacement"}
        for picture in entry["pictures"]:
            head, data = picture["picture"].split(",", 1)
            assert head == "data:image/webp;base64"
            assert len(base64.b64decode(data)) > 100
