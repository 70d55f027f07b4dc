"""Instances without learning, the baselines of every method: connected components and distance-transform watershed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse
from scipy.sparse import csgraph

from pixelkin.data import Instances
from pixelkin.data.components import Components, LabelMap, class_components
from pixelkin.data.sample import UNKNOWN


def connected_components(
    semantic: npt.NDArray[Any],
    *,
    min_area: int = 16,
    connectivity: int = 8,
    unknown: int = UNKNOWN,
    confidence: npt.NDArray[Any] | None = None,
    source: str = "components",
) -> Instances:
    """Each connected component of a class is one instance, scored by the square root of its area.

    Args:
        semantic: (H, W) class ids, 0 background.
        min_area: smaller components are dropped, in pixels.
        connectivity: 4 or 8.
        unknown: the class id of unlabelled pixels.
        confidence: (H, W) how sure each pixel's class is; the score is its mean over the component instead.
        source: of the instances.
    """
    parts = class_components(semantic, connectivity=connectivity, unknown=unknown)
    return _as_instances(parts, min_area, source, confidence)


def watershed(
    semantic: npt.NDArray[Any],
    min_distance: int | None = None,
    *,
    sigma: float = 1.0,
    min_area: int = 16,
    unknown: int = UNKNOWN,
) -> Instances:
    """Cut every class at the narrows of its shape: a watershed of the distance to the outside.

    Args:
        semantic: (H, W) class ids, 0 background.
        min_distance: markers are at least so many pixels apart. Default: :func:`marker_distance` of this map; give
            the value of the whole set where there is one.
        sigma: smoothing of the distances before the search for their maxima, in pixels.
        min_area: smaller pieces are dropped, in pixels.
        unknown: the class id of unlabelled pixels.
    """
    semantic = np.asarray(semantic)
    parts = class_components(semantic, unknown=unknown)
    apart = marker_distance([semantic], unknown=unknown) if min_distance is None else min_distance
    labels = np.zeros(semantic.shape, dtype=np.int32)
    classes: list[int] = []
    for class_id in np.unique(parts.classes):
        mask = semantic == class_id
        height = smooth_distance(mask, sigma)
        pieces = flood(height, distance_markers(height, parts.labels * mask, apart), mask)
        np.add(labels, pieces + len(classes), out=labels, where=mask)
        classes += [int(class_id)] * int(pieces.max())
    return _as_instances(Components(labels, np.array(classes, dtype=np.int64)), min_area, "watershed")


def smooth_distance(mask: npt.NDArray[np.bool_], sigma: float = 1.0) -> npt.NDArray[np.float32]:
    """(H, W) distance in pixels of each mask pixel to the nearest pixel outside, smoothed by a Gaussian."""
    if not mask.any():
        return np.zeros(mask.shape, dtype=np.float32)
    distance = ndimage.distance_transform_edt(mask).astype(np.float32)
    return np.asarray(ndimage.gaussian_filter(distance, sigma) if sigma > 0 else distance)


def distance_markers(height: npt.NDArray[np.floating[Any]], parts: npt.NDArray[Any], apart: int) -> LabelMap:
    """Single-pixel markers at the maxima of ``height`` in each part, over ``apart`` pixels from each other on an axis.

    Parts do not see each other, so each has at least the marker of its highest pixel.

    Args:
        height: (H, W).
        parts: (H, W) integers or bool: 0 none, else the number of the part.
        apart: in pixels; the higher of two near maxima wins.

    Returns:
        (H, W) int32: 0, or the number of the marker from 1.
    """
    reach = max(int(apart), 1)
    markers = np.zeros(parts.shape, dtype=np.int32)
    count = 0
    for part, box in enumerate(ndimage.find_objects(parts.astype(np.int32)), start=1):
        if box is None:
            continue
        inside = np.where(parts[box] == part, height[box], -np.inf)
        top = ndimage.maximum_filter(inside, size=2 * reach + 1, mode="nearest")
        peaks = np.argwhere((inside == top) & (inside > -np.inf))
        peaks = peaks[np.argsort(-inside[tuple(peaks.T)], kind="stable")]
        free = np.ones(inside.shape, dtype=bool)
        for y, x in peaks:
            if free[y, x]:  # else one of several equal maxima: a plateau
                free[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1] = False
                count += 1
                markers[box][y, x] = count
    return markers


def flood(height: npt.NDArray[np.floating[Any]], markers: npt.NDArray[Any], mask: npt.NDArray[np.bool_]) -> LabelMap:
    """Watershed by flooding from markers downhill: each pixel joins the marker it reaches on the highest way.

    Computed as a spanning forest of highest edges (Cousty et al., Watershed Cuts, 2009) on the 4-connected grid,
    where of two equal edges the one with the higher upper end counts first.

    Args:
        height: (H, W); basins are its peaks.
        markers: (H, W) integers, 0 none, else the basin's number from 1.
        mask: (H, W) bool to flood.

    Returns:
        (H, W) int32: 0 outside; the marker's number; parts of the mask that hold no marker get new numbers, one a
        4-connected component.
    """
    pixels = np.flatnonzero(mask)
    out = np.zeros(mask.shape, dtype=np.int32)
    if not len(pixels):
        return out
    number = np.full(mask.shape, -1, dtype=np.int64)
    number.ravel()[pixels] = np.arange(len(pixels))
    right, down = mask[:, 1:] & mask[:, :-1], mask[1:] & mask[:-1]
    a = np.concatenate([number[:, :-1][right], number[:-1][down]])
    b = np.concatenate([number[:, 1:][right], number[1:][down]])
    heights = height.ravel()[pixels]
    low, high = np.minimum(heights[a], heights[b]), np.maximum(heights[a], heights[b])
    rank = np.empty(len(a))
    rank[np.lexsort((-high, -low))] = np.arange(2, len(a) + 2)
    seeds = markers.ravel()[pixels]
    seeded = np.flatnonzero(seeds)
    # All markers hang on one extra node by the cheapest edges; without it, the spanning tree falls apart into basins.
    n = len(pixels)
    graph = sparse.csr_matrix(
        (np.append(rank, np.ones(len(seeded))), (np.append(a, seeded), np.append(b, np.full(len(seeded), n)))),
        shape=(n + 1, n + 1),
    )
    tree = csgraph.minimum_spanning_tree(graph)[:n, :n]
    count, basin = csgraph.connected_components(tree, directed=False)
    name = np.zeros(count, dtype=np.int32)
    name[basin[seeded]] = seeds[seeded]
    nameless = np.flatnonzero(name == 0)
    name[nameless] = int(seeds.max(initial=0)) + 1 + np.arange(len(nameless))
    out.ravel()[pixels] = name[basin]
    return out


def marker_distance(semantics: Iterable[npt.NDArray[Any]], *, unknown: int = UNKNOWN) -> int:
    """A distance between watershed markers that suits the objects of a set: a quarter of their typical inner radius.

    The inner radius of a component is its largest distance to the outside; the typical one is the mean over the
    components of all maps weighted by area, so that crumbs and specks do not count.
    """
    radii: list[float] = []
    areas: list[float] = []
    for semantic in semantics:
        parts = class_components(semantic, unknown=unknown)
        if len(parts.classes):
            index = np.arange(1, len(parts.classes) + 1)
            distance = np.zeros(parts.labels.shape)
            for class_id in np.unique(parts.classes):
                distance = np.maximum(distance, ndimage.distance_transform_edt(semantic == class_id))
            radii += np.asarray(ndimage.maximum(distance, parts.labels, index)).tolist()
            areas += np.bincount(parts.labels.ravel(), minlength=len(index) + 1)[1:].tolist()
    return max(1, round(0.25 * float(np.average(radii, weights=areas)))) if radii else 1


def _as_instances(
    parts: Components, min_area: int, source: str, confidence: npt.NDArray[Any] | None = None
) -> Instances:
    areas = np.bincount(parts.labels.ravel(), minlength=len(parts.classes) + 1)[1:]
    kept = areas >= max(min_area, 1)
    renumber = np.zeros(len(areas) + 1, dtype=np.int32)
    renumber[1:][kept] = np.arange(1, int(kept.sum()) + 1)
    scores = np.sqrt(areas)
    if confidence is not None:
        scores = np.bincount(parts.labels.ravel(), np.ravel(confidence), minlength=len(areas) + 1)[1:] / areas
    return Instances.from_label_map(
        renumber[parts.labels],
        labels=parts.classes[kept],
        scores=scores[kept],
        sources=[source] * int(kept.sum()),
    )
