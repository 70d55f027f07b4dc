"""Run-length codes from files: checked, as a wrong one would make the decoder write beside its memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from pixelkin.data import RLE, ImageError

MAX_CHARACTERS_A_RUN = 7
"""Five bits a character: enough for runs of 2**31 pixels either way."""


def segmentation_to_rle(segmentation: Any, size: tuple[int, int], where: str) -> RLE | None:
    """Any COCO segmentation as a compressed code of (height, width) ``size``; None where there is none.

    Args:
        segmentation: polygons ``[[x, y, ...], ...]``, or ``{"size", "counts"}`` with the runs as text, bytes or
            numbers.
        size: the image's (height, width).
        where: what to name in errors.

    Raises:
        ImageError: malformed, or made for another size.
    """
    if isinstance(segmentation, dict):
        return _from_runs(segmentation, size, where)
    if isinstance(segmentation, list):
        return _from_polygons(segmentation, size, where)
    if segmentation is None:
        return None
    raise ImageError(
        f"{where}: a segmentation of type {type(segmentation).__name__}: write polygons or a run-length code"
    )


def decode_counts(text: bytes) -> npt.NDArray[np.int64]:
    """The run lengths of a compressed code; background first.

    A number is written in groups of five bits, low ones first, with a sixth bit while more follow; from the fourth on
    it is the difference to the number two before.

    Raises:
        ValueError: no such code.
    """
    if not text:
        return np.zeros(0, dtype=np.int64)
    characters = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    if characters.min() < 0 or characters.max() > 63 or characters[-1] & 32:
        raise ValueError("characters that are no run-length code")
    last = (characters & 32) == 0
    starts = np.flatnonzero(np.concatenate([[True], last[:-1]]))
    lengths = np.diff(np.append(starts, len(characters)))
    if lengths.max() > MAX_CHARACTERS_A_RUN:
        raise ValueError("a run that is too long")
    position = np.arange(len(characters)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((characters & 31) << (5 * position), starts)
    negative = (characters[last] & 16) != 0
    runs[negative] -= np.int64(1) << (5 * lengths[negative])
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def _from_runs(segmentation: dict[str, Any], size: tuple[int, int], where: str) -> RLE:
    written, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(written, (list, tuple)) or tuple(written) != size:
        raise ImageError(
            f"{where}: its run-length code is for {written}, the image {list(size)} (height, width): resize it"
        )
    try:
        if isinstance(counts, list):
            runs = np.asarray(counts)
            if runs.size and (runs.ndim != 1 or runs.dtype.kind not in "iu"):
                raise ValueError("runs that are no whole numbers")
        elif isinstance(counts, (str, bytes)):
            counts = counts.encode("ascii") if isinstance(counts, str) else counts
            runs = decode_counts(counts)
        else:
            raise ValueError("no counts")
    except (ValueError, OverflowError) as error:
        raise ImageError(f"{where}: broken run-length code ({error}): write it again") from None
    pixels = size[0] * size[1]
    if (runs < 0).any() or (runs > pixels).any() or int(runs.sum()) != pixels:
        raise ImageError(f"{where}: its run-length code does not cover the image's {pixels} pixels: write it again")
    if isinstance(counts, list):
        counts = coco_mask.frPyObjects({"size": list(size), "counts": counts}, *size)["counts"]
    return RLE(size=list(size), counts=bytes(counts))


def _from_polygons(polygons: Sequence[Any], size: tuple[int, int], where: str) -> RLE | None:
    limit = 10 * max(size) + 1000  # the rasteriser steps along every edge: far corners would cost memory without end
    usable: list[list[float]] = []
    for polygon in polygons:
        try:
            corners = np.asarray(polygon, dtype=np.float64)
        except (ValueError, TypeError):
            corners = np.zeros((0, 0))
        if corners.ndim != 1 or len(corners) % 2 or not (np.abs(corners) <= limit).all():
            raise ImageError(f"{where}: a polygon that is no list x, y, x, y, ... of pixels: write it again")
        if len(corners) >= 6:  # two corners enclose nothing, and the rasteriser would take them for a box
            usable.append(corners.tolist())
    if not usable:
        return None
    merged = coco_mask.merge(coco_mask.frPyObjects(usable, *size))
    return RLE(size=list(size), counts=bytes(merged["counts"]))
