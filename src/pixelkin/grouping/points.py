"""Division of a semantic map at the user's points: one an object, with its class.

Positions are (y, x) in image pixels with pixel centres at whole numbers.
"""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pixelkin.data.components import Components, class_components
from pixelkin.data.sample import UNKNOWN
from pixelkin.grouping.geodesic import geodesic_groups

Reach = Literal["component", "touching"]


def mend_classes(
    semantic: npt.NDArray[Any], points: npt.ArrayLike, point_classes: npt.ArrayLike, *, unknown: int = UNKNOWN
) -> npt.NDArray[Any]:
    """The map, with the classes that the points say.

    A component of a class of which it holds no point, but points of others, takes their class: a model that confuses
    sheep and cow has still found the animal. With points of several classes, each pixel takes that of the nearest.

    Args:
        semantic: (H, W) integer class ids, 0 background.
        points: (P, 2) (y, x).
        point_classes: (P,) class id of each.
        unknown: the class id of pixels nobody labelled.

    Returns:
        (H, W) of the map's type, or of one that holds the ids too; the map itself where there is nothing to mend.
    """
    places, ids = _points(points, point_classes)
    parts = class_components(semantic, unknown=unknown)
    homes = _under(parts.labels, places)
    right = homes > 0
    right[right] = parts.classes[homes[right] - 1] == ids[right]
    mended = semantic
    for home in np.setdiff1d(homes[(homes > 0) & ~right], homes[right]):
        if mended is semantic:
            mended = semantic.astype(np.promote_types(semantic.dtype, np.min_scalar_type(ids.max())))
        rows, columns = np.nonzero(parts.labels == home)
        own = np.flatnonzero(homes == home)
        mended[rows, columns] = ids[own[_nearest(rows, columns, places[own])]]
    return mended


def divide_at_points(
    semantic: npt.NDArray[Any],
    points: npt.ArrayLike,
    point_classes: npt.ArrayLike,
    *,
    cost: npt.NDArray[np.floating[Any]] | None = None,
    votes: npt.NDArray[np.floating[Any]] | None = None,
    snap: float = 0.0,
    reach: Reach = "touching",
    unknown: int = UNKNOWN,
) -> npt.NDArray[np.int32]:
    """Which point every pixel of a semantic map belongs to.

    A component with points of its class is divided by the shortest paths from them. A point beside its object, as the
    middle of a box may be, belongs to the nearest component of its class within ``snap`` pixels. A component without
    points goes, where ``reach`` is ``"touching"``, to those of its class that lie in labelled pixels connected to it,
    whatever class is between: an object cut in two by another keeps both halves.

    Args:
        semantic: (H, W) integer class ids, 0 background.
        points: (P, 2) (y, x).
        point_classes: (P,) class id of each.
        cost: (H, W) of a pixel's edge, see :func:`~pixelkin.grouping.geodesic.geodesic_groups`.
        votes: (2, H, W) see there.
        snap: see above.
        reach: ``"component"``: what holds no point of its class belongs to none.
        unknown: the class id of pixels nobody labelled.

    Returns:
        (H, W) int32: 0 where no point says anything, else k + 1 for point k.
    """
    places, ids = _points(points, point_classes)
    parts = class_components(semantic, unknown=unknown)
    homes = _homes(semantic, parts, places, ids, snap)
    owners = np.zeros(semantic.shape, np.int32)
    labelled = (parts.labels > 0).astype(np.uint8)
    blobs = cv2.connectedComponents(labelled, connectivity=8)[1] if reach == "touching" else None
    blob_of = None if blobs is None else _under(blobs, places)
    for part, (class_id, (rows, columns)) in enumerate(
        zip(parts.classes, ndimage.find_objects(parts.labels), strict=True), start=1
    ):
        mask = parts.labels[rows, columns] == part
        own = np.flatnonzero(homes == part)
        if not len(own) and blobs is not None and blob_of is not None:
            blob = blobs[rows, columns][mask][0]
            own = np.flatnonzero((blob_of == blob) & (ids == class_id))
        if not len(own):
            continue
        if len(own) == 1:
            groups = mask.astype(np.int32)
        else:
            groups = geodesic_groups(
                mask,
                places[own] - np.array([rows.start, columns.start]),
                cost=None if cost is None else cost[rows, columns],
                votes=None if votes is None else votes[:, rows, columns],
            )
        owners[rows, columns][mask] = own[groups[mask] - 1] + 1
    return owners


def _homes(
    semantic: npt.NDArray[Any],
    parts: Components,
    places: npt.NDArray[np.float64],
    ids: npt.NDArray[np.int64],
    snap: float,
) -> npt.NDArray[np.int64]:
    """The component of its class that each point lies in, or beside; 0: none."""
    homes = _under(parts.labels, places)
    homes[np.concatenate([[0], parts.classes])[homes] != ids] = 0
    for point in np.flatnonzero(homes == 0) if snap > 0 else ():
        (y, x), far = places[point], int(np.ceil(snap)) + 1
        top, left = max(0, int(y) - far), max(0, int(x) - far)
        rows, columns = np.nonzero(semantic[top : int(y) + far + 1, left : int(x) + far + 1] == ids[point])
        ways = np.hypot(rows + top - y, columns + left - x)
        if len(ways) and ways.min() <= snap:
            nearest = ways.argmin()
            homes[point] = parts.labels[rows[nearest] + top, columns[nearest] + left]
    return homes


def _points(points: npt.ArrayLike, classes: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    places = np.asarray(points, np.float64).reshape(-1, 2)
    ids = np.asarray(classes, np.int64).reshape(-1)
    if len(places) != len(ids):
        raise ValueError(f"there are {len(places)} points and {len(ids)} classes: give each point its class")
    return places, ids


def _under(labels: npt.NDArray[Any], places: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The label under each place."""
    cells = np.clip(np.floor(places + 0.5), 0, np.array(labels.shape) - 1).astype(np.int64)
    return np.asarray(labels[cells[:, 0], cells[:, 1]], np.int64)


def _nearest(
    rows: npt.NDArray[Any], columns: npt.NDArray[Any], places: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """For every pixel, the nearest place."""
    pixels = np.stack([rows, columns], axis=1)
    return np.asarray(((pixels[:, None] - places[None]) ** 2).sum(axis=2).argmin(axis=1))
