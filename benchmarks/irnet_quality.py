"""IRNet from tags alone, stage by stage, on VOC: class activation, with the boundary, with the displacement.

Fitted on all images of a VOC devkit by their tags, evaluated on those of ImageSets/Segmentation/train.txt, which have
masks. Results and models are kept in OUT; the same call again measures only what is missing.

    python benchmarks/irnet_quality.py VOC --seeds 0,1,2 --budget 8m
    python benchmarks/irnet_quality.py VOC --name "no ImageNet seed" --set-option classifier.imagenet_seed=false

Rows: what the label says of each stage of one model.

* activation: class activation, its threshold the best of those tried, which the truth chooses; instances are its
  connected components, scored by the largest activation.
* + boundary: the random walk of whole activations; instances are its pieces.
* + displacement: activations cut by the displacement first. The paper ends here.
* + class maps: learned from labels like these, they take the place of the activation. What `pixelkin label --method
  irnet` makes.
* paper's rules: activation, boundary and displacement, a constant background, everything divided by the largest value
  of the image, scored by the peak, nothing below 1 % of the usual image.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pixelkin.cues.activation import threshold_semantic
from pixelkin.data import Dataset, Instances, Sample
from pixelkin.data.components import class_components
from pixelkin.formats import open_dataset
from pixelkin.methods.base import Method
from pixelkin.methods.irnet import IRNet
from pixelkin.methods.irnet_config import IRNetConfig
from pixelkin.metrics import evaluate
from pixelkin.metrics.semantic import MeanIoU
from pixelkin.training.budget import Budget
from siseg_quality import machine

THRESHOLDS = tuple(np.arange(0.05, 0.75, 0.05).round(2).tolist())
SMALLEST = 16
"""Components of the activation under so many pixels are dropped."""
COLUMNS = ("mIoU", "AP50", "AP", "voc AP50", "voc AP70")
Labeller = Callable[[Sample], tuple[np.ndarray, Instances]]


class Bench:
    """One fitted model and what its stages score on the images with masks."""

    def __init__(self, voc: Path, method: IRNet) -> None:
        self.method = method
        self.truth = open_dataset(voc).with_label("instances")
        tagged = {sample.name: sample for sample in open_dataset(voc, tags="xml")}
        self.samples = [tagged[sample.name] for sample in self.truth]
        started = time.perf_counter()
        self.fields = {sample.name: method.fields(sample) for sample in self.samples}
        self.seconds = (time.perf_counter() - started) / len(self.samples)
        self.cams = {sample.name: method.activation(sample) for sample in self.samples}

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(name, scores) of every stage."""
        tried = [(t, self.score(partial(self.activation, threshold=t))) for t in THRESHOLDS]
        best, scores = max(tried, key=lambda pair: pair[1]["mIoU"])
        highest = max(row["AP50"] for _, row in tried)
        yield "activation", scores | {"threshold": best, "AP50 at its own best threshold": highest}
        yield "+ boundary", self.with_settings(rounds=0, use_displacement=False)
        yield "+ displacement", self.with_settings(rounds=0)
        yield "+ class maps", self.with_settings()
        yield "+ class maps, no displacement", self.with_settings(use_displacement=False)
        # The paper's 1 % holds for each image; min_area is in pixels: that of the usual 500 x 375.
        paper = self.method.config.pairs.model_copy(update={"min_area": 1875, "beta": 10.0})
        rules = {"background": "constant", "class_first": False, "normalisation": "image", "score": "peak", "rounds": 0}
        yield "paper's rules", self.with_settings(pairs=paper, **rules)

    def activation(self, sample: Sample, threshold: float) -> tuple[np.ndarray, Instances]:
        """Class activation alone."""
        cam, ids = self.cams[sample.name]
        semantic = threshold_semantic(cam, ids, threshold)
        parts = class_components(semantic)
        peaks = np.zeros(len(parts.classes) + 1)
        np.maximum.at(peaks, parts.labels, cam.max(axis=0, initial=0))
        kept = np.bincount(parts.labels.ravel(), minlength=len(peaks))[1:] >= SMALLEST
        renumber = np.concatenate([[0], np.cumsum(kept) * kept]).astype(np.int32)
        return semantic, Instances.from_label_map(
            renumber[parts.labels], labels=parts.classes[kept], scores=peaks[1:][kept]
        )

    def with_settings(self, **changes: Any) -> dict[str, Any]:
        """The scores of the method's own labels with other settings of the last stage."""
        before = self.method.config
        self.method.config = before.model_copy(update=changes)
        try:
            return self.score(
                lambda s: (
                    self.method.semantic(s, self.fields[s.name]),
                    self.method.group(self.fields[s.name], s),
                )
            )
        finally:
            self.method.config = before

    def score(self, label: Labeller) -> dict[str, Any]:
        """Scores of labels on the images with masks, in percent."""
        meter, made = MeanIoU(self.truth.classes), []
        for sample, true in zip(self.samples, self.truth, strict=True):
            semantic, instances = label(sample)
            truth = true.semantic
            if truth is None:
                raise SystemExit(f"{sample.name}: no SegmentationClass: the VOC folder is not complete")
            meter.update(semantic, truth)
            made.append(sample.replace(instances=instances))
        found = Dataset(made, self.truth.classes)
        coco, voc = evaluate(found, self.truth).scores, evaluate(found, self.truth, protocol="voc").scores
        return {
            "mIoU": meter.compute()["mIoU"],
            "AP50": coco["AP50"],
            "AP": coco["AP"],
            "voc AP50": voc["AP50"],
            "voc AP70": voc["AP70"],
        }


