"""Connected pieces of a label map, and what becomes of the small ones."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse

LabelMap = npt.NDArray[np.int32]


def split_pieces(labels: npt.NDArray[Any], *, connectivity: int = 8) -> LabelMap:
    """Give each connected piece of each label a number of its own, 1..N, in the order of the labels; 0 stays 0.

    Args:
        labels: (H, W) integers.
        connectivity: 4 or 8.
    """
    labels = np.asarray(labels, dtype=np.int32)
    out = np.zeros(labels.shape, dtype=np.int32)
    count = 0
    for i, box in enumerate(ndimage.find_objects(labels)):
        if box is None:
            continue
        found, pieces = cv2.connectedComponents((labels[box] == i + 1).astype(np.uint8), connectivity=connectivity)
        np.add(out[box], pieces + count, out=out[box], where=pieces > 0)
        count += found - 1
    return out


def merge_small(labels: npt.NDArray[Any], groups: npt.NDArray[Any], *, below: float) -> LabelMap:
    """Give each piece under ``below`` pixels to the piece of its group it shares most border with, smallest first.

    A piece without such a neighbour stays. A piece that has grown beyond ``below`` stays too.

    Args:
        labels: (H, W), 0 none, else pieces 1..N.
        groups: (N,) who may be merged, e.g. class ids: pieces of one group only.
        below: pixels.

    Returns:
        (H, W) int32, 1..M without gaps, in the order of the labels.
    """
    labels = np.asarray(labels, dtype=np.int32)
    areas = np.bincount(labels.ravel(), minlength=len(groups) + 1)
    borders = _borders(labels, np.concatenate([[-1], np.asarray(groups, dtype=np.int64)]))
    owner = np.arange(len(areas))
    for small in np.argsort(areas, kind="stable"):
        piece = int(small)
        if piece == 0 or not 0 < areas[piece] < below or not borders.get(piece):
            continue
        neighbour = max(borders[piece].items(), key=lambda item: (item[1], -item[0]))[0]
        owner[owner == piece] = neighbour
        areas[neighbour] += areas[piece]
        for other, length in borders.pop(piece).items():
            del borders[other][piece]
            if other != neighbour:
                borders[neighbour][other] = borders[neighbour].get(other, 0) + length
                borders[other][neighbour] = borders[neighbour][other]
    kept = np.unique(owner[labels])
    renumber = np.zeros(len(areas), dtype=np.int32)
    renumber[kept[kept > 0]] = np.arange(1, int((kept > 0).sum()) + 1)
    return np.asarray(renumber[owner][labels])


def _borders(labels: LabelMap, groups: npt.NDArray[np.int64]) -> dict[int, dict[int, int]]:
    """Of each piece, the pieces of its group that touch it (8-connected), with the number of touching pixel pairs."""
    h, w = labels.shape
    firsts, seconds = [], []
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        a = labels[: h - dy, max(0, -dx) : w - max(0, dx)]
        b = labels[dy:, max(0, dx) : w + min(0, dx)]
        touching = (a != b) & (a > 0) & (b > 0)
        firsts.append(a[touching])
        seconds.append(b[touching])
    a, b = np.concatenate(firsts), np.concatenate(seconds)
    kin = groups[a] == groups[b]
    a, b = a[kin], b[kin]
    n = len(groups)
    pairs = sparse.coo_matrix((np.ones(2 * len(a), dtype=np.int64), (np.append(a, b), np.append(b, a))), shape=(n, n))
    pairs = pairs.tocsr().tocoo()  # sums what is there twice
    borders: dict[int, dict[int, int]] = {}
    for row, column, length in zip(pairs.row.tolist(), pairs.col.tolist(), pairs.data.tolist(), strict=True):
        borders.setdefault(row, {})[column] = length
    return borders
