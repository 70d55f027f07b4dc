"""Still scenes: textured objects that touch and overlap, with every label exact."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from pixelkin.data.dataset import Dataset
from pixelkin.data.instances import Instances
from pixelkin.data.sample import Boxes, Point, Sample
from pixelkin.data.synthetic import textures
from pixelkin.data.synthetic.layout import Body, Layout, arrange
from pixelkin.data.synthetic.raster import Array, Canvas, Skin, coverage

Seed = int | tuple[int, ...]
Label = Literal["semantic", "instances", "tags", "points", "boxes"]


@dataclass(frozen=True)
class Scene:
    """One rendered picture and what is in it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        instances: visible masks, disjoint, back to front; ids 1..N.
        semantic: (H, W) uint8 class ids, 0 background.
        classes: class id to name.
        contacts: pairs of indices into ``instances`` of one class whose masks are 8-adjacent.
    """

    image: npt.NDArray[np.uint8]
    instances: Instances
    semantic: npt.NDArray[np.uint8]
    classes: dict[int, str]
    contacts: tuple[tuple[int, int], ...]


PRESETS: dict[str, dict[str, Any]] = {
    "objects": {"objects": 6, "classes": 3, "touching": 0.5, "overlap": 0.2, "scale": (0.08, 0.18), "noise": 0.015},
    "nuclei": {"objects": 24, "classes": 1, "touching": 0.6, "overlap": 0.15, "scale": (0.04, 0.075), "noise": 0.02},
}
"""What :func:`render_scene` uses where nothing else is said."""


def render_scene(
    seed: Seed,
    *,
    size: tuple[int, int] = (128, 160),
    preset: Literal["objects", "nuclei"] = "objects",
    objects: int | tuple[int, int] | None = None,
    classes: int | None = None,
    touching: float | None = None,
    overlap: float | None = None,
    scale: tuple[float, float] | None = None,
    noise: float | None = None,
) -> Scene:
    """Render one scene; the same arguments give the same pixels.

    Args:
        seed: a number or a tuple of numbers.
        size: (height, width) in pixels.
        preset: ``"objects"``, coloured things on textured ground, or ``"nuclei"``, bright blobs on dark, like
            fluorescence. It gives the defaults of all that follows.
        objects: how many to place at most (what finds no room is left out), or the least and greatest number.
        classes: number of classes, ids from 1.
        touching: fraction of the objects in contact with one of their class; all others stay 2 pixels away from theirs.
        overlap: fraction of the objects that partly cover another one.
        scale: least and greatest radius as a fraction of the shorter side.
        noise: standard deviation of pixel noise, as a fraction of white.

    Raises:
        ValueError: an unknown preset, or a number out of its range.
    """
    if preset not in PRESETS:
        raise ValueError(f"no preset {preset!r}: use one of {', '.join(PRESETS)}")
    given: dict[str, Any] = {"objects": objects, "classes": classes, "touching": touching, "overlap": overlap}
    given |= {"scale": scale, "noise": noise}
    options = PRESETS[preset] | {key: value for key, value in given.items() if value is not None}
    families = families_of(preset, options["classes"])
    rng = np.random.default_rng(seed)
    layout = plan_scene(rng, size, families, options)
    image = (_nuclei if preset == "nuclei" else _objects)(rng, size, layout)
    channels = 1 if preset == "nuclei" else 3
    image += rng.standard_normal((*size, channels), dtype=np.float32) * np.float32(options["noise"])
    labels = np.array([body.label for body in layout.bodies], dtype=np.int64)
    lookup = np.concatenate([[0], labels]).astype(np.uint8)
    return Scene(
        to_uint8(image),
        Instances.from_label_map(layout.owner, labels=labels, sources=["synthetic"] * len(labels)),
        lookup[layout.owner],
        {i + 1: family.name for i, family in enumerate(families)},
        layout.contacts,
    )


def families_of(preset: str, classes: int) -> tuple[textures.Family, ...]:
    """The looks of the classes. Raises ValueError where there are not that many."""
    known = (textures.NUCLEUS,) if preset == "nuclei" else textures.FAMILIES
    if not 1 <= classes <= len(known):
        raise ValueError(f"{classes} classes: {preset} scenes have 1 to {len(known)}")
    return known[:classes]


def plan_scene(
    rng: np.random.Generator,
    size: tuple[int, int],
    families: tuple[textures.Family, ...],
    options: dict[str, Any],
    central: bool = False,
) -> Layout:
    """Check the options shared by scenes and clips, then place the objects."""
    for key in ("touching", "overlap"):
        if not 0 <= options[key] <= 1:
            raise ValueError(f"{key} is a fraction of the objects, 0 to 1, not {options[key]}")
    low, high = options["scale"]
    if not 0 < low <= high <= 0.5:
        raise ValueError(f"scale is the least and greatest radius over the shorter side, 0 to 0.5, not {low}, {high}")
    count = options["objects"]
    if isinstance(count, tuple):
        count = int(rng.integers(count[0], count[1] + 1))
    radii = (low * min(size), high * min(size))
    return arrange(rng, size, families, count, radii, options["touching"], options["overlap"], central)


def skins_of(rng: np.random.Generator, body: Body, light: float, gain: float, *, vivid: bool = False) -> list[Skin]:
    """A texture for each part of an object, in its own colours; ``light`` is the direction in the image, radians."""
    hue, strength, value = body.family.hue + rng.normal(0, 0.06), rng.uniform(0.3, 0.9), rng.uniform(0.45, 1.0)
    if vivid:  # any hue, but never near grey
        hue, strength, value = rng.random(), rng.uniform(0.75, 1.0), rng.uniform(0.7, 1.0)
    first = textures.hsv(hue, strength, value) * np.float32(gain)
    hue += rng.normal(0, 0.02 if vivid else 0.12)
    strength, value = strength * (1.0 if vivid else rng.uniform(0.4, 1.1)), value * rng.uniform(0.35, 0.7)
    second = textures.hsv(hue, strength, value) * np.float32(gain)
    towards = (float(np.cos(light - body.angle)), float(np.sin(light - body.angle)))
    shading, texels = rng.uniform(0.35, 0.75), max(body.radius, 4.0)
    return [
        textures.skin(rng, body.family, part, texels, (first, second), towards, shading) for part in body.shape.parts
    ]


def _paint(canvas: Canvas, body: Body, skins: list[Skin], number: int) -> None:
    inverse = np.asarray(np.linalg.inv(body.pose), dtype=np.float64)
    for part, skin in zip(body.shape.parts, skins, strict=True):
        patch = coverage(part @ body.pose[:2, :2].T + body.pose[:2, 2], canvas.size)
        if patch is not None:
            canvas.paint(patch, skin.seen(inverse, patch), number)


def _objects(rng: np.random.Generator, size: tuple[int, int], layout: Layout) -> Array:
    clutter = round(12 * size[0] * size[1] / (128 * 160))
    canvas = Canvas(textures.background(rng, size, clutter=clutter))
    light, brightness = rng.uniform(0, 2 * np.pi), textures.lighting(rng, size)
    shade, fall = rng.uniform(0.15, 0.5), rng.uniform(0.1, 0.3)
    for number, body in enumerate(layout.bodies, 1):
        _shadow(canvas.image, body, light, shade, fall)
        _paint(canvas, body, skins_of(rng, body, light, 1.0), number)
    return np.asarray(canvas.image * brightness[..., None], dtype=np.float32)


def _shadow(image: Array, body: Body, light: float, shade: float, fall: float) -> None:
    """Darken what lies on the far side of the light, softly, before the object is laid over it."""
    away = -fall * body.radius * np.array([np.cos(light), np.sin(light)])
    margin = max(2, round(0.3 * body.radius))
    for part in body.shape.parts:
        patch = coverage(part @ body.pose[:2, :2].T + body.pose[:2, 2] + away, None)
        if patch is None:
            continue
        dark = cv2.copyMakeBorder(patch.alpha, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=0)
        dark = cv2.GaussianBlur(dark, (0, 0), margin / 2) * np.float32(shade)
        y, x = patch.y - margin, patch.x - margin
        y0, x0, y1, x1 = (
            max(y, 0),
            max(x, 0),
            min(y + dark.shape[0], image.shape[0]),
            min(x + dark.shape[1], image.shape[1]),
        )
        if y1 > y0 and x1 > x0:
            image[y0:y1, x0:x1] *= 1 - dark[y0 - y : y1 - y, x0 - x : x1 - x, None]


def _nuclei(rng: np.random.Generator, size: tuple[int, int], layout: Layout) -> Array:
    """Grey, bright on dark, blurred by the optics, with out-of-focus haze."""
    ground = np.float32(rng.uniform(0.01, 0.08)) * (0.5 + textures.fractal(rng, size, 4, 2))
    canvas = Canvas(np.repeat(ground[..., None], 3, axis=2).astype(np.float32))
    exposure = rng.uniform(0.45, 0.9)
    for number, body in enumerate(layout.bodies, 1):
        level = np.full(3, exposure * np.exp(rng.normal(-0.15, 0.3)), dtype=np.float32)
        colours = (level * np.float32(rng.uniform(0.5, 0.75)), level)
        texels = max(body.radius, 4.0)
        skins = [textures.skin(rng, body.family, p, texels, colours, (0.0, 0.0), 0.45) for p in body.shape.parts]
        _paint(canvas, body, skins, number)
    sharp = canvas.image[..., 0]
    focus = cv2.GaussianBlur(sharp, (0, 0), rng.uniform(0.5, 1.1))
    haze = cv2.GaussianBlur(sharp, (0, 0), min(size) * rng.uniform(0.03, 0.08))
    grey = focus + np.float32(rng.uniform(0.05, 0.25)) * haze
    grey = rng.poisson(np.clip(grey, 0, None) * 400) / 400  # photons
    return np.repeat(grey.astype(np.float32)[..., None], 3, axis=2)


def to_uint8(image: Array) -> npt.NDArray[np.uint8]:
    """0..1 floats as bytes."""
    return np.asarray(np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


@lru_cache(maxsize=4)
def _rendered(seed: Seed, options: tuple[tuple[str, Any], ...]) -> Scene:
    return render_scene(seed, **dict(options))


def _field(name: str, seed: Seed, options: tuple[tuple[str, Any], ...]) -> Any:
    value = getattr(_rendered(seed, options), name)
    return value.copy() if isinstance(value, np.ndarray) else value


def points_of(instances: Instances) -> tuple[Point, ...]:
    """One click an object, at the pixel deepest inside its mask."""
    points = []
    for i, label in enumerate(instances.labels):
        inside = cv2.copyMakeBorder(instances.mask(i).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        y, x = np.unravel_index(int(cv2.distanceTransform(inside, cv2.DIST_L2, 5).argmax()), inside.shape)
        points.append(Point(float(x) - 1, float(y) - 1, int(label)))
    return tuple(points)


def scene_dataset(
    n: int, seed: int = 0, *, labels: tuple[Label, ...] = ("semantic", "instances"), **options: Any
) -> Dataset:
    """``n`` scenes as a Dataset, rendered when asked; sample k is ``render_scene((seed, k), **options)``.

    Args:
        n: how many.
        seed: another seed, other scenes.
        labels: the labels the samples carry. Tags, points and boxes are not lazy: they cost a rendering each here.
        options: of :func:`render_scene`; hashable values only (tuples, not lists).
    """
    key = tuple(sorted(options.items()))
    samples = []
    for k in range(n):
        lazy: dict[str, Any] = {
            name: partial(_field, name, (seed, k), key) for name in ("semantic", "instances") if name in labels
        }
        eager: dict[str, Any] = {}
        if {"tags", "points", "boxes"} & set(labels):
            instances = _rendered((seed, k), key).instances
            if "tags" in labels:
                eager["tags"] = tuple(np.unique(instances.labels).tolist())
            if "points" in labels:
                eager["points"] = points_of(instances)
            if "boxes" in labels:
                eager["boxes"] = Boxes(instances.boxes.astype(np.float64), instances.labels)
        size = options.get("size", (128, 160))
        image = partial(_field, "image", (seed, k), key)
        samples.append(Sample(f"scene_{k:04d}", image, size=size, **lazy, **eager))
    preset = options.get("preset", "objects")
    families = families_of(preset, options.get("classes") or PRESETS[preset]["classes"])
    names = {i + 1: family.name for i, family in enumerate(families)}
    return Dataset(samples, names, name=f"synthetic {preset}")
