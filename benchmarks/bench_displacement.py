"""Displacement grouping of one grid: stopping on arrival against the published 300 steps for all, in one run.

python benchmarks/bench_displacement.py [--side 128] [--threads 2]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from pixelkin.grouping.displacement import follow, group_by_displacement, weak_components

Map = npt.NDArray[Any]


def scene(side: int, objects: int, pull: float, noise: float) -> Map:
    """A field that leads part of the way to the nearest of some centres, smoothed over the borders, with noise."""
    rng = np.random.default_rng(0)
    centres = rng.random((objects, 2)) * side
    grid = np.indices((side, side), dtype=np.float64)
    nearest = ((grid[None] - centres[:, :, None, None]) ** 2).sum(1).argmin(0)
    field = ndimage.gaussian_filter(centres[nearest].transpose(2, 0, 1) - grid, (0, 2, 2))
    rough = ndimage.gaussian_filter(rng.normal(size=field.shape), (0, 3, 3))
    result: Map = (pull * field + noise * rough / rough.std()).astype(np.float32)
    return result


def published(field: Map) -> Map:
    """300 steps of every pixel with torch's bilinear sampling, then the component under each end."""
    h, w = field.shape[1:]
    fields = torch.from_numpy(field)[None]
    ends = torch.from_numpy(np.indices((h, w), dtype=np.float32))[None]
    last = torch.tensor([h - 1.0, w - 1.0]).view(1, 2, 1, 1)
    for _ in range(300):
        where = (2 * ends / last - 1).flip(1).permute(0, 2, 3, 1)
        step = torch.nn.functional.grid_sample(fields, where, align_corners=True)
        ends = torch.minimum((ends + step).clamp_(min=0), last)
    y, x = ends[0].round().long().numpy()
    groups: Map = weak_components(field)[0][y, x]
    return groups


def best(work: Callable[[], Map], repeats: int) -> tuple[Map, float]:
    """The result and the shortest time of a few runs, after one that warms up."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
    return result, min(times[1:])


def main() -> None:
    """Print one markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--objects", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{args.side}x{args.side} grid, {args.objects} centres, {args.threads} threads\n")
    print("| field | form | milliseconds | speed-up | pixels of the same group |")
    print("|---|---|---|---|---|")
    for name, pull, noise in (("clean", 0.9, 0.0), ("short steps", 0.3, 0.3), ("short steps, noisy", 0.3, 0.8)):
        field = scene(args.side, args.objects, pull, noise)
        truth, slow = best(partial(published, field), args.repeats)
        groups, fast = best(partial(group_by_displacement, field, leftover="own"), args.repeats)
        _, walk = best(partial(follow, field), args.repeats)
        truth = np.unique(np.where(truth == 0, truth.max() + 1, truth), return_inverse=True)[1].reshape(truth.shape) + 1
        print(f"| {name} | 300 steps (torch) | {slow * 1e3:.1f} | 1.0x | |")
        same = (truth == groups).mean()
        print(f"| {name} | stop on arrival | {fast * 1e3:.1f} | {slow / fast:.1f}x | {same:.3%} |")
        print(f"| {name} | of that, the steps | {walk * 1e3:.1f} | | |", flush=True)


if __name__ == "__main__":
    main()
