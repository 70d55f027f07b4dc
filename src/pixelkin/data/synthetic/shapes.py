"""Outlines of synthetic objects: closed contours (n, 2) of (x, y) in object units, the area about the unit circle's."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Contour = npt.NDArray[np.float64]
"""(n, 2) points (x, y) of a closed outline."""


class Shape(NamedTuple):
    """One object's outline: its parts, drawn in order, and the joint (x, y) about which each part may swing."""

    parts: tuple[Contour, ...]
    joints: tuple[tuple[float, float], ...]


def _angles(n: int = 72) -> npt.NDArray[np.float64]:
    return np.linspace(0, 2 * np.pi, n, endpoint=False)


def _radial(radius: npt.NDArray[np.float64]) -> Contour:
    theta = _angles(len(radius))
    return np.stack([radius * np.cos(theta), radius * np.sin(theta)], axis=1)


def _area(contour: Contour) -> float:
    x, y = contour.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def _single(contour: Contour) -> Shape:
    """One rigid part, centred and scaled to the area of the unit circle."""
    centred = contour - contour.mean(axis=0)
    return Shape((centred * np.sqrt(np.pi / _area(centred)),), ((0.0, 0.0),))


def ellipse(rng: np.random.Generator, aspect: tuple[float, float] = (1.2, 1.9)) -> Shape:
    """An ellipse, slightly egg-shaped."""
    theta, a, egg = _angles(), np.sqrt(rng.uniform(*aspect)), rng.uniform(-0.15, 0.15)
    return _single(np.stack([a * np.cos(theta), np.sin(theta) * (1 + egg * np.cos(theta)) / a], axis=1))


def blob(rng: np.random.Generator, rough: float = 0.35) -> Shape:
    """A smooth random radial function."""
    theta, radius = _angles(), np.ones(72)
    for k in range(2, 6):
        radius += rng.normal(0, rough / k**1.3) * np.cos(k * theta + rng.uniform(0, 2 * np.pi))
    return _single(_radial(np.clip(radius, 0.35, None)))


def polygon(rng: np.random.Generator) -> Shape:
    """Five to eight corners, nearly convex."""
    n = int(rng.integers(5, 9))
    theta = (np.arange(n) + rng.uniform(-0.25, 0.25, n)) * (2 * np.pi / n)
    radius = rng.uniform(0.85, 1.1, n)
    return _single(np.stack([radius * np.cos(theta), radius * np.sin(theta)], axis=1))


def leaf(rng: np.random.Generator) -> Shape:
    """A lens with two points, slightly bent."""
    theta, width, bend = _angles(), rng.uniform(0.45, 0.65), rng.uniform(-0.2, 0.2)
    x = np.cos(theta)
    return _single(np.stack([1.2 * x, width * np.sign(np.sin(theta)) * (1 - x**2) + bend * x**2], axis=1))


def flower(rng: np.random.Generator) -> Shape:
    """Petals round a centre."""
    petals = int(rng.integers(4, 7))
    return _single(_radial(1 + rng.uniform(0.2, 0.32) * np.cos(petals * _angles())))


def tile(rng: np.random.Generator) -> Shape:
    """A rectangle with round corners."""
    theta, a, power = _angles(), np.sqrt(rng.uniform(1.0, 1.8)), 2 / rng.uniform(4, 8)
    x, y = np.cos(theta), np.sin(theta)
    return _single(np.stack([a * np.sign(x) * np.abs(x) ** power, np.sign(y) * np.abs(y) ** power / a], axis=1))


def peanut(rng: np.random.Generator) -> Shape:
    """Two lobes that share a joint: one object of two articulated parts."""
    big, small = blob(rng, 0.15).parts[0] * 0.8, blob(rng, 0.15).parts[0] * rng.uniform(0.55, 0.7)
    turn, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.75, 0.9)
    away = np.array([np.cos(turn), np.sin(turn)])
    return Shape((big - 0.35 * away, small + reach * away), ((0.0, 0.0), (float(away[0]) * 0.4, float(away[1]) * 0.4)))


def worm(rng: np.random.Generator) -> Shape:
    """Three segments in a bent chain, each swinging about the one before."""
    parts, joints, here, heading = [], [], np.array([-0.85, 0.0]), rng.uniform(-0.4, 0.4)
    for k in range(3):
        along = np.array([np.cos(heading), np.sin(heading)])
        turn = np.array([[along[0], along[1]], [-along[1], along[0]]])
        outline = np.stack([0.62 * np.cos(_angles(48)), (0.5 - 0.06 * k) * np.sin(_angles(48))], axis=1)
        joints.append((float(here[0] - 0.35 * along[0]), float(here[1] - 0.35 * along[1])))
        parts.append(outline @ turn + here)
        heading += rng.uniform(-0.7, 0.7)
        here = here + 0.42 * along + 0.42 * np.array([np.cos(heading), np.sin(heading)])
    middle = np.concatenate(parts).mean(axis=0)
    return Shape(
        tuple(part - middle for part in parts), tuple((x - float(middle[0]), y - float(middle[1])) for x, y in joints)
    )


def nucleus(rng: np.random.Generator) -> Shape:
    """A cell nucleus: an ellipse with a gently uneven outline."""
    theta, radius = _angles(), np.ones(72)
    for k in range(2, 5):
        radius += rng.normal(0, 0.04) * np.cos(k * theta + rng.uniform(0, 2 * np.pi))
    stretch = np.sqrt(rng.uniform(1.0, 1.7))
    return _single(_radial(radius) * np.array([stretch, 1 / stretch]))
