"""What BESTIE's network of centres and offsets is taught: crops with certified instances, and the loss."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pixelkin.cues.edges import colour_edges
from pixelkin.cues.transfer import (
    CROWDED,
    Transfer,
    cell_places,
    center_targets,
    centroids,
    crop_points,
    nearest_pixels,
    subsample,
    transfer,
)
from pixelkin.data import Dataset, ImageError, Sample
from pixelkin.data.components import class_components
from pixelkin.data.sample import UNKNOWN
from pixelkin.grouping.points import divide_at_points, mend_classes
from pixelkin.methods.bestie_config import CenterConfig
from pixelkin.methods.windows import Window, random_window
from pixelkin.models.center_fields import STRIDE
from pixelkin.training.progress import track

Places = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]


class View(NamedTuple):
    """A crop, and what is certified in it.

    Attributes:
        semantic: (H, W) int64 class ids, 255 unknown.
        labels: (H, W) int32, 0 unknown, i + 1 for instance i.
        classes: (N,) of the instances.
        witnesses: (N, 2) (y, x) of the point that certifies each; outside the crop where it was cut off.
        components: (H, W) int32, 0 none or not to be divided, else a number.
        crowded: (C, 2) points that share a component, and their (C,) ``crowded_classes``.
        spare: (S, 2) all points in the crop that certify nothing, the crowded ones too, and ``spare_classes``.
    """

    semantic: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int32]
    classes: Ids
    witnesses: Places
    components: npt.NDArray[np.int32]
    crowded: Places
    crowded_classes: Ids
    spare: Places
    spare_classes: Ids


class CenterExamples:
    """Training crops at random scales, some mirrored; called with a generator, as the training loop does.

    Args:
        config: the settings.
        dataset: images, all with a semantic map and points.
        classes: ids in the order of the network's rows.
        exact: whether the points are the user's, one an object, and not peaks, which may miss or double one. Then they
            are centres for themselves, and components are divided at them.
        edge_cost: of the paths that divide them, see :class:`~pixelkin.methods.bestie_config.BESTIEConfig`.
        mend: whether exact points mend the classes of the map.
        weak: whether to give the crop without jitter, too.

    Raises:
        ValueError: no images.
    """

    def __init__(
        self,
        config: CenterConfig,
        dataset: Dataset,
        classes: Sequence[int],
        *,
        exact: bool,
        edge_cost: float = 0.0,
        mend: bool = False,
        weak: bool = False,
    ) -> None:
        if not len(dataset):
            raise ValueError("no image has both points or tags and a semantic map to learn from")
        self.config, self.dataset, self.classes, self.exact, self.weak = config, dataset, classes, exact, weak
        divides = exact and config.divide and config.transfer == "image"
        self.mend, self.edge_cost = mend and exact, edge_cost if divides else None
        self.rows = {class_id: row for row, class_id in enumerate(classes)}

    def __call__(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """One example, on (h, w) cells of 4 pixels.

        ``image`` (3, crop, crop) uint8 and perhaps ``weak``; ``labels`` (h, w) int64 class ids; ``components`` (h, w);
        ``ids`` and ``rows`` (K,) of the classes present; ``heat`` (K, h, w), ``offset`` (2, h, w), ``weight`` and
        ``center_weight`` (h, w); ``points`` (P, 2) and ``point_classes`` (P,) for the refinement.

        Raises:
            ImageError: an image without a semantic map.
        """
        sample = self.dataset[int(rng.integers(len(self.dataset)))]
        image = sample.image
        window = random_window(rng, image.shape[:2], self.config.long_side, self.config.crop)
        view = view_of(sample, window, self.classes, self.config, edge_cost=self.edge_cost, mend=self.mend)
        named = {"image": window.cut(image)}
        if self.weak:
            named["weak"] = named["image"]
        if self.config.jitter:
            named["image"] = _jitter(named["image"], rng, self.config.jitter)
        named |= targets_of(view, self.config, exact=self.exact)
        named["rows"] = np.array([self.rows[int(i)] for i in named["ids"]], np.int64)
        return {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in named.items()}


def view_of(
    sample: Sample,
    window: Window,
    classes: Sequence[int],
    config: CenterConfig,
    *,
    edge_cost: float | None = None,
    mend: bool = False,
) -> View:
    """A window of an image with its semantic map and points, and what they certify.

    Args:
        sample: an image with points and a semantic map.
        window: what is cut out of it.
        classes: ids that the network knows.
        config: the settings.
        edge_cost: of the paths that divide components with several points; None: nothing divides them.
        mend: whether the points mend the classes of the map.

    Raises:
        ImageError: no semantic map.
    """
    size = sample.size
    whole = _nearest(known_map(sample, classes), window.size)
    places, ids = places_of(sample)
    scale = np.array(window.size) / np.array(size)
    places = np.clip((places + 0.5) * scale - 0.5, 0, np.array(window.size) - 1)
    if mend:
        whole = mend_classes(whole, places, ids)
    if edge_cost is None:
        return _certified(whole, places, ids, window, config)
    image = cv2.resize(sample.image, window.size[::-1], interpolation=cv2.INTER_AREA)
    return _divided(whole, places, ids, colour_edges(np.asarray(image, np.uint8)) * edge_cost, window, config)


def _certified(whole: npt.NDArray[np.int64], places: Places, ids: Ids, window: Window, config: CenterConfig) -> View:
    """What components with one point certify."""
    semantic, side = _held(whole, window, UNKNOWN), window.side
    if config.transfer == "crop":
        places, rows = crop_points(_moved(places, window), (0, 0), (side, side))
        ids = ids[rows]
        found = transfer(semantic, places, ids, min_area=config.min_area)
        labels, components = found.labels, found.components.labels
    else:
        found = transfer(whole, places, ids, min_area=config.min_area)
        labels, components = _held(found.labels, window, 0), _held(found.components.labels, window, 0)
    homes = _homes(found, places, ids)
    if config.transfer == "image":
        places = _moved(places, window)
    inside = ((places >= -0.5) & (places < side - 0.5)).all(axis=1)
    loose = np.ones(len(places), bool)
    loose[found.points] = False
    crowded = (homes >= 0) & (found.verdicts[homes] == CROWDED) if len(found.verdicts) else np.zeros(len(places), bool)
    torn = np.unique(homes[crowded & ~inside])  # of these an object lies there that has no point here
    components = np.where(np.isin(components, torn + 1), 0, components)
    crowded &= inside & ~np.isin(homes, torn)
    labels, kept = _kept(labels, places[found.points], config, side)
    return View(
        semantic,
        labels,
        found.classes[kept],
        places[found.points][kept],
        components,
        places[crowded],
        ids[crowded],
        places[loose & inside],
        ids[loose & inside],
    )


def _divided(
    whole: npt.NDArray[np.int64],
    places: Places,
    ids: Ids,
    cost: npt.NDArray[np.float32],
    window: Window,
    config: CenterConfig,
) -> View:
    """What paths from the points reach is certified; the rest is in pieces that hold no point. Paths go over cells."""
    cells = subsample(whole, STRIDE)
    owners = divide_at_points(cells, (places + 0.5) / STRIDE - 0.5, ids, cost=cost / STRIDE)
    fine = owners.repeat(STRIDE, axis=0).repeat(STRIDE, axis=1)[: whole.shape[0], : whole.shape[1]]
    fine = np.where(whole == np.concatenate([[UNKNOWN], ids])[fine], fine, 0)
    rest = class_components(np.where(fine > 0, 0, whole)).labels
    components = _held(np.where(rest > 0, rest + len(ids), fine).astype(np.int32), window, 0)
    lost = ~np.isin(np.arange(1, len(ids) + 1), fine)
    places = _moved(places, window)
    inside = ((places >= -0.5) & (places < window.side - 0.5)).all(axis=1)
    labels, kept = _kept(_held(fine.astype(np.int32), window, 0), places, config, window.side)
    nobody = np.zeros((0, 2)), np.zeros(0, np.int64)
    semantic, spare = _held(whole, window, UNKNOWN), lost & inside
    return View(semantic, labels, ids[kept], places[kept], components, *nobody, places[spare], ids[spare])


def targets_of(view: View, config: CenterConfig, *, exact: bool) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an example of :class:`CenterExamples`, but image and rows."""
    labels = subsample(view.semantic, STRIDE)
    present = np.unique(np.concatenate([view.semantic.ravel(), view.classes, view.spare_classes if exact else []]))
    present = present[(present != 0) & (present != UNKNOWN)].astype(np.int64)
    targets = center_targets(
        view.labels,
        view.classes,
        stride=STRIDE,
        sigma=config.sigma,
        relative_sigma=config.relative_sigma,
        center=config.center,
        instance_points=view.witnesses,
        points=view.spare if exact else (),
        point_classes=view.spare_classes if exact else (),
        disc=config.disc,
        ids=present,
    )
    components = subsample(view.components, STRIDE)
    points, names = _given(view, components, config) if exact else (np.zeros((0, 2)), np.zeros(0, np.int64))
    return {
        "labels": labels,
        "components": components.astype(np.int64),
        "ids": present,
        "heat": targets.heat,
        "offset": targets.offset,
        "weight": targets.weight,
        "center_weight": targets.center_weight,
        "points": points.astype(np.float32),
        "point_classes": names,
    }


