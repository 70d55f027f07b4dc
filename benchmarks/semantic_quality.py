"""What backbones are worth for semantic segmentation, on VOC: mIoU after the same fine-tuning of each.

Every backbone, by name or as the folder of a model, is fine-tuned by `semantic` with the same settings and seeds, and
beside it the same architecture from random weights. Judged on the images of one set of ImageSets/Segmentation by
SegmentationClass; fitted on those of another, or on the masks of a folder, those of the judged images left out. Models
and scores are kept in OUT; the same call again measures only what is missing.

    python benchmarks/semantic_quality.py VOC2012 --backbones efficientnet_lite0,RUN/model --seeds 0,1,2
    python benchmarks/semantic_quality.py voc2007 --semantic voc2007/SemanticPredicted --judge train --budget 10m
    python benchmarks/semantic_quality.py VOC2012 --backbones AMD --published --device cuda
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pixelkin.data import Dataset, Sample
from pixelkin.formats import open_dataset
from pixelkin.methods.base import Method
from pixelkin.methods.semantic import SemanticSegmenter
from pixelkin.methods.semantic_config import PUBLISHED, SemanticConfig
from pixelkin.metrics.semantic import MeanIoU
from pixelkin.models.zoo import plain_name
from pixelkin.training.budget import Budget
from siseg_quality import machine

COLUMNS = ("mIoU", "accuracy")


def parts(options: argparse.Namespace) -> tuple[Dataset, Dataset]:
    """The images to fit on and those to judge on, all with masks."""
    sets = options.voc / "ImageSets" / "Segmentation"
    judged = open_dataset(sets / f"{options.judge}.txt").with_label("semantic")
    source = open_dataset(options.voc if options.semantic else sets / f"{options.fit}.txt", semantic=options.semantic)
    kept = {sample.name for sample in judged}
    fitted = source.with_label("semantic").filter(lambda sample: sample.name not in kept)
    if not len(fitted) or not len(judged):
        raise SystemExit(f"{len(fitted)} images to fit on, {len(judged)} to judge on: give other sets or --semantic")
    return fitted[: options.limit], judged[: options.limit]


def score(judged: Dataset, label: Callable[[Sample], np.ndarray]) -> dict[str, float]:
    """The mIoU and accuracy of labels, in percent."""
    meter = MeanIoU(judged.classes)
    for sample in judged:
        truth = sample.semantic
        if truth is None:
            raise SystemExit(f"{sample.name}: no mask")
        meter.update(label(sample), truth)
    found = meter.compute()
    return {column: found[column] for column in COLUMNS}


def commonest(fitted: Dataset) -> int:
    """The class with the most pixels, background among them."""
    pixels: Counter[int] = Counter()
    for sample in fitted:
        ids, counts = np.unique(np.asarray(sample.semantic), return_counts=True)
        pixels.update(dict(zip(ids.tolist(), counts.tolist(), strict=True)))
    pixels.pop(255, None)
    return pixels.most_common(1)[0][0]


def measured(
    config: SemanticConfig, fitted: Dataset, judged: Dataset, seed: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Scores of one fine-tuning, done here unless they are there already."""
    told = [config.model_dump(mode="json"), seed, options.budget, options.judge, options.fit, str(options.semantic)]
    told += [str(options.voc), options.limit]
    kind = "own" if config.pretrained else "random"
    digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:8]
    folder = options.out / f"{plain_name(config.backbone).replace('/', '-')}-{kind}-s{seed}-{digest}"
    kept = folder / "scores.json"
    if not kept.is_file():
        started = time.perf_counter()
        if not (folder / "config.json").is_file():
            method = SemanticSegmenter(config)
            limit = None if options.budget is None else Budget.parse(options.budget)
            method.fit(fitted, out=folder / "training", budget=limit, device=options.device, seed=seed)
            method.save(folder)
        loaded = Method.load(folder, device=options.device)
        found = score(judged, lambda sample: np.asarray(loaded.semantic(sample, loaded.fields(sample))))
        spent = {"steps": loaded.facts["training"]["iterations"], "seconds": round(time.perf_counter() - started, 1)}
        kept.write_text(json.dumps(found | spent | machine(), indent=1) + "\n")
    return dict(json.loads(kept.read_text()))


def main() -> None:
    """Measure, then print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("voc", type=Path)
    parser.add_argument("--backbones", default="efficientnet_lite0", help="names or model folders, with commas")
    parser.add_argument("--fit", default="train", help="image set to fit on")
    parser.add_argument("--judge", default="val", help="image set to judge on")
    parser.add_argument("--semantic", type=Path, help="folder of masks to fit on instead, for all images it has")
    parser.add_argument("--published", action="store_true", help="the published sizes, for a GPU")
    parser.add_argument("--set-option", action="append", default=[], metavar="KEY=VALUE", help="a setting of semantic")
    parser.add_argument("--seeds", default="0", help="e.g. 0,1,2")
    parser.add_argument("--budget", help="for each fit: 10m, 500it; default: the steps of the settings")
    parser.add_argument("--limit", type=int, help="only the first images: to try this script")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("runs/semantic"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    fitted, judged = parts(options)
    names = options.backbones.split(",")
    own = {plain_name(name): name for name in reversed(names)}  # of one architecture, random weights are tried once
    rows = {f"{plain}, random": (name, "false") for plain, name in own.items()} | {
        name: (name, "true") for name in names
    }
    given = dict(option.split("=", 1) for option in options.set_option)
    usual = commonest(fitted)
    constant = score(judged, lambda sample: np.full(sample.size, usual, np.uint8))
    print(f"fitted on {len(fitted)} images, judged on {len(judged)}\n")
    print(f"| backbone | seeds | {' | '.join(COLUMNS)} | steps | s |\n|---|---|{'---|' * len(COLUMNS)}---|---|")
    print(f"| the commonest class everywhere | - | {' | '.join(f'{constant[c]:.1f}' for c in COLUMNS)} | - | - |")
    for what, (backbone, pretrained) in rows.items():
        settings = given | {"backbone": backbone, "pretrained": pretrained}
        config = SemanticConfig.from_settings(settings, base=PUBLISHED if options.published else None)
        found = [measured(config, fitted, judged, int(seed), options) for seed in options.seeds.split(",")]
        cells = [f"{np.mean([f[c] for f in found]):.1f} ± {np.std([f[c] for f in found]):.1f}" for c in COLUMNS]
        spent = [f"{np.mean([f[c] for f in found]):.0f}" for c in ("steps", "seconds")]
        print(f"| {what} | {len(found)} | {' | '.join(cells + spent)} |", flush=True)
    print(machine()["machine"])


if __name__ == "__main__":
    main()
