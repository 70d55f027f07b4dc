"""Where synthetic objects go: apart from their kind, in exact contact with it, or partly over one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pixelkin.data.synthetic.raster import Patch, coverage
from pixelkin.data.synthetic.shapes import Shape
from pixelkin.data.synthetic.textures import Family

Matrix = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

MIN_PIXELS = 8
"""No object shows fewer pixels at the start."""

_KEEP = 0.55  # the least part of an object that stays visible
_INSIDE = 0.75  # the least part of an object that lies in the image
_TRIES = 24


@dataclass(frozen=True)
class Body:
    """One object in the image: its class, outline in object units and the (3, 3) pose from object units to pixels."""

    label: int
    family: Family
    shape: Shape
    radius: float
    angle: float
    pose: Matrix


@dataclass(frozen=True)
class Layout:
    """Objects from back to front.

    ``owner`` (H, W) says which one (from 1) shows, 0 none; ``contacts`` are pairs of indices (from 0) of one class put
    together, whose visible masks are 8-adjacent.
    """

    bodies: tuple[Body, ...]
    owner: npt.NDArray[np.int32]
    contacts: tuple[tuple[int, int], ...]


def pose_of(radius: float, angle: float, x: float, y: float) -> Matrix:
    """(3, 3) from object units to pixels: turn, scale, shift."""
    c, s = radius * np.cos(angle), radius * np.sin(angle)
    return np.array([[c, -s, x], [s, c, y], [0, 0, 1.0]])


class _Stamp:
    """An object drawn once, to be tried at whole-pixel places."""

    def __init__(self, shape: Shape, pose: Matrix) -> None:
        patches = [coverage(part @ pose[:2, :2].T + pose[:2, 2]) for part in shape.parts]
        kept = [patch for patch in patches if patch is not None]
        self.y, self.x = min(p.y for p in kept) - 2, min(p.x for p in kept) - 2
        y1 = max(p.y + p.alpha.shape[0] for p in kept) + 2
        x1 = max(p.x + p.alpha.shape[1] for p in kept) + 2
        self.mask = np.zeros((y1 - self.y, x1 - self.x), dtype=bool)
        for patch in kept:
            self._paste(patch)
        self.near = _grow(self.mask, 1)
        self.gap = _grow(self.mask, 2)
        self.area = int(self.mask.sum())
        self.reach = max(abs(self.y), abs(self.x), y1, x1)

    def _paste(self, patch: Patch) -> None:
        h, w = patch.alpha.shape
        y, x = patch.y - self.y, patch.x - self.x
        self.mask[y : y + h, x : x + w] |= patch.mask

    def window(self, y: int, x: int, size: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
        """Slices of the image and of the stamp, drawn with its centre at (y, x); None when outside."""
        top, left = y + self.y, x + self.x
        h, w = self.mask.shape
        y0, x0, y1, x1 = max(top, 0), max(left, 0), min(top + h, size[0]), min(left + w, size[1])
        if y1 <= y0 or x1 <= x0:
            return None
        return (slice(y0, y1), slice(x0, x1)), (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))


def _grow(mask: Mask, by: int) -> Mask:
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * by + 1, 2 * by + 1), np.uint8)) > 0


class _Planner:
    """Places one object after another on a map of owners."""

    def __init__(self, rng: np.random.Generator, size: tuple[int, int], central: bool) -> None:
        self.rng, self.size, self.central = rng, size, central
        self.owner = np.zeros(size, dtype=np.int32)
        self.bodies: list[Body] = []
        self.stamps: list[_Stamp] = []
        self.places: list[tuple[int, int]] = []
        self.contacts: list[tuple[int, int]] = []

    def add(self, family: Family, label: int, radius: float, group: Sequence[int], sink: float, over: bool) -> bool:
        """Place one object: against a member of ``group`` when there is one, else alone or over another class."""
        for attempt in range(3):
            shape, angle = family.shape(self.rng), self.rng.uniform(0, 2 * np.pi)
            size = max(radius * 0.8**attempt, 1.8)
            pose = pose_of(size, angle, *self.rng.uniform(-0.5, 0.5, 2))
            stamp = _Stamp(shape, pose)
            found = (
                self._against(stamp, label, group, sink) if group else self._alone(stamp, label, over and attempt < 2)
            )
            if found is not None:
                (y, x), partner = found
                pose = pose_of(size, angle, pose[0, 2] + x, pose[1, 2] + y)
                self.bodies.append(Body(label, family, shape, size, angle, pose))
                self.stamps.append(stamp)
                self.places.append((y, x))
                if partner is not None:
                    self.contacts.append((partner, len(self.bodies) - 1))
                return True
        return False

    def _alone(self, stamp: _Stamp, label: int, over: bool) -> tuple[tuple[int, int], None] | None:
        others = [i for i, body in enumerate(self.bodies) if body.label != label]
        for _ in range(2 * _TRIES):
            if over and others:
                target = others[int(self.rng.integers(len(others)))]
                turn, far = self.rng.uniform(0, 2 * np.pi), self.stamps[target].reach * self.rng.uniform(0.5, 1.2)
                y, x = self.places[target][0] + far * np.sin(turn), self.places[target][1] + far * np.cos(turn)
            else:
                spread = 0.15 if self.central else 0.5
                y, x = (side * (0.5 + self.rng.uniform(-spread, spread)) for side in self.size)
            place = (round(y), round(x))
            if self._take(stamp, label, place, (), None, over):
                return place, None
        return None

    def _against(
        self, stamp: _Stamp, label: int, group: Sequence[int], sink: float
    ) -> tuple[tuple[int, int], int] | None:
        for _ in range(_TRIES):
            partner = int(self.rng.choice(np.asarray(group)))
            other, (py, px) = self.stamps[partner], self.places[partner]
            edge = _grow(self.owner == partner + 1, 1)
            turn = self.rng.uniform(0, 2 * np.pi)
            step = np.array([np.sin(turn), np.cos(turn)])
            step /= np.abs(step).max()  # from one place to the next, no axis moves by more than one pixel:
            steps = other.reach + stamp.reach  # so the first contact on the way in never overlaps
            path = np.rint(np.array([py, px]) + step * np.arange(steps, -1, -1)[:, None]).astype(int).tolist()
            for k, (y, x) in enumerate(path):
                window = stamp.window(y, x, self.size)
                if window is not None and (edge[window[0]] & stamp.mask[window[1]]).any():
                    deeper = min(k + round(sink * self.rng.uniform(0.3, 1.0) * stamp.reach), len(path) - 1)
                    place = (path[deeper][0], path[deeper][1])
                    if self._take(stamp, label, place, group, partner, sink > 0):
                        return place, partner
                    break
        return None

    def _take(
        self, stamp: _Stamp, label: int, place: tuple[int, int], group: Sequence[int], partner: int | None, over: bool
    ) -> bool:
        """Claim the pixels of a stamp at a place if that keeps every promise; otherwise change nothing."""
        window = stamp.window(*place, self.size)
        if window is None:
            return False
        here, part = window
        mask, owner = stamp.mask[part], self.owner[here]
        if mask.sum() < max(MIN_PIXELS, _INSIDE * stamp.area):
            return False
        near = {int(i) - 1 for i in np.unique(owner[stamp.gap[part]]) if i}
        if any(self.bodies[i].label == label and i not in group for i in near):
            return False
        if partner is not None and not ((owner == partner + 1) & stamp.near[part] & ~mask).any():
            return False
        covered = {int(i) - 1 for i in np.unique(owner[mask]) if i}
        if covered and not over:
            return False
        before = owner.copy()
        owner[mask] = len(self.bodies) + 1
        if all(self._still_shows(i) for i in covered) and self._still_touching(covered):
            return True
        owner[...] = before
        return False

    def _still_shows(self, i: int) -> bool:
        return int((self.owner == i + 1).sum()) >= max(MIN_PIXELS, _KEEP * self.stamps[i].area)

    def _still_touching(self, changed: set[int]) -> bool:
        return all(
            bool((_grow(self.owner == i + 1, 1) & (self.owner == j + 1)).any())
            for i, j in self.contacts
            if i in changed or j in changed
        )


def arrange(
    rng: np.random.Generator,
    size: tuple[int, int],
    families: Sequence[Family],
    objects: int,
    radii: tuple[float, float],
    touching: float,
    overlap: float,
    central: bool = False,
) -> Layout:
    """Place objects of the families, whose classes are 1, 2, ...

    ``touching`` of the objects form groups of two to four of one class in contact; every other object keeps at least
    two pixels' distance from its kind. With chance ``overlap`` an object covers a part of its partner, or, alone, of
    another class. What finds no place after some tries is shrunk, then left out.

    Args:
        rng: decides everything.
        size: (height, width) in pixels.
        families: the look of class 1, 2, ...
        objects: how many to place.
        radii: least and greatest radius in pixels (of the circle of equal area).
        touching: fraction of objects in contact with their class.
        overlap: fraction of objects that cover a part of another one.
        central: objects that stand alone are put near the centre.
    """
    planner = _Planner(rng, size, central)
    together = min(objects, round(touching * objects))
    plan: list[int] = []
    while together >= 2:
        plan.append(min(int(rng.choice([2, 2, 2, 3, 3, 4])), together))
        together -= plan[-1]
        if together == 1:
            plan[-1], together = plan[-1] + 1, 0
    plan += [1] * (objects - sum(plan))
    for count in plan:
        label = int(rng.integers(1, len(families) + 1))
        middle = np.exp(rng.uniform(np.log(radii[0]), np.log(radii[1])))  # of one group the members are alike in size
        group: list[int] = []
        for _ in range(count):
            radius = float(np.clip(middle * rng.uniform(0.85, 1.18), *radii))
            covers = rng.random() < overlap
            if planner.add(families[label - 1], label, radius, group, 0.35 if covers and group else 0.0, covers):
                group.append(len(planner.bodies) - 1)
    return Layout(tuple(planner.bodies), planner.owner, tuple(planner.contacts))
