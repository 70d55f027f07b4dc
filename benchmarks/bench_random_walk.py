"""The boundary-aware random walk: sparse and Chebyshev against the dense form the field uses, in one run.

The dense form squares the (pixels x pixels) transition eight times. At 500x375 and stride 4 that is 26 TFLOP, minutes
on a CPU, so there it is run only with --full-dense; at half the sides it always is. Seconds of the sparse walks include
building the affinities from the boundary, those of the dense form do not. Agreement is with 256 sparse applications in
float64.

    python benchmarks/bench_random_walk.py [--threads 2] [--device cuda] [--full-dense]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch
from scipy import ndimage
from torch import Tensor

from pixelkin.grouping.random_walk import Transition

STEPS = 256


def scene(h: int, w: int, seeds: int) -> tuple[Tensor, Tensor]:
    """Noisy boundaries between cells, and seeds that fill a part of each."""
    rng = np.random.default_rng(0)
    points = rng.random((seeds, 2)) * (h, w)
    grid = np.indices((h, w))
    distance = np.stack([np.hypot(grid[0] - y, grid[1] - x) for y, x in points])
    first, second = np.sort(distance, axis=0)[:2]
    edges = np.exp(-((second - first) ** 2) / 4)
    noise = ndimage.gaussian_filter(rng.random((h, w)), 1)
    boundary = np.clip(0.7 * edges + 0.4 * (noise - noise.min()), 0, 1)
    soft = np.exp(-distance / 10) + 0.1 * ndimage.gaussian_filter(rng.random((seeds, h, w)), (0, 2, 2))
    return torch.tensor(soft).float(), torch.tensor(boundary).float()


def best(work: Callable[[], Tensor], repeats: int) -> tuple[Tensor, float]:
    """The result and the shortest time of a few runs, after one that warms up."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        result = work()
        if result.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return result, min(times[1:] or times)


def csr(transition: Transition) -> scipy.sparse.csr_matrix:
    """The symmetrised transition in float64."""
    matrix = transition._matrix
    if matrix._torch is None:
        return matrix._scipy.astype(np.float64)
    parts = matrix._torch.values(), matrix._torch.col_indices(), matrix._torch.crow_indices()
    values, columns, starts = (part.cpu().numpy() for part in parts)
    return scipy.sparse.csr_matrix((values.astype(np.float64), columns, starts), shape=tuple(matrix._torch.shape))


def exact(seeds: Tensor, transition: Transition) -> npt.NDArray[np.float64]:
    """256 applications in float64."""
    matrix, root = csr(transition), transition._root.double().cpu().numpy()
    x = seeds.double().flatten(1).numpy().T * root[:, None]
    for _ in range(STEPS):
        x = matrix @ x
    walked: npt.NDArray[np.float64] = (x / root[:, None]).T.reshape(seeds.shape)
    return walked


def sparse(boundary: Tensor, seeds: Tensor, **options: Any) -> Tensor:
    """Affinities and walk, as a user runs them."""
    return Transition(boundary).walk(seeds, **options)


def dense(seeds: Tensor, transition: Transition) -> Tensor:
    """The published form on an affinity matrix that is already there: eight squarings and one product."""
    root = transition._root
    matrix = torch.from_numpy(csr(transition).toarray()).float().to(root.device)
    matrix *= root[None] / root[:, None]
    for _ in range(8):
        matrix = matrix @ matrix
    return (seeds.to(root.device).flatten(1) @ matrix.T).view(seeds.shape)


def main() -> None:
    """Print one markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(375, 500), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--stride", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--full-dense", action="store_true", help="the dense form at full size too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    full = tuple(-(-side // args.stride) for side in args.size)
    print(f"{args.seeds} seeds, {STEPS} steps, device {args.device}, {args.threads} threads\n")
    print("| grid | form | seconds | speed-up | same argmax | max relative error |")
    print("|---|---|---|---|---|---|")
    for h, w in ((full[0] // 2, full[1] // 2), full):
        seeds, boundary = scene(h, w, args.seeds)
        on_device = boundary.to(args.device)
        truth = exact(seeds, Transition(boundary))
        forms: list[tuple[str, Callable[[], Tensor], int]] = [
            ("256 sparse applications", partial(sparse, on_device, seeds, method="power"), args.repeats),
            ("Chebyshev, tolerance 1e-4", partial(sparse, on_device, seeds), args.repeats),
            ("Chebyshev, tolerance 1e-3", partial(sparse, on_device, seeds, tolerance=1e-3), args.repeats),
        ]
        if args.full_dense or (h, w) != full:
            forms.insert(0, ("dense, 8 squarings", partial(dense, seeds, Transition(on_device)), 0))
        slowest = 0.0
        for name, work, repeats in forms:
            result, seconds = best(work, repeats)
            slowest = slowest or seconds
            walked = result.cpu().double().numpy()
            same = (walked.argmax(0) == truth.argmax(0)).mean()
            error = np.abs(walked - truth).max() / truth.max()
            print(
                f"| {h}x{w} | {name} | {seconds:.4f} | {slowest / seconds:.1f}x | {same:.3%} | {error:.1e} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
