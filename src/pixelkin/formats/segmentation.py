"""COCO segmentations from files: polygons and run-length codes, checked before anything is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from pixelkin.data import RLE, ImageError
from pixelkin.data.rle import code_of, runs_of


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


def _from_runs(segmentation: dict[str, Any], size: tuple[int, int], where: str) -> RLE:
    written, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(written, (list, tuple)) or tuple(written) != size:
        raise ImageError(
            f"{where}: its run-length code is for {written}, the image {list(size)} (height, width): resize it"
        )
    try:
        if isinstance(counts, list):
            runs = np.asarray(counts)
            if runs.dtype.kind not in "iu":
                raise ValueError("runs that are no whole numbers")
            return code_of(runs, size)
        if not isinstance(counts, (str, bytes)):
            raise ValueError("no counts")
        rle = RLE(size=list(size), counts=counts.encode("ascii") if isinstance(counts, str) else counts)
        runs_of(rle)
    except (ValueError, OverflowError) as error:
        raise ImageError(f"{where}: broken run-length code ({error})") from None
    return rle


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
