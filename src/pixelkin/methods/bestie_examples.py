"""What BESTIE's network of centres and offsets is taught: crops with certified instances, and their targets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pixelkin.cues.transfer import cell_places, center_targets, centroids, nearest_pixels, subsample
from pixelkin.data import Dataset
from pixelkin.data.sample import UNKNOWN
from pixelkin.methods.bestie_config import CenterConfig
from pixelkin.methods.bestie_crowding import Crowder
from pixelkin.methods.bestie_views import Ids, Paths, Places, View, view_of
from pixelkin.methods.windows import random_window
from pixelkin.models.center_fields import STRIDE
from pixelkin.training.progress import track


class CenterExamples:
    """Training crops at random scales, some mirrored; called with a generator, as the training loop does.

    Args:
        config: the settings.
        dataset: images, all with a semantic map and points.
        classes: ids in the order of the network's rows.
        exact: whether the points are the user's, one an object, and not peaks, which may miss or double one. Then they
            are centres for themselves, and components are divided at them.
        paths: what divides them; None: they teach nothing, as published.
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
        paths: Paths | None = None,
        mend: bool = False,
        weak: bool = False,
    ) -> None:
        if not len(dataset):
            raise ValueError("no image has both points or tags and a semantic map to learn from")
        self.config, self.dataset, self.classes, self.exact, self.weak = config, dataset, classes, exact, weak
        divides = exact and config.divide and config.transfer == "image"
        self.mend, self.paths = exact and mend, paths if divides else None
        self.crowder = Crowder(dataset, classes, config, mend=self.mend) if config.crowding else None
        self.rows = {class_id: row for row, class_id in enumerate(classes)}

    def __call__(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """One example, on (h, w) cells of 4 pixels.

        ``image`` (3, crop, crop) uint8 and perhaps ``weak``; ``labels`` (h, w) int64 class ids; ``components`` (h, w);
        ``ids`` and ``rows`` (K,) of the classes present; ``heat`` (K, h, w), ``offset`` (2, h, w), ``weight`` and
        ``center_weight`` (h, w); ``points`` (P, 2) and ``point_classes`` (P,) for the refinement.

        Raises:
            ImageError: an image without a semantic map, or a file that cannot be read.
        """
        index = int(rng.integers(len(self.dataset)))
        sample = self.dataset[index]
        image = sample.image
        window = random_window(rng, image.shape[:2], self.config.long_side, self.config.crop)
        view = view_of(sample, window, self.classes, self.config, paths=self.paths, mend=self.mend)
        named = {"image": window.cut(image)}
        if self.crowder is not None and rng.random() < self.config.crowding:
            view, named["image"] = self.crowder(view, named["image"], window, index, rng)
        if self.weak:
            named["weak"] = named["image"]
        if self.config.jitter:
            named["image"] = _jitter(named["image"], rng, self.config.jitter)
        named |= targets_of(view, self.config, exact=self.exact)
        named["rows"] = np.array([self.rows[int(i)] for i in named["ids"]], np.int64)
        return {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in named.items()}


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


def _jitter(image: npt.NDArray[np.uint8], rng: np.random.Generator, most: float) -> npt.NDArray[np.uint8]:
    """A (3, H, W) picture with another brightness, contrast and saturation."""
    bright, contrast, colour = (np.float32(1 + each) for each in rng.uniform(-most, most, 3))
    picture = image.astype(np.float32)
    grey = picture.mean(axis=0, keepdims=True)
    picture = grey + colour * (picture - grey)
    middle = grey.mean()
    picture = bright * (middle + contrast * (picture - middle))
    return np.asarray(picture.round().clip(0, 255), np.uint8)
