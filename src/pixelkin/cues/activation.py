"""From class activation to labels: what is surely an object, what is surely background, and what nobody knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pixelkin.data.sample import UNKNOWN

Refine: TypeAlias = Callable[[npt.NDArray[Any], npt.NDArray[np.uint8], int], npt.NDArray[Any]]
"""``refine(labels, image, classes)``: labels 0..classes - 1 of an (H, W, 3) RGB image moved to its colour edges.

The labels are (H, W), or (N, H, W) for several labellings of one image."""

EPSILON = 1e-5
"""Keeps a class without activation at zero, as published."""


def normalise(cam: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
    """(K, h, w) activation, each class over its own largest value (plus 1e-5): 0 to almost 1."""
    cam = np.asarray(cam, dtype=np.float32)
    peak = cam.max(axis=(1, 2), initial=0, keepdims=True)
    return np.asarray(cam / (peak + EPSILON), dtype=np.float32)


def confident_regions(
    cam: npt.NDArray[np.floating[Any]],
    ids: Sequence[int] | npt.NDArray[np.integer[Any]],
    image: npt.NDArray[np.uint8],
    *,
    foreground: float = 0.30,
    background: float = 0.05,
    refine: Refine | None = None,
) -> npt.NDArray[Any]:
    """Label what the activation is sure of (Ahn, Cho, Kwak, CVPR 2019, arXiv 1904.05044, section 3).

    The image is labelled twice, each time by the class that activates most where that is above a threshold, and both
    labellings are refined. What is an object by the high threshold is one; what is background even by the low threshold
    is background; the rest is unknown. Beyond the paper, nothing is background where one of the classes activates
    nowhere: it is somewhere.

    Args:
        cam: (K, H, W) from :func:`normalise`.
        ids: the K class ids.
        image: (H, W, 3) RGB.
        foreground: the high threshold.
        background: the low threshold.
        refine: moves labels to colour edges, see :mod:`pixelkin.cues.refine`; None: they stay.

    Returns:
        (H, W) class ids, 0 background, 255 unknown; uint8, or int32 where an id needs it.

    Raises:
        ValueError: other than one id a class, ids that cannot be a class, sizes or thresholds that do not fit.
    """
    names = _check(cam, ids)
    if image.shape[:2] != cam.shape[1:]:
        raise ValueError(f"the activation is {cam.shape[1:]}, the image {image.shape[:2]}: resize the activation")
    if not 0 <= background <= foreground:
        raise ValueError(f"the background's threshold {background} is not in 0..{foreground}, the foreground's: swap")
    labels = np.stack([_winner(cam, foreground), _winner(cam, background)])
    if refine is not None and len(cam):
        labels = refine(labels, image, len(cam) + 1)
    sure, likely = labels
    out = names[sure]
    silent = bool((cam.max(axis=(1, 2), initial=0) <= background).any())
    out[(sure == 0) & ((likely != 0) | silent)] = UNKNOWN
    return np.asarray(out)


def threshold_semantic(
    cam: npt.NDArray[np.floating[Any]], ids: Sequence[int] | npt.NDArray[np.integer[Any]], threshold: float
) -> npt.NDArray[Any]:
    """The class that activates most, or the background where none is above the threshold.

    Args:
        cam: (K, H, W) from :func:`normalise`.
        ids: the K class ids.
        threshold: what the background activates; 0.15 is usual.

    Returns:
        (H, W) class ids, 0 background; uint8, or int32 where an id needs it.

    Raises:
        ValueError: other than one id a class, or ids that cannot be a class.
    """
    return np.asarray(_check(cam, ids)[_winner(cam, threshold)])


def _check(cam: npt.NDArray[Any], ids: Sequence[int] | npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The class ids after 0, in the smallest type of label maps that holds them."""
    names = np.concatenate([[0], np.asarray(ids, dtype=np.int64).ravel()])
    if cam.ndim != 3 or len(names) != len(cam) + 1:
        raise ValueError(f"activation of shape {cam.shape} for {len(names) - 1} classes: give (classes, H, W)")
    if ((names[1:] <= 0) | (names[1:] == UNKNOWN)).any():
        raise ValueError(f"class ids are {names[1:].tolist()}: 0 is background, {UNKNOWN} unknown; renumber")
    return names.astype(np.uint8 if names.max() < UNKNOWN else np.int32)


def _winner(cam: npt.NDArray[Any], threshold: float) -> npt.NDArray[np.int64]:
    """(H, W) 1 + the class that activates most, 0 where none is above the threshold."""
    if not len(cam):
        return np.zeros(cam.shape[1:], dtype=np.int64)
    return np.asarray(np.where(cam.max(axis=0) > threshold, cam.argmax(axis=0) + 1, 0), dtype=np.int64)