def collate(examples: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """A batch; classes and points are filled up to the most of an example, with class id 0."""
    batch = {}
    for key in examples[0]:
        values = [example[key] for example in examples]
        if key in ("ids", "rows", "heat", "points", "point_classes"):
            most = max(len(value) for value in values)
            values = [torch.cat([v, v.new_zeros(most - len(v), *v.shape[1:])]) for v in values]
        batch[key] = torch.stack(values)
    return batch


def known_map(sample: Sample, classes: Sequence[int]) -> npt.NDArray[np.int64]:
    """(H, W) class ids of a sample's semantic map; unknown where nothing may be learned, and classes that are not here.

    Not here are those the network does not know and those that are none of the image's tags.

    Raises:
        ImageError: no semantic map.
    """
    semantic = sample.semantic
    if semantic is None:
        raise ImageError(f"{sample.name}: no semantic map: give one or leave the image out")
    semantic = np.asarray(semantic, np.int64)
    named = set(classes) if sample.tags is None else set(classes) & set(sample.tags)
    found = np.where(np.isin(semantic, [0, *named]), semantic, UNKNOWN)
    ignore = sample.ignore
    if ignore is not None:
        found[ignore] = UNKNOWN
    return found


def places_of(sample: Sample) -> tuple[Places, Ids]:
    """(P, 2) (y, x) of a sample's points and their (P,) class ids."""
    points = sample.points or ()
    places = np.array([(point.y, point.x) for point in points], np.float64).reshape(-1, 2)
    return places, np.array([point.label for point in points], np.int64)


def check_points(dataset: Dataset) -> None:
    """Look at every point before a long training.

    Raises:
        ValueError: one outside its image, or of no object.
    """
    for sample in dataset:
        height, width = sample.size if sample.points else (0, 0)
        for x, y, label in sample.points or ():
            if not (-0.5 <= x < width and -0.5 <= y < height):  # false for NaN too
                raise ValueError(
                    f"{sample.name}: the point at x {x:g}, y {y:g} is outside the image of {width}x{height} pixels:"
                    " correct or remove it"
                )
            if label in (0, UNKNOWN) or label < 0:
                raise ValueError(f"{sample.name}: a point has class {label}, which names no object: give its class id")


def points_digest(dataset: Dataset) -> str:
    """Differs where the images, their points or their tags do."""
    lines = [[sample.name, [list(p) for p in sample.points or ()], sample.tags] for sample in dataset]
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()[:16]


def maps_digest(dataset: Dataset) -> str:
    """Differs where the images or their semantic maps do, by a single pixel; holds one map at a time.

    Of what the maps say, not of their files: they may have been packed anew, or be no files at all.

    Raises:
        ImageError: a map that cannot be read.
    """
    found = hashlib.sha256()
    for sample in track(dataset, "given maps"):
        found.update(_digest(sample.name, sample.semantic))  # in a function, so that the map is let go before the next
    return found.hexdigest()[:16]


def _digest(name: str, ids: npt.NDArray[Any] | None) -> bytes:
    """Of one map under its name."""
    ids = np.zeros((0, 0), np.uint8) if ids is None else np.ascontiguousarray(ids)
    found = hashlib.sha256(json.dumps([name, ids.dtype.str, ids.shape]).encode())
    found.update(ids.data)
    return found.digest()


def _homes(found: Transfer, places: Places, ids: Ids) -> npt.NDArray[np.int64]:
    """The component of its class that each point lies in; -1: none."""
    at = nearest_pixels(places, found.components.labels.shape)
    homes = found.components.labels[at[:, 0], at[:, 1]].astype(np.int64) - 1
    wrong = homes >= 0
    wrong[wrong] = found.components.classes[homes[wrong]] != ids[wrong]
    return np.where(wrong, -1, homes)


def _kept(
    labels: npt.NDArray[np.int32], witnesses: Places, config: CenterConfig, side: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """The instances of which enough is seen, numbered anew, and which they were."""
    seen = np.bincount(labels.ravel(), minlength=len(witnesses) + 1)[1:] >= max(config.min_area, 1)
    if config.center == "point":
        seen &= ((witnesses >= -0.5) & (witnesses < side - 0.5)).all(axis=1)
    renumber = np.concatenate([[0], np.cumsum(seen) * seen]).astype(np.int32)
    return renumber[labels], np.flatnonzero(seen)


def _given(view: View, components: npt.NDArray[Any], config: CenterConfig) -> tuple[Places, Ids]:
    """The centres that refinement divides components at, each moved onto a cell of its component."""
    own = subsample(view.labels, STRIDE)
    middles = view.witnesses if config.center == "point" else centroids(view.labels, len(view.classes))
    found = [
        (_onto(own == i + 1, middle), name) for i, (middle, name) in enumerate(zip(middles, view.classes, strict=True))
    ]
    at = nearest_pixels(view.crowded, view.components.shape)
    homes = view.components[at[:, 0], at[:, 1]]
    masks = {home: components == home for home in np.unique(homes)}
    found += [
        (_onto(masks[home], place), name)
        for place, name, home in zip(view.crowded, view.crowded_classes, homes, strict=True)
    ]
    real = [(place, name) for place, name in found if place is not None]
    places = np.array([place for place, _ in real], np.float64).reshape(-1, 2)
    return places, np.array([name for _, name in real], np.int64)


def _onto(cells: npt.NDArray[np.bool_], place: Places) -> Places | None:
    """The place itself where its cell is one of these, else the nearest of them; None where there are none."""
    cell = np.clip(np.floor((place + 0.5) / STRIDE), 0, np.array(cells.shape) - 1).astype(int)
    if cells[cell[0], cell[1]]:
        return place
    middles = cell_places(np.argwhere(cells), STRIDE)
    if not len(middles):
        return None
    return np.asarray(middles[((middles - place) ** 2).sum(axis=1).argmin()])


def _nearest(values: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """(H, W) labels at another size: those at the middle of each pixel."""
    rows, columns = (((np.arange(n) + 0.5) * side / n).astype(int) for n, side in zip(size, values.shape, strict=True))
    return values[np.ix_(rows, columns)]


def _held(values: npt.NDArray[Any], window: Window, beyond: int) -> npt.NDArray[Any]:
    """What a window holds of labels of the whole image at its size."""
    frame = np.full((window.side, window.side), beyond, values.dtype)
    frame[window.target] = values[window.source]
    return np.ascontiguousarray(frame[:, :: -1 if window.mirrored else 1])


def _moved(places: Places, window: Window) -> Places:
    """(y, x) of the whole image at the window's size, in the window."""
    starts = [target.start - source.start for target, source in zip(window.target, window.source, strict=True)]
    moved: Places = places + np.array(starts)
    if window.mirrored:
        moved[:, 1] = window.side - 1 - moved[:, 1]
    return moved


def _jitter(image: npt.NDArray[np.uint8], rng: np.random.Generator, most: float) -> npt.NDArray[np.uint8]:
    """A (3, H, W) picture with another brightness, contrast and saturation."""
    bright, contrast, colour = (np.float32(1 + each) for each in rng.uniform(-most, most, 3))
    picture = image.astype(np.float32)
    grey = picture.mean(axis=0, keepdims=True)
    picture = grey + colour * (picture - grey)
    middle = grey.mean()
    picture = bright * (middle + contrast * (picture - middle))
    return np.asarray(picture.round().clip(0, 255), np.uint8)
