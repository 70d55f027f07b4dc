from __future__ import annotations

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageDraw

from pixelkin.data import Instances
from pixelkin.viz.outlines import outline_paths


def rings_of(path: str) -> list[np.ndarray]:
    """The absolute corners of path data, by the rules of SVG."""
    rings = []
    for ring in re.findall(r"M([^z]*)z", path):
        numbers = [int(n) for n in re.findall(r"-?\d+", ring.replace("h1v1h-1", "l1 0 0 1-1 0"))]
        rings.append(np.cumsum(np.array(numbers).reshape(-1, 2), axis=0))
    return rings


def drawn(path: str, size: tuple[int, int], scale: int) -> np.ndarray:
    """The path filled by the even-odd rule, sampled at pixel centres (scale must be even)."""
    canvas = Image.new("1", (size[1] * scale + 1, size[0] * scale + 1))
    for ring in rings_of(path):
        layer = Image.new("1", canvas.size)
        ImageDraw.Draw(layer).polygon([tuple(int(v) for v in point) for point in ring], fill=1)
        canvas = ImageChops.logical_xor(canvas, layer)
    return np.array(canvas)[scale // 2 :: scale, scale // 2 :: scale][: size[0], : size[1]]


def test_a_rectangle_runs_along_its_pixels_edges() -> None:
    mask = np.zeros((1, 20, 30), dtype=bool)
    mask[0, 3:7, 5:15] = True
    (ring,) = rings_of(outline_paths(Instances.from_masks(mask), 2)[0])
    assert sorted(map(tuple, ring)) == sorted([(10, 6), (30, 6), (30, 14), (10, 14)])


def test_holes_and_pieces_survive() -> None:
    mask = np.zeros((40, 40), dtype=bool)
    mask[2:30, 2:30] = True
    mask[8:20, 8:20] = False
    mask[34:38, 34:38] = True
    path = outline_paths(Instances.from_masks(mask[None]), 8)[0]
    assert len(rings_of(path)) == 3
    assert (drawn(path, mask.shape, 8) == mask).all()


@given(st.integers(0, 10_000), st.integers(2, 6))
def test_outlines_cover_the_mask(seed: int, blobs: int) -> None:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:48, :64]
    mask = np.zeros((48, 64), dtype=bool)
    for cy, cx, radius in zip(
        rng.uniform(0, 48, blobs), rng.uniform(0, 64, blobs), rng.uniform(4, 12, blobs), strict=True
    ):
        mask |= (y - cy) ** 2 + (x - cx) ** 2 <= radius**2
    found = drawn(outline_paths(Instances.from_masks(mask[None]), 16)[0], mask.shape, 16)
    assert (found & mask).sum() / (found | mask).sum() > 0.95  # dents one pixel wide are closed


def test_without_simplification_outlines_are_exact() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        mask = np.kron(rng.random((7, 9)) < 0.6, np.ones((2, 2))) > 0  # no gap of one pixel, which tracing closes
        path = outline_paths(Instances.from_masks(mask[None]), 16)[0]
        assert (drawn(path, mask.shape, 16) == mask).all()


def test_nothing_small_disappears() -> None:
    masks = np.zeros((3, 400, 400), dtype=bool)
    masks[0, 200, 300] = True
    masks[1, 5:300, 7] = True
    pixel, line, empty = outline_paths(Instances.from_masks(masks), 0.1)
    assert pixel == "M30 20h1v1h-1z"
    assert rings_of(line)
    assert empty == ""
