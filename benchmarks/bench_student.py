"""Seconds of processor time that a step of training and a prediction of the student cost, by image size and width.

Run ``python benchmarks/bench_student.py``; one thread. Times are of the processor: a busy machine changes them little.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from pixelkin.data.synthetic import scene_dataset
from pixelkin.models.backbone import build_backbone
from pixelkin.students.examples import LabelledImages, Padding, unpack
from pixelkin.students.losses import Sampling, losses
from pixelkin.students.network import MaskRCNN


def measure(short_side: int, channels: int, *, batch: int, steps: int) -> tuple[float, float, float]:
    """Seconds to make the examples of a step, to train on them, and to predict one image."""
    dataset = scene_dataset(4, 0, size=(375, 500))
    torch.manual_seed(0)
    network = MaskRCNN(build_backbone(pretrained=False), 3, channels=channels, hidden=512, proposals=500).train()
    example = LabelledImages(
        dataset,
        (1, 2, 3),
        mean_score=0.0,
        short_side=short_side,
        long_side=2 * short_side,
        jitter=(1.0, 1.0),
        flip=True,
        copy_paste=0.0,
        min_score=0.3,
        unknown=True,
    )
    padding, optimizer = Padding(network.pyramid.divisor), torch.optim.AdamW(network.parameters(), 1e-4)
    making, training = [], []
    for step in range(steps + 1):
        started = time.process_time()
        packed = padding([example(np.random.default_rng((step, i))) for i in range(batch)])
        made = time.process_time()
        loss = losses(network, *unpack(packed), Sampling(boxes=128))["loss"]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        making.append(made - started)
        training.append(time.process_time() - made)
    images, sizes, _ = unpack(packed)
    network.eval()
    started = time.process_time()
    with torch.no_grad():
        network.detect(images[0], sizes[0], score=0.05, overlap=0.5, keep=100)
    return float(np.median(making[1:])), float(np.median(training[1:])), time.process_time() - started


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batch", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("short side  channels  examples s  step s  predict s")
    for short_side, channels in ((256, 128), (320, 64), (320, 128), (320, 256), (384, 128)):
        times = measure(short_side, channels, batch=arguments.batch, steps=arguments.steps)
        print(f"{short_side:10d}  {channels:8d}  {times[0]:10.3f}  {times[1]:6.2f}  {times[2]:9.2f}", flush=True)


if __name__ == "__main__":
    main()
