"""Semantic knowledge transfer: one cue in a component certifies one instance, and all else is unknown.

As in BESTIE (Kim, Yoo, Rhee, Kim, CVPR 2022). Pure functions of NumPy arrays, for a whole image or for one crop of it.

Positions are (y, x) in image pixels, with pixel centres at whole numbers. Cell i of a grid of stride s lies at
s * i + (s - 1) / 2, the middle of the pixels it covers, so that a mirrored image has the mirrored grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse import csgraph

from pixelkin.data.components import Components, LabelMap
from pixelkin.data.sample import UNKNOWN

CERTIFIED, SMALL, EMPTY, CROWDED = 0, 1, 2, 3
"""What became of a component: an instance; too few pixels; no point of its class; more than one."""

CenterKind = Literal["centroid", "point"]
Floats = npt.NDArray[np.float32]


class Transfer(NamedTuple):
    """The instances of a map, and what is not known.

    Attributes:
        labels: (H, W) int32: 0, or i + 1 for instance i.
        classes: (N,) int64 class id of each instance.
        points: (N,) int64 row of the point that certifies each instance.
        unknown: (H, W) bool, true wherever no instance was certified, so in the true background too.
        components: every component of the map, the rejected ones as well.
        counts: (M,) int64 points of its class in each component.
        verdicts: (M,) uint8, for each component CERTIFIED, SMALL, EMPTY or CROWDED.
    """

    labels: LabelMap
    classes: npt.NDArray[np.int64]
    points: npt.NDArray[np.int64]
    unknown: npt.NDArray[np.bool_]
    components: Components
    counts: npt.NDArray[np.int64]
    verdicts: npt.NDArray[np.uint8]


class CenterTargets(NamedTuple):
    """What the centre and offset branches learn, on a grid of (h, w) cells.

    Attributes:
        ids: (K,) int64 class id of each channel of ``heat``, 0 for an empty channel.
        heat: (K, h, w) float32, 1 at the centres.
        offset: (2, h, w) float32 (dy, dx) in image pixels from a cell to the centre of its instance; 0 where unknown.
        weight: (h, w) float32, 1 where an instance is known, else 0: there offsets teach nothing.
        center_weight: (h, w) float32, the same for the heat.
    """

    ids: npt.NDArray[np.int64]
    heat: Floats
    offset: Floats
    weight: Floats
    center_weight: Floats


def transfer(
    semantic: npt.NDArray[Any],
    points: npt.ArrayLike,
    point_classes: npt.ArrayLike,
    *,
    min_area: int = 50,
    unknown: int = UNKNOWN,
) -> Transfer:
    """Instances of a semantic map: its components that hold exactly one point of their class.

    A point is a count and nothing more: its place within the component does not matter, and on a component of another
    class it says nothing. Giving a crop and the points within it costs certificates and now and then makes a wrong one,
    where the crop cuts off one of two objects' points; giving the whole image and cropping the result does neither.

    Args:
        semantic: (H, W) integer class ids, 0 background.
        points: (P, 2) (y, x) in pixels of this map.
        point_classes: (P,) class id of each.
        min_area: components of fewer pixels are not looked at.
        unknown: the class id of pixels nobody labelled.

    Raises:
        ValueError: a map that is not (H, W) integers, points that are not (P, 2) with a class each, a point outside the
            map, or one of the background or the unknown.
    """
    components = one_pass_components(semantic, unknown=unknown)
    places, ids = _check_points(points, point_classes, components.labels.shape, unknown)
    pixels = nearest_pixels(places, components.labels.shape)
    home = components.labels[pixels[:, 0], pixels[:, 1]].astype(np.int64) - 1
    right = home >= 0
    right[right] = components.classes[home[right]] == ids[right]
    number = len(components.classes)
    counts = np.bincount(home[right], minlength=number)
    areas = np.bincount(components.labels.ravel(), minlength=number + 1)[1:]
    verdicts = np.where(counts == 0, EMPTY, np.where(counts == 1, CERTIFIED, CROWDED)).astype(np.uint8)
    verdicts[areas < min_area] = SMALL
    certified = np.flatnonzero(verdicts == CERTIFIED)
    witness = np.zeros(number, dtype=np.int64)
    witness[home[right]] = np.flatnonzero(right)
    renumber = np.zeros(number + 1, dtype=np.int32)
    renumber[certified + 1] = np.arange(1, len(certified) + 1)
    labels = renumber[components.labels]
    return Transfer(
        labels, components.classes[certified], witness[certified], labels == 0, components, counts, verdicts
    )


def one_pass_components(semantic: npt.NDArray[Any], *, unknown: int = UNKNOWN) -> Components:
    """The 8-connected components of :func:`pixelkin.data.components.class_components`, all classes in one pass.

    Components are numbered by class, then by their first pixel. The time does not grow with the number of classes: rows
    fall into runs of one class, and runs that touch a run of their class in the next row are joined.

    Raises:
        ValueError: a map that is not (H, W) integers.
    """
    semantic = np.asarray(semantic)
    if semantic.ndim != 2 or semantic.dtype.kind not in "iu":
        raise ValueError(f"a semantic map must be (H, W) integers, got {semantic.dtype} of shape {semantic.shape}")
    if semantic.size == 0:
        return Components(np.zeros(semantic.shape, dtype=np.int32), np.zeros(0, dtype=np.int64))
    starts = np.ones(semantic.shape, dtype=bool)
    starts[:, 1:] = semantic[:, 1:] != semantic[:, :-1]
    run = np.cumsum(starts.ravel(), dtype=np.int32).reshape(semantic.shape) - 1
    classes = semantic[starts].astype(np.int64)
    thing = (classes != 0) & (classes != unknown)
    upper: list[npt.NDArray[np.int32]] = []
    lower: list[npt.NDArray[np.int32]] = []
    width = semantic.shape[1]
    for shift in (-1, 0, 1):
        above, below = slice(max(0, -shift), width - max(0, shift)), slice(max(0, shift), width - max(0, -shift))
        a, b = run[:-1, above].ravel(), run[1:, below].ravel()
        fresh = np.ones(a.shape, dtype=bool)  # two runs meet in many columns: one is enough
        fresh[1:] = (a[1:] != a[:-1]) | (b[1:] != b[:-1])
        a, b = a[fresh], b[fresh]
        same = (classes[a] == classes[b]) & thing[a]
        upper.append(a[same])
        lower.append(b[same])
    a, b = np.concatenate(upper), np.concatenate(lower)
    graph = sparse.coo_matrix((np.ones(len(a), dtype=bool), (a, b)), shape=(len(classes), len(classes)))
    piece = csgraph.connected_components(graph, directed=False)[1]
    kept, first, inverse = np.unique(piece[thing], return_index=True, return_inverse=True)
    named = classes[thing][first]
    order = np.lexsort((first, named))
    rank = np.empty(len(kept), dtype=np.int32)
    rank[order] = np.arange(1, len(kept) + 1)
    numbers = np.zeros(len(classes), dtype=np.int32)
    numbers[thing] = rank[inverse]
    return Components(numbers[run], named[order])


def center_targets(
    labels: npt.NDArray[Any],
    classes: npt.ArrayLike,
    *,
    stride: int = 4,
    sigma: float = 6.0,
    relative_sigma: float | None = None,
    center: CenterKind = "centroid",
    instance_points: npt.ArrayLike | None = None,
    points: npt.ArrayLike = (),
    point_classes: npt.ArrayLike = (),
    disc: float = 0.0,
    ids: Sequence[int] | npt.NDArray[np.integer[Any]] | None = None,
) -> CenterTargets:
    """Centre heat, offsets and weights of known instances.

    Args:
        labels: (H, W) integers: 0 unknown, i + 1 for instance i; those of :class:`Transfer`.
        classes: (N,) class id of each instance.
        stride: image pixels of a cell. A cell belongs to the instance of its middle pixel.
        sigma: of the Gaussian around a centre, in pixels. Gaussians of one class are merged by maximum.
        relative_sigma: sigma over the square root of the instance's area, so that it follows the object's scale, within
            a third and four times of ``sigma``, which is then for points of unknown scale only. As published: None.
        center: the centre is the ``"centroid"`` of the mask, which may lie outside it, or the user's ``"point"``.
        instance_points: (N, 2) (y, x) of each instance, for ``center="point"``.
        points: (P, 2) (y, x) of further centres, known or not which pixels are theirs (the user's points, for crowded
            components); they are drawn into the heat. With ``center="centroid"`` give those of no instance only.
        point_classes: (P,) class id of each.
        disc: the heat is taught within so many pixels of those further centres too; 0, as published, nowhere: a
            crowded component then teaches no centre.
        ids: class id of each channel of the heat; 0 for an empty one, so that the examples of a batch have equally
            many. Default: the classes that are present, ascending.

    Raises:
        ValueError: sizes that do not fit, a stride or sigma not above 0, a point outside the map, or a class without a
            channel.
    """
    labels, names = np.asarray(labels), np.atleast_1d(np.asarray(classes, dtype=np.int64))
    least, most = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    if labels.ndim != 2 or labels.dtype.kind not in "iu" or least < 0 or most > len(names):
        raise ValueError(
            f"labels must be (H, W) integers 0..{len(names)}, as many as classes, got {labels.dtype} of shape"
            f" {labels.shape} from {least} to {most}"
        )
    if stride < 1 or sigma <= 0 or (relative_sigma is not None and relative_sigma <= 0):
        raise ValueError(f"stride {stride} and sigma {sigma}, {relative_sigma} must be above 0: correct them")
    further, further_ids = _check_points(points, point_classes, labels.shape)
    areas = np.bincount(labels.ravel(), minlength=len(names) + 1)[1:]
    if center == "point":
        if instance_points is None:
            raise ValueError("centres at points need the point of each instance: give instance_points")
        centers = _check_points(instance_points, names, labels.shape)[0]
    elif center == "centroid":
        centers = centroids(labels, len(names))
    else:
        raise ValueError(f"center cannot be {center!r}: use 'centroid' or 'point'")
    spread = np.full(len(areas), sigma) if relative_sigma is None else relative_sigma * np.sqrt(areas)
    spread = np.clip(spread, sigma / 3, sigma * 4)

    own = subsample(labels, stride)
    there = areas > 0  # an instance may have been cropped away
    channels = _channels(ids, np.concatenate([names[there], further_ids]))
    column = {int(class_id): k for k, class_id in enumerate(channels) if class_id}
    heat = np.zeros((len(channels), *own.shape), dtype=np.float32)
    for class_id, place, width in zip(names[there], centers[there], spread[there], strict=True):
        draw_center(heat[column[int(class_id)]], place, float(width), stride)
    for class_id, place in zip(further_ids, further, strict=True):
        draw_center(heat[column[int(class_id)]], place, sigma, stride)

    known = own > 0
    offset = np.zeros((2, *own.shape), dtype=np.float32)
    rows, columns = np.nonzero(known)
    aim = centers[own[rows, columns] - 1]
    offset[:, rows, columns] = (aim - cell_places(np.stack([rows, columns], axis=1), stride)).T
    weight = known.astype(np.float32)
    center_weight = weight.copy()
    if disc > 0:
        for place in further:
            window, y, x = _window(place, disc, stride, own.shape)
            center_weight[window][np.hypot(y, x) <= disc] = 1
    return CenterTargets(channels, heat, offset, weight, center_weight)


def draw_center(heat: Floats, place: npt.NDArray[np.floating[Any]], sigma: float, stride: int) -> None:
    """Draw exp(-r^2 / (2 sigma^2)) around a (y, x) place into an (h, w) heat map, by maximum and in place.

    The patch ends 3 sigma + 1 pixels from the centre on each axis, as published: 39 pixels wide for a sigma of 6.
    """
    window, y, x = _window(place, 3 * sigma + 1, stride, heat.shape)
    patch = np.exp(-(y**2 + x**2) / (2 * sigma**2)).astype(np.float32)
    np.maximum(heat[window], patch, out=heat[window])


def centroids(labels: npt.NDArray[Any], count: int) -> npt.NDArray[np.float64]:
    """(count, 2) mean (y, x) of the pixels of 1..count in an (H, W) map; NaN where there are none."""
    flat = labels.ravel()
    rows, columns = (grid.ravel() for grid in np.indices(labels.shape))
    sums = [np.bincount(flat, weights=axis, minlength=count + 1)[1:] for axis in (rows, columns)]
    areas = np.bincount(flat, minlength=count + 1)[1:]
    return np.stack(sums, axis=1) / np.where(areas > 0, areas, np.nan)[:, None]


def subsample(array: npt.NDArray[Any], stride: int) -> npt.NDArray[Any]:
    """(..., H, W) of exact labels to the (..., h, w) cells over it, each the value of its middle pixel."""
    height, width = array.shape[-2:]
    rows = np.minimum(np.arange(-(-height // stride)) * stride + stride // 2, height - 1)
    columns = np.minimum(np.arange(-(-width // stride)) * stride + stride // 2, width - 1)
    return np.asarray(array[..., rows[:, None], columns])


def cell_places(cells: npt.NDArray[Any], stride: int) -> npt.NDArray[np.float64]:
    """Image pixel (y, x) of the middle of cells (row, column)."""
    return np.asarray(cells * stride + (stride - 1) / 2, dtype=np.float64)


def nearest_pixels(places: npt.NDArray[np.floating[Any]], size: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """(P, 2) (y, x) in pixels to the nearest pixels of an (H, W) image."""
    return np.asarray(np.clip(np.floor(places + 0.5), 0, np.array(size) - 1).astype(np.int64))


def crop_points(
    points: npt.ArrayLike, corner: tuple[float, float], size: tuple[int, int]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """The points within a window of an image, in its pixels, and which rows they are.

    Args:
        points: (P, 2) (y, x) in image pixels.
        corner: (y, x) of the window's first pixel.
        size: its (height, width).
    """
    places = np.asarray(points, dtype=np.float64).reshape(-1, 2) - np.asarray(corner, dtype=np.float64)
    rows = np.flatnonzero(((places >= -0.5) & (places < np.array(size) - 0.5)).all(axis=1))
    return places[rows], rows


def _check_points(
    points: npt.ArrayLike, classes: npt.ArrayLike, size: tuple[int, ...], unknown: int = UNKNOWN
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    places, ids = np.asarray(points, dtype=np.float64), np.asarray(classes, dtype=np.int64).reshape(-1)
    if places.size == 0:
        places = places.reshape(0, 2)
    if places.ndim != 2 or places.shape[1] != 2 or len(places) != len(ids):
        raise ValueError(f"points must be (P, 2) with a class each, got shape {places.shape} and {len(ids)} classes")
    inside = ((places >= -0.5) & (places < np.array(size))).all(axis=1)  # false for NaN too
    if not inside.all():
        row = int(np.flatnonzero(~inside)[0])
        y, x = places[row]
        raise ValueError(
            f"point {row + 1} at y {y:g}, x {x:g} is outside the image of {size[1]}x{size[0]} pixels:"
            " correct or remove it"
        )
    strange = np.flatnonzero((ids == 0) | (ids == unknown))
    if len(strange):
        row = int(strange[0])
        raise ValueError(f"point {row + 1} has class {ids[row]}, which names no object: give its class id")
    return places, ids


def _channels(wanted: Sequence[int] | npt.NDArray[Any] | None, present: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    found: npt.NDArray[np.int64] = np.unique(present)
    if wanted is None:
        return found
    channels = np.asarray(wanted, dtype=np.int64).reshape(-1)
    missing = np.setdiff1d(found, channels)
    if len(missing):
        raise ValueError(f"classes {missing.tolist()} have no channel among {channels.tolist()}: add them to ids")
    named = channels[channels != 0]
    if len(np.unique(named)) < len(named):
        raise ValueError(f"a class has two channels among {channels.tolist()}: name each once")
    return channels


def _window(
    place: npt.NDArray[np.floating[Any]], reach: float, stride: int, size: tuple[int, ...]
) -> tuple[tuple[slice, slice], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Slices of the cells within ``reach`` pixels on each axis, and their (y, x) distances from the place."""
    slices, steps = [], []
    for middle, length in zip(place, size, strict=True):
        shift = (stride - 1) / 2
        first = max(int(np.ceil((middle - reach - shift) / stride)), 0)
        last = min(int(np.floor((middle + reach - shift) / stride)), length - 1)
        slices.append(slice(first, max(last + 1, first)))
        steps.append(np.arange(first, max(last + 1, first)) * stride + shift - middle)
    return (slices[0], slices[1]), steps[0][:, None], steps[1][None, :]
