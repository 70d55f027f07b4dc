"""The demo: real coins, apart and pushed together, with no download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from pixelkin.demo import otsu_mask, push_together, run_demo
from pixelkin.formats import read_run

data = pytest.importorskip("skimage.data")


def test_the_coins_are_all_there_and_touch() -> None:
    photo = data.coins()
    mask = otsu_mask(photo)
    assert ndimage.label(mask)[1] == 24
    picture, moved = push_together(photo, mask)
    assert picture.shape == moved.shape
    assert moved.sum() == mask.sum()  # touching, and nowhere over each other
    assert ndimage.label(moved, np.ones((3, 3)))[1] == 4
    assert sorted(picture[moved].tolist()) == sorted(photo[mask].tolist())


def test_the_threshold_is_otsus() -> None:
    from skimage.filters import threshold_otsu

    photo = data.coins()
    values = photo - ndimage.gaussian_filter(photo.astype(np.float64), 50)
    filled = ndimage.binary_fill_holes(values > threshold_otsu(values))
    ours = otsu_mask(photo)
    assert (ours & ~filled).sum() == 0
    assert (filled & ~ours).sum() < 0.03 * ours.sum()  # the specks


def test_the_demo_runs_and_continues(tmp_path: Path) -> None:
    lines: list[str] = []
    summary = run_demo(tmp_path, method="components", say=lines.append)
    assert (summary.done, summary.failed, summary.instances) == (2, 0, 28)
    assert summary.baselines["watershed"] > 40
    assert "24 coins" in lines[0]
    assert sorted(len(sample.instances or ()) for sample in read_run(summary.folder)) == [4, 24]
    assert (summary.folder / "gallery.html").stat().st_size > 10_000
    assert run_demo(tmp_path, method="components", say=lines.append).continued == 2
