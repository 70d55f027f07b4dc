"""A road seen from a moving car: ground, sky, parked and moving cars, vans and persons, some side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pixelkin.data.synthetic import textures
from pixelkin.data.synthetic.raster import Array, Matrix, Patch, Skin
from pixelkin.data.synthetic.world import Plane, World

DRIVING_CLASSES = ("car", "van", "person")

_EYE = 1.5  # metres from the ground to the camera; the ground lies at y = _EYE


@dataclass(frozen=True)
class _Ground:
    """Asphalt with lane markings between verges; (u, v) are metres to the right and ahead."""

    fine: Array
    coarse: Array
    road: Array
    verge: Array
    half_width: float
    focal: float

    def seen(self, units_from_pixels: Matrix, patch: Patch) -> Array:
        h, w = patch.alpha.shape
        xs, ys = np.arange(patch.x, patch.x + w), np.arange(patch.y, patch.y + h)[:, None]
        m = units_from_pixels
        inverse = np.maximum(m[2, 0] * xs + m[2, 1] * ys + m[2, 2], 1e-4)  # 1 / depth
        u = ((m[0, 0] * xs + m[0, 1] * ys + m[0, 2]) / inverse).astype(np.float32)
        v = ((m[1, 0] * xs + m[1, 1] * ys + m[1, 2]) / inverse).astype(np.float32)
        along = (1 / (inverse**2 * self.focal * _EYE)).astype(np.float32)  # metres a pixel covers
        across = np.hypot(1 / (inverse * self.focal), u * along * inverse).astype(np.float32)
        paved = np.clip((self.half_width - np.abs(u)) / np.maximum(across, 0.3) + 0.5, 0, 1)[..., None]
        colour = self.verge + paved * (self.road - self.verge)
        grain = _tiled(self.coarse, u / 1.2, v / 1.2) - 0.5
        grain = grain * _fade(along, 2.0) + (_tiled(self.fine, u / 0.25, v / 0.25) - 0.5) * _fade(along, 0.35)
        colour = colour * (1 + 0.45 * grain[..., None])
        dashed = _band(v % 7.0 - 2.0, 1.5, along) * _band(u, 0.08, across)
        edges = _band(np.abs(u) - (self.half_width - 0.5), 0.07, across)
        paint = np.maximum(dashed, edges)[..., None] * 0.8
        return np.asarray(np.clip(colour + paint * (0.85 - colour), 0, 1), dtype=np.float32)


def _band(distance: Array, half: float, footprint: Array) -> Array:
    """How much of a pixel's footprint lies within ``half`` of 0."""
    right, left = np.minimum(distance + footprint / 2, half), np.maximum(distance - footprint / 2, -half)
    return np.asarray(np.clip((right - left) / footprint, 0, 1), dtype=np.float32)


def _fade(footprint: Array, wavelength: float) -> Array:
    """1 where a texture of that wavelength can be resolved, 0 where it would alias."""
    return np.asarray(np.clip(2 - 4 * footprint / wavelength, 0, 1), dtype=np.float32)


def _tiled(tile: Array, x: Array, y: Array) -> Array:
    n = tile.shape[0]
    return np.asarray(
        cv2.remap(tile, np.mod(x, n), np.mod(y, n), cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP), dtype=np.float32
    )


def _tile(rng: np.random.Generator) -> Array:
    """A 64 x 64 periodic noise."""
    grid = np.pad(rng.random((64, 64), dtype=np.float32), 4, mode="wrap")
    smooth = cv2.GaussianBlur(grid, (0, 0), 0.8)[4:-4, 4:-4]
    return np.asarray((smooth - smooth.mean()) * (0.25 / smooth.std()) + 0.5, dtype=np.float32)


