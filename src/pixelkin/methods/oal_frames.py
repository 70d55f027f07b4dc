"""What depth and motion say of the frames of a dataset, frame by frame: pair targets, foreground, and whole objects."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import cv2
import numpy as np
import numpy.typing as npt
import pydantic
from scipy import ndimage

from pixelkin.cues import geometry, motion, pair_targets
from pixelkin.cues.depth import MONOCULAR, monocular_depth, stereo_depth
from pixelkin.cues.extent import full_extent
from pixelkin.cues.optical_flow import Estimator
from pixelkin.cues.pair_targets import LIKELY, SAME, Codes, Cues, Limits
from pixelkin.data import Dataset, Sample
from pixelkin.data.lattice import Offset
from pixelkin.data.sample import read_image
from pixelkin.grouping.mutex_watershed import mutex_watershed
from pixelkin.methods.base import MethodConfig
from pixelkin.models.center_fields import STRIDE

Map = npt.NDArray[np.float32]


class FrameConfig(MethodConfig):
    """How depth and motion are looked at."""

    depth: Literal["auto", "given", "stereo", "monocular", "none"] = "auto"
    """``given`` with the images, from the ``stereo`` pair of their camera, ``monocular``: guessed by a network (the
    extra ``[depth]``), or ``none``; ``auto``: given, else stereo, else none."""
    monocular_model: str = MONOCULAR
    """Name on the Hugging Face hub, or a folder."""
    flow: bool = True
    """Whether a clip's next frame is looked at."""
    estimator: Estimator = "dis"
    """What estimates the flow; RAFT where torchvision can have its weights."""
    step: int = pydantic.Field(default=1, ge=1)
    """How many frames later the next one is."""
    view: float = pydantic.Field(default=60.0, gt=5, lt=170)
    """Degrees that a camera sees from left to right, where nobody calibrated it."""
    longest: int = pydantic.Field(default=1280, ge=64)
    """Frames are shrunk to this longer side."""
    far: float = pydantic.Field(default=60.0, gt=0)
    """Everything deeper is background, in metres."""
    ground: bool = True
    """Whether the ground is looked for and taken away."""
    extent: bool = True
    """Whether objects are completed, down to the ground: good for noisy depth; precise depth may do better without."""
    standing: float = pydantic.Field(default=0.1, gt=0)
    """What is higher than this above the ground is an object, in heights of the camera."""
    gap_same: float = pydantic.Field(default=pair_targets.DEPTH_LIMITS.same, gt=0)
    """Relative gaps in depth up to this are none."""
    gap_different: float = pydantic.Field(default=pair_targets.DEPTH_LIMITS.different, gt=0)
    """Relative gaps in depth over this part two objects."""
    motion_same: float = pydantic.Field(default=pair_targets.MOTION_LIMITS.same, gt=0)
    """Metres a frame up to which two pixels move alike."""
    motion_different: float = pydantic.Field(default=pair_targets.MOTION_LIMITS.different, gt=0)
    """Metres a frame over which two pixels move differently."""
    flow_same: float = pydantic.Field(default=pair_targets.FLOW_LIMITS.same, gt=0)
    """The same without depth, in pixels a frame."""
    flow_different: float = pydantic.Field(default=pair_targets.FLOW_LIMITS.different, gt=0)
    """The same without depth, in pixels a frame."""


class Frame(NamedTuple):
    """One frame and its cues.

    Attributes:
        image: (H, W, 3) uint8 RGB, shrunk to ``longest``.
        codes: (C, h, w) pair targets on cells of 4 pixels.
        foreground: (h, w) 0, 1, 255 unknown.
        objects: (H, W) int32 what the cues alone make of it: 0 none, else segments 1..N.
        nearness: (N + 1,) inverse depth of each object, NaN unknown.
        whole: numbers of the objects that nothing covers: they can be cut out and put elsewhere.
        sure: those of them that are surely one object, as they moved as one or a person said so.
    """

    image: npt.NDArray[np.uint8]
    codes: Codes
    foreground: Codes
    objects: npt.NDArray[np.int32]
    nearness: npt.NDArray[np.float32]
    whole: tuple[int, ...]
    sure: tuple[int, ...]


