"""Whether objects emerge: AMD fitted on synthetic clips, IoU of the object it chose without labels on unseen clips.

    python benchmarks/amd_emergence.py [--presets easy,layers] [--objectives flow,photometric] [--seeds 0]

32 clips of 6 frames to learn from, 300 steps; every frame of 12 other clips of 2 frames is divided alone, as a still.
The union of the instances found is judged against the union of the true ones.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from pixelkin.data import Dataset
from pixelkin.data.synthetic.clip import clip_dataset
from pixelkin.methods.amd import AMD
from pixelkin.methods.amd_config import AMDConfig
from pixelkin.training.budget import Budget
from siseg_quality import machine


def clips(count: int, seed: int, frames: int, preset: str) -> Dataset:
    """Synthetic clips, rendered once."""
    drawn = clip_dataset(count, seed, frames=frames, labels=("instances",), preset=preset)
    return Dataset([each.replace(image=each.image, instances=each.instances) for each in drawn], name=preset)


def ious(method: AMD, dataset: Dataset) -> list[float]:
    """Of every frame, divided as a still."""
    found = []
    for sample in dataset:
        still = sample.replace(instances=None, clip=None, frame=None)
        mine, true = method.group(method.fields(still), still), sample.instances
        if true is None:
            continue
        masks = [each.masks().any(axis=0) if len(each) else np.zeros(sample.size, bool) for each in (mine, true)]
        found.append(float((masks[0] & masks[1]).sum() / max((masks[0] | masks[1]).sum(), 1)))
    return found


def main() -> None:
    """Fit, judge, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", default="easy,layers")
    parser.add_argument("--objectives", default="flow,photometric")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--budget", default="300it")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    print("| clips | objective | seed | mean IoU | least | fit, processor s | fit, s |\n|---|---|---|---|---|---|---|")
    for preset in options.presets.split(","):
        train, test = clips(32, 0, 6, preset), clips(12, 99, 2, preset)
        for objective in options.objectives.split(","):
            for seed in map(int, options.seeds.split(",")):
                method = AMD(AMDConfig.from_settings({"objective": objective}))
                busy, started = time.process_time(), time.perf_counter()
                with tempfile.TemporaryDirectory() as folder:
                    bare = train.map(lambda sample: sample.replace(instances=None))
                    budget = Budget.parse(options.budget)
                    method.fit(bare, out=Path(folder), budget=budget, device=options.device, seed=seed)
                busy, took = time.process_time() - busy, time.perf_counter() - started
                found = ious(method, test)
                print(
                    f"| {preset} | {objective} | {seed} | {np.mean(found):.2f} | {min(found):.2f}"
                    f" | {busy:.0f} | {took:.0f} |",
                    flush=True,
                )
    print(machine()["machine"])


if __name__ == "__main__":
    main()
