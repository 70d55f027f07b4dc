"""Rounds of oal and a student on synthetic drives: what each stage finds on clips that nobody learned from.

    python benchmarks/oal_rounds.py --budget 20m --device cuda
    python benchmarks/oal_rounds.py --budget 20m --device cuda --blind

oal learns from noisy depth and motion, a student from what oal finds, and oal again from what the student finds, each
for the budget and through run folders, as on the command line. With --blind, what they do not know is taken for
background. The table is printed and kept as JSON in --out.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import pixelkin
from oal_quality import LEAST, matched
from pixelkin.data import Instances
from pixelkin.data.synthetic import Clip, render_clip
from pixelkin.data.synthetic.sensing import noisy_depth
from pixelkin.formats import read_run
from siseg_quality import machine

FRAMES = 2


def main() -> None:
    """All stages, each from where it was interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("oal_rounds"))
    parser.add_argument("--budget", default="10m", help="of each fit")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--tests", type=int, default=40, help="unseen clips")
    parser.add_argument("--size", type=int, nargs=2, default=(256, 512), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--blind", action="store_true", help="what is unknown is background")
    parser.add_argument("--min-score", default="0.5", help="of the student's objects that oal believes")
    parser.add_argument("--student", action="append", default=[], metavar="KEY=VALUE", help="settings of the student")
    call = parser.parse_args()
    call.out.mkdir(parents=True, exist_ok=True)
    write_clips(call.out / "train", call.clips, 1000, tuple(call.size))
    truths = write_clips(call.out / "unseen", call.tests, 2000, tuple(call.size))
    stages = run_stages(call, call.out / ("blind" if call.blind else "rounds"))
    table = {name: recall(folder, truths) for name, folder in stages.items()}
    for name, row in table.items():
        print(f"{name:16} " + "  ".join(f"{key} {value}" for key, value in row.items()))
    record = {"machine": machine(), "budget": call.budget, "clips": call.clips, "blind": call.blind, "table": table}
    (call.out / f"{'blind' if call.blind else 'rounds'}.json").write_text(json.dumps(record, indent=1) + "\n")


def write_clips(folder: Path, count: int, seed: int, size: tuple[int, int]) -> dict[str, Clip]:
    """Frames and noisy depth as files, and the clips."""
    clips = {}
    for k in range(count):
        clip = clips[f"{k:04d}"] = render_clip((seed, k), FRAMES, preset="driving", size=size)
        for t in range(FRAMES):
            image, depth = (folder / kind / f"{k:04d}" / f"{t:02d}" for kind in ("frames", "depth"))
            if depth.with_suffix(".npy").is_file():
                continue
            for path in (image, depth):
                path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(clip.frames[t]).save(image.with_suffix(".png"))
            np.save(depth.with_suffix(".npy"), noisy_depth(clip.depth[t], np.random.default_rng((77, seed, k, t))))
    return clips


def run_stages(call: argparse.Namespace, out: Path) -> dict[str, Path]:
    """Fit stage after stage; the runs on unseen clips."""
    height, width = call.size
    frames, unseen = call.out / "train" / "frames", call.out / "unseen" / "frames"
    fit: dict[str, Any] = {"budget": call.budget, "device": call.device, "seed": call.seed}
    crop = {"crop": f"{height},{width}"}
    first = crop | ({"background": "0.5"} if call.blind else {})  # as the threshold: nothing is unknown
    student = dict(text.split("=", 1) for text in call.student) | ({"unknown": "false"} if call.blind else {})
    depth = call.out / "train" / "depth"
    pixelkin.label(frames, depth=depth, method="oal", out=out / "oal", settings=first, say=print, **fit)
    pixelkin.train_student(out / "oal", out=out / "student", settings=student, say=print, **fit)
    seen = {"score": call.min_score} if call.blind else {}  # what is surer is all there is
    pixelkin.predict(out / "student", frames, out=out / "found", device=call.device, settings=seen, say=print)
    again = crop | {"learn": "labels", "min_score": call.min_score}
    pixelkin.fit(out / "found", method="oal", out=out / "oal2", settings=again, say=print, **fit)
    runs = {name: out / "unseen" / name for name in ("oal", "student", "oal2")}
    pixelkin.label(unseen, model=out / "oal" / "model", out=runs["oal"], device=call.device)
    pixelkin.predict(out / "student", unseen, out=runs["student"], device=call.device)
    pixelkin.label(unseen, model=out / "oal2", out=runs["oal2"], device=call.device)
    return {"oal": runs["oal"], "student": runs["student"], "oal, round 2": runs["oal2"]}


def recall(folder: Path, truths: dict[str, Clip]) -> dict[str, Any]:
    """Recall at IoU 0.5 of all that is found and of what has a score of 0.5, and how much is unknown."""
    hits: list[bool] = []
    sure_hits: list[bool] = []
    segments, unknown = [], []
    for sample in read_run(folder):
        clip, _, frame = sample.name.partition("/")
        found, truth = sample.instances or Instances.empty(sample.size), truths[clip].instances[int(frame)]
        sure, large = found[found.scores >= 0.5], truth.areas >= LEAST
        hits += matched(found, truth)[large].tolist()
        sure_hits += matched(sure, truth)[large].tolist()
        segments.append(len(sure))
        unknown.append(0.0 if sample.ignore is None else float(sample.ignore.mean()))
    return {
        "recall": round(float(np.mean(hits)), 3),
        "recall of the sure": round(float(np.mean(sure_hits)), 3),
        "sure segments an image": round(float(np.mean(segments)), 1),
        "open pixels": f"{np.mean(unknown):.1%}",
        "objects": len(hits),
    }


if __name__ == "__main__":
    main()