def fitted(voc: Path, folder: Path, settings: dict[str, str], seed: int, budget: str | None, device: str) -> IRNet:
    """The model of these settings, fitted here unless it is there already."""
    if not (folder / "config.json").is_file():
        dataset = open_dataset(voc, tags="xml")
        method = IRNet(IRNetConfig.from_settings(settings))
        limit = None if budget is None else Budget.parse(budget)
        started = time.perf_counter()
        method.fit(dataset, out=folder / "training", budget=limit, device=device, seed=seed)
        method.facts["fit_s"] = round(time.perf_counter() - started, 1)
        method.save(folder)
    loaded = Method.load(folder, device=device)
    assert isinstance(loaded, IRNet)
    return loaded


def main() -> None:
    """Measure, then print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("voc", type=Path)
    parser.add_argument("--name", default="default", help="of this variant")
    parser.add_argument("--set-option", action="append", default=[], metavar="KEY=VALUE", help="a setting of irnet")
    parser.add_argument("--seeds", default="0", help="e.g. 0,1,2")
    parser.add_argument("--budget", help="for each fit: 10m; default: the iterations of the settings")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("runs/irnet"))
    options = parser.parse_args()
    settings = dict(option.split("=", 1) for option in options.set_option)
    rows: dict[str, list[dict[str, Any]]] = {}
    for seed in (int(text) for text in options.seeds.split(",")):
        folder = options.out / f"{options.name.replace(' ', '-')}-s{seed}"
        method = fitted(options.voc, folder, settings, seed, options.budget, options.device)
        kept = folder / "scores.json"
        if not kept.is_file():
            bench = Bench(options.voc, method)
            found = {"rows": dict(bench.rows()), "fields_s": bench.seconds, **machine()}
            kept.write_text(json.dumps(found, indent=1) + "\n")
        scores = json.loads(kept.read_text())
        spent = method.facts["training"]
        print(
            f"{options.name}, seed {seed}: fit {method.facts.get('fit_s')} s {spent}; {scores['fields_s']:.2f} s/image"
        )
        for name, row in scores["rows"].items():
            rows.setdefault(name, []).append(row)
            print(f"| {name} | {seed} | " + " | ".join(f"{row[c]:.1f}" for c in COLUMNS) + " |", flush=True)
    print(f"\n| what | seeds | {' | '.join(COLUMNS)} |\n|---|---|{'---|' * len(COLUMNS)}")
    for name, each in rows.items():
        cells = [f"{np.mean([r[c] for r in each]):.1f} ± {np.std([r[c] for r in each]):.1f}" for c in COLUMNS]
        print(f"| {name} | {len(each)} | {' | '.join(cells)} |")
    print(machine()["machine"])


if __name__ == "__main__":
    main()
