"""Quality of siseg's modes beside the baselines on real data: fit on one part, label another, evaluate, in one run.

Everything goes through the functions behind `pixelkin fit`, `label` and `evaluate`. Results are kept in OUT/cells.json;
the same call again measures only what is missing (a fit or a run that was killed continues), so remove OUT to measure
anew. DATA holds folders of the sets:

    dsb2018   train/images, train/semantic; val/images, val/semantic, val/labels; classes.txt
    coco      train, train_semantic; val, val_semantic; instances_val.json; classes.txt
    voc2007   a VOC devkit with SemanticPredicted beside JPEGImages; classes.txt. Fitted on all its images, evaluated on
              those of ImageSets/Segmentation/train.txt, which have instance masks

    python benchmarks/siseg_quality.py DATA --set dsb2018 --modes crowding,components,paper --budget 10m --seeds 0,1,2
    python benchmarks/siseg_quality.py DATA --set coco --model MODEL --set-option crowding.cut=0.5
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import pixelkin
from pixelkin.data import Dataset, Instances, Sample
from pixelkin.formats import open_dataset, read_coco, read_label_maps, read_run
from pixelkin.metrics import evaluate

SCORES = ("AP", "AP50", "AP75", "AR", "crowd_AR")
MODES = ("crowding", "components", "paper")
STANDING = 0.5
"""Instances of crowding with at least this score are a partition of the mask; the others are alternatives to it."""
FAINT = 1e-3
"""Watershed pieces offered as alternatives to components have their score times this: all below any component."""


@dataclass(frozen=True)
class Part:
    """Images and their semantic masks."""

    source: Path
    semantic: Path


@dataclass(frozen=True)
class Task:
    """One set: what to fit on, what to label, what to compare with, and a distance that suits a watershed there."""

    name: str
    fit: Part
    label: Part
    truth: Path
    classes: Path
    apart: int


def dsb2018(data: Path, out: Path) -> Task:
    """Nuclei: true semantic masks, one class."""
    root = data / "dsb2018"
    train, val = (Part(root / part / "images", root / part / "semantic") for part in ("train", "val"))
    return Task("dsb2018", train, val, root / "val" / "labels", root / "classes.txt", 5)


def coco(data: Path, out: Path) -> Task:
    """Photos: true semantic masks, 80 classes."""
    root = data / "coco"
    train, val = (Part(root / part, root / f"{part}_semantic") for part in ("train", "val"))
    return Task("coco", train, val, root / "instances_val.json", root / "classes.txt", 15)


def voc2007(data: Path, out: Path) -> Task:
    """Photos: masks predicted by a semantic model, 20 classes."""
    root = data / "voc2007"
    masks = root / "SemanticPredicted"
    chosen = out / "voc2007" / "images"
    chosen.mkdir(parents=True, exist_ok=True)
    for name in (root / "ImageSets" / "Segmentation" / "train.txt").read_text().split():
        shutil.copyfile(root / "JPEGImages" / f"{name}.jpg", chosen / f"{name}.jpg")
    return Task("voc2007", Part(root, masks), Part(chosen, masks), root, root / "classes.txt", 20)


TASKS: dict[str, Callable[[Path, Path], Task]] = {"dsb2018": dsb2018, "coco": coco, "voc2007": voc2007}


@dataclass(frozen=True)
class Fit:
    """A method to fit, or its model; ``settings`` as for ``--set``."""

    method: str
    settings: Mapping[str, str]
    seed: int = 0
    budget: str | None = None
    model: Path | None = None

    def slug(self, limit: int | None) -> str:
        """A folder name of its own for each."""
        if self.model is not None:
            told: list[Any] = [str(self.model.resolve()), sorted(self.settings.items()), limit]
            return f"{self.model.resolve().name}-{_digest(told)}"
        told = [sorted(self.settings.items()), self.budget, limit]
        return "-".join([self.method, *sorted(self.settings.values())[-1:], f"s{self.seed}", _digest(told)])


class Bench:
    """Measures cells, each once, and keeps them.

    Args:
        task: the set.
        out: folder for models, runs and ``cells.json``.
        limit: only the first images of both parts; the numbers then mean nothing.
        device: where to compute.
    """

    def __init__(self, task: Task, out: Path, *, limit: int | None, device: str) -> None:
        self.task, self.out, self.limit, self.device = task, out, limit, device
        self.file = out / "cells.json"
        self.cells: dict[str, dict[str, Any]] = json.loads(self.file.read_text()) if self.file.is_file() else {}
        self.shown: list[dict[str, Any]] = []

    def measure(self, what: str, fit: Fit, variants: Mapping[str, Callable[[Dataset], Dataset]] | None = None) -> Path:
        """Fit, label and evaluate a method, and variants of its labels. Returns the run folder.

        Args:
            what: the row's name.
            fit: the method.
            variants: more rows: their names, and what makes their labels of the run's.
        """
        slug = fit.slug(self.limit)
        run = self.out / self.task.name / slug / "run"
        rows: dict[str, Callable[[Dataset], Dataset] | None] = {what: None, **(variants or {})}
        for name, change in rows.items():
            key = f"{self.task.name}/{slug}/{name}"
            if key not in self.cells:
                print(f"{self.task.name}: {name}, seed {fit.seed} ...", flush=True)
                spent = self._label(fit, run)
                pred: Path | Dataset = run if change is None else change(read_run(run))
                result = evaluate(pred, self._truth(run))
                about = {"set": self.task.name, "what": name, "seed": fit.seed, "budget": fit.budget}
                about |= {"settings": dict(fit.settings), "limit": self.limit, **spent, **machine()}
                scores = {score: result.scores[score] for score in SCORES}
                self.cells[key] = about | scores | {"protocol": result.protocol_line, "counts": result.counts}
                self._save()
            self.shown.append(self.cells[key])
        return run

    def _label(self, fit: Fit, run: Path) -> dict[str, Any]:
        """Fit and label what is not done yet; the seconds and the steps it took."""
        task, model = self.task, fit.model or run.parent / "model"
        common: dict[str, Any] = {"classes": task.classes, "device": self.device, "limit": self.limit}
        if fit.model is None:
            pixelkin.fit(
                task.fit.source,
                out=model,
                method=fit.method,
                semantic=task.fit.semantic,
                budget=fit.budget,
                seed=fit.seed,
                settings=fit.settings,
                **common,
            )
        pixelkin.label(
            task.label.source,
            out=run,
            semantic=task.label.semantic,
            model=model,
            settings=fit.settings if fit.model is not None else None,
            **common,
        )
        training = json.loads((model / "config.json").read_text())["facts"].get("training", {})
        fitted = json.loads((model / "fit.json").read_text()) if (model / "fit.json").is_file() else {}
        seconds = [fitted.get("timings", {}).get("fit_s"), training.get("seconds")]
        return {
            # Of a fit that was continued, the whole training counts, not only its last part.
            "fit_s": max((second for second in seconds if second is not None), default=None),
            "steps": training.get("iterations"),
            "label_s": json.loads((run / "run.json").read_text())["timings"]["label_s"],
        }

    def _truth(self, run: Path) -> Path | Dataset:
        """The truth; with a limit, of the labelled images alone."""
        if self.limit is None:
            return self.task.truth
        path = self.task.truth
        if path.suffix == ".json":
            truth = read_coco(path)
        else:
            truth = open_dataset(path) if (path / "SegmentationObject").is_dir() else read_label_maps(path)
        labelled = {Path(sample.name).name for sample in read_run(run)}
        return truth.filter(lambda sample: Path(sample.name).name in labelled)

    def _save(self) -> None:
        beside = self.file.with_suffix(".part")
        beside.write_text(json.dumps(self.cells, indent=1) + "\n")
        beside.replace(self.file)


def standing(labels: Dataset) -> Dataset:
    """The labels without alternatives: what ``--set crowding.alternatives=false`` gives."""
    return labels.map(lambda sample: sample.replace(instances=partial(_standing, sample)))


def with_pieces(labels: Dataset, pieces: Dataset) -> Dataset:
    """Components with watershed pieces as alternatives of low score: alternatives that nothing was learned for."""
    of_name = {sample.name: sample for sample in pieces}
    return labels.map(lambda sample: sample.replace(instances=partial(_both, sample, of_name[sample.name])))


def _standing(sample: Sample) -> Instances:
    instances = _instances(sample)
    return instances[instances.scores >= STANDING]


def _both(sample: Sample, other: Sample) -> Instances:
    first, second = _instances(sample), _instances(other)
    faint = Instances(second.size, second.rles, labels=second.labels, scores=second.scores * FAINT)
    return Instances.concatenate([first, faint])


def _instances(sample: Sample) -> Instances:
    return sample.instances or Instances.empty(sample.size)


def _digest(told: Any) -> str:
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:8]


def machine() -> dict[str, Any]:
    """What it was measured on, when, and how busy that was."""
    import torch

    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    versions = {"pixelkin": pixelkin.__version__, "Python": platform.python_version()}
    versions |= {"torch": str(torch.__version__), "numpy": np.__version__}
    said = ", ".join(f"{name} {version}" for name, version in versions.items())
    return {
        "machine": f"{model}, {os.cpu_count()} cores, {torch.get_num_threads()} threads{gpu}; {said}",
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "date": datetime.date.today().isoformat(),
    }


def table(cells: list[dict[str, Any]]) -> Iterator[str]:
    """Markdown: a row for each cell, and the mean over seeds where there are several."""
    columns = ("set", "what", "seed", *SCORES, "fit s", "label s", "steps")
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    by_row: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for cell in cells:
        settings = ", ".join(f"{key}={value}" for key, value in cell["settings"].items() if not key.endswith("mode"))
        by_row.setdefault((cell["set"], cell["what"], settings), []).append(cell)
    for (name, what, _), row in by_row.items():
        for cell in row:
            yield _row(name, what, str(cell["seed"]), cell)
        if len(row) > 1:
            keys = (*SCORES, "fit_s", "label_s", "steps")
            means = {k: np.mean([c[k] for c in row]) if all(c[k] is not None for c in row) else None for k in keys}
            yield _row(name, what, f"mean of {len(row)}", means)
    yield ""
    for cell in {cell["set"]: cell for cell in cells}.values():
        counts = cell["counts"]
        yield (
            f"{cell['set']}: {counts['images']} images, {counts['truths']} true instances,"
            f" {counts['crowded_truths']} of them crowded; at most {counts['max_detections']} detections an image"
        )
    yield from dict.fromkeys(cell["machine"] for cell in cells)


def _row(name: str, what: str, seed: str, cell: Mapping[str, Any]) -> str:
    scores = ["-" if cell[score] is None else f"{cell[score]:.1f}" for score in SCORES]
    times = ["-" if cell[key] is None else f"{cell[key]:.0f}" for key in ("fit_s", "label_s", "steps")]
    return f"| {' | '.join([name, what, seed, *scores, *times])} |"


def baselines(bench: Bench) -> None:
    """Components, watershed at two distances, and components with watershed pieces as alternatives."""
    apart = bench.task.apart
    pieces = bench.measure(f"watershed, {apart} px apart", Fit("watershed", {"min_distance": str(apart)}))
    bench.measure("watershed, distance from the set", Fit("watershed", {}))
    more = {"components + watershed alternatives": lambda labels: with_pieces(labels, read_run(pieces))}
    bench.measure("components", Fit("components", {}), more)


def main() -> None:
    """Measure, then print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--set", dest="sets", action="append", choices=TASKS, help="may be repeated; default all")
    parser.add_argument("--modes", default=",".join(MODES), help="of siseg; empty for the baselines alone")
    parser.add_argument("--model", type=Path, help="a fitted model to label with, instead of fitting any mode")
    parser.add_argument("--budget", default="10m", help="for each fit: 10m, 500it")
    parser.add_argument("--seeds", default="0", help="e.g. 0,1,2")
    parser.add_argument("--set-option", action="append", default=[], metavar="KEY=VALUE", help="a setting of siseg")
    parser.add_argument("--limit", type=int, help="only the first images: to try this script")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    options = parser.parse_args()
    settings = dict(text.split("=", 1) for text in options.set_option)
    modes = [mode for mode in options.modes.split(",") if mode]
    if options.model is not None:
        modes = [json.loads((options.model / "config.json").read_text())["config"]["mode"]]
    unknown = set(modes) - set(MODES)
    if unknown:
        parser.error(f"no mode {', '.join(sorted(unknown))}: siseg has {', '.join(MODES)}")
    options.out.mkdir(parents=True, exist_ok=True)
    shown: list[dict[str, Any]] = []
    for name in options.sets or TASKS:
        bench = Bench(TASKS[name](options.data, options.out), options.out, limit=options.limit, device=options.device)
        baselines(bench)
        for mode in modes:
            variants = {"siseg crowding, no alternatives": standing} if mode == "crowding" else None
            if options.model is not None:
                bench.measure(f"siseg {mode}", Fit("siseg", settings, model=options.model), variants)
                continue
            for seed in map(int, options.seeds.split(",")):
                told = settings | {"mode": mode}
                bench.measure(f"siseg {mode}", Fit("siseg", told, seed, options.budget), variants)
        shown += bench.shown
        print("\n" + "\n".join(table(bench.shown)) + "\n", flush=True)
    if len({cell["set"] for cell in shown}) > 1:
        print("\n".join(table(shown)))


if __name__ == "__main__":
    main()
