"""An image and its labels as a student sees them: each mask in its own window, and where nobody knows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pixelkin.data import Instances, Sample
from pixelkin.data.unknown import unknown_region

LEAST_LEFT = 0.1
"""An object of which less than this share is left after something was pasted over it is no longer learned."""

PASTED_GROWTH = (0.5, 1.25)

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Thing:
    """One labelled object: its mask in the window whose upper left pixel is (y, x).

    Attributes:
        label: class id.
        score: of the label, at most 1: where scores are of another kind (areas, say), all count alike.
        y, x: of the window in the image.
        mask: the window, tight.
    """

    label: int
    score: float
    y: int
    x: int
    mask: Mask

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(x0, y0, x1, y1), lower right exclusive."""
        return self.x, self.y, self.x + self.mask.shape[1], self.y + self.mask.shape[0]

    def without(self, covered: Mask) -> Thing | None:
        """What is left where an (H, W) mask covers it; None if next to nothing."""
        x0, y0, x1, y1 = self.box
        left = self.mask & ~covered[y0:y1, x0:x1]
        if left.sum() < max(1, LEAST_LEFT * self.mask.sum()):
            return None
        return tight(self.label, self.score, left, y0, x0)


@dataclass(frozen=True)
class Picture:
    """An image with what is known of it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        things: labels to learn.
        doubtful: (K, 4) boxes of alternatives.
        unknown: (H, W) bool, true where nobody vouches for anything.
    """

    image: npt.NDArray[np.uint8]
    things: tuple[Thing, ...]
    doubtful: npt.NDArray[np.float32]
    unknown: Mask


def tight(label: int, score: float, mask: Mask, y: int = 0, x: int = 0) -> Thing | None:
    """A thing from a mask whose upper left pixel is (y, x), cut to what it covers; None for an empty one."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    window = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Thing(label, score, y + int(rows[0]), x + int(columns[0]), np.ascontiguousarray(window))


def learnable(instances: Instances, min_score: float) -> Mask:
    """(N,) which instances are labels: no crowds, no alternatives, none of a lower score, none empty."""
    enough = instances.scores >= np.float32(min_score)
    return np.asarray(enough & ~instances.crowd & ~instances.alternative & (instances.areas > 0))


def load_picture(sample: Sample, *, min_score: float, unknown: bool) -> Picture:
    """Read a sample's image and labels.

    Args:
        sample: with instances; its ``semantic`` and ``ignore`` are used where they are there.
        min_score: instances below it are no labels.
        unknown: whether something may be unknown; otherwise all that has no label is background.

    What is unknown: :func:`~pixelkin.data.unknown.unknown_region`, where crowds and instances of a low score are in
    doubt.
    """
    image, instances = sample.image, sample.instances
    if instances is None:
        instances = Instances.empty(image.shape[:2])
    kept = learnable(instances, min_score)
    region = np.zeros(image.shape[:2], dtype=bool)
    if unknown:
        region = unknown_region(sample, instances, kept, ~kept & ~instances.alternative)
    things = []
    for i in np.flatnonzero(kept).tolist():
        thing = tight(int(instances.labels[i]), min(float(instances.scores[i]), 1.0), instances.mask(i))
        if thing is not None:
            things.append(thing)
    doubtful = instances.boxes[instances.alternative] if unknown else np.zeros((0, 4))
    return Picture(image, tuple(things), doubtful.astype(np.float32), region)


def flipped(picture: Picture) -> Picture:
    """Left and right exchanged."""
    width = picture.image.shape[1]
    things = tuple(replace(t, x=width - t.box[2], mask=np.ascontiguousarray(t.mask[:, ::-1])) for t in picture.things)
    doubtful = picture.doubtful.copy()
    doubtful[:, [0, 2]] = width - picture.doubtful[:, [2, 0]]
    return Picture(picture.image[:, ::-1], things, doubtful, picture.unknown[:, ::-1])


def paste(picture: Picture, other: Picture, rng: np.random.Generator) -> Picture:
    """Some things of another picture laid over this one, in random sizes and places (arXiv 2012.07177).

    They hide what is below: its masks and boxes shrink, and what they cover is no longer unknown.
    """
    if not other.things:
        return picture
    count = int(rng.integers(1, len(other.things) + 1))
    image, height, width = picture.image.copy(), *picture.image.shape[:2]
    fit = min(height, width) / min(other.image.shape[:2])
    covered = np.zeros((height, width), dtype=bool)
    pasted: list[Thing] = []
    for index in rng.permutation(len(other.things))[:count].tolist():
        thing = other.things[index]
        x0, y0, x1, y1 = thing.box
        scale = fit * float(rng.uniform(*PASTED_GROWTH))
        size = max(1, min(width, round((x1 - x0) * scale))), max(1, min(height, round((y1 - y0) * scale)))
        mask = resized(thing.mask.astype(np.float32), size) >= 0.5
        y, x = int(rng.integers(0, height - size[1] + 1)), int(rng.integers(0, width - size[0] + 1))
        laid = tight(thing.label, thing.score, mask, y, x)
        if laid is None:
            continue
        colours = resized(other.image[y0:y1, x0:x1], size)
        window = np.s_[y : y + size[1], x : x + size[0]]
        image[window][mask] = colours[mask]
        here = np.zeros((height, width), dtype=bool)
        here[window] = mask
        pasted = [left for below in pasted if (left := below.without(here)) is not None] + [laid]
        covered |= here
    below = [left for thing in picture.things if (left := thing.without(covered)) is not None]
    return Picture(image, (*below, *pasted), picture.doubtful, picture.unknown & ~covered)


def resized(array: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """An image or map in another (width, height): averaged where it shrinks, linear where it grows."""
    grows = size[0] >= array.shape[1] and size[1] >= array.shape[0]
    found = cv2.resize(np.ascontiguousarray(array), size, interpolation=cv2.INTER_LINEAR if grows else cv2.INTER_AREA)
    return np.asarray(found)
