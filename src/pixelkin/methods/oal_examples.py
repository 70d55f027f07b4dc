"""What OAL's network is taught: crops of frames with pair targets, some with an object pressed against another.

No cue can part two parked cars that touch. Objects that stand alone can be cut out and pressed against each other,
which shows the network what it looks like where one ends and the next begins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from pixelkin.cues.geometry import BACKGROUND, FOREGROUND
from pixelkin.cues.pair_targets import LIKELY, SAME, Codes, identity_targets, overlaid
from pixelkin.cues.pair_targets import UNKNOWN as SILENT
from pixelkin.cues.pieces import find_pieces, load_picture
from pixelkin.cues.pressing import Canvas, Donor, false_seams, press, random_seam, resized_donor, side_angle
from pixelkin.cues.suspects import Statistics
from pixelkin.data import Dataset, Instances, Sample
from pixelkin.data.lattice import Offset, pair_slices
from pixelkin.data.sample import UNKNOWN
from pixelkin.data.unknown import unknown_region
from pixelkin.methods.oal_frames import Frame, Kept, Source, on_middles, shrunk
from pixelkin.models.affinity import mirrored
from pixelkin.models.center_fields import STRIDE

LARGEST, SMALLEST = 2.0, 0.3
"""Most and least that an object is resized by before it is pressed,"""

LARGER, SMALLER = 1.6, 0.5
"""and before it is set beside another: what is sharper or softer than all around it was pressed."""

ALIKE = 0.8
"""Share of the objects set beside another that are the most alike in height of LOOKED_AT: like stands with like."""

LOOKED_AT, TRIES = 4, 12

FALSE_SEAMS = 0.6
"""Share of the crops in which objects are cut through and put together again."""

UNEVEN = 0.04
"""By how much, of its height, an object is set too low or too high beside another, and too near: depth is noisy."""


class LabelFrames:
    """Labelled images as frames.

    Pairs within one component of a semantic map are likely one object, within one instance surely. A component that
    looks like several objects teaches nothing within. Instances of a low score, crowds and alternatives are unknown
    where no other covers them, and so is what the semantic map or ``ignore`` of the image leaves open.

    Args:
        dataset: images with a semantic map or instances; the instances count where there are both.
        offsets: of the pair targets.
        statistics: of the components, for those that look like several objects.
        longest: images are shrunk to this longer side.
        min_score: instances below it are unknown.
        limit: bytes of frames kept.
    """

    def __init__(
        self,
        dataset: Dataset,
        offsets: tuple[Offset, ...],
        statistics: Statistics,
        *,
        longest: int,
        min_score: float = 0.5,
        limit: int = 1 << 30,
    ) -> None:
        self.dataset, self.offsets, self.statistics, self.longest = dataset, offsets, statistics, longest
        self.min_score = min_score
        self._kept = Kept(self._make, limit)

    def __getitem__(self, i: int) -> Frame:
        return self._kept(i)

    def informative(self) -> list[int]:
        """All images with labels.

        Raises:
            ValueError: there are instances alone, and none of a score that is believed.
        """
        labelled = [i for i, s in enumerate(self.dataset) if s.has("semantic") or s.has("instances")]
        masks = [self.dataset[i] for i in labelled if self.dataset[i].has("instances")]
        if labelled and len(masks) == len(labelled):
            found = (sample.instances for sample in masks)
            if not any(self._taken(each).any() for each in found if each is not None):
                raise ValueError(
                    f"no instance of {self.dataset.name or 'the dataset'} has a score of at least {self.min_score:g}:"
                    " lower it with --set min_score=..., or make labels first"
                )
        return labelled

    def _make(self, i: int) -> Frame:
        sample = self.dataset[i]
        return self._of_instances(sample) if sample.has("instances") else self._of_components(sample)

    def _of_instances(self, sample: Sample) -> Frame:
        image, _ = shrunk(sample.image, self.longest)
        found = sample.instances
        if found is None:
            found = Instances.empty(sample.size)
        taken = self._taken(found)
        labels = found[taken].label_map()
        labels[unknown_region(sample, found, taken, ~taken)] = -1
        labels = _nearest(labels, image.shape[:2])
        certain = _whole(labels, list(range(1, int(taken.sum()) + 1)))
        cells = on_middles(labels)
        codes = identity_targets(cells, self.offsets)
        return _frame(image, codes, cells, labels, certain)

    def _taken(self, found: Instances) -> npt.NDArray[np.bool_]:
        """(N,) which instances are believed."""
        enough = found.scores >= np.float32(self.min_score)
        return np.asarray(enough & ~found.alternative & ~found.crowd)

    def _of_components(self, sample: Sample) -> Frame:
        longest = self.longest
        picture = load_picture(sample, lambda labels, _: min(1.0, longest / max(labels.shape)), self.statistics)
        labels = picture.labels.copy()
        semantic, ignore = sample.semantic, sample.ignore
        for unknown in (None if semantic is None else semantic == UNKNOWN, ignore):
            if unknown is not None:
                labels[_nearest(unknown.astype(np.int32), labels.shape) > 0] = -1
        cells = on_middles(labels)
        codes = identity_targets(cells, self.offsets)
        doubt = np.append(picture.doubtful, False)[np.maximum(cells, 0) - 1] & (cells > 0)
        codes[codes == SAME] = LIKELY
        codes[(codes == LIKELY) & doubt[None]] = SILENT
        alone = tuple(piece.number for piece in find_pieces(picture, 0, 64) if piece.solitary)
        return _frame(picture.image, codes, cells, labels, alone)


class Scene(NamedTuple):
    """A crop in the making: (H, W, 3) float image, and on cells the codes (C, h, w) and the foreground (h, w)."""

    image: npt.NDArray[np.float32]
    codes: Codes
    foreground: Codes


class Standing(NamedTuple):
    """Where an object stands: its inverse depth, the row of a crop below its lowest pixel, its height in pixels."""

    nearness: float
    foot: int
    height: int


class PairExamples:
    """Training crops; called with a generator, as the training loop does.

    Args:
        source: the frames.
        offsets: of their codes.
        crop: (height, width), multiples of 32.
        pressing: share of the crops in which objects are pressed against others. Where it is known how near both are,
            they stand side by side as they would at one distance; else they have about the same area.

    Raises:
        ValueError: no frame has anything to teach.
    """

    def __init__(
        self, source: Source, offsets: tuple[Offset, ...], *, crop: tuple[int, int], pressing: float = 0.5
    ) -> None:
        self.source, self.offsets, self.crop, self.pressing = source, offsets, crop, pressing
        self.indices = source.informative()
        if not self.indices:
            raise ValueError(
                "no image has depth, a next frame or labels to learn from: give --depth DIR, clips or masks"
            )

    def __call__(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """``image`` (3, H, W) uint8, ``codes`` (C, H/4, W/4) and ``foreground`` (H/4, W/4) uint8."""
        frame = self.source[int(rng.choice(self.indices))]
        corner = [
            STRIDE * int(rng.integers(0, max(side - crop, 0) // STRIDE + 1))
            for side, crop in zip(frame.objects.shape, self.crop, strict=True)
        ]
        scene, objects = self._cut(frame, corner)
        if self.pressing and rng.random() < FALSE_SEAMS:
            false_seams(scene.image, objects, rng)
        if rng.random() < self.pressing:
            scene = self._pressed(scene, objects, _standing(frame, corner[0]), rng)
        seen = _worse(scene.image, rng) if self.pressing else scene.image
        image = np.clip(seen * rng.uniform(0.8, 1.2) * rng.uniform(0.95, 1.05, 3), 0, 255)
        tensors = {
            "image": torch.from_numpy(image.round().astype(np.uint8).transpose(2, 0, 1).copy()),
            "codes": torch.from_numpy(scene.codes),
            "foreground": torch.from_numpy(scene.foreground),
        }
        if rng.random() < 0.5:
            turned, known = mirrored(tensors["codes"], self.offsets)
            turned[~known] = SILENT
            tensors = {
                "image": tensors["image"].flip(-1),
                "codes": turned,
                "foreground": tensors["foreground"].flip(-1),
            }
        return tensors

    def _cut(self, frame: Frame, corner: list[int]) -> tuple[Scene, npt.NDArray[np.int32]]:
        """The crop, padded where the frame is smaller, and its objects by pixel."""
        size = self.crop
        cells = (size[0] // STRIDE, size[1] // STRIDE)
        y, x = corner
        seen = frame.image[y : y + size[0], x : x + size[1]]
        image = np.empty((*size, 3), np.float32)
        image[:] = seen.mean(axis=(0, 1))
        image[: seen.shape[0], : seen.shape[1]] = seen
        there = (slice(y // STRIDE, y // STRIDE + cells[0]), slice(x // STRIDE, x // STRIDE + cells[1]))
        codes = _padded(frame.codes[:, there[0], there[1]], (len(self.offsets), *cells), SILENT)
        for each, offset in zip(codes, self.offsets, strict=True):  # pairs that leave the crop cannot be seen
            inside = np.zeros(cells, bool)
            slices = pair_slices(offset, cells)
            if slices is not None:
                inside[slices[0]] = True
            each[~inside] = SILENT
        foreground = _padded(frame.foreground[there], cells, SILENT)
        return Scene(image, codes, foreground), _padded(frame.objects[y : y + size[0], x : x + size[1]], size, 0)

    def _pressed(
        self, scene: Scene, objects: npt.NDArray[np.int32], standing: dict[int, Standing], rng: np.random.Generator
    ) -> Scene:
        """The scene with one to three objects pressed against those that are there."""
        first = int(objects.max()) + 1
        inside = np.ones(objects.shape, bool)
        canvas = Canvas(scene.image, objects.copy(), np.zeros(objects.shape, bool), inside)
        likely = []
        for _ in range(min(int(rng.geometric(0.5)), 3)):
            numbers, areas = np.unique(canvas.objects, return_counts=True)
            large = (numbers > 0) & (areas >= 64)
            if not large.any():
                break
            k = int(rng.choice(np.flatnonzero(large)))
            onto = int(numbers[k])
            place = standing.get(onto)
            found = self._like(float(areas[k]), rng) if place is None else self._beside(place, rng)
            if found is None:
                continue
            donor, sure = found
            foot = None
            if place is not None:
                foot = round(place.foot + rng.normal(0, UNEVEN) * donor.mask.shape[0])
            angle, overlap = side_angle(rng), rng.uniform(0, 0.3)
            if press(canvas, donor, onto, angle, rng, overlap=overlap, foot=foot, seam=random_seam(rng), light=0):
                new = int(canvas.objects.max())
                standing |= {} if place is None else {new: place}
                likely += [] if sure else [new]
        new_objects = np.where(canvas.objects >= first, canvas.objects, 0)
        if not new_objects.any():
            return scene
        cells = on_middles(new_objects)
        foreground = np.where(cells > 0, FOREGROUND, scene.foreground).astype(np.uint8)
        codes = overlaid(scene.codes, cells, scene.foreground, self.offsets, likely=likely)
        return Scene(canvas.image, codes, foreground)

    def _like(self, area: float, rng: np.random.Generator) -> tuple[Donor, bool] | None:
        """A whole object of a random frame, brought to about an area of pixels, and whether it is surely one."""
        piece = self._piece(rng)
        if piece is None:
            return None
        frame, number, mask = piece
        return _donor(frame, number, float(np.sqrt(area / mask.sum()) * np.exp(rng.normal(0, 0.2))), rng)

    def _beside(self, place: Standing, rng: np.random.Generator) -> tuple[Donor, bool] | None:
        """A whole object of a random frame as large as it would be beside another, mostly one about as tall."""
        best, difference = None, np.inf
        wanted = LOOKED_AT if rng.random() < ALIKE else 1
        for _ in range(TRIES):
            piece = self._piece(rng)
            if piece is None:
                continue
            frame, number, mask = piece
            scale = float(place.nearness / frame.nearness[number] * np.exp(rng.normal(0, UNEVEN)))
            if not SMALLER < scale < LARGER:  # or nobody knows how near it was
                continue
            wanted -= 1
            rows = np.flatnonzero(mask.any(axis=1))
            other = abs(float(np.log((rows[-1] - rows[0] + 1) * scale / place.height)))
            if other < difference:
                best, difference = (frame, number, scale), other
            if not wanted:
                break
        return None if best is None else _donor(*best, rng)

    def _piece(self, rng: np.random.Generator) -> tuple[Frame, int, npt.NDArray[np.bool_]] | None:
        """A whole object of a random frame: the frame, its number, its mask."""
        frame = self.source[int(rng.choice(self.indices))]
        if not frame.whole:
            return None
        number = int(rng.choice(frame.whole))
        mask = frame.objects == number
        return (frame, number, mask) if mask.sum() >= 32 else None


class CrowdedScenes:
    """The scenes of :class:`pixelkin.cues.crowding.FieldCrowder`, as examples of :class:`PairExamples` are."""

    def __init__(
        self, crowded: Callable[[np.random.Generator], dict[str, Tensor]], offsets: tuple[Offset, ...]
    ) -> None:
        self.crowded, self.offsets = crowded, offsets

    def __call__(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """As :meth:`PairExamples.__call__`."""
        example = self.crowded(rng)
        cells = example["objects"].numpy()[::2, ::2]
        return {
            "image": (example["image"] * 255).round().to(torch.uint8),
            "codes": torch.from_numpy(identity_targets(cells, self.offsets)),
            "foreground": torch.from_numpy((cells != 0).astype(np.uint8)),
        }


def _frame(
    image: npt.NDArray[np.uint8],
    codes: Codes,
    cells: npt.NDArray[np.int32],
    labels: npt.NDArray[np.int32],
    certain: tuple[int, ...],
) -> Frame:
    """Labelled objects as a frame: -1 unknown; nobody knows how near they are."""
    nearness = np.full(max(int(labels.max()), 0) + 1, np.nan, np.float32)
    return Frame(image, codes, _foreground(cells), np.maximum(labels, 0), nearness, certain, certain)


def _worse(image: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """The image somewhat blurred or noisy, or as it is, so that sharpness does not tell what was pressed."""
    if rng.random() < 0.4:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 0.9)), np.float32)
    if rng.random() < 0.4:
        image = image + rng.normal(0, rng.uniform(0, 4), image.shape).astype(np.float32)
    return image


def _standing(frame: Frame, top: int) -> dict[int, Standing]:
    """Where the objects of a frame stand in a crop that begins at row ``top``, if it is known how near they are."""
    found = {}
    for number, place in enumerate(ndimage.find_objects(frame.objects), start=1):
        if place is not None and frame.nearness[number] > 0:
            rows = place[0]
            found[number] = Standing(float(frame.nearness[number]), rows.stop - top, rows.stop - rows.start)
    return found


def _donor(frame: Frame, number: int, scale: float, rng: np.random.Generator) -> tuple[Donor, bool] | None:
    """An object of a frame cut out and resized, and whether it is surely one."""
    if not SMALLEST < scale < LARGEST:
        return None
    mask = frame.objects == number
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    box = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    return resized_donor(frame.image[box], mask[box], scale, mirrored=bool(rng.random() < 0.5)), number in frame.sure


def _foreground(cells: npt.NDArray[np.int32]) -> Codes:
    return np.select([cells > 0, cells == 0], [FOREGROUND, BACKGROUND], SILENT).astype(np.uint8)


def _whole(labels: npt.NDArray[np.int32], numbers: list[int]) -> tuple[int, ...]:
    """Those of the numbers that the edge of the picture does not cut."""
    cut = set(np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])).tolist())
    return tuple(number for number in numbers if number not in cut and (labels == number).sum() >= 64)


def _nearest(labels: npt.NDArray[np.int32], size: tuple[int, ...]) -> npt.NDArray[np.int32]:
    if labels.shape == tuple(size):
        return labels
    resized = cv2.resize(labels.astype(np.float32), (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(resized, np.int32)


def _padded(values: npt.NDArray[Any], size: tuple[int, ...], fill: int) -> npt.NDArray[Any]:
    """A copy of ``size``, filled at the lower right."""
    out = np.full(size, fill, values.dtype)
    out[tuple(slice(0, side) for side in values.shape)] = values
    return out
