"""Small scenes that the tests of metrics share."""

from __future__ import annotations

import numpy as np

from pixelkin.data import Instances


def boxes(size, rectangles, labels=None, scores=None, crowd=None, ids=None) -> Instances:
    """Instances that are rectangles (y0, x0, y1, x1), lower right exclusive."""
    masks = np.zeros((len(rectangles), *size), dtype=bool)
    for mask, (y0, x0, y1, x1) in zip(masks, rectangles, strict=True):
        mask[y0:y1, x0:x1] = True
    return Instances.from_masks(masks, labels=labels, scores=scores, crowd=crowd, ids=ids)


def random_instances(rng, size, n, classes, *, crowd=0.0, scores=None, around=None) -> Instances:
    """Blobs of all sizes that may overlap; with ``around``, shifted and cropped copies of its masks with noise."""
    height, width = size
    yy, xx = np.mgrid[:height, :width]
    masks, labels = [], []
    for _ in range(n):
        if around is not None and len(around) and rng.random() < 0.7:
            i = int(rng.integers(len(around)))
            mask = np.roll(around.mask(i), tuple(rng.integers(-2, 3, 2)), axis=(0, 1))
            mask &= rng.random(size) > rng.choice([0.0, 0.1, 0.3])
            label = around.labels[i] if rng.random() < 0.9 else rng.choice(classes)
        else:
            y, x, a, b = rng.random() * height, rng.random() * width, rng.random() * 40 + 2, rng.random() * 40 + 2
            mask = ((yy - y) / a) ** 2 + ((xx - x) / b) ** 2 < 1
            label = rng.choice(classes)
        masks.append(mask)
        labels.append(int(label))
    columns = {"labels": labels, "crowd": rng.random(n) < crowd}
    if scores is not None:
        columns["scores"] = rng.choice(scores, n)
    return Instances.from_masks(np.array(masks, dtype=bool).reshape(n, *size), **columns)
