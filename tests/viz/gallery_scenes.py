"""Small pictures with instances for the gallery's tests."""

from __future__ import annotations

import numpy as np

from pixelkin.data import Instances

CLASSES = {1: "cell", 5: "dog & <b>cat</b>"}


def scene(number: int, scores: list[float], labels: list[int]) -> tuple[np.ndarray, Instances]:
    """A 60x80 picture of noise with one square for every score."""
    image = np.random.default_rng(number).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    masks = np.zeros((len(scores), 60, 80), dtype=bool)
    for i, mask in enumerate(masks):
        mask[10 : 30 + i, 5 + 15 * i : 18 + 15 * i] = True
    return image, Instances.from_masks(masks, labels=labels, scores=scores, sources=["siseg:semantic"] * len(scores))
