"""Centre grouping: every pixel joins the centre its offset points at.

As in BESTIE (Kim, Yoo, Rhee, Kim, CVPR 2022). Centres are peaks of a heatmap and places where offsets converge, or
points that the user gave.

Positions are (y, x) in image pixels with pixel centres at whole numbers; cell i of a grid of stride s lies at
s * i + (s - 1) / 2. Offsets are (dy, dx) in image pixels whatever the stride.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from pixelkin.data.sample import UNKNOWN
from pixelkin.grouping.prominence import saddles

PEAK, BLOB, POINT, WHOLE = "peak", "blob", "point", "whole"
"""Where a centre comes from: the heat, converging offsets, the user; or none was found and the component is one."""

MANY = 128
"""So many centres and more are looked up in a tree."""

Floats = npt.NDArray[np.floating[Any]]
Box = tuple[slice, slice]


@dataclass(frozen=True)
class CenterRules:
    """What is a centre; the defaults are the release's, in image pixels where they are lengths or areas.

    Attributes:
        min_area: smaller components are left out, unless the user's points are grouped.
        threshold: the least heat of a peak.
        kernel: width of the window in which a peak has the largest heat of its component.
        blob_radius: in cells of the grid that is grouped: where offsets are shorter, they converge.
        blob_area: fewest and most cells of such a blob that count as a centre. Default: 19 to 23, as released, for
            fields of stride 1; 16 to 23 for others, whose centres are no whole cells.
        blob_heat: the heat at a blob's middle must be above this.
        merge_distance: a blob counts beside peaks only if it is further from all of them.
        relative_kernel: the window reaches so many times the square root of the component's area to each side, up to
            twice as far as without; ``merge_distance`` shrinks and grows with it. As released: None.
        prominence: a peak counts beside a higher one only where the heat falls by this share of it on every way between
            them. As released: 0.
        leftover: a component without any centre is one ``"whole"`` instance, or it is dropped (``"drop"``).
        scope: what given points divide: the ``"component"`` they lie in, components without points being left to the
            predicted centres; or all of their ``"class"``, as released.
    """

    min_area: int = 50
    threshold: float = 0.1
    kernel: int = 41
    blob_radius: float = 2.5
    blob_area: tuple[int, int] | None = None
    blob_heat: float = 0.05
    merge_distance: float = 100.0
    relative_kernel: float | None = None
    prominence: float = 0.0
    leftover: Literal["whole", "drop"] = "whole"
    scope: Literal["component", "class"] = "component"

    def __post_init__(self) -> None:
        if self.leftover not in ("whole", "drop"):
            raise ValueError(f"leftover cannot be {self.leftover!r}: use 'whole' or 'drop'")
        if self.scope not in ("component", "class"):
            raise ValueError(f"scope cannot be {self.scope!r}: use 'component' or 'class'")


class Centers(NamedTuple):
    """(N, 2) float64 (y, x) in image pixels, (N,) float32 heat (1 for a blob), and (N,) of PEAK, BLOB, POINT, WHOLE."""

    places: npt.NDArray[np.float64]
    heat: npt.NDArray[np.float32]
    kinds: npt.NDArray[np.str_]

    def pick(self, rows: npt.NDArray[Any]) -> Centers:
        """Some of them."""
        return Centers(self.places[rows], self.heat[rows], self.kinds[rows])


class CenterGroups(NamedTuple):
    """Instances of an image.

    Attributes:
        labels: (H, W) int32: 0 none, else i + 1 for instance i.
        classes: (N,) int64 class ids.
        scores: (N,) float32.
        centers: the centre of each.
    """

    labels: npt.NDArray[np.int32]
    classes: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    centers: Centers


def group_by_centers(
    heat: Floats,
    offset: Floats,
    semantic: npt.NDArray[Any],
    ids: Sequence[int] | npt.NDArray[np.integer[Any]],
    *,
    stride: int = 1,
    probability: Floats | None = None,
    points: npt.ArrayLike | None = None,
    point_classes: npt.ArrayLike | None = None,
    rules: CenterRules = CenterRules(),
    unknown: int = UNKNOWN,
) -> CenterGroups:
    """Instances of every class of a semantic map.

    An instance's score is the heat at its centre times the mean probability of its class in its mask. The heat of a
    blob is replaced by that mean, as released, and of a given point by 1; a component without a centre has its largest.

    Args:
        heat: (K, h, w) centre heat.
        offset: (2, h, w) (dy, dx) in image pixels to the centre.
        semantic: (H, W) class ids, 0 background. Either on the grid of the fields, or on the image's pixels: then the
            fields are brought there first.
        ids: (K,) class id of each channel of the heat. Classes without a channel have no instances.
        stride: image pixels of a cell of the fields.
        probability: (K, H, W) or (K, h, w) probability of each class; None: 1.
        points: (P, 2) (y, x) in image pixels: given centres.
        point_classes: (P,) class id of each.
        rules: thresholds.
        unknown: the class id of unlabelled pixels.

    Raises:
        ValueError: sizes that do not fit, points without classes, or a point outside the image.
    """
    semantic, names = np.asarray(semantic), np.asarray(ids, dtype=np.int64).reshape(-1)
    rules, grid = _checked(heat, offset, semantic, names, stride, probability, rules)
    shown = np.isin(names, semantic) & (names != 0) & (names != unknown)
    offset = _to_grid(offset, semantic.shape, stride // grid)
    given, given_names = _given(points, point_classes, (semantic.shape[0] * grid, semantic.shape[1] * grid))
    labels = np.zeros(semantic.shape, dtype=np.int32)
    classes: list[int] = []
    scores: list[float] = []
    found: list[Centers] = []
    for channel in np.flatnonzero(shown):
        mine = np.where(semantic == names[channel], 1, 0).astype(np.uint8)
        warm = _to_grid(heat[channel], semantic.shape, stride // grid)
        sure = None if probability is None else _on_grid(probability[channel], semantic.shape, stride)
        for box, mask, centers in _territories(mine, warm, offset, given[given_names == names[channel]], grid, rules):
            groups = group_to_centers(offset[:, box[0], box[1]], _within(centers.places, box, grid), mask, stride=grid)
            sizes = np.bincount(groups[mask], minlength=len(centers.places) + 1)[1:]
            kept = np.flatnonzero(sizes)
            seg = np.ones(len(sizes))
            if sure is not None:
                seg = np.bincount(groups[mask], sure[box][mask], len(sizes) + 1)[1:] / np.maximum(sizes, 1)
            own = np.where(centers.kinds == BLOB, seg, np.where(centers.kinds == POINT, 1.0, centers.heat))
            renumber = np.zeros(len(sizes) + 1, dtype=np.int32)
            renumber[kept + 1] = len(classes) + 1 + np.arange(len(kept))
            labels[box][mask] = renumber[groups[mask]]
            classes += [int(names[channel])] * len(kept)
            scores += (own * seg)[kept].tolist()
            found.append(centers.pick(kept))
    return CenterGroups(labels, np.array(classes, np.int64), np.array(scores, np.float32), _joined(found))


def find_centers(
    heat: Floats, offset: Floats, mask: npt.NDArray[np.bool_], *, stride: int = 1, rules: CenterRules = CenterRules()
) -> Centers:
    """The centres of one component: peaks of its heat, then blobs of its offsets that are far from all of them.

    Args:
        heat: (h, w) centre heat of its class.
        offset: (2, h, w) (dy, dx) in image pixels.
        mask: (h, w) the component.
        stride: image pixels of a cell.
        rules: thresholds.
    """
    reach = float(max(rules.kernel // 2, 1))
    apart = rules.merge_distance
    if rules.relative_kernel is not None:
        scaled = float(np.clip(rules.relative_kernel * stride * np.sqrt(np.count_nonzero(mask)), 1, 2 * reach))
        reach, apart = scaled, apart * scaled / reach
    tops = heat_peaks(heat, mask, reach=max(1, round(reach / stride)), threshold=rules.threshold)
    if rules.prominence:
        tops = tops[saddles(heat, mask, tops) <= (1 - rules.prominence) * heat[tuple(tops.T)]]
    blobs = converging_blobs(
        offset, mask, stride=stride, radius=rules.blob_radius, area=rules.blob_area or _blob_area(stride)
    )
    at = tuple(np.floor(blobs + 0.5).astype(np.intp).T)
    blobs = blobs[(np.where(mask, heat, 0)[at] > rules.blob_heat)]
    if len(tops):
        distance = np.hypot(*(blobs[:, None] - tops).transpose(2, 0, 1)) * stride
        blobs = blobs[(distance > apart).all(axis=1)]
    values = np.concatenate([heat[tuple(tops.T)], np.ones(len(blobs))]).astype(np.float32)
    kinds = np.array([PEAK] * len(tops) + [BLOB] * len(blobs), dtype=np.str_)
    return Centers(np.concatenate([tops, blobs]) * stride + (stride - 1) / 2, values, kinds)


def heat_peaks(heat: Floats, mask: npt.NDArray[np.bool_], *, reach: int, threshold: float) -> npt.NDArray[np.intp]:
    """(N, 2) cells of a mask with heat of at least ``threshold``, the largest in it within ``reach`` cells per axis.

    Of equals within reach, the first in raster order is the peak.
    """
    inside = np.where(mask, heat, -np.inf).astype(np.float32)
    window = np.ones((2 * reach + 1, 2 * reach + 1), dtype=np.uint8)
    top = (inside >= threshold) & mask
    if not top.any():
        return np.zeros((0, 2), dtype=np.intp)
    top &= inside == cv2.dilate(inside, window, borderType=cv2.BORDER_CONSTANT, borderValue=-np.inf)
    if np.count_nonzero(top) > 1:
        early = np.where(top, heat.size - np.arange(heat.size, dtype=np.float64).reshape(heat.shape), 0.0)
        top &= early == cv2.dilate(early, window, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.argwhere(top)


def converging_blobs(
    offset: Floats, mask: npt.NDArray[np.bool_], *, stride: int = 1, radius: float = 2.5, area: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """(N, 2) middles in cells of the 4-connected blobs of a mask where offsets are shorter than ``radius`` cells.

    Only blobs of the given least and greatest area count: a field of unit slope has 21 cells within 2.5 of the middle
    of a cell and 16 to 21 elsewhere, one of slope 0.85 has at least 24, one of 1.2 hardly ever 16.

    Args:
        offset: (2, h, w) (dy, dx) in image pixels.
        mask: (h, w).
        stride: image pixels of a cell.
        radius: in cells.
        area: fewest and most cells.
    """
    short = mask & (offset[0] ** 2 + offset[1] ** 2 < (radius * stride) ** 2)
    _, _, stats, middles = cv2.connectedComponentsWithStats(short.astype(np.uint8), connectivity=4)
    sizes = stats[1:, cv2.CC_STAT_AREA]
    return np.asarray(middles[1:][(sizes >= area[0]) & (sizes <= area[1])][:, ::-1], dtype=np.float64)


def group_to_centers(
    offset: Floats, centers: npt.ArrayLike, mask: npt.NDArray[np.bool_] | None = None, *, stride: int = 1
) -> npt.NDArray[np.int32]:
    """For every pixel, the centre nearest to where its offset leads: argmin over k of ||p + offset(p) - c_k||.

    Args:
        offset: (2, h, w) (dy, dx) in image pixels.
        centers: (N, 2) (y, x) in image pixels.
        mask: (h, w) bool; the others get 0. Default: all.
        stride: image pixels of a cell.

    Returns:
        (h, w) int32: 0, or k + 1 for centre k; the first of equally near ones.

    Raises:
        ValueError: a field that is not (2, h, w), or a mask of another size.
    """
    if offset.ndim != 3 or offset.shape[0] != 2:
        raise ValueError(f"an offset field must be (2, h, w), got shape {offset.shape}")
    if mask is not None and mask.shape != offset.shape[1:]:
        raise ValueError(f"the mask is {mask.shape}, the field {offset.shape[1:]}: give both the same size")
    places = np.asarray(centers, dtype=np.float32).reshape(-1, 2)
    out = np.zeros(offset.shape[1:], dtype=np.int32)
    rows, columns = np.nonzero(np.ones(offset.shape[1:], dtype=bool) if mask is None else mask)
    if not len(rows) or not len(places):
        return out
    shift = (stride - 1) / 2
    y = (rows * stride + shift + offset[0][rows, columns]).astype(np.float32)
    x = (columns * stride + shift + offset[1][rows, columns]).astype(np.float32)
    if len(places) >= MANY:
        best = cKDTree(places).query(np.stack([y, x], axis=1))[1]
    else:
        best = np.zeros(len(rows), dtype=np.int32)
        least = (y - places[0, 0]) ** 2 + (x - places[0, 1]) ** 2
        for k in range(1, len(places)):
            distance = (y - places[k, 0]) ** 2 + (x - places[k, 1]) ** 2
            best[distance < least] = k
            np.minimum(least, distance, out=least)
    out[rows, columns] = best + 1
    return out


def _territories(
    mine: npt.NDArray[np.uint8],
    heat: Floats,
    offset: Floats,
    given: npt.NDArray[np.float64],
    grid: int,
    rules: CenterRules,
) -> Iterator[tuple[Box, npt.NDArray[np.bool_], Centers]]:
    """What is divided of one class, piece by piece: box, mask in it, and centres in image pixels."""
    if rules.scope == "class" and len(given):
        rows, columns = np.flatnonzero(mine.any(axis=1)), np.flatnonzero(mine.any(axis=0))
        box = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
        yield box, mine[box] > 0, _points(given)
        return
    count, pieces, stats, middles = cv2.connectedComponentsWithStats(mine, connectivity=8)
    cells = np.clip(np.floor((given + 0.5) / grid), 0, np.array(mine.shape) - 1).astype(np.intp)
    homes = pieces[cells[:, 0], cells[:, 1]]
    for piece in range(1, count):
        left, top, width, height, area = (int(value) for value in stats[piece])
        own = given[homes == piece]
        if area * grid**2 < rules.min_area and not len(own):
            continue
        box = slice(top, top + height), slice(left, left + width)
        mask = pieces[box] == piece
        if len(own):
            yield box, mask, _points(own)
            continue
        centers = find_centers(heat[box], offset[:, box[0], box[1]], mask, stride=grid, rules=rules)
        if len(centers.places):
            yield box, mask, centers._replace(places=centers.places + np.array([top, left]) * grid)
        elif rules.leftover == "whole":
            middle = np.asarray(middles[piece : piece + 1, ::-1] * grid + (grid - 1) / 2, dtype=np.float64)
            warmest = np.array([heat[box][mask].max()], dtype=np.float32)
            yield box, mask, Centers(middle, warmest, np.array([WHOLE]))


def _points(places: npt.NDArray[np.float64]) -> Centers:
    return Centers(places, np.ones(len(places), dtype=np.float32), np.array([POINT] * len(places), dtype=np.str_))


def _within(places: npt.NDArray[np.float64], box: Box, grid: int) -> npt.NDArray[np.float64]:
    return np.asarray(places - np.array([box[0].start, box[1].start]) * grid)


def _joined(parts: Sequence[Centers]) -> Centers:
    if not parts:
        return _points(np.zeros((0, 2)))
    places, heat, kinds = zip(*parts, strict=True)
    return Centers(np.concatenate(places), np.concatenate(heat), np.concatenate(kinds))


def _blob_area(stride: int) -> tuple[int, int]:
    return (19, 23) if stride == 1 else (16, 23)


def _to_grid(field: Floats, size: tuple[int, ...], factor: int) -> npt.NDArray[np.float32]:
    """(..., h, w) to ``factor`` times as fine a grid, cut to size; bilinear, each cell over its pixels."""
    field = np.asarray(field, dtype=np.float32)
    if factor == 1:
        return field
    height, width = field.shape[-2:]
    fine = (width * factor, height * factor)
    flat = [cv2.resize(each, fine, interpolation=cv2.INTER_LINEAR) for each in field.reshape(-1, height, width)]
    return np.asarray(np.stack(flat).reshape(*field.shape[:-2], *fine[::-1])[..., : size[0], : size[1]])


def _on_grid(field: Floats, size: tuple[int, ...], stride: int) -> Floats:
    return field if field.shape == size else _to_grid(field, size, stride)


def _given(
    points: npt.ArrayLike | None, classes: npt.ArrayLike | None, size: tuple[int, int]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    if (points is None) != (classes is None):
        raise ValueError("points need a class each: give both points and point_classes, or neither")
    places = np.asarray(() if points is None else points, dtype=np.float64).reshape(-1, 2)
    names = np.asarray(() if classes is None else classes, dtype=np.int64).reshape(-1)
    if len(places) != len(names):
        raise ValueError(f"there are {len(places)} points and {len(names)} classes: give each point its class")
    outside = np.flatnonzero(~((places >= -0.5) & (places < np.array(size))).all(axis=1))  # NaN is outside too
    if len(outside):
        y, x = places[outside[0]]
        raise ValueError(
            f"point {outside[0] + 1} at y {y:g}, x {x:g} is outside the image of {size[1]}x{size[0]} pixels:"
            " correct or remove it"
        )
    return places, names


def _checked(
    heat: Floats,
    offset: Floats,
    semantic: npt.NDArray[Any],
    names: npt.NDArray[np.int64],
    stride: int,
    probability: Floats | None,
    rules: CenterRules,
) -> tuple[CenterRules, int]:
    """The rules with what follows from the stride, and the image pixels of a cell of the semantic map."""
    if semantic.ndim != 2 or semantic.dtype.kind not in "iu":
        raise ValueError(f"a semantic map must be (H, W) integers, got {semantic.dtype} of shape {semantic.shape}")
    grid = heat.shape[-2:]
    if heat.shape != (len(names), *grid) or offset.shape != (2, *grid):
        raise ValueError(f"heat {heat.shape} and offset {offset.shape} must be ({len(names)}, h, w) and (2, h, w)")
    rules = replace(rules, blob_area=rules.blob_area or _blob_area(stride))
    if probability is not None and probability.shape not in (heat.shape, (len(names), *semantic.shape)):
        raise ValueError(f"the probability is {probability.shape}: give one map for each of {len(names)} classes")
    if semantic.shape == grid:
        return rules, stride
    if tuple(-(-side // stride) for side in semantic.shape) != tuple(grid):
        raise ValueError(f"a map of {semantic.shape} pixels has no fields of {grid} at stride {stride}: resize one")
    return rules, 1
