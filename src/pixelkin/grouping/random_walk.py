"""Boundary-aware random walk: seeds diffuse inside objects and stop at boundaries.

The walk is that of IRNet (Ahn, Cho, Kwak, CVPR 2019, arXiv 1904.05044). The published form squares a dense (pixels x
pixels) matrix eight times. The walk is a sparse reversible Markov chain, so the same result comes from a polynomial
of a sparse matrix, and its Chebyshev expansion needs about sqrt(steps) terms.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch
from torch import Tensor

from pixelkin.data.lattice import half_plane_offsets, lattice_path, pair_slices

Method = Literal["chebyshev", "power"]
Array = TypeVar("Array", npt.NDArray[Any], Tensor)


def random_walk(
    seeds: Array,
    boundary: Array,
    *,
    mask: Array | None = None,
    beta: float = 10.0,
    radius: int = 5,
    steps: int = 256,
    method: Method = "chebyshev",
    tolerance: float = 1e-4,
    suppress_boundary: bool = True,
) -> Array:
    """Let every seed map diffuse over the image for ``steps`` steps.

    Args:
        seeds: (K, h, w) maps, e.g. class activations cut into instances. NumPy or torch; the answer is of the same
            kind, on the same device, float32.
        boundary: (h, w) boundary probability in 0..1.
        mask: (h, w) bool; pixels outside neither give nor receive and come out as 0. Default: every pixel takes part.
        beta: exponent of the affinities; larger means a weaker boundary already stops the walk.
        radius: pixels closer than this are neighbours, in field pixels.
        steps: length of the walk.
        method: ``"power"`` applies the transition ``steps`` times; ``"chebyshev"`` gives the same within ``tolerance``.
        tolerance: bound on the truncated coefficients of the Chebyshev expansion, relative to the largest seed.
        suppress_boundary: multiply the seeds by (1 - boundary) first, as published.

    Raises:
        ValueError: shapes that disagree, or values out of range.
    """
    as_numpy = isinstance(seeds, np.ndarray)
    seed_maps, field = torch.as_tensor(seeds).float(), torch.as_tensor(boundary).float()
    inside = None if mask is None else torch.as_tensor(mask)
    transition = Transition(field, mask=inside, beta=beta, radius=radius)
    _check_seeds(seed_maps, transition.size)
    start = seed_maps * (1 - field) if suppress_boundary else seed_maps
    walked = transition.walk(start, steps=steps, method=method, tolerance=tolerance)
    return walked.numpy() if as_numpy else walked  # type: ignore[return-value]


class Transition:
    """One step of the walk on one image, built once and used for any number of seeds.

    Two pixels closer than ``radius`` are joined with the affinity (1 - largest boundary on the path between them) **
    beta, every pixel with itself with 1. A step replaces each value by the average of its neighbours' weighted so:
    every output is a convex combination of the inputs.

    Args:
        boundary: (h, w) boundary probability in 0..1, on the device to work on.
        mask: (h, w) bool; pixels outside take no part. Boundaries there still stand in the way.
        beta: exponent of the affinities.
        radius: in field pixels.

    Raises:
        ValueError: a boundary that is not (h, w), or a mask of another size.
    """

    def __init__(self, boundary: Tensor, *, mask: Tensor | None = None, beta: float = 10.0, radius: int = 5) -> None:
        if boundary.ndim != 2:
            raise ValueError(f"the boundary must be (h, w), got shape {tuple(boundary.shape)}")
        if mask is not None and mask.shape != boundary.shape:
            raise ValueError(
                f"the mask is {tuple(mask.shape)}, the boundary {tuple(boundary.shape)}: give both the same size"
            )
        boundary = boundary.detach().float()
        self.size = (int(boundary.shape[0]), int(boundary.shape[1]))
        self.device = boundary.device
        inside = torch.ones_like(boundary, dtype=torch.bool) if mask is None else mask.to(self.device).bool()
        self._pixels = inside.flatten().nonzero().squeeze(1)
        affinities, jumps = _affinities(boundary, inside, self._pixels, radius, beta)
        self._root = affinities.sum(1).sqrt()  # of the weighted degree; at least 1, the self weight
        number = torch.zeros(inside.numel(), dtype=torch.int32, device=self.device)
        number[self._pixels] = torch.arange(len(self._pixels), dtype=torch.int32, device=self.device)
        # Off the grid the affinity is 0, so whatever the clamp finds there does not stay.
        neighbours = (self._pixels.int()[:, None] + jumps).clamp_(0, max(inside.numel() - 1, 0))
        present = affinities > 0
        columns = number.index_select(0, neighbours.masked_select(present))
        # D^-1/2 A D^-1/2 is symmetric with its spectrum in (-1, 1], which the expansion needs.
        affinities /= self._root[:, None]
        values = affinities.masked_select(present) / self._root.index_select(0, columns)
        starts = torch.zeros(len(self._pixels) + 1, dtype=torch.int32, device=self.device)
        starts[1:] = present.sum(1).cumsum(0)
        self._matrix = _Sparse(starts, columns, values)

    def walk(self, seeds: Tensor, *, steps: int = 256, method: Method = "chebyshev", tolerance: float = 1e-4) -> Tensor:
        """The (K, h, w) seeds after ``steps`` steps; 0 outside the mask.

        Raises:
            ValueError: seeds of another size, a negative number of steps, or an unknown method.
        """
        _check_seeds(seeds, self.size)
        if method == "power":
            coefficients = None
        elif method == "chebyshev":
            coefficients = chebyshev_coefficients(steps, tolerance)
        else:
            raise ValueError(f"no method {method!r} for the random walk: use 'chebyshev' or 'power'")
        out = torch.zeros(len(seeds), self.size[0] * self.size[1], device=self.device)
        if len(seeds) == 0 or len(self._pixels) == 0:
            return out.view(len(seeds), *self.size)
        start = seeds.detach().to(self.device).float().flatten(1)[:, self._pixels]
        x = (start * self._root).T.contiguous()
        x = self._power(x, steps) if coefficients is None else self._expand(x, coefficients)
        walked = x.T / self._root
        low, high = start.amin(1, keepdim=True), start.amax(1, keepdim=True)
        out[:, self._pixels] = walked.clamp(low, high)  # a walk stays within its start; the cut expansion may not
        return out.view(len(seeds), *self.size)

    def _power(self, x: Tensor, steps: int) -> Tensor:
        for _ in range(_checked(steps)):
            x = self._matrix.apply(x)
        return x

    def _expand(self, x: Tensor, coefficients: npt.NDArray[np.float64]) -> Tensor:
        total = float(coefficients[0]) * x
        if len(coefficients) == 1:
            return total
        before, now = x, self._matrix.apply(x)
        total.add_(now, alpha=float(coefficients[1]))
        for coefficient in coefficients[2:]:
            before, now = now, self._matrix.apply(now, scale=2.0, minus=before)
            if coefficient:
                total.add_(now, alpha=float(coefficient))
        return total


def chebyshev_coefficients(steps: int, tolerance: float = 1e-4) -> npt.NDArray[np.float64]:
    """Coefficients c_k of x**steps in Chebyshev polynomials T_k, cut where the rest sums to at most ``tolerance``.

    c_k = 2^(1-t) C(t, (t-k)/2) for k of the same parity as t, else 0; c_0 is half of that. They are positive and sum
    to 1, so the rest bounds the error of the operator. The number of terms grows like sqrt(steps): 256 steps and 1e-4
    need 64.

    Raises:
        ValueError: negative ``steps`` or ``tolerance``.
    """
    t = _checked(steps)
    if not tolerance >= 0:
        raise ValueError(f"the tolerance must be 0 or more, got {tolerance}")
    c = np.zeros(t + 1)
    for k in range(t % 2, t + 1, 2):
        down, up = (t - k) // 2, (t + k) // 2
        c[k] = math.exp((1 - t) * math.log(2) + math.lgamma(t + 1) - math.lgamma(down + 1) - math.lgamma(up + 1))
    if t % 2 == 0:
        c[0] /= 2
    rest = np.append(np.cumsum(c[::-1])[::-1][1:], 0.0)
    return c[: int(np.argmax(rest <= tolerance)) + 1]


def _check_seeds(seeds: Tensor, size: tuple[int, int]) -> None:
    if seeds.ndim != 3 or tuple(seeds.shape[1:]) != size:
        raise ValueError(f"the seeds must be (K, {size[0]}, {size[1]}), got shape {tuple(seeds.shape)}")


def _checked(steps: int) -> int:
    if steps < 0:
        raise ValueError(f"the walk needs 0 or more steps, got {steps}")
    return int(steps)


def _affinities(boundary: Tensor, inside: Tensor, pixels: Tensor, radius: int, beta: float) -> tuple[Tensor, Tensor]:
    """(n, O) affinities of every inside pixel to those around it, and how far each of them is in raster order, (O,)."""
    h, w = inside.shape
    half = half_plane_offsets(radius)
    around = sorted([*half, *((-dy, -dx) for dy, dx in half), (0, 0)])  # raster order, as CSR wants its columns
    place = {offset: i for i, offset in enumerate(around)}
    weights = torch.zeros(len(around), len(pixels), device=boundary.device)
    weights[place[0, 0]] = 1
    whole = len(pixels) == h * w
    for dy, dx in half:
        slices = pair_slices((dy, dx), (h, w))
        if slices is None:
            continue
        source, destination = slices
        rows, columns = boundary[source].shape
        top, left = source[0].start, source[1].start
        highest = boundary[source].clone()
        for y, x in lattice_path((dy, dx)):
            torch.maximum(highest, boundary[top + y : top + y + rows, left + x : left + x + columns], out=highest)
        affinity = (1 - highest).clamp_(0, 1).pow_(beta)
        if not whole:
            affinity = affinity * (inside[source] & inside[destination])
        for offset, slots in (((dy, dx), source), ((-dy, -dx), destination)):
            frame = weights[place[offset]].view(h, w) if whole else torch.zeros(h, w, device=boundary.device)
            frame[slots] = affinity
            if not whole:
                weights[place[offset]] = frame.view(-1)[pixels]
    jumps = torch.tensor([dy * w + dx for dy, dx in around], dtype=torch.int32, device=boundary.device)
    return weights.T.contiguous(), jumps


class _Sparse:
    """A square sparse matrix (CSR) times a dense block: by torch where it has a kernel for that, else by SciPy."""

    def __init__(self, starts: Tensor, columns: Tensor, values: Tensor) -> None:
        n = len(starts) - 1
        self._torch: Tensor | None = None
        if values.is_cuda or torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Sparse (CSR|invariant)", category=UserWarning)
                self._torch = torch.sparse_csr_tensor(starts, columns, values, size=(n, n), check_invariants=False)
        else:
            arrays = (values.cpu().numpy(), columns.cpu().numpy(), starts.cpu().numpy())
            self._scipy = scipy.sparse.csr_matrix(arrays, shape=(n, n))

    def apply(self, x: Tensor, *, scale: float = 1.0, minus: Tensor | None = None) -> Tensor:
        """``scale`` * matrix @ x - ``minus`` for x of (n, K)."""
        if self._torch is not None:
            if minus is None:
                return scale * (self._torch @ x)
            return torch.addmm(minus, self._torch, x, beta=-1, alpha=scale)
        product = torch.from_numpy(scale * (self._scipy @ x.cpu().numpy())).to(x.device)
        return product if minus is None else product.sub_(minus)
