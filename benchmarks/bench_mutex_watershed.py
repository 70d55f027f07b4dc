"""Mutex watershed of one image: ours beside bioimage-cpp, on the same affinities in one run, one thread each.

Affinities of ellipses, blurred and with noise. Seconds are of the processor, so that other work on the machine does not
count. Agreement is the share of pixels with the same label once both are numbered in raster order, and the adjusted
Rand index. The last column is that of our labels with the ellipses, background included. bioimage-cpp takes 1 -
affinity in repulsive channels; inverting them is not timed.

    pip install 'pixelkin[partition]'
    python benchmarks/bench_mutex_watershed.py [--size 512 768] [--repeats 5]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from bioimage_cpp.segmentation import mutex_watershed as theirs
from scipy import ndimage, sparse

from pixelkin.data.lattice import pair_slices
from pixelkin.grouping.mutex_watershed import mutex_watershed
from pixelkin.grouping.partition import partition

OFFSETS = [(-1, 0), (0, -1), (-3, 0), (0, -3), (-9, 0), (0, -9), (-9, -9), (9, -9), (-27, 0), (0, -27)]
ATTRACTIVE = 2

Map = npt.NDArray[Any]


def scene(height: int, width: int, noise: str) -> tuple[Map, Map]:
    """(H, W) ellipses, some of which overlap, and (10, H, W) float32 affinities."""
    rng = np.random.default_rng(0)
    grid = np.indices((height, width))
    labels = np.zeros((height, width), np.int64)
    for k in range(1, 1 + height * width // 6500):
        middle, radii = rng.random(2) * (height, width), rng.uniform(15, 60, 2)
        labels[(((grid - middle[:, None, None]) / radii[:, None, None]) ** 2).sum(axis=0) < 1] = k
    same = np.zeros((len(OFFSETS), height, width), np.float32)
    for c, offset in enumerate(OFFSETS):
        slices = pair_slices(offset, (height, width))
        if slices is not None:
            same[c][slices[0]] = labels[slices[0]] == labels[slices[1]]
    soft = ndimage.gaussian_filter(same, (0, 1.5, 1.5))
    rough = rng.normal(size=soft.shape)
    affinities = np.clip(soft + 0.2 * rough, 0, 1) if noise == "clipped" else 1 / (1 + np.exp(4 - 8 * soft - rough))
    return labels, affinities.astype(np.float32)


def adjusted_rand(a: Map, b: Map) -> float:
    """Adjusted Rand index of two label maps."""
    a, b = np.unique(a, return_inverse=True)[1].ravel(), np.unique(b, return_inverse=True)[1].ravel()
    table = sparse.coo_matrix((np.ones(a.size), (a, b))).tocsr()
    pairs, first, second = (float((n * (n - 1) / 2).sum()) for n in (table.data, np.bincount(a), np.bincount(b)))
    expected = first * second / (a.size * (a.size - 1) / 2)
    most = (first + second) / 2
    return 1.0 if most == expected else (pairs - expected) / (most - expected)


def numbered(labels: Map) -> Map:
    """The same segments, numbered by their first pixels in raster order."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.asarray(first[inverse.ravel()])


def in_turns(works: list[Callable[[], Any]], repeats: int) -> tuple[list[Any], list[float]]:
    """Results and shortest times; all run in turns, so that a slow moment meets each alike."""
    results: list[Any] = [work() for work in works]
    times = [float("inf")] * len(works)
    for _ in range(repeats):
        for i, work in enumerate(works):
            start = time.process_time()
            results[i] = work()
            times[i] = min(times[i], time.process_time() - start)
    return results, times


def main() -> None:
    """Print one markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(512, 768), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    height, width = args.size
    print(f"{height}x{width}, {len(OFFSETS)} offsets, {ATTRACTIVE} of them attractive; best of {args.repeats}\n")
    print(
        "| affinities | mask | stride | bioimage-cpp | ours | speed-up | ours with scores | same | ARI | ARI of truth |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for noise in ("smooth", "clipped"):
        truth, affinities = scene(height, width, noise)
        inverted = affinities.copy()
        inverted[ATTRACTIVE:] = 1 - inverted[ATTRACTIVE:]
        for mask in (None, truth > 0):
            for stride in (4, 1):
                works: list[Callable[[], Any]] = [
                    partial(theirs, inverted, OFFSETS, ATTRACTIVE, strides=(stride, stride), mask=mask),
                    partial(mutex_watershed, affinities, OFFSETS, mask, stride=stride),
                    partial(partition, affinities, OFFSETS, mask, stride=stride),
                ]
                (other, (labels, _), _), times = in_turns(works, args.repeats)
                alike = (numbered(labels) == numbered(other)).mean()
                print(
                    f"| {noise} | {'no' if mask is None else 'yes'} | {stride} | {times[0]:.3f} s | {times[1]:.3f} s"
                    f" | {times[0] / times[1]:.1f}x | {times[2]:.3f} s | {alike:.3%}"
                    f" | {adjusted_rand(labels, other):.4f} | {adjusted_rand(labels, truth):.3f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
