"""Press one object against another, so that they touch and their maker knows which pixel is whose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from pixelkin.cues.pieces import resize

Image = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

VISIBLE = 16
"""Pixels that a donor must show, at least."""


@dataclass
class Canvas:
    """A scene under construction.

    Attributes:
        image: (H, W, 3) float32 RGB, 0..255.
        objects: (H, W) int32: 0 none, else the object's number.
        unknown: (H, W) bool: part of a component nobody vouches for.
        inside: (H, W) bool: part of the photo, not of the padding around it.
    """

    image: Image
    objects: npt.NDArray[np.int32]
    unknown: Mask
    inside: Mask


class Donor(NamedTuple):
    """An object cut out: (h, w, 3) float32 image and (h, w) bool mask."""

    image: Image
    mask: Mask


def press(
    canvas: Canvas,
    donor: Donor,
    onto: int,
    angle: float,
    rng: np.random.Generator,
    *,
    overlap: float,
    foot: int | None = None,
    seam: float | None = None,
    bury: float = 0.6,
    light: float = 0.25,
) -> tuple[int, int] | None:
    """Slide a donor from afar towards the middle of an object until they overlap, and blend it in, in front or behind.

    Args:
        canvas: changed in place; the donor gets the next free number.
        donor: what to press.
        onto: number of the object to press against.
        angle: direction from the object to the donor, radians, 0 to the right.
        rng: decides what lies in front and how soft the seam is.
        overlap: share of the smaller object that is covered by or hidden under the other, at most.
        foot: row that the donor stands on, below its lowest pixel; it slides along that row then, from the side that
            ``angle`` says. None: wherever the way leads.
        seam: over how many pixels it blends into the scene, 0 for not at all; None: random.
        bury: no object may lose more than this share of what was left of it, nor the donor of its mask.
        light: chance that the brighter of donor and scene is seen at every pixel, as where light shines through.

    Returns:
        (y, x) in the canvas of the donor's upper left corner; None: nothing fitted and nothing has changed.
    """
    anchor = canvas.objects == onto
    if not anchor.any():
        return None
    middle, direction = np.argwhere(anchor).mean(axis=0), np.array([np.sin(angle), np.cos(angle)])
    if foot is not None and donor.mask.any():
        rows = np.nonzero(donor.mask)[0]
        middle[0] = foot - 1 - rows.max() + rows.mean()
        direction = np.array([0.0, 1.0 if direction[1] >= 0 else -1.0])
    place = _slide(anchor, donor.mask, middle, direction, overlap)
    there, here = _common(canvas.objects.shape, donor.mask.shape, place)
    visible = donor.mask[here] & canvas.inside[there]
    objects = canvas.objects[there]
    front = rng.random() < 0.5
    put = visible if front else visible & (objects == 0)
    if put.sum() < max(VISIBLE, (1 - bury) * donor.mask.sum()):
        return None
    covered = np.bincount(objects[put].ravel(), minlength=2)
    areas = np.bincount(canvas.objects.ravel(), minlength=len(covered))[: len(covered)]
    if (covered[1:] > bury * areas[1:]).any():
        return None
    weight = _softened(put, rng.uniform(0.4, 1.4) if seam is None else seam)
    pasted = donor.image[here]
    if rng.random() < light:  # overlapping light adds up in fluorescence; the brighter one is close to it
        pasted = np.maximum(pasted, canvas.image[there])
    canvas.image[there] = canvas.image[there] * (1 - weight) + pasted * weight
    objects[put] = canvas.objects.max() + 1
    canvas.unknown[there][put] = False
    return place


def resized_donor(image: npt.NDArray[Any], mask: npt.NDArray[Any], scale: float, *, mirrored: bool) -> Donor:
    """An object cut out, (h, w, 3) with an (h, w) mask, at another size, perhaps turned left to right.

    Its mask loses a rim of one pixel: masks often bring some of the background along.
    """
    height, width = (max(round(side * scale), 3) for side in mask.shape)
    image = resize(image, (height, width)).astype(np.float32)
    mask = resize(mask.astype(np.uint8), (height, width), exact=True)
    mask = cv2.erode(np.pad(mask, 1), np.ones((3, 3), np.uint8))[1:-1, 1:-1] > 0
    return Donor(image[:, ::-1], mask[:, ::-1]) if mirrored else Donor(image, mask)


def false_seams(image: Image, objects: npt.NDArray[np.int32], rng: np.random.Generator) -> None:
    """Cut objects through and put one part back, in place, so that a seam does not tell that there are two.

    The part is blurred, moved by a pixel and brought to another tone, as much as what is pressed may be.

    Args:
        image: (H, W, 3) float32 RGB, changed in place.
        objects: (H, W) the objects, 0 none.
        rng: decides which and where; mostly cuts from top to bottom.
    """
    numbers, areas = np.unique(objects, return_counts=True)
    large = numbers[(numbers > 0) & (areas >= 100)]
    for number in rng.choice(large, int(rng.integers(1, 4))).tolist() if len(large) else []:
        ys, xs = np.nonzero(objects == number)
        middle = int(rng.integers(len(ys)))
        angle = rng.uniform(0, 2 * np.pi) if rng.random() < 0.3 else np.pi * rng.integers(2) + rng.normal(0, 0.1)
        side = (xs - xs[middle]) * np.cos(angle) + (ys - ys[middle]) * np.sin(angle) > 0
        part = np.zeros(objects.shape, bool)
        part[ys[side], xs[side]] = True
        again = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 0.9)) if rng.random() < 0.5 else image
        again = np.roll(again, tuple(rng.integers(-1, 2, 2).tolist()), (0, 1)) * np.float32(rng.uniform(0.96, 1.04))
        weight = _softened(part, random_seam(rng))
        image[:] = image * (1 - weight) + again * weight


def random_seam(rng: np.random.Generator) -> float:
    """How soft a seam is, in pixels: three in ten are hard, as a network learns to see what all have in common."""
    kind = rng.random()
    return 0.0 if kind < 0.3 else float(rng.uniform(0.3, 0.7) if kind < 0.7 else rng.uniform(0.5, 1.3))


def _softened(mask: Mask, seam: float) -> Image:
    """(H, W, 1) weights of a mask whose edge is ``seam`` pixels soft."""
    weight = mask.astype(np.float32)
    return np.asarray(cv2.GaussianBlur(weight, (0, 0), seam) if seam > 0 else weight, np.float32)[..., None]


def side_angle(rng: np.random.Generator) -> float:
    """A random direction for :func:`press`, three times in four about sideways: things in photos stand in a row."""
    if rng.random() < 0.75:
        return float(rng.normal(0, 0.5) + np.pi * rng.integers(2))
    return float(rng.uniform(0, 2 * np.pi))


def _slide(
    anchor: Mask, mask: Mask, middle: npt.NDArray[Any], direction: npt.NDArray[Any], overlap: float
) -> tuple[int, int]:
    """Upper left corner (y, x) at which the mask, nearest to the middle, hides at most ``overlap`` of the smaller."""
    centre = np.argwhere(mask).mean(axis=0) if mask.any() else np.zeros(2)
    smaller = max(min(int(anchor.sum()), int(mask.sum())), 1)

    def corner(distance: float) -> tuple[int, int]:
        y, x = np.rint(middle + direction * distance - centre).astype(int)
        return int(y), int(x)

    near, far = 0.0, float(np.hypot(*anchor.shape))
    for _ in range(10):
        half = (near + far) / 2
        there, here = _common(anchor.shape, mask.shape, corner(half))
        if (anchor[there] & mask[here]).sum() / smaller > overlap:
            near = half
        else:
            far = half
    # A step closer they overlap by more, so here they at least touch.
    return corner(near if overlap == 0 else far)


def _common(outer: tuple[int, ...], inner: tuple[int, ...], corner: tuple[int, int]) -> tuple[Any, Any]:
    """Slices of the part that an array of shape ``inner``, laid at ``corner``, shares with one of shape ``outer``."""
    there, here = [], []
    for size, length, start in zip(outer, inner, corner, strict=True):
        first, last = min(max(start, 0), size), min(max(start + length, 0), size)
        there.append(slice(first, last))
        here.append(slice(first - start, last - start))
    return tuple(there), tuple(here)
