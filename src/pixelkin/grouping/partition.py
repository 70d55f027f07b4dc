"""Affinities to scored instances: by the mutex watershed or GASP, and how well the affinities bear each segment out."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import numba
import numpy as np
import numpy.typing as npt

from pixelkin.data.instances import Instances
from pixelkin.grouping.gasp import gasp
from pixelkin.grouping.mutex_watershed import check_affinities, check_classes, mutex_watershed

PartitionMethod = Literal["mutex", "gasp"]


class Partition(NamedTuple):
    """Segments of an image.

    Attributes:
        labels: (H, W) int32: 0 none, else i + 1 for segment i.
        scores: (N,) float32 in 0..1.
        classes: (N,) int64 class ids; all 1 where no classes were given.
    """

    labels: npt.NDArray[np.int32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]

    def instances(self, source: str = "partition") -> Instances:
        """The segments as :class:`~pixelkin.Instances`."""
        sources = [source] * len(self.scores)
        return Instances.from_label_map(self.labels, labels=self.classes, scores=self.scores, sources=sources)


def partition(
    affinities: npt.ArrayLike,
    offsets: npt.ArrayLike,
    foreground: npt.ArrayLike | None = None,
    *,
    classes: npt.ArrayLike | None = None,
    class_ids: npt.ArrayLike | None = None,
    attractive: int | None = None,
    stride: int | tuple[int, int] = 1,
    min_area: int = 0,
    method: PartitionMethod = "mutex",
) -> Partition:
    """Instances from affinities: which pixels, so far apart in such a direction, are one object.

    The mutex watershed (Wolf et al., arXiv 1904.12654; with classes, arXiv 1912.12717) takes no seeds, no number of
    objects and no threshold. Long-range offsets matter more than anything else: they see that two objects are two where
    the border between them has a gap. A foreground keeps a large background from falling into pieces. The first call
    compiles, once for this machine.

    ``method="gasp"`` is average linkage instead (Bailoni et al., arXiv 1906.11713), by
    :func:`~pixelkin.grouping.gasp.gasp`: two segments join while the mean affinity of all pairs between them is above
    0.5, so that noise is averaged out. It takes somewhat longer, and no classes.

    The score of a segment is the mean affinity of the pairs within it, times 1 - the mean affinity of the pairs that
    lead out of it, times the mean foreground in it and, where there are classes, the mean score of its class.

    Args:
        affinities: (C, H, W) in 0..1. Channel c at pixel p: how surely p and p + offsets[c] are one object; 1 is sure
            that they are, 0 that they are not, also for far pixels.
        offsets: (C, 2) integers (dy, dx) in pixels. First the attractive ones, which join, as ``(-1, 0), (0, -1)``;
            then the long-range ones, which forbid, as ``(-9, 0), (0, -9), (-27, 0), (0, -27)``.
        foreground: (H, W) bool, or probabilities, of which those above 0.5 are foreground. Default: everything is.
        classes: (K, H, W) scores in 0..1 of K classes, the background first. A segment has one class, never joins one
            of another, and is left out where its class is the background.
        class_ids: (K,) ids of the classes; 0 is background. Default: 0..K-1.
        attractive: how many offsets attract. Default: those at the beginning that lead to one of the eight neighbours.
        stride: only pairs that begin on every ``stride``-th row and column forbid; an int or (dy, dx). At 2 to 4 it is
            several times as fast and hardly changes large objects.
        min_area: smaller segments are left out, in pixels.
        method: ``mutex`` for the mutex watershed, ``gasp`` for average linkage.

    Returns:
        The segments in raster order of their first pixels, with scores and classes.

    Raises:
        ValueError: shapes that do not fit, values out of range, or classes for a method that takes none.
    """
    if method not in get_args(PartitionMethod):
        raise ValueError(f"method is {method!r}: give one of {', '.join(get_args(PartitionMethod))}")
    if method == "gasp" and classes is not None:
        raise ValueError('gasp takes no classes: use method="mutex", or leave them out')
    weights, jumps, _ = check_affinities(affinities, offsets, attractive)
    size = weights.shape[1:]
    sure = None if foreground is None else _probabilities(foreground, size)
    inside = None if sure is None else sure > 0.5
    scores = None if classes is None else check_classes(classes, size)
    ids = _class_ids(class_ids, scores)
    labels, channels = (
        (gasp(weights, jumps, inside, attractive=attractive, stride=stride), None)
        if method == "gasp"
        else mutex_watershed(weights, jumps, inside, classes=scores, attractive=attractive, stride=stride)
    )
    number = int(labels.max())
    areas = np.bincount(labels.ravel(), minlength=number + 1)[1:]
    names = np.ones(number, np.int64) if channels is None else ids[channels]
    kept = (areas >= min_area) & (names != 0)
    renumber = np.zeros(number + 1, np.int32)
    renumber[1:][kept] = np.arange(1, np.count_nonzero(kept) + 1)
    worth = segment_scores(labels, weights, jumps)
    if sure is not None:
        worth *= _means(labels, sure, areas)
    if scores is not None and channels is not None:
        own = np.take_along_axis(scores, np.append(0, channels)[labels][None], axis=0)[0]
        worth *= _means(labels, own, areas)
    return Partition(renumber[labels], worth[kept].astype(np.float32), names[kept])


def segment_scores(
    labels: npt.NDArray[np.integer[Any]], affinities: npt.ArrayLike, offsets: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """How well affinities bear segments out: mean within each, times 1 - mean over the pairs that lead out of it.

    A segment without a pair within has 0; one that no pair leads out of, only the first factor. Pairs of all offsets
    count alike, those into the background too: near ones see a border that is not one, far ones two objects in one.

    Args:
        labels: (H, W) integers, 0 none, else segments 1..N.
        affinities: (C, H, W) in 0..1.
        offsets: (C, 2) (dy, dx) in pixels.

    Returns:
        (N,) in 0..1.

    Raises:
        ValueError: shapes that do not fit, or values out of range.
    """
    weights, jumps, _ = check_affinities(affinities, offsets, 0)
    labels = np.asarray(labels)
    if labels.shape != weights.shape[1:] or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise ValueError(
            f"labels are {labels.dtype} of shape {labels.shape}: give integers from 0 on, of {weights.shape[1:]}"
        )
    sums = _sums(np.ascontiguousarray(labels, np.int64), weights, jumps, int(labels.max()))
    within, out = sums[0] / np.maximum(sums[1], 1), sums[2] / np.maximum(sums[3], 1)
    return np.asarray(within * (1 - out))


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _sums(
    labels: npt.NDArray[np.int64], weights: npt.NDArray[np.float32], jumps: npt.NDArray[np.int64], number: int
) -> npt.NDArray[np.float64]:
    """(4, N): the affinities within each segment and their number, those that lead out of it and theirs."""
    height, width = labels.shape
    sums = np.zeros((4, number + 1))
    for c in range(len(jumps)):
        dy, dx = jumps[c]
        for y in range(max(0, -dy), height - max(0, dy)):
            for x in range(max(0, -dx), width - max(0, dx)):
                a, b = labels[y, x], labels[y + dy, x + dx]
                if a == b:
                    sums[0, a] += weights[c, y, x]
                    sums[1, a] += 1
                else:
                    sums[2, a] += weights[c, y, x]
                    sums[3, a] += 1
                    sums[2, b] += weights[c, y, x]
                    sums[3, b] += 1
    return sums[:, 1:]


def _means(
    labels: npt.NDArray[np.int32], values: npt.NDArray[np.floating[Any]], areas: npt.NDArray[np.integer[Any]]
) -> npt.NDArray[np.float64]:
    """The mean of the values in each segment."""
    return np.bincount(labels.ravel(), values.ravel(), len(areas) + 1)[1:] / areas


def _probabilities(foreground: npt.ArrayLike, size: tuple[int, ...]) -> npt.NDArray[np.floating[Any]]:
    values = np.asarray(foreground)
    if values.shape != size or values.dtype.kind not in "fb":
        raise ValueError(
            f"the foreground is {values.dtype} of shape {values.shape}: give bool or probabilities of {tuple(size)}"
        )
    if not 0 <= float(values.min()) <= float(values.max()) <= 1:
        raise ValueError("a foreground that is not bool must be probabilities in 0..1: apply a sigmoid to logits")
    return np.asarray(values, np.float32)


def _class_ids(ids: npt.ArrayLike | None, scores: npt.NDArray[np.float32] | None) -> npt.NDArray[np.int64]:
    if scores is None:
        if ids is not None:
            raise ValueError("class_ids name the channels of classes: give classes too, or neither")
        return np.zeros(0, np.int64)
    names = np.arange(len(scores)) if ids is None else np.asarray(ids)
    if names.shape != (len(scores),) or names.dtype.kind not in "iu":
        raise ValueError(f"class_ids have shape {names.shape}: give an integer for each of {len(scores)} classes")
    return names.astype(np.int64)