class Source(Protocol):
    """Where frames come from."""

    def __getitem__(self, i: int) -> Frame:
        """One frame."""

    def informative(self) -> list[int]:
        """The numbers of the frames that have something to teach."""


class Looks(NamedTuple):
    """What was measured of a frame before it was put on cells, for pictures; None where it was not."""

    image: npt.NDArray[np.uint8]
    depth: Map | None
    foreground: Codes
    flow: Map | None
    own: Map | None
    cues: Cues


class Frames:
    """The frames of a dataset with their cues, made when asked and the latest kept.

    Args:
        dataset: images with depth, a stereo camera, or in clips.
        config: the settings.
        offsets: of the pair targets.
        device: of the networks that guess depth or flow.
        limit: bytes kept.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: FrameConfig,
        offsets: tuple[Offset, ...],
        *,
        device: str = "cpu",
        limit: int = 1 << 30,
    ) -> None:
        self.dataset, self.config, self.offsets, self.device = dataset, config, offsets, device
        places = {(sample.clip, sample.frame): i for i, sample in enumerate(dataset) if sample.clip is not None}
        order = {clip: sorted(f for c, f in places if c == clip and f is not None) for clip in {c for c, _ in places}}
        self.following: dict[int, int] = {}
        if config.flow:
            for clip, frames in order.items():
                later = frames[config.step :]
                self.following.update((places[clip, a], places[clip, b]) for a, b in zip(frames, later, strict=False))
        self._flow_of = motion.motion_estimator(config.estimator, device=device)
        self._kept = Kept(self._make, limit)

    def __len__(self) -> int:
        return len(self.dataset)

    def informative(self) -> list[int]:
        """The frames of which depth or motion can be known."""
        return [i for i, sample in enumerate(self.dataset) if i in self.following or self._has_depth(sample)]

    def __getitem__(self, i: int) -> Frame:
        return self._kept(i)

    def look(self, i: int) -> Looks:
        """Measure one frame.

        Raises:
            ImageError: an image or a depth map that cannot be read.
            DepthError: the network that guesses depth is not there.
        """
        config, sample = self.config, self.dataset[i]
        image, zoom = shrunk(sample.image, config.longest)
        size = (image.shape[0], image.shape[1])
        depth = self._depth(sample, image, zoom)
        flow = None
        if i in self.following:
            later, _ = shrunk(self.dataset[self.following[i]].image, config.longest)
            flow = motion.flow_between(image, later, self._flow_of) if later.shape == image.shape else None
        own = None if flow is None else self._own_motion(i, flow, depth, zoom, size)
        ground = geometry.find_ground(depth) if depth is not None and config.ground else None
        if depth is not None:
            foreground = geometry.object_mask(depth, ground, far=config.far, standing=config.standing)
        elif own is not None:
            speed = np.hypot(*own)
            foreground = np.full(size, geometry.UNKNOWN, np.uint8)
            foreground[speed < config.flow_same] = geometry.BACKGROUND
            foreground[speed > config.flow_different] = geometry.FOREGROUND
        else:
            foreground = np.full(size, geometry.UNKNOWN, np.uint8)
        inverse = None if depth is None else geometry.inverse_of(depth)
        cues = _on_cells(foreground, inverse, own)
        if config.extent and inverse is not None and ground is not None:
            seen = _pixels(self.objects(cues), foreground == geometry.FOREGROUND)
            extent, inverse = full_extent(seen, inverse, ground)
            foreground[extent > 0] = geometry.FOREGROUND
            cues = _on_cells(foreground, inverse, own)
        return Looks(image, depth, foreground, None if flow is None else flow.forward, own, cues)

    def targets(self, cues: Cues) -> Codes:
        """The (C, h, w) pair targets of a frame's cues."""
        config = self.config
        metric = cues.inverse is not None
        moved = (config.motion_same, config.motion_different) if metric else (config.flow_same, config.flow_different)
        gap = Limits(config.gap_same, config.gap_different)
        return pair_targets.geometric_targets(cues, self.offsets, depth=gap, motion=Limits(*moved))

    def certainty(self, codes: Codes, cues: Cues) -> Map:
        """The (C, h, w) affinities of the cues alone."""
        return pair_targets.certainty(codes, self.offsets, inverse=cues.inverse, limit=self.config.gap_same)

    def objects(self, cues: Cues, codes: Codes | None = None) -> npt.NDArray[np.int32]:
        """(h, w) what the cues alone make of a frame, by the mutex watershed: 0 none, else segments 1..N."""
        codes = self.targets(cues) if codes is None else codes
        inside = cues.foreground == geometry.FOREGROUND
        return mutex_watershed(self.certainty(codes, cues), np.array(self.offsets), inside)[0]

    def _make(self, i: int) -> Frame:
        looks = self.look(i)
        codes = self.targets(looks.cues)
        objects = self.objects(looks.cues, codes)
        whole = whole_objects(objects, looks.cues.inverse, gap=self.config.gap_different)
        pixels = _pixels(objects, looks.foreground == geometry.FOREGROUND)
        nearness = object_nearness(objects, looks.cues.inverse)
        sure = moved_as_one(objects, codes, whole)
        return Frame(looks.image, codes, looks.cues.foreground, pixels, nearness, whole, sure)

    def measures_depth(self) -> bool:
        """Whether there is depth, so that pairs can be likely one object."""
        return any(self._has_depth(sample) for sample in self.dataset)

    def _has_depth(self, sample: Sample) -> bool:
        how = self.config.depth
        stereo = sample.camera is not None and sample.camera.right is not None
        return how == "monocular" or (how != "none" and ((sample.has("depth") and how != "stereo") or stereo))

    def _depth(self, sample: Sample, image: npt.NDArray[np.uint8], zoom: float) -> Map | None:
        """Depth at the size of the shrunk image; a metre stays a metre."""
        how, camera = self.config.depth, sample.camera
        size = (image.shape[1], image.shape[0])
        if how in ("auto", "given") and sample.has("depth"):
            depth = sample.depth
            return None if depth is None else cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST)  # type: ignore[return-value]
        if how in ("auto", "stereo") and camera is not None and camera.right is not None:
            right, _ = shrunk(read_image(camera.right), self.config.longest)
            focal = camera.intrinsics[0, 0] * zoom
            return stereo_depth(image, right, focal=focal, baseline=camera.baseline, shift=camera.shift * zoom)
        if how == "monocular":
            return monocular_depth(image, model=self.config.monocular_model, device=self.device)
        return None

    def _own_motion(
        self, i: int, flow: motion.Flow, depth: Map | None, zoom: float, size: tuple[int, int]
    ) -> Map | None:
        """(2, H, W), NaN unknown: metres across the line of sight, pixels without depth; None if the camera is lost."""
        if depth is None:
            left = flow.forward - motion.background_flow(flow)
            return np.where(flow.valid, left, np.nan).astype(np.float32)
        here, there = self.dataset[i].camera, self.dataset[self.following[i]].camera
        intrinsics = motion.usual_intrinsics(size, view=self.config.view)
        if here is not None:
            intrinsics = here.intrinsics.copy()
            intrinsics[:2] *= zoom
        moved = None
        if here is not None and there is not None and here.pose is not None and there.pose is not None:
            moved = motion.motion_between(here.pose, there.pose)
        else:
            moved = motion.motion_from_depth(flow, depth, intrinsics)
        if moved is None:
            return None
        own, known = motion.residual_motion(flow, depth, intrinsics, moved)
        return np.where(known, own, np.nan).astype(np.float32)


