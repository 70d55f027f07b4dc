"""BESTIE through the command line on real photos with points and maps, after a training far too short."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy import ndimage

from pixelkin import cli
from pixelkin.data.sample import read_label_image
from pixelkin.formats import read_classes, read_run

PHOTOS = ("000005", "000007", "000009", "000012")
"""The first of the set: five chairs, of which some share a component, and one, four and one objects."""
SMALL = {
    "fields.crop": 96,
    "fields.long_side": "96,128",
    "fields.widths": "16",
    "fields.head_width": "16",
    "fields.training.batch_size": 2,
    "scales": "0.5",
    "flip": "false",
}


@pytest.fixture(scope="module")
def points(shared_data: Path) -> list[dict[str, object]]:
    """A point in the middle of every box of the photos."""
    found = []
    for name in PHOTOS:
        for thing in ElementTree.parse(shared_data / "voc2007" / "Annotations" / f"{name}.xml").iter("object"):
            left, top, right, bottom = (int(thing.findtext(f"bndbox/{k}")) for k in ("xmin", "ymin", "xmax", "ymax"))
            middle = {"x": (left + right) / 2 - 1, "y": (top + bottom) / 2 - 1}  # the first pixel of VOC is 1
            found.append({"image": f"{name}.jpg", **middle, "label": thing.findtext("name")})
    return found


@pytest.fixture(scope="module")
def run(shared_data: Path, points: list[dict[str, object]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the photos after two steps of training."""
    folder, voc = tmp_path_factory.mktemp("bestie"), shared_data / "voc2007"
    (folder / "points.json").write_text(json.dumps(points))
    given = ["--points", str(folder / "points.json"), "--semantic", str(voc / "SemanticPredicted")]
    settings = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
    call = ["label", str(voc), *given, "--method", "bestie", "--limit", str(len(PHOTOS)), "--budget", "2it"]
    assert cli.run([*call, "--device", "cpu", "--out", str(folder / "run"), *settings]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def masks(run: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For each photo the (N,) class ids and (N, H, W) masks of its instances."""
    found = {}
    for sample in read_run(run):
        instances = sample.instances
        assert instances is not None
        found[Path(sample.name).stem] = instances.labels, np.stack(list(instances.masks()))
    assert set(found) == set(PHOTOS)
    return found


def semantic_of(shared_data: Path, name: str) -> np.ndarray:
    return read_label_image(shared_data / "voc2007" / "SemanticPredicted" / f"{name}.png")


def test_instances_share_out_the_map_and_nothing_else(shared_data: Path, masks: dict) -> None:
    for name, (labels, found) in masks.items():
        semantic = semantic_of(shared_data, name)
        assert found.sum(axis=0).max() == 1
        for label, mask in zip(labels, found, strict=True):
            assert set(semantic[mask]) == {label}


def test_every_point_in_a_component_of_its_class_has_one_instance(
    shared_data: Path, masks: dict, points: list[dict]
) -> None:
    ids = {name: i for i, name in read_classes(shared_data / "voc2007" / "classes.txt").items()}
    shared = 0
    for name, (labels, found) in masks.items():
        semantic = semantic_of(shared_data, name)
        for class_id in set(labels.tolist()):
            pieces, _ = ndimage.label(semantic == class_id, np.ones((3, 3)))
            owners: dict[int, list[int]] = {}
            for point in points:
                y, x = (int(np.floor(point[axis] + 0.5)) for axis in ("y", "x"))
                if point["image"] == f"{name}.jpg" and ids[point["label"]] == class_id and pieces[y, x]:
                    (owner,) = np.flatnonzero(found[:, y, x])
                    owners.setdefault(int(pieces[y, x]), []).append(int(owner))
            for piece, own in owners.items():
                assert len(set(own)) == len(own)
                # others in it are those of points beside it
                within = {k for k, mask in enumerate(found) if (mask & (pieces == piece)).any()}
                assert set(own) <= within
                shared += len(own) > 1
    assert shared  # at least one component was divided


def test_the_run_says_where_its_maps_came_from(shared_data: Path, run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    assert record["counts"]["done"] == len(PHOTOS)
    assert record["trained_on"]["semantic maps"].startswith(f"given for {len(PHOTOS)} of {len(PHOTOS)} images")
    assert (run / record["request"]["semantic"]).resolve() == (shared_data / "voc2007" / "SemanticPredicted").resolve()
    assert "given for" in (run / "model" / "README.md").read_text()
    assert not (run / "semantic").exists()  # none were made
    sources = {annotation["source"] for annotation in json.loads((run / "instances.json").read_text())["annotations"]}
    assert sources == {"bestie:points"}