def _panel(
    rng: np.random.Generator, w: float, h: float, texels: float, colour: Array, marks: list[tuple[Any, ...]]
) -> Skin:
    """A w x h metre panel round (0, 0); marks are (x0, y0, x1, y1, colour) in fractions of the panel."""
    wide, high = (int(np.clip(np.ceil(side * texels), 6, 256)) for side in (w, h))
    image = np.tile(colour, (high, wide, 1)).astype(np.float32)
    for x0, y0, x1, y1, tone in marks:
        corner, other = (round(x0 * wide), round(y0 * high)), (round(x1 * wide) - 1, round(y1 * high) - 1)
        cv2.rectangle(image, corner, other, np.asarray(tone, dtype=np.float64).tolist(), -1)
    image *= np.linspace(1.08, 0.82, high, dtype=np.float32)[:, None, None]
    image *= 1 + 0.1 * (textures.fractal(rng, (high, wide), 6, 2) - 0.5)[..., None]
    smooth = np.clip(cv2.GaussianBlur(image, (0, 0), 0.6), 0, 1).astype(np.float32)
    scale_x, scale_y = wide / w, high / h
    to_texels = np.array([[scale_x, 0, wide / 2 - 0.5], [0, scale_y, high / 2 - 0.5], [0, 0, 1.0]])
    return Skin(smooth, to_texels)


@dataclass(frozen=True)
class _Thing:
    """One object of the world: its class, path (T, 3) of the point on the ground below its centre, its heading."""

    label: int
    path: Matrix
    yaw: float
    moves: bool
    width: float
    length: float


_SIZES = {1: (1.8, 4.2), 2: (2.0, 5.0), 3: (0.6, 0.5)}  # width and length in metres


def driving_world(
    rng: np.random.Generator, frames: int, settings: dict[str, Any]
) -> tuple[World, list[int], list[tuple[int, int]]]:
    """The world, the classes of tracks 1, 2, ..., and the pairs of tracks placed side by side."""
    h, w = settings["size"]
    focal = 0.8 * w
    intrinsics = np.array([[focal, 0, (w - 1) / 2], [0, focal, 0.42 * (h - 1)], [0, 0, 1.0]])
    poses = _ego(rng, frames, settings["camera"])
    things, pairs = _populate(rng, frames, settings, intrinsics, poses)
    planes = [_sky(rng, frames, (h, w), intrinsics), _road(rng, frames, focal)]
    for track, thing in enumerate(things, 1):
        texels = float(np.clip(1.3 * focal / max(thing.path[0, 2] - thing.length / 2, 4.0), 6, 60))
        make = _person if thing.label == 3 else _vehicle
        planes += make(rng, thing, track, texels)
    return World((h, w), planes, intrinsics, poses), [thing.label for thing in things], pairs


def _ego(rng: np.random.Generator, frames: int, speed: float) -> Matrix:
    """Forward with a gentle turn and a nodding camera."""
    t = np.arange(frames)
    yaw = (rng.normal(0, 0.004) * t + 0.004 * np.sin(0.5 * t + rng.uniform(0, 6.3))) * bool(speed)
    nod = 0.002 * np.sin(1.1 * t + rng.uniform(0, 6.3)) * bool(speed)
    pace = speed * rng.uniform(0.7, 1.3)
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[1:, 0, 3] = np.cumsum(np.sin(yaw) * pace)[:-1]
    poses[1:, 2, 3] = np.cumsum(np.cos(yaw) * pace)[:-1]
    for k in range(frames):
        c, s, cp, sp = np.cos(yaw[k]), np.sin(yaw[k]), np.cos(nod[k]), np.sin(nod[k])
        turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        poses[k, :3, :3] = turn @ np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    return poses


