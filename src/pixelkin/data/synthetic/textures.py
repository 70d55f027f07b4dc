"""Textures of synthetic objects and backgrounds: seeded noise, patterns, shading. Colours are float32 RGB in 0..1."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from pixelkin.data.synthetic import shapes
from pixelkin.data.synthetic.raster import Array, Matrix, Skin
from pixelkin.data.synthetic.shapes import Contour, Shape

Pattern = Callable[[np.random.Generator, Array, Array], Array]


def noise(rng: np.random.Generator, size: tuple[int, int], cells: float) -> Array:
    """Smooth noise of (h, w) in about 0..1 with about ``cells`` bumps along the longer side."""
    h, w = size
    step = max(h, w) / max(cells, 1.0)
    grid = rng.random((max(2, round(h / step) + 2), max(2, round(w / step) + 2)), dtype=np.float32)
    return np.asarray(cv2.resize(grid, (w, h), interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def fractal(rng: np.random.Generator, size: tuple[int, int], cells: float, octaves: int = 3) -> Array:
    """Several octaves of :func:`noise`, each twice as fine and half as strong; bumps never under 3 pixels."""
    total, weight = np.zeros(size, dtype=np.float32), 0.0
    for k in range(octaves):
        finer = cells * 2**k
        if k and finer > max(size) / 3:
            break
        total += noise(rng, size, finer) * 0.5**k
        weight += 0.5**k
    return np.asarray(total / weight, dtype=np.float32)


def hsv(hue: float, saturation: float, value: float) -> Array:
    """(3,) RGB of a hue (any real, period 1), saturation and value."""
    rgb = colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0))
    return np.array(rgb, dtype=np.float32)


def _soft(values: Array, sharpness: float) -> Array:
    """A smooth step at 0."""
    return np.asarray(0.5 + 0.5 * np.tanh(values * sharpness), dtype=np.float32)


def _limit(frequency: float, u: Array) -> float:
    """The frequency (radians a unit), lowered so that one period covers at least 5 texels."""
    texels_a_unit = (u.shape[1] - 1) / max(float(u[0, -1] - u[0, 0]), 1e-6)
    return float(min(frequency, 2 * np.pi * texels_a_unit / 5))


def stripes(rng: np.random.Generator, u: Array, v: Array) -> Array:
    """Bands across the long axis."""
    wobble = fractal(rng, u.shape, 3, 2) * rng.uniform(0, 2)
    return _soft(np.sin(_limit(rng.uniform(6, 10), u) * u + wobble + rng.uniform(0, 6.3)), 1.5)


def spots(rng: np.random.Generator, u: Array, v: Array) -> Array:
    """Dark spots on plain ground."""
    return _soft(noise(rng, u.shape, min(rng.uniform(6, 9), max(u.shape) / 4)) - np.float32(0.66), 9)


def marble(rng: np.random.Generator, u: Array, v: Array) -> Array:
    """Cloudy veins."""
    return fractal(rng, u.shape, rng.uniform(3, 5), 4)


def facets(rng: np.random.Generator, u: Array, v: Array) -> Array:
    """Flat sectors of different brightness, like a cut stone."""
    n = int(rng.integers(5, 8))
    du, dv = rng.uniform(-0.2, 0.2, 2)
    sector = ((np.arctan2(v - dv, u - du) / (2 * np.pi) + rng.random()) * n).astype(np.int64) % n
    table = rng.random((1, n), dtype=np.float32)[0]
    return np.asarray(cv2.GaussianBlur(table[sector], (0, 0), 0.8), dtype=np.float32)


def veins(rng: np.random.Generator, u: Array, v: Array) -> Array:
    """A midrib with slanting side veins."""
    side = np.sin(_limit(rng.uniform(7, 11), u) * (u - rng.uniform(0.7, 1.2) * np.abs(v)))
    return np.asarray(np.maximum(_soft(side - np.float32(0.5), 3) * 0.6, np.exp(-((v / 0.09) ** 2))), dtype=np.float32)


def rings(rng: np.random.Generator, u: Array, v: Array) -> Array:
    """Rings round the centre."""
    return _soft(np.sin(_limit(rng.uniform(6, 9), u) * np.hypot(u, v) + rng.uniform(0, 6.3)), 1.5)


def checker(rng: np.random.Generator, u: Array, v: Array) -> Array:
    """A soft chess board."""
    f, p, q = _limit(rng.uniform(5, 8), u), rng.uniform(0, 6.3), rng.uniform(0, 6.3)
    return _soft(np.sin(f * u + p) * np.sin(f * v + q), 3)


def mottle(rng: np.random.Generator, u: Array, v: Array) -> Array:
    """Faint, fine unevenness."""
    return np.asarray(0.5 + 0.5 * (fractal(rng, u.shape, 5, 3) - 0.5), dtype=np.float32)


class Family(NamedTuple):
    """How the objects of one class look: what they share. Everything else differs from object to object."""

    name: str
    shape: Callable[[np.random.Generator], Shape]
    pattern: Pattern
    hue: float


FAMILIES = (
    Family("pebble", shapes.blob, marble, 0.08),
    Family("beetle", shapes.ellipse, stripes, 0.38),
    Family("crystal", shapes.polygon, facets, 0.75),
    Family("peanut", shapes.peanut, spots, 0.06),
    Family("leaf", shapes.leaf, veins, 0.27),
    Family("flower", shapes.flower, rings, 0.94),
    Family("tile", shapes.tile, checker, 0.52),
    Family("worm", shapes.worm, stripes, 0.14),
)
"""The looks of class 1, 2, ... of the ``objects`` scenes."""

NUCLEUS = Family("nucleus", shapes.nucleus, mottle, 0.6)


def skin(
    rng: np.random.Generator,
    family: Family,
    contour: Contour,
    texels: float,
    colours: tuple[Array, Array],
    light: tuple[float, float],
    shading: float = 0.5,
) -> Skin:
    """The texture of one part: the family's pattern in the object's own colours, shaded like a pillow.

    Args:
        rng: decides pattern and grain.
        family: the class's look.
        contour: (n, 2) outline in object units.
        texels: resolution, texels an object unit.
        colours: the two colours the pattern mixes.
        light: unit vector (x, y) towards the light, in object axes.
        shading: strength of shading, 0 for flat.
    """
    low, high = contour.min(axis=0), contour.max(axis=0)
    pad = 3
    w, h = (np.clip(np.ceil((high - low) * texels), 4, 512).astype(int) + 2 * pad).tolist()
    scale = (np.array([w, h]) - 2 * pad - 1) / np.maximum(high - low, 1e-6)
    to_texels = np.array([[scale[0], 0, pad - low[0] * scale[0]], [0, scale[1], pad - low[1] * scale[1]], [0, 0, 1.0]])
    u = np.broadcast_to(((np.arange(w) - to_texels[0, 2]) / scale[0]).astype(np.float32), (h, w))
    v = np.broadcast_to(((np.arange(h) - to_texels[1, 2]) / scale[1]).astype(np.float32)[:, None], (h, w))
    mix = np.clip(family.pattern(rng, u, v), 0, 1)[..., None]
    texture = colours[0] * (1 - mix) + colours[1] * mix
    texture *= _pillow(contour, to_texels, (h, w), light, shading)[..., None]
    texture *= 1 + 0.12 * (fractal(rng, (h, w), max(h, w) / 5, 2) - 0.5)[..., None]
    return Skin(np.clip(texture, 0, 1).astype(np.float32), to_texels)


def _pillow(contour: Contour, to_texels: Matrix, size: tuple[int, int], light: tuple[float, float], k: float) -> Array:
    """Shading of a rounded body with this outline: brighter towards the light, darker at the rim."""
    inside = np.zeros(size, dtype=np.uint8)
    points = contour * [to_texels[0, 0], to_texels[1, 1]] + to_texels[:2, 2]
    cv2.fillPoly(inside, [np.rint(points).astype(np.int32)], 1)
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3)
    top = max(float(depth.max()), 1.0)
    height = cv2.GaussianBlur(np.sqrt(np.clip(depth / top, 0, 1)), (0, 0), max(0.7, top / 8))
    dx = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=top / 8)
    dy = cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=top / 8)
    facing = -(dx * light[0] + dy * light[1])
    return np.asarray(1 + k * (np.clip(facing, -0.8, 0.8) - 0.6 * (1 - height) ** 2), dtype=np.float32)


def background(rng: np.random.Generator, size: tuple[int, int], *, colour: float = 1.0, clutter: int = 12) -> Array:
    """A textured, unevenly lit ground with things on it that are no objects: strokes, specks, stains.

    Args:
        rng: decides everything.
        size: (height, width).
        colour: 0 for grey, 1 for ordinary saturation.
        clutter: how many strokes, specks and stains.
    """
    h, w = size
    hue, value = rng.random(), rng.uniform(0.3, 0.7)
    first = hsv(hue, colour * rng.uniform(0.05, 0.4), value)
    second = hsv(hue + rng.normal(0, 0.08), colour * rng.uniform(0.05, 0.4), value * rng.uniform(0.6, 0.85))
    mix = np.clip(fractal(rng, size, rng.uniform(4, 12), 4), 0, 1)
    if rng.random() < 0.4:  # grain of wood or weave
        angle, turns = rng.uniform(0, np.pi), rng.uniform(8, 20) * 2 * np.pi / max(size)
        y, x = np.mgrid[:h, :w].astype(np.float32)
        mix = 0.6 * mix + 0.4 * _soft(np.sin((x * np.cos(angle) + y * np.sin(angle)) * turns + 4 * mix), 1.0)
    ground = first * (1 - mix[..., None]) + second * mix[..., None]
    for _ in range(clutter):
        _stain(rng, ground, hue, colour)
    return np.clip(ground, 0, 1).astype(np.float32)


def _stain(rng: np.random.Generator, ground: Array, hue: float, colour: float) -> None:
    """Lay one soft stroke, arc or speck over the ground, in place."""
    h, w = ground.shape[:2]
    x, y = int(rng.integers(0, w)), int(rng.integers(0, h))
    reach = max(2, round(max(h, w) * rng.uniform(0.01, 0.12)))
    margin = 3 * reach + 4
    x0, y0 = max(x - margin, 0), max(y - margin, 0)
    window = ground[y0 : y + margin, x0 : x + margin]
    stain, middle, kind = np.zeros(window.shape[:2], dtype=np.uint8), (x - x0, y - y0), rng.random()
    if kind < 0.4:
        turn = rng.uniform(0, 2 * np.pi)
        end = (middle[0] + round(3 * reach * np.cos(turn)), middle[1] + round(3 * reach * np.sin(turn)))
        cv2.line(stain, middle, end, 255, max(1, reach // 6), cv2.LINE_AA)
    elif kind < 0.7:
        axes, turn = (2 * reach, reach), rng.uniform(0, 180)
        cv2.ellipse(stain, middle, axes, turn, 0, rng.uniform(60, 300), 255, 1, cv2.LINE_AA)
    else:
        cv2.circle(stain, middle, max(1, reach // 4), 255, -1, cv2.LINE_AA)
    weight = cv2.GaussianBlur(stain, (0, 0), rng.uniform(0.7, 1.5)).astype(np.float32)[..., None] / 255
    tone = hsv(hue + rng.normal(0, 0.2), colour * rng.uniform(0, 0.5), rng.uniform(0.15, 0.85))
    window += weight * np.float32(rng.uniform(0.25, 0.7)) * (tone - window)


def lighting(rng: np.random.Generator, size: tuple[int, int], strength: float = 0.3) -> Array:
    """(H, W) brightness factor: a gradient over the image and a soft pool of light."""
    h, w = size
    turn = rng.uniform(0, 2 * np.pi)
    y, x = np.linspace(-1, 1, h, dtype=np.float32)[:, None], np.linspace(-1, 1, w, dtype=np.float32)
    slope = x * np.float32(np.cos(turn)) + y * np.float32(np.sin(turn))
    pool = np.exp(-((x - rng.uniform(-0.7, 0.7)) ** 2 + (y - rng.uniform(-0.7, 0.7)) ** 2) / 0.8)
    return np.asarray(1 + strength * (0.6 * slope + 0.6 * (pool - 0.4)), dtype=np.float32)
