"""The WIS release against counts made straight from its JSON files."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pixelkin.formats import convert, read_coco, read_wis, read_wis_frame

NAMES = {"TYPE_VEHICLE": "vehicle", "TYPE_PEDESTRIAN": "pedestrian", "TYPE_CYCLIST": "cyclist"}


@pytest.fixture(scope="module")
def release(shared_data: Path) -> Path:
    folder = shared_data / "wis"
    if not folder.is_dir():
        pytest.skip("no WIS annotations")
    return folder


def count(path: Path) -> Counter[str] | None:
    """By class, by number of parts and the boxes nobody drew in, without the package."""
    data = json.loads(path.read_text())["data"]
    if data == "unmarkable":
        return None
    polygons = [p for p in data.get("poly", []) if len(p["data"]) >= 6]
    ids = {b["id"] for b in data["bbox"]}
    groups: dict[str, list[str]] = {}
    for p in polygons:
        valid = [r for r in p["refObjectId"] if r in ids]
        key = f"box {valid[0]}" if valid else f"orphan {p['id']}"
        groups.setdefault(key, []).append(next(iter(p["result"])))
    out: Counter[str] = Counter()
    for kinds in groups.values():
        out[NAMES[kinds[0]]] += 1
        out[f"{len(kinds)} parts"] += 1
    drawn = {r for p in polygons for r in p["refObjectId"]}
    seen: Counter[int] = Counter(b["id"] for b in data["bbox"])
    for b in data["bbox"]:
        out["ignored"] += b["id"] not in drawn or (seen[b["id"]] > 1 and not b["refObjectId"])
    return out


def test_all_files_convert_and_the_counts_match(release: Path, tmp_path: Path):
    files = sorted(release.rglob("frame_*.json"))
    assert len(files) == 200
    counts = {path: count(path) for path in files}
    marked = [path for path, found in counts.items() if found is not None]
    assert len(marked) == 198
    total = sum((found for found in counts.values() if found is not None), Counter())

    ours: Counter[str] = Counter()
    for path in files:
        objects = read_wis_frame(path)
        assert (objects is None) == (counts[path] is None)
        for one in objects or ():
            if one.polygons:
                ours[("vehicle", "pedestrian", "cyclist")[one.class_id - 1]] += 1
                ours[f"{len(one.polygons)} parts"] += 1
            else:
                ours["ignored"] += 1
    assert ours == total
    assert total["vehicle"] + total["pedestrian"] + total["cyclist"] > 1900
    assert total["2 parts"] > 100

    report = convert(release, tmp_path / "wis.json", "coco", unmarked=True)
    assert report.images == 198
    assert not report.failed
    converted = read_coco(tmp_path / "wis.json")
    by_class: Counter[str] = Counter()
    for sample in converted:
        instances = sample.instances
        assert instances is not None
        assert instances.size == (1280, 1920)
        assert (instances.areas > 0).all()
        by_class["ignored"] += int(instances.crowd.sum())
        by_class.update(converted.classes[label] for label in instances.labels[~instances.crowd].tolist())
    assert by_class == {key: total[key] for key in ("vehicle", "pedestrian", "cyclist", "ignored")}


def test_masks_are_the_polygons_drawn(release: Path):
    for sample in read_wis(release)[::40]:
        path = next(release.rglob(f"{sample.name.split('/')[0]}/images/{sample.name.split('/')[1]}.json"))
        data = json.loads(path.read_text())["data"]
        drawn = Image.new("L", (1920, 1280))
        for p in data["poly"]:
            corners = np.clip(np.reshape(p["data"], (-1, 2)), 0, 1) * (1920, 1280) - 0.5
            ImageDraw.Draw(drawn).polygon([tuple(corner) for corner in corners.tolist()], fill=1)
        found = sample.instances
        assert found is not None
        ours, expected = found.masks().any(axis=0), np.asarray(drawn) > 0
        assert (ours & expected).sum() / (ours | expected).sum() > 0.93  # PIL draws the outline too
