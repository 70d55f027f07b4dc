"""Which connected components look like several objects at once, judged by the others of their class.

No object of such a component is known, so it must not be taught as one. The judgement rests on two habits of a class,
both measured over the whole set: objects of a convex kind (nuclei, balls, most vehicles) have no deep notches, and
objects of one kind are of similar size, in the same image or at least in the set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypedDict

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

CONVEX = 0.9
"""Median solidity that a class of convex objects reaches."""

NOTCH = 0.05
"""A component whose solidity is this far below the median of its class has a deep notch. Chosen by looking at the true
instances of the 60 training images of dsb2018: there notch and size together find 280 of the 332 components of several
nuclei, and suspect 92 of 1613 single ones. On the 180 training photos of coco they find only 60 of 237, and suspect 142
of 1099: shape and size say little about classes of many forms."""

TIMES = 2.2
"""A component this many times as large as is usual for its class may well be two objects."""

SMALLEST = 16
"""Components of fewer pixels say nothing about their class."""

ENOUGH = 5
"""Components of one class that an image needs to have a usual size of its own."""

EVEN = 0.5
"""Spread of the log areas within an image up to which a class counts as even in size: most within a factor of 1.6."""


class ClassStatistics(TypedDict):
    """The habits of one class: numbers, so that they can be saved as JSON.

    Attributes:
        count: components measured.
        area: median area in pixels.
        solidity: median solidity.
        spread: robust standard deviation of the log areas over the set.
        within: the same within an image, median over images with enough components; ``spread`` where there are none.
    """

    count: int
    area: float
    solidity: float
    spread: float
    within: float


Statistics = dict[str, ClassStatistics]
"""Class id, as text because JSON keys are, to its habits."""


class Shapes(NamedTuple):
    """Measures of the components of a label map: areas in pixels, solidities in 0..1, and whether cut by the image."""

    areas: npt.NDArray[np.int64]
    solidities: npt.NDArray[np.float64]
    cut: npt.NDArray[np.bool_]


def measure_shapes(labels: npt.NDArray[Any], count: int) -> Shapes:
    """Measure the components 1..count of an (H, W) label map.

    The solidity is the share of the component in the pixels whose centres its convex hull holds; 1 is convex.
    """
    areas, solidities, cut = np.zeros(count, np.int64), np.ones(count), np.zeros(count, bool)
    for i, box in enumerate(ndimage.find_objects(np.asarray(labels, dtype=np.int32), max_label=count)):
        if box is None:
            continue
        mask = np.asarray(labels[box] == i + 1)
        areas[i] = int(mask.sum())
        solidities[i] = areas[i] / _hull_pixels(mask)
        cut[i] = any(part.start == 0 or part.stop == side for part, side in zip(box, labels.shape, strict=True))
    return Shapes(areas, solidities, cut)


def object_statistics(maps: Iterable[tuple[npt.NDArray[Any], npt.NDArray[np.int64]]]) -> Statistics:
    """The habits of every class over a set of images.

    Crumbs and what the image cuts off are left out, unless a class has nothing else.

    Args:
        maps: of each image, the (H, W) label map of its connected components (0 none, i + 1 for component i) and their
            (N,) class ids.
    """
    found: dict[int, list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.bool_]]]] = {}
    for labels, classes in maps:
        shapes = measure_shapes(labels, len(classes))
        large = shapes.areas >= SMALLEST
        for class_id in np.unique(classes):
            chosen = large & (classes == class_id)
            if chosen.any():
                parts = np.log(shapes.areas[chosen]), shapes.solidities[chosen], ~shapes.cut[chosen]
                found.setdefault(int(class_id), []).append(parts)
    return {str(class_id): _habits(images) for class_id, images in sorted(found.items())}


def suspects(
    labels: npt.NDArray[Any], classes: npt.NDArray[np.int64], statistics: Mapping[str, ClassStatistics]
) -> npt.NDArray[np.bool_]:
    """Which components may hold several objects.

    Of a class of convex objects those with a deep notch, or much larger than usual: usual in the image for a class that
    is even in size within images, else in the set, where a class of many sizes needs more to stand out. Of any other
    class none, as neither shape nor size tells.

    Args:
        labels: (H, W), 0 none, i + 1 for component i.
        classes: (N,) class ids of the components.
        statistics: of the set, from :func:`object_statistics`.

    Returns:
        (N,) bool.
    """
    out = np.zeros(len(classes), dtype=bool)
    shapes = measure_shapes(labels, len(classes))
    for class_id in np.unique(classes):
        habits = statistics.get(str(class_id))
        if habits is None or habits["solidity"] < CONVEX:
            continue
        mine = (classes == class_id) & (shapes.areas >= SMALLEST)
        usual = _usual_area(shapes, mine, habits)
        times = TIMES if habits["within"] <= EVEN else max(TIMES, float(np.exp(2 * habits["spread"])))
        out |= mine & ((shapes.solidities < habits["solidity"] - NOTCH) | (shapes.areas > times * usual))
    return out


def usual_diameter(
    labels: npt.NDArray[Any], classes: npt.NDArray[np.int64], statistics: Mapping[str, ClassStatistics]
) -> float | None:
    """The usual size of an object in an image, as the side of a square of its area in pixels.

    Each class has that of its solitary components in the image where there are enough of them, else that of the set;
    the answer is the median over the image's components.

    Args:
        labels: (H, W), 0 none, i + 1 for component i.
        classes: (N,) class ids of the components.
        statistics: of the set, from :func:`object_statistics`.

    Returns:
        Pixels; None where the image has no component of a known class.
    """
    doubtful = suspects(labels, classes, statistics)
    shapes = measure_shapes(labels, len(classes))
    sides: list[float] = []
    for class_id in np.unique(classes):
        mine = (classes == class_id) & (shapes.areas >= SMALLEST)
        solitary = mine & ~doubtful & ~shapes.cut
        if solitary.sum() >= ENOUGH:
            area = float(np.median(shapes.areas[solitary]))
        elif str(class_id) in statistics:
            area = statistics[str(class_id)]["area"]
        else:
            continue
        sides += [float(np.sqrt(area))] * max(int(mine.sum()), 1)
    return float(np.median(sides)) if sides else None


def _usual_area(shapes: Shapes, mine: npt.NDArray[np.bool_], habits: ClassStatistics) -> float:
    """Of the image where the class is even in size there and common enough, else of the set."""
    whole = mine & ~shapes.cut & (shapes.solidities >= habits["solidity"] - NOTCH)
    if habits["within"] <= EVEN and whole.sum() >= ENOUGH:
        return float(np.median(shapes.areas[whole]))
    return habits["area"]


def _habits(
    images: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.bool_]]],
) -> ClassStatistics:
    whole = np.concatenate([kept for _, _, kept in images])
    if not whole.any():
        whole[:] = True
    areas = np.concatenate([areas for areas, _, _ in images])[whole]
    solidities = np.concatenate([solidities for _, solidities, _ in images])[whole]
    spread = _deviation(areas)
    within = [_deviation(areas[kept]) for areas, _, kept in images if kept.sum() >= ENOUGH]
    return ClassStatistics(
        count=len(areas),
        area=float(np.exp(np.median(areas))),
        solidity=float(np.median(solidities)),
        spread=spread,
        within=float(np.median(within)) if within else spread,
    )


def _deviation(values: npt.NDArray[np.float64]) -> float:
    """Standard deviation of a normal distribution with this median distance from the median."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def _hull_pixels(mask: npt.NDArray[np.bool_]) -> float:
    """How many pixel centres the convex hull of a mask's pixel centres holds, by Pick's theorem."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    hull = cv2.convexHull(np.concatenate(contours))[:, 0].astype(np.int64)
    edges = np.abs(np.roll(hull, -1, axis=0) - hull)
    on_edge = int(np.gcd(edges[:, 0], edges[:, 1]).sum())
    return float(cv2.contourArea(hull.astype(np.float32))) + on_edge / 2 + 1
