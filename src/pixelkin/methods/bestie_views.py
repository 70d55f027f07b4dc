"""A window of an image, and what points certify in it: what BESTIE learns from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from pixelkin.cues.edges import colour_edges
from pixelkin.cues.transfer import CROWDED, Transfer, crop_points, nearest_pixels, subsample, transfer
from pixelkin.data import ImageError, Sample
from pixelkin.data.components import class_components
from pixelkin.data.sample import UNKNOWN
from pixelkin.grouping.points import divide_at_points, mend_classes
from pixelkin.methods.bestie_config import CenterConfig
from pixelkin.methods.windows import Window
from pixelkin.models.center_fields import STRIDE

Places = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]


class Paths(NamedTuple):
    """How points divide components, see :class:`~pixelkin.methods.bestie_config.BESTIEConfig`."""

    edge_cost: float
    snap: float


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


def view_of(
    sample: Sample,
    window: Window,
    classes: Sequence[int],
    config: CenterConfig,
    *,
    paths: Paths | None = None,
    mend: bool = False,
) -> View:
    """A window of an image with its semantic map and points, and what they certify.

    Args:
        sample: an image with points and a semantic map.
        window: what is cut out of it.
        classes: ids that the network knows.
        config: the settings.
        paths: what divides components with several points; None: nothing does.
        mend: whether the points mend the classes of the map.

    Raises:
        ImageError: no semantic map.
    """
    whole, places, ids = labelled(sample, window.size, classes, mend=mend)
    if paths is None:
        return _certified(whole, places, ids, window, config)
    return _divided(whole, places, ids, sample.image, paths, window, config)


def labelled(
    sample: Sample, size: tuple[int, int], classes: Sequence[int], *, mend: bool = False
) -> tuple[npt.NDArray[np.int64], Places, Ids]:
    """The semantic map, the (P, 2) points and their (P,) classes, with the image brought to a (height, width).

    Raises:
        ImageError: no semantic map.
    """
    whole = _nearest(known_map(sample, classes), size)
    places, ids = places_of(sample)
    scale = np.array(size) / np.array(sample.size)
    places = np.clip((places + 0.5) * scale - 0.5, 0, np.array(size) - 1)
    return mend_classes(whole, places, ids) if mend else whole, places, ids


def _certified(whole: npt.NDArray[np.int64], places: Places, ids: Ids, window: Window, config: CenterConfig) -> View:
    """What components with one point certify."""
    semantic, side = held(whole, window, UNKNOWN), window.side
    if config.transfer == "crop":
        places, rows = crop_points(_moved(places, window), (0, 0), (side, side))
        ids = ids[rows]
        found = transfer(semantic, places, ids, min_area=config.min_area)
        labels, components = found.labels, found.components.labels
    else:
        found = transfer(whole, places, ids, min_area=config.min_area)
        labels, components = held(found.labels, window, 0), held(found.components.labels, window, 0)
    homes = homes_of(found, places, ids)
    if config.transfer == "image":
        places = _moved(places, window)
    inside = ((places >= -0.5) & (places < side - 0.5)).all(axis=1)
    loose = np.ones(len(places), bool)
    loose[found.points] = False
    crowded = (homes >= 0) & (found.verdicts[homes] == CROWDED) if len(found.verdicts) else np.zeros(len(places), bool)
    torn = np.unique(homes[crowded & ~inside])  # of these an object lies there that has no point here
    components = np.where(np.isin(components, torn + 1), 0, components)
    crowded &= inside & ~np.isin(homes, torn)
    labels, kept = enough_seen(labels, places[found.points], config, side)
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
    image: npt.NDArray[np.uint8],
    paths: Paths,
    window: Window,
    config: CenterConfig,
) -> View:
    """What paths from the points reach is certified; the rest is in pieces that hold no point. Paths go over cells."""
    seen = np.asarray(cv2.resize(image, window.size[::-1], interpolation=cv2.INTER_AREA), np.uint8)
    owners = divide_at_points(
        subsample(whole, STRIDE),
        (places + 0.5) / STRIDE - 0.5,
        ids,
        cost=colour_edges(seen, stride=STRIDE) * (paths.edge_cost / STRIDE),
        snap=paths.snap * max(window.size) / STRIDE,
    )
    fine = owners.repeat(STRIDE, axis=0).repeat(STRIDE, axis=1)[: whole.shape[0], : whole.shape[1]]
    fine = np.where(whole == np.concatenate([[UNKNOWN], ids])[fine], fine, 0)
    rest = class_components(np.where(fine > 0, 0, whole)).labels
    components = held(np.where(rest > 0, rest + len(ids), fine).astype(np.int32), window, 0)
    lost = ~np.isin(np.arange(1, len(ids) + 1), fine)
    places = _moved(places, window)
    inside = ((places >= -0.5) & (places < window.side - 0.5)).all(axis=1)
    labels, kept = enough_seen(held(fine.astype(np.int32), window, 0), places, config, window.side)
    nobody = np.zeros((0, 2)), np.zeros(0, np.int64)
    semantic, spare = held(whole, window, UNKNOWN), lost & inside
    return View(semantic, labels, ids[kept], places[kept], components, *nobody, places[spare], ids[spare])


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


def homes_of(found: Transfer, places: Places, ids: Ids) -> npt.NDArray[np.int64]:
    """The component of its class that each point lies in; -1: none."""
    at = nearest_pixels(places, found.components.labels.shape)
    homes = found.components.labels[at[:, 0], at[:, 1]].astype(np.int64) - 1
    wrong = homes >= 0
    wrong[wrong] = found.components.classes[homes[wrong]] != ids[wrong]
    return np.where(wrong, -1, homes)


def enough_seen(
    labels: npt.NDArray[np.int32], witnesses: Places, config: CenterConfig, side: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """The instances of which enough is seen, numbered anew, and which they were."""
    seen = np.bincount(labels.ravel(), minlength=len(witnesses) + 1)[1:] >= max(config.min_area, 1)
    if config.center == "point":
        seen &= ((witnesses >= -0.5) & (witnesses < side - 0.5)).all(axis=1)
    renumber = np.concatenate([[0], np.cumsum(seen) * seen]).astype(np.int32)
    return renumber[labels], np.flatnonzero(seen)


def _nearest(values: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """(H, W) labels at another size: those at the middle of each pixel."""
    rows, columns = (((np.arange(n) + 0.5) * side / n).astype(int) for n, side in zip(size, values.shape, strict=True))
    return values[np.ix_(rows, columns)]


def held(values: npt.NDArray[Any], window: Window, beyond: int) -> npt.NDArray[Any]:
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
