from __future__ import annotations

import numpy as np
import pytest

from pixelkin.data.synthetic import render_clip
from pixelkin.data.synthetic.sensing import noisy_depth


def test_errors_are_as_large_as_asked_for():
    exact = np.full((120, 160), 10.0, np.float32)
    seen = noisy_depth(exact, np.random.default_rng(0), noise=0.05, holes=0.1)
    known = seen > 0
    assert (~known).mean() == pytest.approx(0.1, abs=0.01)
    assert np.log(seen[known] / 10).std() == pytest.approx(0.05 * np.hypot(1, 1 / 3), rel=0.25)


def test_without_errors_depth_stays_but_for_the_sky():
    clip = render_clip(0, 1, preset="driving", size=(64, 96))
    seen = noisy_depth(clip.depth[0], np.random.default_rng(0), noise=0, ragged=0, holes=0)
    near = clip.depth[0] <= 80
    np.testing.assert_allclose(seen[near], clip.depth[0][near], rtol=1e-6)
    assert np.isinf(seen[~near]).all()
    assert (~near).any()


def test_edges_move_by_about_a_pixel():
    exact = np.where(np.arange(100) < 50, 5.0, 20.0)[None].repeat(60, axis=0).astype(np.float32)
    seen = noisy_depth(exact, np.random.default_rng(1), noise=0, holes=0, ragged=0.8)
    wrong = seen != exact
    assert wrong[:, 45:55].any()
    assert not wrong[:, :44].any()
    assert not wrong[:, 56:].any()


def test_the_generator_decides():
    exact = np.full((20, 30), 10.0, np.float32)
    one, same, other = (noisy_depth(exact, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