def _populate(
    rng: np.random.Generator, frames: int, settings: dict[str, Any], intrinsics: Matrix, poses: Matrix
) -> tuple[list[_Thing], list[tuple[int, int]]]:
    """Things on free ground within sight; ``touching`` of them side by side in rows of two or three at one depth."""
    count = settings["objects"]
    if isinstance(count, tuple):
        count = int(rng.integers(count[0], count[1] + 1))
    together = round(settings["touching"] * count)
    rows: list[int] = []
    while together >= 2:
        rows.append(min(int(rng.choice([2, 2, 3])), together))
        together -= rows[-1]
    rows += [1] * (count - sum(rows))
    things: list[_Thing] = []
    pairs: list[tuple[int, int]] = []
    for row in rows:
        for _ in range(40):
            placed = _row(rng, row, frames, settings, intrinsics, float(poses[-1, 2, 3]))
            if placed is not None and not any(_collide(a, b) for a in placed for b in things):
                first = len(things) + 1
                pairs += [(first + k, first + k + 1) for k in range(row - 1)]
                things += placed
                break
    return things, pairs


def _row(
    rng: np.random.Generator, count: int, frames: int, settings: dict[str, Any], intrinsics: Matrix, travel: float
) -> list[_Thing] | None:
    """``count`` things side by side, or None where they would not be in sight or in the way."""
    label = int(rng.integers(1, settings["classes"] + 1))
    width, length = _SIZES[label]
    step = 0.45 if label == 3 else width  # shoulders overlap a little, cars are flank to flank
    z = float(np.exp(rng.uniform(np.log(6.5), np.log(28.0))))
    reach = min(0.45 * settings["size"][1] / intrinsics[0, 0] * z, 10.0)
    x = rng.uniform(-reach, reach)
    if abs(x) < 2.5 + count and z < 8 + travel + length:
        return None  # the camera would drive into it
    yaw = 0.0 if count > 1 or label == 3 else float(rng.choice([0.0, 0.0, rng.normal(0, 0.15), np.pi / 2]))
    things = []
    for k in range(count):
        moves = bool(rng.random() < settings["moving"])
        pace = settings["speed"] * rng.uniform(0.5, 1.5) * (0.25 if label == 3 else 1.0) * moves
        turn = rng.uniform(0, 2 * np.pi) if label == 3 else yaw + (np.pi if x < 0 and yaw == 0 else 0.0)
        step_x, step_z = pace * np.sin(turn), pace * np.cos(turn)
        t = np.arange(frames)
        path = np.stack([x + k * step + step_x * t, np.full(frames, _EYE), z + length / 2 + step_z * t], axis=1)
        things.append(_Thing(label, path, yaw, moves, width, length))
    return things


def _collide(a: _Thing, b: _Thing) -> bool:
    """Whether two things come within half a metre at some time."""
    return bool(((np.abs(a.path[:, [0, 2]] - b.path[:, [0, 2]])) < _half(a) + _half(b) + 0.5).all(axis=1).any())


def _half(thing: _Thing) -> npt.NDArray[np.float64]:
    c, s = abs(np.cos(thing.yaw)), abs(np.sin(thing.yaw))
    return np.array([c * thing.width + s * thing.length, s * thing.width + c * thing.length]) / 2


