from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pixelkin.grouping import random_walk as module
from pixelkin.grouping.random_walk import Transition, chebyshev_coefficients, random_walk


def dense_transition(boundary, beta=10.0, radius=5, mask=None):
    """The published form, pair by pair in float64: row i holds the weights by which pixel i averages."""
    h, w = boundary.shape
    a = np.eye(h * w)
    inside = np.ones((h, w), bool) if mask is None else mask
    for i in range(h * w):
        for j in range(i + 1, h * w):
            (y, x), (v, u) = divmod(i, w), divmod(j, w)
            dy, dx = v - y, u - x
            if dy * dy + dx * dx >= radius * radius or not (inside[y, x] and inside[v, u]):
                continue
            path = [
                boundary[p, q]
                for p in range(min(y, v), max(y, v) + 1)
                for q in range(min(x, u), max(x, u) + 1)
                if (dy * (q - x) - dx * (p - y)) ** 2 < dy * dy + dx * dx
            ]
            a[i, j] = a[j, i] = (1 - max(path)) ** beta
    return a / a.sum(1, keepdims=True)


def dense_walk(seeds, boundary, steps=256, **kwargs):
    t = dense_transition(boundary.astype(np.float64), **kwargs)
    x = (seeds * (1 - boundary)).reshape(len(seeds), -1).astype(np.float64)
    return (x @ np.linalg.matrix_power(t, steps).T).reshape(seeds.shape)


def scene(h, w, k=3, seed=0):
    rng = np.random.default_rng(seed)
    b = ndimage.gaussian_filter(rng.random((h, w)), 1.5)
    b = ((b - b.min()) / max(float(np.ptp(b)), 1e-9)) ** 2
    seeds = ndimage.gaussian_filter(rng.random((k, h, w)), (0, 2, 2))
    return seeds.astype(np.float32), b.astype(np.float32)


@pytest.mark.parametrize("method", ["power", "chebyshev"])
def test_walk_is_the_dense_walk(method):
    seeds, boundary = scene(20, 26)
    expected = dense_walk(seeds, boundary)
    got = random_walk(seeds, boundary, method=method)
    assert np.abs(got - expected).max() < (1e-4 if method == "power" else 2e-4) * expected.max()
    assert (got.argmax(0) == expected.argmax(0)).mean() >= 0.999


def test_scipy_fallback_gives_the_same(monkeypatch):
    seeds, boundary = scene(14, 17)
    expected = random_walk(seeds, boundary)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    matrix = Transition(torch.from_numpy(boundary))._matrix
    assert scipy.sparse.issparse(matrix._scipy)
    np.testing.assert_allclose(random_walk(seeds, boundary), expected, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    h=st.integers(1, 9), w=st.integers(1, 9), k=st.integers(0, 3), radius=st.integers(1, 6), steps=st.integers(0, 40)
)
def test_any_shape(h, w, k, radius, steps):
    seeds, boundary = scene(h, w, k, seed=h * 31 + w)
    mask = np.random.default_rng(w).random((h, w)) < 0.7
    t = dense_transition(boundary.astype(np.float64), radius=radius, mask=mask)
    x = np.where(mask, seeds, 0).reshape(k, h * w)
    expected = (x @ np.linalg.matrix_power(t, steps).T).reshape(seeds.shape)
    for method in ("power", "chebyshev"):
        got = random_walk(
            seeds,
            boundary,
            mask=mask,
            radius=radius,
            steps=steps,
            method=method,
            suppress_boundary=False,
            tolerance=1e-6,
        )
        np.testing.assert_allclose(got, expected, atol=2e-5)
        assert not got[:, ~mask].any()


def test_straight_boundary_stops_the_walk():
    boundary = np.zeros((15, 21), np.float32)
    boundary[:, 10] = 1
    seeds = np.zeros((1, 15, 21), np.float32)
    seeds[0, 7, 3] = 1
    got = random_walk(seeds, boundary)[0]
    assert (got[:, :10] > 0).all()
    assert not got[:, 10:].any()
    boundary[7, 10] = 0  # a gap lets it through
    assert random_walk(seeds, boundary)[0][:, 11:].any()


def test_constant_stays_constant_and_values_stay_within_the_seeds():
    seeds, boundary = scene(16, 16)
    flat = random_walk(np.full((1, 16, 16), 0.7, np.float32), boundary, suppress_boundary=False)
    np.testing.assert_allclose(flat, 0.7, atol=1e-5)
    walked = random_walk(seeds, boundary, suppress_boundary=False, tolerance=0.05)
    assert (walked.max((1, 2)) <= seeds.max((1, 2))).all()
    assert (walked.min((1, 2)) >= seeds.min((1, 2))).all()


def test_transition_serves_many_seeds_and_keeps_torch():
    seeds, boundary = scene(12, 13, k=4)
    transition = Transition(torch.from_numpy(boundary))
    together = transition.walk(torch.from_numpy(seeds))
    apart = torch.cat([transition.walk(torch.from_numpy(seed[None])) for seed in seeds])
    torch.testing.assert_close(together, apart)
    assert isinstance(random_walk(torch.from_numpy(seeds), torch.from_numpy(boundary)), torch.Tensor)


@pytest.mark.parametrize("steps", [0, 1, 2, 7, 256])
def test_chebyshev_coefficients(steps):
    exact = chebyshev_coefficients(steps, 0)
    assert len(exact) == steps + 1
    x = np.linspace(-1, 1, 101)
    np.testing.assert_allclose(np.polynomial.chebyshev.chebval(x, exact), x**steps, atol=1e-11)
    cut = chebyshev_coefficients(steps, 1e-4)
    assert 1 - cut.sum() <= 1e-4 + 1e-12
    np.testing.assert_array_equal(cut, exact[: len(cut)])
    if steps == 256:
        assert math.isclose(exact[0], math.comb(256, 128) / 2**256)
        assert 55 <= len(cut) <= 70


def test_errors_say_what_is_wrong():
    seeds, boundary = scene(8, 9)
    with pytest.raises(ValueError, match=r"seeds must be \(K, 8, 9\)"):
        Transition(torch.from_numpy(boundary)).walk(torch.zeros(1, 9, 8))
    with pytest.raises(ValueError, match=r"seeds must be \(K, 8, 9\)"):
        random_walk(seeds[:, :5], boundary)
    with pytest.raises(ValueError, match="no method 'fast'"):
        random_walk(seeds, boundary, method="fast")
    with pytest.raises(ValueError, match="steps"):
        random_walk(seeds, boundary, steps=-1)
    with pytest.raises(ValueError, match="same size"):
        random_walk(seeds, boundary, mask=np.ones((9, 8), bool))
    with pytest.raises(ValueError, match="boundary must be"):
        random_walk(seeds, seeds)
    assert module.random_walk(np.zeros((0, 8, 9), np.float32), boundary).shape == (0, 8, 9)
