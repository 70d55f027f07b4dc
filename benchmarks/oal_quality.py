"""What oal finds: on synthetic drives against its own cues, on nuclei from their semantic masks, on DAVIS from motion.

    python benchmarks/oal_quality.py --set driving --budget 20m --device cuda
    python benchmarks/oal_quality.py --data DATA --set dsb2018 --set davis2016 --budget 20m

DATA holds dsb2018/ and davis2016/. The tables are printed and kept as JSON in --out.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelkin.cues.pair_targets import OFFSETS
from pixelkin.data import Dataset, Instances
from pixelkin.data.synthetic import clip_dataset, render_clip
from pixelkin.data.synthetic.sensing import noisy_depth
from pixelkin.formats import open_dataset, read_label_maps
from pixelkin.grouping.cells import cells_to_pixels
from pixelkin.methods.base import Method
from pixelkin.methods.oal import OAL, OALConfig
from pixelkin.methods.oal_frames import Frames
from pixelkin.metrics import evaluate
from pixelkin.training.budget import Budget

SIZE = (256, 512)
LEAST = 100  # pixels; smaller objects are not counted


def main() -> None:
    """Run the sets asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", action="append", choices=("driving", "dsb2018", "davis2016"), required=True)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=Path("oal_quality"))
    parser.add_argument("--budget", default="10m")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clips", type=int, default=200, help="training clips of the synthetic drives")
    parser.add_argument("--tests", type=int, default=40, help="unseen clips")
    parser.add_argument("--truth", action="store_true", help="drives: learn from the true objects, as a ceiling")
    parser.add_argument("--config", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--reuse", action="store_true", help="take the model in --out, with --config on top")
    call = parser.parse_args()
    results = {}
    for name in call.set:
        print(f"\n{name}")
        results[name] = {"driving": driving, "dsb2018": nuclei, "davis2016": davis}[name](call)
        call.out.mkdir(parents=True, exist_ok=True)
        (call.out / f"{name}.json").write_text(json.dumps(results[name], indent=1) + "\n")


def fitted(call: argparse.Namespace, dataset: Dataset, name: str, **settings: str) -> Method:
    """The method, fitted on a dataset or loaded."""
    folder = call.out / f"{name}_model"
    given = dict(text.split("=", 1) for text in call.config)
    if call.reuse and (folder / "config.json").is_file():
        loaded = Method.load(folder, device=call.device)
        loaded.config = OALConfig.from_settings(given, base=loaded.config)
        return loaded
    method = OAL(OALConfig.from_settings(settings | given))
    started = time.monotonic()
    method.fit(dataset, out=folder / "training", budget=Budget.parse(call.budget), device=call.device, seed=call.seed)
    method.save(folder)
    steps = method.facts["training"]["iterations"]
    print(f"fitted on {len(dataset)} images in {time.monotonic() - started:.0f} s, {steps} steps")
    return method


def driving(call: argparse.Namespace) -> dict[str, Any]:
    """Recall at IoU 0.5 on unseen clips, from one image each; the cues see the next frame and exact or noisy depth."""
    kind = "instances" if call.truth else "depth"
    train = clip_dataset(call.clips, 1000, frames=2, preset="driving", size=SIZE, labels=(kind,))
    if not call.truth:
        train = Dataset([_noisy(sample, k) for k, sample in enumerate(train)], train.classes, name="drives")
    learn = "labels" if call.truth else "geometry"
    method = fitted(call, train, "driving", crop="128,256", learn=learn)
    names = ("cues, exact depth", "cues, noisy depth", "oal, mutex", "oal, gasp")
    found: dict[str, list[tuple[bool, str]]] = {name: [] for name in names}
    settings = method.config
    segments = dict.fromkeys(found, 0)
    for k in range(call.tests):
        clip = render_clip((2000, k), 2, preset="driving", size=SIZE)
        frames = clip_dataset(k + 1, 2000, frames=2, preset="driving", size=SIZE, labels=("depth",))[2 * k : 2 * k + 2]
        noisy = Dataset([_noisy(sample, 10_000 + 2 * k + t) for t, sample in enumerate(frames)])
        truth, parked = (
            clip.instances[0],
            {t for pair in clip.contacts for t in pair if not any(map(clip.moving.get, pair))},
        )
        touching = {t for pair in clip.contacts for t in pair} - parked
        kinds = ["parked" if t in parked else "touching" if t in touching else "alone" for t in truth.ids.tolist()]
        sample = frames[0]
        answers = {
            "cues, exact depth": of_cues(frames),
            "cues, noisy depth": of_cues(noisy),
        }
        fields = method.fields(sample)
        for name, partition in (("oal, mutex", "mutex"), ("oal, gasp", "gasp")):
            method.config = settings.model_copy(update={"partition": partition})
            answers[name] = method.group(fields, sample)
        for name, answer in answers.items():
            segments[name] += len(answer)
            hits = matched(answer, truth)
            found[name] += [
                (bool(hit), kind) for hit, kind, area in zip(hits, kinds, truth.areas, strict=True) if area >= LEAST
            ]
    table = {}
    for name, own_hits in found.items():
        row: dict[str, Any] = {"recall": _share([hit for hit, _ in own_hits])}
        for kind in ("alone", "touching", "parked"):
            row[kind] = _share([hit for hit, own in own_hits if own == kind])
        row["segments an image"] = round(segments[name] / call.tests, 1)
        table[name] = row
        print(f"{name:20} " + "  ".join(f"{key} {value}" for key, value in row.items()))
    counts = {kind: sum(own == kind for _, own in found["oal, gasp"]) for kind in ("alone", "touching", "parked")}
    print(f"{call.tests} unseen clips, objects of {LEAST} pixels and more: {counts}")
    return {"table": table, "objects": counts, "training": method.facts["training"]}


def of_cues(frames: Dataset) -> Instances:
    """What the cues of the first frame alone give, by the same partition."""
    source = Frames(frames, OALConfig().frames, OFFSETS)
    looks = source.look(0)
    pixels = cells_to_pixels(source.objects(looks.cues), looks.foreground == 1, 4, most=1.5)
    areas = np.bincount(pixels.ravel())
    pixels[areas[pixels] < 32] = 0
    return Instances.from_label_map(pixels)


def matched(found: Instances, truth: Instances) -> npt.NDArray[np.bool_]:
    """(N,) which truths have a segment of IoU over 0.5; segments do not overlap, so no two can claim one."""
    masks = found.masks().reshape(len(found), truth.size[0] * truth.size[1]).astype(np.float32)
    out = np.zeros(len(truth), bool)
    for i in range(len(truth)):
        own = truth.mask(i).ravel().astype(np.float32)
        common = masks @ own
        out[i] = bool((common / np.maximum(masks.sum(axis=1) + own.sum() - common, 1) > 0.5).any())
    return out


def _share(hits: list[bool]) -> float | None:
    return round(float(np.mean(hits)), 3) if hits else None


def _noisy(sample: Any, seed: int) -> Any:
    return sample.replace(depth=partial(_worse, sample, seed))


def _worse(sample: Any, seed: int) -> npt.NDArray[np.float32]:
    return noisy_depth(sample.depth, np.random.default_rng((77, seed)))


def nuclei(call: argparse.Namespace) -> dict[str, Any]:
    """AP on the val nuclei, from affinities learned from the semantic masks of the training images."""
    sets = {
        split: open_dataset(call.data / f"dsb2018/{split}/images", semantic=call.data / f"dsb2018/{split}/semantic")
        for split in ("train", "val")
    }
    method = fitted(call, sets["train"], "dsb2018")
    started = time.monotonic()
    made = [sample.replace(instances=method.group(method.fields(sample), sample)) for sample in sets["val"]]
    seconds = (time.monotonic() - started) / len(made)
    truth = read_label_maps(call.data / "dsb2018/val/labels", classes=sets["val"].classes)
    result = evaluate(Dataset(made, sets["val"].classes), truth)
    row = {key: round(value, 1) for key, value in result.scores.items() if value is not None}
    print({key: row[key] for key in ("AP", "AP50", "AP75", "crowd_AR")}, f"{seconds:.1f} s an image")
    return {**row, "training": method.facts["training"]}


def davis(call: argparse.Namespace) -> dict[str, Any]:
    """J of the union of what is found, from motion alone; learned on the same clips, whose masks it never sees."""
    dataset = open_dataset(call.data / "davis2016")
    bare = dataset.map(lambda sample: sample.replace(instances=None, ignore=None))
    method = fitted(call, bare, "davis2016", **{"frames.longest": "480"})
    scores: dict[str, list[float]] = {}
    for sample, own in zip(dataset, bare, strict=True):
        truth = sample.instances
        if truth is None or (sample.frame or 0) % 5:
            continue
        found = method.group(method.fields(own), own).masks().any(axis=0)
        true = truth.masks().any(axis=0)
        scores.setdefault(sample.clip or "", []).append(float((found & true).sum() / max((found | true).sum(), 1)))
    rows = {clip: round(100 * float(np.mean(values)), 1) for clip, values in scores.items()}
    mean = round(float(np.mean(list(rows.values()))), 1)
    print(rows, f"mean J {mean} (every fifth frame)")
    return {"J": mean, "per_sequence": rows, "training": method.facts["training"]}


if __name__ == "__main__":
    main()
