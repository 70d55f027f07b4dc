"""The main job on a real photograph that comes with scikit-image: coins, pushed together until they touch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from pixelkin.api import label
from pixelkin.formats.files import whole
from pixelkin.run.labelling import RunSummary

BUDGET = "150it"
SPECK = 200
"""Smaller bright spots are no coins, in pixels."""


def run_demo(out: Path, *, method: str = "siseg", say: Callable[[str], None]) -> RunSummary:
    """Write the images and their semantic masks into ``out`` and label them into ``out/run``.

    Raises:
        ValueError: scikit-image is not installed.
    """
    try:
        from skimage import data
    except ImportError:
        raise ValueError("the demo's photograph comes with scikit-image: pip install 'pixelkin[demo]'") from None
    photo = np.asarray(data.coins())  # type: ignore[no-untyped-call]
    mask = otsu_mask(photo)
    for name, (picture, coins) in {"coins": (photo, mask), "coins_touching": push_together(photo, mask)}.items():
        _write(out / "images" / f"{name}.png", picture)
        _write(out / "semantic" / f"{name}.png", coins.astype(np.uint8))
    (out / "classes.txt").write_text("1 coin\n")
    count = ndimage.label(mask)[1]
    say(f"{count} coins as photographed and the same pushed together, {2 * count} in all; semantic masks by Otsu")
    return label(
        out / "images",
        out=out / "run",
        method=method,
        semantic=out / "semantic",
        classes=out / "classes.txt",
        budget=BUDGET,
        say=say,
    )


def otsu_mask(photo: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """(H, W) bool, true on coins: Otsu's threshold on what differs from the light around, holes filled, specks gone."""
    values = photo.astype(np.float64)
    values -= ndimage.gaussian_filter(values, 50)
    counts, edges = np.histogram(values, 256)
    centers = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(counts), np.cumsum(counts[::-1])[::-1]
    mean_below = np.cumsum(counts * centers) / np.maximum(below, 1)
    mean_above = (np.cumsum((counts * centers)[::-1]) / np.maximum(above[::-1], 1))[::-1]
    between = below[:-1] * above[1:] * (mean_below[:-1] - mean_above[1:]) ** 2
    mask = ndimage.binary_fill_holes(values > centers[int(between.argmax())])
    pieces, _ = ndimage.label(ndimage.binary_opening(mask, iterations=2))
    return np.asarray((np.bincount(pieces.ravel()) >= SPECK)[pieces] & (pieces > 0))


def push_together(
    photo: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Photograph and mask with every coin moved to the left until it touches its neighbour in its row."""
    pieces, count = ndimage.label(mask)
    boxes: list[Any] = ndimage.find_objects(pieces)
    shadow = ndimage.binary_dilation(mask, iterations=4)
    weight = ndimage.gaussian_filter((~shadow).astype(float), 12)
    smooth = ndimage.gaussian_filter(np.where(shadow, 0.0, photo), 12) / np.maximum(weight, 1e-6)
    grain = np.random.default_rng(0).choice((photo - smooth)[~shadow], photo.shape)
    out = np.where(shadow, smooth + grain, photo).clip(0, 255).astype(np.uint8)  # the table without coins
    moved = np.zeros_like(mask)
    for i in sorted(range(count), key=lambda i: boxes[i][1].start):
        rows, columns = boxes[i]
        coin = pieces[rows, columns] == i + 1
        left = columns.start
        while left > 0 and not moved[rows, left - 1 : left - 1 + coin.shape[1]][coin].any():
            left -= 1
        place = (rows, slice(left, left + coin.shape[1]))
        out[place][coin] = photo[rows, columns][coin]
        moved[place] |= coin
    width = int(np.flatnonzero(moved.any(axis=0)).max()) + 12
    return out[:, :width], moved[:, :width]


def _write(path: Path, picture: npt.NDArray[np.uint8]) -> None:
    with whole(path) as beside:
        Image.fromarray(picture).save(beside, format="PNG")
