"""Mutex watershed and average linkage of one image: ours beside bioimage-cpp, on the same affinities, one thread each.

Affinities of ellipses, blurred and with noise. Seconds are of the processor, so that other work on the machine does not
count. Agreement is the share of pixels with the same label once both are numbered in raster order, and the adjusted
Rand index. The last column is that of our labels with the ellipses, background included. bioimage-cpp takes 1 -
affinity in repulsive channels; inverting them is not timed.

The second table is of GASP with average linkage, on a quarter of the sides, as are the cells of a network: over our
superpixels, and over single pixels with any two segments mergeable, which is what bioimage-cpp does. Making its graph
is not timed. ARI is that with the ellipses, all pixels that are some ellipse's, so that segments are what counts.

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
from bioimage_cpp.graph import UndirectedGraph
from bioimage_cpp.graph.agglomeration import GaspClusterPolicy
from bioimage_cpp.segmentation import mutex_watershed as theirs
from scipy import ndimage, sparse

from pixelkin.data.lattice import pair_slices
from pixelkin.grouping.gasp import gasp
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


def average_linkage(size: tuple[int, int], repeats: int) -> None:
    """Print a table of average linkage."""
    print(f"\n{size[0]}x{size[1]}, stride 1\n")
    print(
        "| affinities | mask | bioimage-cpp, pixels | ours, pixels | ours, superpixels | mutex watershed | same as"
        " theirs, ARI | ARI of truth: theirs | pixels | superpixels | mutex watershed |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for noise in ("smooth", "clipped"):
        truth, affinities = scene(*size, noise)
        for mask in (None, truth > 0):
            inside = np.ones(size, bool) if mask is None else mask
            graph, weights, counts = pixel_graph(affinities, inside)
            works: list[Callable[[], Any]] = [
                partial(GaspClusterPolicy(linkage="mean").optimize, graph, weights, edge_sizes=counts),
                partial(gasp, affinities, OFFSETS, mask, tile=1, touching=False),
                partial(gasp, affinities, OFFSETS, mask),
                partial(mutex_watershed, affinities, OFFSETS, mask),
            ]
            (other, pixels, pieces, (mutex, _)), times = in_turns(works, repeats)
            labels = np.zeros(size, np.int64)
            labels[inside] = other + 1
            objects = truth > 0
            scores = [adjusted_rand(found[objects], truth[objects]) for found in (labels, pixels, pieces, mutex)]
            print(
                f"| {noise} | {'no' if mask is None else 'yes'} | {' | '.join(f'{value:.3f} s' for value in times)}"
                f" | {adjusted_rand(labels, pixels):.4f} | {' | '.join(f'{value:.3f}' for value in scores)} |",
                flush=True,
            )


def pixel_graph(affinities: Map, inside: Map) -> tuple[Any, Map, Map]:
    """The pairs of pixels as a graph of theirs, and the weights and sizes of its edges."""
    nodes = np.cumsum(inside).reshape(inside.shape) - 1
    pairs, weights = [], []
    for c, offset in enumerate(OFFSETS):
        slices = pair_slices(offset, inside.shape)
        if slices is not None:
            both = inside[slices[0]] & inside[slices[1]]
            pairs.append(np.stack([nodes[slices[0]][both], nodes[slices[1]][both]], axis=1))
            weights.append(affinities[c][slices[0]][both].astype(np.float64) - 0.5)
    graph = UndirectedGraph.from_edges(int(inside.sum()), np.concatenate(pairs).astype(np.uint64))
    values = np.concatenate(weights)
    return graph, values, np.ones_like(values)


def main() -> None:
    """Print two markdown tables."""
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
    average_linkage((height // 4, width // 4), args.repeats)


if __name__ == "__main__":
    main()
