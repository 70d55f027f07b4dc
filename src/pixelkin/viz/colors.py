"""Colours: one for every instance id, one for every class id, and the ramp of the heat maps."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

RGB = npt.NDArray[np.uint8]
"""(H, W, 3) uint8 picture."""

Color = tuple[int, int, int]
"""Red, green and blue, each 0..255."""

GOLDEN_ANGLE = math.pi * (3.0 - math.sqrt(5.0))
LIGHTNESS = (0.76, 0.66, 0.85)
"""Neighbouring ids differ in lightness too, so that touching objects stay apart for colour-blind readers."""

_HEAT = ((0, 0, 4), (44, 18, 92), (138, 36, 120), (221, 76, 88), (250, 164, 74), (252, 252, 228))


def instance_color(identity: int) -> Color:
    """The colour of an instance id: always the same for the same id, and far from its neighbours'.

    Hues step by the golden angle at an even perceived lightness (OKLCH).
    """
    lightness = LIGHTNESS[identity % len(LIGHTNESS)]
    hue = (identity % 1_000_003) * GOLDEN_ANGLE
    return _oklch(lightness, 0.17, hue)


def class_color(label: int) -> Color:
    """The colour of a class id: the PASCAL VOC palette (0 black, 255 cream), from 64 as for instances.

    From 64 on, that palette holds near blacks which look like background.
    """
    if label != 255 and not 0 <= label < 64:
        return instance_color(label)
    channels = [0, 0, 0]
    for step in range(3):  # bits 0, 1, 2 of every group of three go to red, green, blue, most significant first
        for channel in range(3):
            channels[channel] |= (label >> (3 * step + channel) & 1) << (7 - step)
    return channels[0], channels[1], channels[2]


def heat_colors(values: npt.NDArray[np.floating]) -> RGB:
    """Colours of values in 0..1, from near black over purple and orange to near white: (...,) to (..., 3) uint8."""
    stops = np.asarray(_HEAT, dtype=np.float64)
    ramp = np.linspace(0.0, 1.0, len(stops))
    steps = np.linspace(0.0, 1.0, 256)
    table = (
        np.stack([np.interp(steps, ramp, stops[:, channel]) for channel in range(3)], axis=1).round().astype(np.uint8)
    )
    return np.asarray(table[(np.clip(values, 0.0, 1.0) * 255.0).round().astype(np.uint8)])


def lighten(color: Color, share: float) -> Color:
    """A colour mixed with a share (0..1) of white."""
    red, green, blue = (round(c + (255 - c) * share) for c in color)
    return red, green, blue


def hex_color(color: Color) -> str:
    """``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def _oklch(lightness: float, chroma: float, hue: float) -> Color:
    """OKLCH (hue in radians) to sRGB, clipped to the gamut."""
    a, b = chroma * math.cos(hue), chroma * math.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    red, green, blue = (round(255.0 * _gamma(min(max(c, 0.0), 1.0))) for c in linear)
    return red, green, blue


def _gamma(c: float) -> float:
    return 12.92 * c if c <= 0.0031308 else 1.055 * c ** (1.0 / 2.4) - 0.055
