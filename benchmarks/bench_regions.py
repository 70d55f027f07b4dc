"""Confident regions of class activation with each refinement: how right, how much, how long.

On the images of a VOC devkit that have masks, with a fitted irnet model. The dense CRF needs `pixelkin[crf]`.

    python benchmarks/bench_regions.py VOC RUN/model
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from pixelkin.data.sample import UNKNOWN
from pixelkin.formats import open_dataset
from pixelkin.methods.base import Method
from pixelkin.methods.irnet import IRNet
from pixelkin.methods.regions import REFINEMENTS, RegionConfig, regions_of
from siseg_quality import machine

THRESHOLDS = ((0.30, 0.05), (0.35, 0.05), (0.50, 0.15))
"""Of the foreground and the background: the paper's, the default, stricter ones."""


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("voc", type=Path)
    parser.add_argument("model", type=Path)
    options = parser.parse_args()
    method = Method.load(options.model)
    if not isinstance(method, IRNet):
        raise SystemExit(f"{options.model} is a model of {method.name}: give one of irnet")
    truths = {sample.name: sample.semantic for sample in open_dataset(options.voc).with_label("instances")}
    samples = [sample for sample in open_dataset(options.voc, tags="xml") if sample.name in truths]
    cams = {sample.name: method.activation(sample) for sample in samples}
    print("| thresholds | refinement | object: right | found | background: right | found | s/image |")
    print("|---|---|---|---|---|---|---|")
    for foreground, background in THRESHOLDS:
        for refinement in REFINEMENTS:
            config = RegionConfig(foreground=foreground, background=background, refinement=refinement)
            counts, started = np.zeros(6), time.perf_counter()
            for sample in samples:
                truth = truths[sample.name]
                assert truth is not None
                made, known = regions_of(sample, lambda s, size: cams[s.name], config), truth != UNKNOWN
                objects = (made != 0) & (made != UNKNOWN) & known
                ground = (made == 0) & known
                counts += [
                    (objects & (made == truth)).sum(),
                    objects.sum(),
                    ((truth != 0) & known).sum(),
                    (ground & (truth == 0)).sum(),
                    ground.sum(),
                    (truth == 0).sum(),
                ]
            spent = (time.perf_counter() - started) / len(samples)
            right, claimed, there, right_ground, claimed_ground, there_ground = counts
            shares = (right / claimed, right / there, right_ground / claimed_ground, right_ground / there_ground)
            cells = " | ".join(f"{100 * share:.1f}" for share in shares)
            print(f"| {foreground:.2f}, {background:.2f} | {refinement} | {cells} | {spent:.2f} |", flush=True)
    print(machine()["machine"])


if __name__ == "__main__":
    main()
