"""Quality of bestie from points and from tags beside connected components, with ablations.

Fitted and evaluated on one of the sets in DATA (see siseg_quality.py). Results and models are kept in OUT; the same
call again measures only what is missing.

    python benchmarks/bestie_quality.py DATA --set voc2007 --seeds 0,1,2 --budget 10m
    python benchmarks/bestie_quality.py DATA --set coco --variants plain,guided,online,teacher
    python benchmarks/bestie_quality.py DATA --set voc2007 --cues tags --maps own,given

``voc2007-boxes`` are the VOC photos without true masks: fitted on all of them, every second one is labelled, the box
of each mask is scored against the true boxes. With 239 photos instead of 20 it can tell settings apart.

Points are box centres on VOC, where only those are known for all images, and the pixel deepest inside each true mask on
the others. ``--missing 0.3`` leaves out that share of the points in fitting.

Variants: `plain`: what is not certified is background, no refinement; `guided`: it teaches nothing; `online`: guided,
with self-refinement as published, the default; `teacher`: guided, refined by the running average of the weights.

Rows of one model, all on the images that have true masks:

* components: connected components of the same maps; nothing is learned.
* nearest point: each pixel of those maps to the nearest point of its component; nothing is learned.
* paths: each pixel to the point of the shortest path, classes mended; nothing is learned.
* given maps: the semantic maps of these images and no points.
* given maps + points: these and their points, grouped to those. Compare it with the row above that knows as much: the
  points of the images evaluated are known, which is right for the labels of a training set alone.
* own maps + tags, own maps + points: the semantic maps are the network's own.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelkin.data import Dataset, Instances, Point, Sample
from pixelkin.data.sample import read_label_image
from pixelkin.data.synthetic.scene import points_of
from pixelkin.formats import open_dataset, read_coco, read_label_maps
from pixelkin.grouping.centers import POINT, group_by_centers
from pixelkin.grouping.points import mend_classes
from pixelkin.methods.base import Field, Fields, Method
from pixelkin.methods.baselines import Components
from pixelkin.methods.bestie import BESTIE
from pixelkin.methods.bestie_config import BESTIEConfig
from pixelkin.methods.bestie_labels import LEAST_SCORE, instances_of
from pixelkin.methods.bestie_views import places_of
from pixelkin.metrics import evaluate
from pixelkin.models.center_fields import STRIDE
from pixelkin.training.budget import Budget
from siseg_quality import machine

SETS = ("voc2007", "coco", "dsb2018")
BOXES = "voc2007-boxes"
SCORES = ("AP", "AP50", "AP75", "AR", "crowd_AR")
VARIANTS: dict[str, dict[str, str]] = {
    "plain": {"guidance": "false", "refinement": "false"},
    "guided": {"refinement": "false"},
    "online": {"refinement": "online"},
    "teacher": {"refinement": "teacher"},
}


class NearestPoint(Components):
    """Components divided at their points without any learning."""

    def group(self, fields: Fields, sample: Sample) -> Instances:
        """Every pixel to the nearest point of its component."""
        semantic = sample.semantic
        if semantic is None:
            raise SystemExit(f"{sample.name}: no semantic map")
        points, ids = sample.points or (), np.setdiff1d(semantic, [0, 255])
        known = [point for point in points if point.label in ids]
        groups = group_by_centers(
            np.zeros((len(ids), *semantic.shape), np.float32),
            np.zeros((2, *semantic.shape), np.float32),
            semantic,
            ids,
            points=np.array([(point.y, point.x) for point in known]).reshape(-1, 2),
            point_classes=[point.label for point in known],
        )
        sizes = np.sqrt(np.bincount(groups.labels.ravel(), minlength=len(groups.classes) + 1)[1:])
        scores = sizes / max(semantic.shape) * (0.5 + 0.5 * (groups.centers.kinds == POINT))
        return Instances.from_label_map(groups.labels, labels=groups.classes, scores=scores.clip(0, 1))


class PathsFromPoints(Components):
    """What the points say without any learning: the method's own division with fields that know nothing."""

    def group(self, fields: Fields, sample: Sample) -> Instances:
        """Classes mended, then every pixel to the point of the shortest path."""
        config = BESTIEConfig(vote_cost=0)
        places, names = places_of(sample)
        semantic = mend_classes(np.asarray(sample.semantic), places, names)
        ids, grid = np.setdiff1d(semantic, [0, 255]), tuple(-(-side // STRIDE) for side in semantic.shape)
        maps = {"semantic": Field(semantic), "offset": Field(np.zeros((2, *grid), np.float32), STRIDE)}
        for i in ids:
            maps[f"center/{i}"] = Field(np.zeros(grid, np.float32), STRIDE)
            maps[f"class/{i}"] = Field(np.ones(grid, np.float32), STRIDE)
        found = instances_of(Fields(sample.size, maps), sample, config)
        sizes = np.sqrt(found.areas) / max(sample.size)
        scores = sizes * np.where(found.scores > LEAST_SCORE, 1, 0.5)  # as above: what has no point counts half
        return Instances(sample.size, found.rles, labels=found.labels, scores=scores, sources=found.sources)


def load(data: Path, name: str, limit: int | None) -> tuple[Dataset, Dataset, Dataset]:
    """What to fit on and what to label, both with points, tags and semantic maps, and the truth of the latter."""
    root = data / name.removesuffix("-boxes")
    if name in ("voc2007", BOXES):
        masks = open_dataset(root, semantic=root / "SemanticPredicted", tags="xml", classes=root / "classes.txt")
        everything = masks.map(lambda sample: sample.replace(points=box_centres(sample)))
        truth = open_dataset(root, classes=root / "classes.txt").with_label("instances")[:limit]
        names = {sample.name for sample in truth}
        if name == BOXES:
            fit = everything.filter(lambda sample: sample.name not in names)[:limit]
            label = Dataset(list(fit)[::2], fit.classes)
            return fit, label, label.map(true_boxes)
        label = everything.filter(lambda sample: sample.name in names)
        fit = everything if limit is None else label
        return fit, label, truth
    found = []
    for part in ("train", "val"):
        if name == "coco":
            source, masks_of = root / part, root / f"{part}_semantic"
            true = read_coco(root / f"instances_{part}.json")
        else:
            source, masks_of = root / part / "images", root / part / "semantic"
            true = read_label_maps(root / part / "labels")
        images = open_dataset(source, semantic=masks_of, classes=root / "classes.txt", limit=limit)
        by_name = {Path(sample.name).name: sample for sample in true}
        found.append((images.map(partial(_clicked, by_name=by_name)), by_name, true))
    (fit, _, _), (label, by_name, true) = found
    chosen = {Path(sample.name).name for sample in label}
    return fit, label, true.filter(lambda sample: Path(sample.name).name in chosen)


def box_centres(sample: Sample) -> tuple[Point, ...]:
    """A point in the middle of each box of the sample."""
    if sample.boxes is None:
        return ()
    middles = (sample.boxes.xyxy[:, :2] + sample.boxes.xyxy[:, 2:] - 1) / 2
    return tuple(Point(float(x), float(y), int(i)) for (x, y), i in zip(middles, sample.boxes.labels, strict=True))


def as_boxes(size: tuple[int, int], xyxy: npt.NDArray[Any], labels: Any, scores: Any = None) -> Instances:
    """Instances that fill these boxes, so that the IoU of masks is that of boxes."""
    masks = np.zeros((len(xyxy), *size), bool)
    for mask, (left, top, right, bottom) in zip(masks, xyxy.round().astype(int), strict=True):
        mask[top:bottom, left:right] = True
    return Instances.from_masks(masks, labels=labels, scores=scores)


def true_boxes(sample: Sample) -> Sample:
    """The sample with its boxes for true instances."""
    if sample.boxes is None:
        return sample.replace(instances=Instances.empty(sample.size))
    return sample.replace(instances=as_boxes(sample.size, sample.boxes.xyxy, sample.boxes.labels))


def _clicked(sample: Sample, by_name: dict[str, Sample]) -> Sample:
    """The sample with a point in each true mask and their classes for tags."""
    true = by_name.get(Path(sample.name).name)
    instances = None if true is None else true.instances
    points = () if instances is None else points_of(instances[~instances.crowd])
    return sample.replace(points=points, tags=tuple(sorted({point.label for point in points})))


def labelled(fit: Dataset, cues: str, maps: str, missing: float) -> Dataset:
    """The images with just these labels."""
    rng = np.random.default_rng(0)

    def change(sample: Sample) -> Sample:
        kept = tuple(point for point in sample.points or () if rng.random() >= missing)
        only = {"points": kept, "tags": None} if cues == "points" else {"points": None}
        return sample.replace(**only, **({"semantic": None} if maps == "own" else {}))

    return mapped(fit, maps).map(change)


def mapped(dataset: Dataset, maps: str) -> Dataset:
    """The images with the maps of a folder, where that is what the maps are."""
    if maps in ("given", "own"):
        return dataset
    files = {path.stem: path for path in Path(maps).rglob("*.png")}
    return dataset.map(lambda sample: sample.replace(semantic=partial(read_label_image, files[Path(sample.name).stem])))


def rows(
    method: BESTIE, label: Dataset, truth: Dataset, wanted: str | None = None, boxes: bool = False
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, scores) of the model with what may be known of an image; of one row alone where it is wanted."""
    kinds: dict[str, dict[str, Any]] = {
        "given maps": {"points": None},
        "given maps + points": {},
        "own maps + tags": {"points": None, "semantic": None},
        "own maps + points": {"semantic": None},
    }
    unlearned = {"components": Components(), "nearest point": NearestPoint(), "paths": PathsFromPoints()}
    for name, baseline in unlearned.items():
        if wanted in (None, name):
            yield name, score(baseline, label, truth, boxes)
    for name, without in kinds.items():
        if wanted not in (None, name):
            continue
        yield name, score(method, label.map(partial(Sample.replace, **without)), truth, boxes)


def score(method: Method, label: Dataset, truth: Dataset, boxes: bool = False) -> dict[str, Any]:
    """Scores of a method's labels, in percent, and the seconds an image takes."""
    started, made = time.perf_counter(), []
    for sample, found in method.label(label):
        if isinstance(found, Exception):
            raise found
        if boxes:
            found = as_boxes(found.size, found.boxes, found.labels, found.scores)
        made.append(sample.replace(instances=found))
    seconds = (time.perf_counter() - started) / max(len(made), 1)
    result = evaluate(Dataset(made, truth.classes), truth)
    return {key: result.scores[key] for key in SCORES} | {"s/image": seconds, "protocol": result.protocol_line}


def fitted(folder: Path, dataset: Dataset, settings: dict[str, str], seed: int, options: argparse.Namespace) -> BESTIE:
    """The model of these settings, fitted here unless it is there already."""
    if not (folder / "config.json").is_file():
        method = BESTIE(BESTIEConfig.from_settings(settings))
        budget = None if options.budget is None else Budget.parse(options.budget)
        started = time.perf_counter()
        method.fit(dataset, out=folder / "training", budget=budget, device=options.device, seed=seed)
        method.facts["fit_s"] = round(time.perf_counter() - started, 1)
        method.save(folder)
    loaded = Method.load(folder, device=options.device)
    assert isinstance(loaded, BESTIE)
    return loaded


def _mean(numbers: list[float]) -> str:
    return f"{np.mean(numbers):.1f} ± {np.std(numbers):.1f}" if numbers else "-"


def main() -> None:
    """Measure, then print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "--set", dest="sets", action="append", choices=(*SETS, BOXES), help="may be repeated; default the first three"
    )
    parser.add_argument("--cues", default="points", help="points, tags or both: points,tags")
    parser.add_argument(
        "--maps", default="given", help="what to learn from: given, own (by irnet), a folder of PNG: given,own,FOLDER"
    )
    parser.add_argument("--variants", default="online", help=f"of {', '.join(VARIANTS)}")
    parser.add_argument("--missing", type=float, default=0.0, help="share of the points left out in fitting")
    parser.add_argument("--set-option", action="append", default=[], metavar="KEY=VALUE", help="a setting of bestie")
    parser.add_argument("--name", default="", help="of these settings, part of the folder's name")
    parser.add_argument("--seeds", default="0", help="e.g. 0,1,2")
    parser.add_argument("--budget", help="for each fit: 10m; default: the steps of the settings")
    parser.add_argument("--row", help="only this one, e.g. 'given maps'")
    parser.add_argument("--limit", type=int, help="only the first images: to try this script")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("runs/bestie"))
    options = parser.parse_args()
    settings = dict(option.split("=", 1) for option in options.set_option)
    table: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for name in options.sets or SETS:
        fit, label, truth = load(options.data, name, options.limit)
        for cues, maps, variant, seed in (
            (c, m, v, int(s))
            for c in options.cues.split(",")
            for m in options.maps.split(",")
            for v in options.variants.split(",")
            for s in options.seeds.split(",")
        ):
            what = " ".join([cues, Path(maps).name, variant, options.name]).strip()
            told = f"-missing{options.missing:g}" * bool(options.missing) + f"-limit{options.limit}" * bool(
                options.limit
            )
            folder = options.out / name / f"{what.replace(' ', '-')}{told}-{options.budget or 'default'}-s{seed}"
            dataset = labelled(fit, cues, maps, options.missing)
            method = fitted(folder, dataset, settings | VARIANTS[variant], seed, options)
            kept = folder / ("scores.json" if options.row is None else f"scores of {options.row}.json")
            if not kept.is_file():
                found = dict(rows(method, mapped(label, maps), truth, options.row, name == BOXES))
                kept.write_text(json.dumps({"rows": found, **machine()}, indent=1) + "\n")
            scores = json.loads(kept.read_text())
            print(f"{name}, {what}, seed {seed}: fit {method.facts['fit_s']} s {method.facts['training']}")
            for row, values in scores["rows"].items():
                table.setdefault((name, f"{what}: {row}"), []).append(values)
                cells = " | ".join("-" if values[key] is None else f"{values[key]:.1f}" for key in SCORES)
                print(f"| {name} | {row} | {cells} | {values['s/image']:.2f} s |", flush=True)
    print(f"\n| set | what | seeds | {' | '.join(SCORES)} |\n|---|---|---|{'---|' * len(SCORES)}")
    for (name, what), each in table.items():
        told = " | ".join(_mean([row[key] for row in each if row[key] is not None]) for key in SCORES)
        print(f"| {name} | {what} | {len(each)} | {told} |")
    print(machine()["machine"])


if __name__ == "__main__":
    main()