def _sky(rng: np.random.Generator, frames: int, size: tuple[int, int], intrinsics: Matrix) -> Plane:
    """Clouds and a skyline on a plane 300 m ahead."""
    far = 300.0
    scale = intrinsics[0, 0] / far  # pixels a metre
    wide, high = round(2 * size[1]), round(1.2 * size[0])
    horizon = round(0.8 * high)
    blue, white = textures.hsv(0.58 + rng.normal(0, 0.03), rng.uniform(0.2, 0.5), 0.85), np.full(3, 0.92, np.float32)
    cloud = np.clip(textures.fractal(rng, (high, wide), 6, 4) * 1.6 - 0.3, 0, 1)[..., None]
    image = blue * (1 - cloud) + white * cloud
    x = 0
    while x < wide:  # houses and trees
        step, top = int(rng.integers(6, 24)), int(rng.integers(2, max(3, high // 9)))
        tone = textures.hsv(rng.choice([0.08, 0.3, 0.6]), rng.uniform(0.05, 0.35), rng.uniform(0.3, 0.65))
        image[horizon - top :, x : x + step] = tone
        x += step
    smooth = np.clip(cv2.GaussianBlur(image, (0, 0), 0.8), 0, 1).astype(np.float32)
    contour = np.array([[-3000, -2000], [3000, -2000], [3000, 30], [-3000, 30]], dtype=np.float64)
    to_texels = np.array([[scale, 0, wide / 2], [0, scale, horizon], [0, 0, 1.0]])
    placed = np.tile(np.array([[1, 0, 0], [0, 1, 0], [0, 0, far]], dtype=np.float64), (frames, 1, 1))
    return Plane(contour, Skin(smooth, to_texels), placed, 0, placed[:, :, 2], True)


def _road(rng: np.random.Generator, frames: int, focal: float) -> Plane:
    road = np.full(3, rng.uniform(0.25, 0.45), dtype=np.float32)
    verge = textures.hsv(rng.uniform(0.1, 0.33), rng.uniform(0.1, 0.5), rng.uniform(0.3, 0.6))
    surface = _Ground(_tile(rng), _tile(rng), road, verge, rng.uniform(3.5, 6.5), focal)
    contour = np.array([[-400, -10], [400, -10], [400, 299], [-400, 299]], dtype=np.float64)
    placed = np.tile(np.array([[1, 0, 0], [0, 0, _EYE], [0, 1, 0]], dtype=np.float64), (frames, 1, 1))
    return Plane(contour, surface, placed, 0, np.tile([0.0, _EYE, 290.0], (frames, 1)), True)


def _vehicle(rng: np.random.Generator, thing: _Thing, track: int, texels: float) -> list[Plane]:
    """A van is one box, a car a body and a cabin."""
    paint = textures.hsv(rng.random(), rng.uniform(0.1, 0.85), rng.uniform(0.3, 0.95))
    glass, rubber, red = np.full(3, 0.12, np.float32), np.full(3, 0.07, np.float32), np.array([0.75, 0.08, 0.06])
    plate = np.array([0.85, 0.85, 0.7])
    sole = (0.0, 0.82, 1.0, 1.0, rubber * 2)
    wheels = [(0.08, 0.6, 0.26, 1.0, rubber), (0.74, 0.6, 0.92, 1.0, rubber)]
    lamps = [(0.03, 0.25, 0.15, 0.5, red), (0.85, 0.25, 0.97, 0.5, red), (0.38, 0.5, 0.62, 0.72, plate)]
    if thing.label == 2:
        height = rng.uniform(1.9, 2.4)
        back = [(0.1, 0.12, 0.9, 0.42, glass), *((a, 0.55, c, 0.68, tone) for a, _, c, _, tone in lamps)]
        side = [(0.06, 0.14, 0.3, 0.42, glass), (0.12, 0.8, 0.28, 1.0, rubber), (0.72, 0.8, 0.88, 1.0, rubber)]
        return _box(rng, thing, track, texels, (thing.width, height, thing.length), 0.0, paint, [back, side, []])
    low, cabin = rng.uniform(0.75, 0.9), (thing.width * 0.86, rng.uniform(0.5, 0.65), thing.length * 0.5)
    body = (thing.width, low, thing.length)
    window = [(0.08, 0.15, 0.92, 0.9, glass)]
    windows = [(0.06, 0.15, 0.47, 0.9, glass), (0.53, 0.15, 0.94, 0.9, glass)]
    return [
        *_box(rng, thing, track, texels, body, 0.0, paint, [[sole, *lamps], [sole, *wheels], []]),
        *_box(rng, thing, track, texels, cabin, low, paint, [window, windows, []]),
    ]


def _box(
    rng: np.random.Generator,
    thing: _Thing,
    track: int,
    texels: float,
    dims: tuple[float, float, float],
    base: float,
    paint: Array,
    marks: list[list[tuple[Any, ...]]],
) -> list[Plane]:
    """Five faces of a box (width, height, length) ``base`` metres above the ground; marks of ends, sides, top."""
    w, h, length = dims
    middle = -base - h / 2
    ends = _panel(rng, w, h, texels, paint, marks[0])
    sides = _panel(rng, length, h, texels, paint * np.float32(0.8), marks[1])
    top = _panel(rng, w, length, texels / 2, np.clip(paint * np.float32(1.15), 0, 1), marks[2])
    faces = [  # surface, extent, then directions of u, v and outward, in the thing's own axes
        (ends, (w, h), (1, 0, 0), (0, 1, 0), (0, 0, -1), (0, middle, -length / 2)),
        (ends, (w, h), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, middle, length / 2)),
        (sides, (length, h), (0, 0, 1), (0, 1, 0), (-1, 0, 0), (-w / 2, middle, 0)),
        (sides, (length, h), (0, 0, 1), (0, 1, 0), (1, 0, 0), (w / 2, middle, 0)),
        (top, (w, length), (1, 0, 0), (0, 0, 1), (0, -1, 0), (0, middle - h / 2, 0)),
    ]
    c, s = np.cos(thing.yaw), np.sin(thing.yaw)
    turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    planes = []
    for skin, (a, b), u, v, out, origin in faces:
        placed = np.tile(turn @ np.array([u, v, origin], dtype=np.float64).T, (len(thing.path), 1, 1))
        placed[:, :, 2] += thing.path
        contour = np.array([[-a, -b], [a, -b], [a, b], [-a, b]]) / 2
        outward = np.tile(turn @ np.array(out, dtype=np.float64), (len(thing.path), 1))
        planes.append(Plane(contour, skin, placed, track, thing.path, not thing.moves, outward))
    return planes


def _person(rng: np.random.Generator, thing: _Thing, track: int, texels: float) -> list[Plane]:
    """A flat figure that faces the camera: two legs, body, head; the legs swing when it walks."""
    theta = np.arange(40) * (2 * np.pi / 40)
    c, s = np.sign(np.cos(theta)) * np.abs(np.cos(theta)) ** 0.7, np.sign(np.sin(theta)) * np.abs(np.sin(theta)) ** 0.7
    tall = rng.uniform(0.9, 1.1)
    cloth, trousers = (textures.hsv(rng.random(), rng.uniform(0.1, 0.9), rng.uniform(0.2, 0.9)) for _ in range(2))
    skin_tone = textures.hsv(0.07, rng.uniform(0.3, 0.6), rng.uniform(0.35, 0.9))
    parts = [  # middle (x, y up), half extents, colour, swing
        ((-0.1, 0.42), (0.1, 0.44), trousers, 1.0),
        ((0.1, 0.42), (0.1, 0.44), trousers, -1.0),
        ((0.0, 1.13), (0.26, 0.36), cloth, 0.0),
        ((0.0, 1.6), (0.12, 0.15), skin_tone, 0.0),
    ]
    t, beat = np.arange(len(thing.path)), rng.uniform(0.5, 1.0)
    planes = []
    for (x, y), (a, b), colour, swing in parts:
        contour = np.stack([x + a * c, -y + b * s], axis=1) * tall
        colours = (colour, np.asarray(colour * 0.7, dtype=np.float32))
        surface = textures.skin(rng, textures.NUCLEUS, contour, texels, colours, (-0.6, -0.8), 0.4)
        angle = 0.35 * swing * np.sin(beat * t) * thing.moves
        hip = 0.85 * tall
        placed = np.zeros((len(t), 3, 3))
        placed[:, 0, 0], placed[:, 0, 1], placed[:, 0, 2] = np.cos(angle), -np.sin(angle), -np.sin(angle) * hip
        placed[:, 1, 0], placed[:, 1, 1], placed[:, 1, 2] = np.sin(angle), np.cos(angle), np.cos(angle) * hip - hip
        placed[:, :, 2] += thing.path
        planes.append(Plane(contour, surface, placed, track, thing.path, not thing.moves))
    return planes