def shrunk(image: npt.NDArray[np.uint8], longest: int) -> tuple[npt.NDArray[np.uint8], float]:
    """The image with its longer side at most ``longest``, and by how much it was resized."""
    zoom = min(1.0, longest / max(image.shape[:2]))
    if zoom == 1:
        return image, 1.0
    size = (max(round(image.shape[1] * zoom), 1), max(round(image.shape[0] * zoom), 1))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8), zoom


def _on_cells(foreground: Codes, inverse: Map | None, own: Map | None) -> Cues:
    return Cues(
        geometry.codes_on_cells(foreground, STRIDE),
        None if inverse is None else geometry.on_cells(inverse, STRIDE),
        None if own is None else np.stack([geometry.on_cells(each, STRIDE) for each in own]),
    )


def _pixels(objects: npt.NDArray[np.int32], inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """(H, W) the segments of cells in the pixels of a mask."""
    full = np.repeat(np.repeat(objects, STRIDE, axis=0), STRIDE, axis=1)
    return np.asarray(full[: inside.shape[0], : inside.shape[1]] * inside, np.int32)


def on_middles(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """(h, w) the label in the middle of each cell of 4 pixels."""
    h, w = (-(-side // STRIDE) for side in labels.shape)
    rows = np.minimum(np.arange(h) * STRIDE + STRIDE // 2, labels.shape[0] - 1)
    columns = np.minimum(np.arange(w) * STRIDE + STRIDE // 2, labels.shape[1] - 1)
    return np.ascontiguousarray(labels[np.ix_(rows, columns)])


def object_nearness(objects: npt.NDArray[np.int32], inverse: Map | None) -> npt.NDArray[np.float32]:
    """(N + 1,) the median inverse depth of the segments 1..N of (h, w) cells, NaN where nobody knows it."""
    out = np.full(int(objects.max(initial=0)) + 1, np.nan, np.float32)
    if inverse is not None:
        known = np.isfinite(inverse) & (objects > 0)
        found = np.unique(objects[known])
        out[found] = ndimage.median(inverse, np.where(known, objects, 0), found)
    return out


def whole_objects(
    objects: npt.NDArray[np.int32], inverse: Map | None, *, gap: float, smallest: int = 24, apart: int = 2
) -> tuple[int, ...]:
    """The objects that neither the picture nor another object cuts.

    Another one that is less than ``apart`` cells away does not where it is farther off: it is covered, and does not
    cover.

    Args:
        objects: (h, w) cells, 0 none.
        inverse: (h, w) inverse depth, NaN unknown; None without depth.
        gap: what lies farther off by this share of its inverse depth is behind.
        smallest: crumbs of fewer cells are rarely objects.
        apart: in cells.
    """
    found = []
    side = 2 * apart + 1
    depth = np.full(objects.shape, np.nan, np.float32) if inverse is None else inverse
    for number, place in enumerate(ndimage.find_objects(objects), start=1):
        if place is None:
            continue
        (top, bottom), (left, right) = ((part.start, part.stop) for part in place)
        if min(top, left) == 0 or bottom == objects.shape[0] or right == objects.shape[1]:
            continue
        near = (slice(max(top - apart, 0), bottom + apart), slice(max(left - apart, 0), right + apart))
        mine = objects[near] == number
        if mine.sum() < smallest:
            continue
        others = (cv2.dilate(mine.astype(np.uint8), np.ones((side, side), np.uint8)) > 0) & (objects[near] > 0) & ~mine
        known = (mine & np.isfinite(depth[near])).astype(np.float32)
        own = np.where(known > 0, depth[near], 0).astype(np.float32)
        total, count = (cv2.boxFilter(each, -1, (side, side), normalize=False) for each in (own, known))
        with np.errstate(invalid="ignore", divide="ignore"):
            here = total / count
            behind = (here - depth[near]) / ((here + depth[near]) / 2) > gap
        if (behind | ~others).all():
            found.append(number)
    return tuple(found)


def moved_as_one(objects: npt.NDArray[np.int32], codes: Codes, numbers: tuple[int, ...]) -> tuple[int, ...]:
    """Those of the numbers most of whose neighbouring pairs are surely one object, and not just likely so."""
    near = codes[:2]
    return tuple(k for k in numbers if (near[:, objects == k] == SAME).sum() > (near[:, objects == k] == LIKELY).sum())


class Kept:
    """Frames made when asked; the latest are kept, up to ``limit`` bytes."""

    def __init__(self, make: Callable[[int], Frame], limit: int) -> None:
        self._make, self._limit = make, limit
        self._frames: OrderedDict[int, Frame] = OrderedDict()
        self._bytes = 0

    def __call__(self, i: int) -> Frame:
        """Frame number i."""
        if i in self._frames:
            self._frames.move_to_end(i)
            return self._frames[i]
        frame = self._frames[i] = self._make(i)
        self._bytes += _bytes(frame)
        while self._bytes > self._limit and len(self._frames) > 1:
            self._bytes -= _bytes(self._frames.popitem(last=False)[1])
        return frame


def _bytes(frame: Frame) -> int:
    return sum(part.nbytes for part in frame if isinstance(part, np.ndarray))
