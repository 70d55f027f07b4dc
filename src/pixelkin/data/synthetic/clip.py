"""Clips with exact depth, flow, camera motion and tracks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from pixelkin.data.dataset import Dataset
from pixelkin.data.instances import Instances
from pixelkin.data.sample import Sample
from pixelkin.data.synthetic import textures
from pixelkin.data.synthetic.driving import DRIVING_CLASSES, driving_world
from pixelkin.data.synthetic.layout import Layout
from pixelkin.data.synthetic.raster import Matrix, Skin
from pixelkin.data.synthetic.scene import Seed, families_of, plan_scene, skins_of, to_uint8
from pixelkin.data.synthetic.world import Plane, World


@dataclass(frozen=True)
class Clip:
    """T rendered frames and everything about them.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB.
        instances: T times the visible masks; ``tracks`` (and ``ids``) are the same in all frames.
        semantic: (T, H, W) uint8 class ids, 0 background.
        depth: (T, H, W) float32 metres along the optical axis.
        flow: (T - 1, 2, H, W) float32 (dy, dx) in pixels from each frame to the next, also for what gets hidden.
        valid: (T - 1, H, W) bool, where the point seen is seen again in the next frame (not hidden, not outside).
        static: (T, H, W) bool, where what is seen stands still in the world.
        poses: (T, 4, 4) camera to world; x right, y down, z forward, metres.
        intrinsics: (3, 3) pinhole matrix, pixel centres at whole numbers.
        moving: track id to whether it ever moves in the world.
        contacts: pairs of track ids of one class that were put together and are 8-adjacent in frame 0.
        classes: class id to name.
    """

    frames: npt.NDArray[np.uint8]
    instances: tuple[Instances, ...]
    semantic: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float32]
    flow: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]
    static: npt.NDArray[np.bool_]
    poses: Matrix
    intrinsics: Matrix
    moving: dict[int, bool]
    contacts: tuple[tuple[int, int], ...]
    classes: dict[int, str]

    def __len__(self) -> int:
        return len(self.frames)


Preset = Literal["layers", "easy", "driving"]

PRESETS: dict[str, dict[str, Any]] = {
    "layers": {"size": (128, 160), "objects": 4, "classes": 3, "touching": 0.5, "overlap": 0.2, "scale": (0.1, 0.2)}
    | {"moving": 0.75, "speed": 2.5, "camera": 1.0, "noise": 0.01},
    "easy": {"size": (96, 96), "objects": 1, "classes": 1, "touching": 0.0, "overlap": 0.0, "scale": (0.2, 0.28)}
    | {"moving": 1.0, "speed": 3.0, "camera": 0.7, "noise": 0.01},
    "driving": {"size": (128, 256), "objects": 8, "classes": 3, "touching": 0.5, "overlap": 0.0, "scale": (0.1, 0.2)}
    | {"moving": 0.5, "speed": 0.4, "camera": 0.5, "noise": 0.01},
}
"""What :func:`render_clip` uses where nothing else is said."""


def render_clip(seed: Seed, frames: int = 8, *, preset: Preset = "layers", **options: Any) -> Clip:
    """Render one clip; the same arguments give the same pixels.

    Args:
        seed: a number or a tuple of numbers.
        frames: T, at least 1.
        preset: ``"layers"``: flat things that move, turn and bend before a ground, seen by a camera that pans and zooms
            (nearer things move more). ``"easy"``: one saturated blob near the centre of grey ground. ``"driving"``: a
            road with parked and moving cars, vans and persons, from a car.
        options: of these, the preset gives what is not said:
            ``size`` (height, width); ``objects`` at most, or (least, greatest); ``classes``; ``touching``, the fraction
            of objects put in contact with their class in frame 0, at one depth; ``overlap``; ``scale`` (least, greatest
            radius over the shorter side; not for driving); ``moving``, the fraction of objects that move; ``speed`` of
            objects, pixels a frame (driving: metres); ``camera``, speed likewise; ``noise``, fraction of white.

    Raises:
        ValueError: an unknown preset, or a number out of its range.
        TypeError: an unknown option.
    """
    if preset not in PRESETS:
        raise ValueError(f"no preset {preset!r}: use one of {', '.join(PRESETS)}")
    unknown = set(options) - set(PRESETS[preset])
    if unknown:
        raise TypeError(f"no option {sorted(unknown)[0]!r}: use one of {', '.join(sorted(PRESETS[preset]))}")
    if frames < 1:
        raise ValueError(f"a clip has at least one frame, not {frames}")
    settings = PRESETS[preset] | options
    classes = _classes(preset, settings["classes"])
    rng = np.random.default_rng(seed)
    build = driving_world if preset == "driving" else partial(_layered_world, preset=preset)
    world, labels, pairs = build(rng, frames, settings)
    return _film(rng, world, labels, pairs, classes, settings["noise"])


def _classes(preset: str, classes: int) -> dict[int, str]:
    if preset == "driving":
        if not 1 <= classes <= len(DRIVING_CLASSES):
            raise ValueError(f"{classes} classes: driving clips have 1 to {len(DRIVING_CLASSES)}")
        return {i + 1: name for i, name in enumerate(DRIVING_CLASSES[:classes])}
    return {i + 1: family.name for i, family in enumerate(families_of(preset, classes))}


def _film(
    rng: np.random.Generator,
    world: World,
    labels: Sequence[int],
    pairs: Sequence[tuple[int, int]],
    classes: dict[int, str],
    noise: float,
) -> Clip:
    """Draw every frame and read off the labels; ``labels`` are the classes of tracks 1, 2, ..."""
    views = [world.view(t) for t in range(len(world.poses))]
    tracks = np.array([0] + [plane.track for plane in world.planes])
    still = np.array([False] + [plane.static for plane in world.planes])
    class_of = np.array([0, *labels], dtype=np.int64)
    maps = [tracks[view.owner] for view in views]
    instances = []
    for track_map in maps:
        here = np.flatnonzero(np.bincount(track_map.ravel(), minlength=len(class_of))[1:]) + 1
        instances.append(
            Instances.from_label_map(track_map, labels=class_of[here], sources=["synthetic"] * len(here), tracks=here)
        )
    steps = [world.flow(views[t], views[t + 1], t) for t in range(len(views) - 1)]
    images = [view.image + noise * rng.standard_normal(view.image.shape, dtype=np.float32) for view in views]
    h, w = world.size
    return Clip(
        frames=np.stack([to_uint8(image) for image in images]),
        instances=tuple(instances),
        semantic=np.stack([class_of[track_map].astype(np.uint8) for track_map in maps]),
        depth=np.stack([view.depth.astype(np.float32) for view in views]),
        flow=np.array([flow for flow, _ in steps], dtype=np.float32).reshape(-1, 2, h, w),
        valid=np.array([valid for _, valid in steps], dtype=bool).reshape(-1, h, w),
        static=np.stack([still[view.owner] for view in views]),
        poses=world.poses,
        intrinsics=world.intrinsics,
        moving={p.track: not p.static for p in world.planes if p.track},
        contacts=tuple(pair for pair in pairs if _adjacent(maps[0], *pair)),
        classes=classes,
    )


def _adjacent(track_map: npt.NDArray[np.int_], i: int, j: int) -> bool:
    near = cv2.dilate((track_map == i).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return bool((near & (track_map == j)).any())


def _layered_world(
    rng: np.random.Generator, frames: int, settings: dict[str, Any], *, preset: str
) -> tuple[World, list[int], list[tuple[int, int]]]:
    """Flat objects parallel to the picture, the later the nearer, before a ground 12 m away."""
    h, w = settings["size"]
    easy = preset == "easy"
    layout = plan_scene(rng, (h, w), families_of(preset, settings["classes"]), settings, central=easy)
    focal, far = 1.2 * w, 12.0
    intrinsics = np.array([[focal, 0, (w - 1) / 2], [0, focal, (h - 1) / 2], [0, 0, 1.0]])
    lift = np.linalg.inv(intrinsics)
    poses = np.tile(np.eye(4), (frames, 1, 1))
    pan, zoom, bend = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.006), rng.normal(0, 0.08)
    travel = settings["camera"] * np.arange(frames) * 7.0 / focal  # at 7 m, metres for that many pixels
    poses[:, 0, 3] = travel * np.cos(pan + bend * np.arange(frames))
    poses[:, 1, 3] = travel * np.sin(pan + bend * np.arange(frames))
    poses[:, 2, 3] = settings["camera"] * zoom * far * np.arange(frames)
    light, brightness = rng.uniform(0, 2 * np.pi), textures.lighting(rng, (h, w))
    planes = [_ground(rng, (h, w), frames, far * lift, easy)]
    depths = _depths(rng, layout)
    for number, body in enumerate(layout.bodies, 1):
        x, y = np.clip(body.pose[:2, 2], 0, [w - 1, h - 1]).astype(int)
        gain = 1.0 if easy else float(brightness[y, x])
        skins = skins_of(rng, body, light, gain, vivid=easy)
        moves = bool(rng.random() < settings["moving"])
        poses_in_image = _paths(
            rng, body.pose, body.shape.joints, frames, (h, w), settings["speed"] if moves else 0.0, easy
        )
        for part, skin, path in zip(body.shape.parts, skins, poses_in_image, strict=True):
            placed = depths[number - 1] * (lift @ path)
            planes.append(Plane(part, skin, placed, number, placed[:, :, 2], not moves))
    pairs = [(i + 1, j + 1) for i, j in layout.contacts]
    return World((h, w), planes, intrinsics, poses), [body.label for body in layout.bodies], pairs


def _ground(rng: np.random.Generator, size: tuple[int, int], frames: int, lift: Matrix, easy: bool) -> Plane:
    """The plane behind everything, in pixels of frame 0, twice as large as the picture."""
    h, w = size
    high, wide = 2 * h, 2 * w
    image = textures.background(rng, (high, wide), colour=0.0 if easy else 1.0, clutter=0 if easy else 48)
    if not easy:
        image = np.clip(image * textures.lighting(rng, (high, wide))[..., None], 0, 1)
    contour = np.array([[-8 * w, -8 * h], [9 * w, -8 * h], [9 * w, 9 * h], [-8 * w, 9 * h]], dtype=np.float64)
    to_texels = np.array([[1, 0, w / 2], [0, 1, h / 2], [0, 0, 1.0]])
    placed = np.tile(lift, (frames, 1, 1))
    return Plane(contour, Skin(image.astype(np.float32), to_texels), placed, 0, placed[:, :, 2], True)


def _depths(rng: np.random.Generator, layout: Layout) -> list[float]:
    """Metres to each object, from far to near; objects put together are equally far."""
    first = list(range(len(layout.bodies)))
    for i, j in layout.contacts:
        first[j] = first[i]
    levels = sorted(set(first))
    metres = np.sort(rng.uniform(4.5, 9.0, len(levels)))[::-1] if levels else np.zeros(0)
    return [float(metres[levels.index(i)]) for i in first]


def _paths(
    rng: np.random.Generator,
    pose: Matrix,
    joints: Sequence[tuple[float, float]],
    frames: int,
    size: tuple[int, int],
    speed: float,
    central: bool,
) -> list[Matrix]:
    """For each part, (T, 3, 3) from object units to pixels of a resting camera: a curved path, turns, swings."""
    t = np.arange(frames)
    inward = np.arctan2(size[0] / 2 - pose[1, 2], size[1] / 2 - pose[0, 2])
    heading = inward + rng.normal(0, 1.0) + rng.normal(0, 0.06) * t
    pace = speed * rng.uniform(0.6, 1.4)
    way = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=1) * pace, axis=0)
    way -= way[frames // 2 if central else 0]
    turning, swing, beat = rng.normal(0, 0.03), rng.uniform(0.2, 0.5), rng.uniform(0.4, 0.9)
    paths = []
    swung = np.tile(np.eye(3), (frames, 1, 1))
    for k, joint in enumerate(joints):
        if k and speed:
            angle = swing * (np.sin(beat * t + k) - np.sin(k))
            swung = swung @ _turns(angle, joint)  # a part hangs on the one before
        whole = _turns(turning * t if speed else 0.0 * t, (0.0, 0.0))
        placed = pose @ whole @ swung
        placed[:, :2, 2] += way if speed else 0.0
        paths.append(placed)
    return paths


def _turns(angles: npt.NDArray[Any], about: tuple[float, float]) -> Matrix:
    """(T, 3, 3) turns about a point (x, y)."""
    c, s = np.cos(angles), np.sin(angles)
    x, y = about
    out = np.tile(np.eye(3), (len(angles), 1, 1))
    out[:, 0, 0], out[:, 0, 1], out[:, 0, 2] = c, -s, x - c * x + s * y
    out[:, 1, 0], out[:, 1, 1], out[:, 1, 2] = s, c, y - s * x - c * y
    return out


@lru_cache(maxsize=2)
def _rendered(seed: Seed, frames: int, options: tuple[tuple[str, Any], ...]) -> Clip:
    return render_clip(seed, frames, **dict(options))


def _field(name: str, t: int, seed: Seed, frames: int, options: tuple[tuple[str, Any], ...]) -> Any:
    value = getattr(_rendered(seed, frames, options), name)[t]
    return value.copy() if isinstance(value, np.ndarray) else value


def clip_dataset(
    n: int,
    seed: int = 0,
    *,
    frames: int = 8,
    labels: tuple[str, ...] = ("semantic", "instances", "depth"),
    **options: Any,
) -> Dataset:
    """``n`` clips as a Dataset of frames, rendered when asked; clip k is ``render_clip((seed, k), frames, **options)``.

    Samples are named ``clip_0000/00000`` and carry ``clip`` and ``frame``; a clip's frames follow one another.

    Args:
        n: how many clips.
        seed: another seed, other clips.
        frames: frames a clip.
        labels: the labels the samples carry, of ``semantic``, ``instances`` and ``depth``.
        options: of :func:`render_clip`; hashable values only (tuples, not lists).
    """
    preset = options.get("preset", "layers")
    if preset not in PRESETS:
        raise ValueError(f"no preset {preset!r}: use one of {', '.join(PRESETS)}")
    settings, key = PRESETS[preset] | options, tuple(sorted(options.items()))
    samples = []
    for k in range(n):
        for t in range(frames):
            load = {name: partial(_field, name, t, (seed, k), frames, key) for name in ("frames", *labels)}
            image = load.pop("frames")
            name = f"clip_{k:04d}"
            lazy: dict[str, Any] = dict(load)
            samples.append(Sample(f"{name}/{t:05d}", image, size=settings["size"], clip=name, frame=t, **lazy))
    return Dataset(samples, _classes(preset, settings["classes"]), name=f"synthetic {preset}")
