from __future__ import annotations

import builtins
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelkin.cues.refine import COLOUR_WIDTH, POSITION_SHARE, dense_crf, pixel_affinity

DILATIONS = (1, 2)


def slow_affinity(labels, image, classes, iterations, dilations):
    """What pixel_affinity says it does, pixel by pixel."""
    height, width = labels.shape
    pixels = image / 255.0
    steps = [(dy * d, dx * d) for d in dilations for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    far = np.array([math.hypot(*step) for step in steps])
    near = np.exp(-((far / far.std(ddof=1) / COLOUR_WIDTH) ** 2))
    near /= near.sum()

    def at(y, x):
        return min(max(y, 0), height - 1), min(max(x, 0), width - 1)

    shares = np.stack([labels == label for label in range(classes)]).astype(float)
    for _ in range(iterations):
        new = np.zeros_like(shares)
        for y in range(height):
            for x in range(width):
                around = [at(y + dy, x + dx) for dy, dx in steps]
                colours = np.array([pixels[place] for place in around])
                spread = np.sqrt(np.maximum(colours.var(axis=0), 1e-8))
                weights = np.exp(-(((colours - pixels[y, x]) / spread / COLOUR_WIDTH) ** 2).mean(axis=1))
                weights = (weights / weights.sum() + POSITION_SHARE * near) / (1 + POSITION_SHARE)
                new[:, y, x] = sum(w * shares[:, v, u] for w, (v, u) in zip(weights, around, strict=True))
        shares = new
    return shares


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.sampled_from([(1, 1), (1, 7), (6, 1), (5, 8)]), st.integers(1, 4), st.integers(0, 3))
def test_as_the_slow_loop(seed, size, classes, iterations):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, size)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    found = pixel_affinity(labels, image, classes, iterations=iterations, dilations=DILATIONS)
    shares = slow_affinity(labels, image, classes, iterations, DILATIONS)
    chosen = np.take_along_axis(shares, found[None], axis=0)[0]
    assert (chosen >= shares.max(axis=0) - 1e-4).all()  # equal but for ties


def picture():
    """A bright disc on a dark ground, and a label that is too small and a little beside it."""
    y, x = np.mgrid[:60, :80]
    disc = (y - 30) ** 2 + (x - 40) ** 2 < 18**2
    noise = np.random.default_rng(0).normal(0, 6, (60, 80, 3))
    image = np.clip(np.where(disc[..., None], (200, 80, 60), (40, 90, 60)) + noise, 0, 255).astype(np.uint8)
    labels = np.where((y - 32) ** 2 + (x - 42) ** 2 < 15**2, 1, 0)
    return image, disc, labels


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def test_affinity_moves_labels_to_edges():
    image, disc, labels = picture()
    found = pixel_affinity(labels, image, 2)
    assert iou(labels == 1, disc) < 0.7
    assert iou(found == 1, disc) > 0.95


def test_dense_crf_moves_labels_to_edges():
    pytest.importorskip("pydensecrf.densecrf")
    image, disc, labels = picture()
    assert iou(dense_crf(labels, image, 2) == 1, disc) > 0.95


@pytest.mark.parametrize("refine", [pixel_affinity, dense_crf])
class TestBoth:
    @pytest.fixture(autouse=True)
    def _there(self, refine):
        if refine is dense_crf:
            pytest.importorskip("pydensecrf.densecrf")

    def test_several_labellings_as_one_by_one(self, refine):
        image, _, labels = picture()
        other = np.where(labels, 0, 2)
        both = refine(np.stack([labels, other]), image, 3)
        assert np.array_equal(both[0], refine(labels, image, 3))
        assert np.array_equal(both[1], refine(other, image, 3))

    @pytest.mark.parametrize("label", [0, 2])
    def test_one_label_everywhere_stays(self, refine, label):
        image, _, labels = picture()
        assert (refine(np.full_like(labels, label), image, 3) == label).all()

    def test_only_background(self, refine):
        assert not refine(np.zeros((4, 5), np.uint8), np.zeros((4, 5, 3), np.uint8), 1).any()

    def test_what_is_given_stays_as_it_is(self, refine):
        image, _, labels = picture()
        image.setflags(write=False)
        labels.setflags(write=False)
        assert refine(labels.astype(np.uint8), image[:, ::-1], 2).dtype == np.int64

    @pytest.mark.parametrize(
        ("labels", "classes", "said"),
        [
            (np.zeros((4, 6), int), 2, "same size"),
            (np.zeros(5, int), 2, "same size"),
            (np.full((4, 5), 2), 2, "not 0..1"),
            (np.full((4, 5), -1), 2, "not 0..1"),
        ],
    )
    def test_errors_in_one_line(self, refine, labels, classes, said):
        with pytest.raises(ValueError, match=said):
            refine(labels, np.zeros((4, 5, 3), np.uint8), classes)


def test_many_classes_cost_what_is_there():
    image, _, labels = picture()
    found = pixel_affinity(labels * 999, image, 1000)
    assert np.array_equal(found, pixel_affinity(labels, image, 2) * 999)


def test_large_images_are_refined_smaller():
    image, disc, labels = picture()
    found = pixel_affinity(labels, image, 2, max_pixels=60 * 80 // 4, dilations=(1, 2, 4, 8))
    assert found.shape == labels.shape
    assert iou(found == 1, disc) > 0.85


def test_without_the_extra_the_mend_is_named(monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest):
        if name.startswith("pydensecrf"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"pip install 'pixelkin\[crf\]'"):
        dense_crf(np.zeros((2, 2), int), np.zeros((2, 2, 3), np.uint8), 1)
