"""Connected components of semantic maps, class by class."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from pixelkin.data.sample import UNKNOWN

LabelMap = npt.NDArray[np.int32]


class Components(NamedTuple):
    """Pieces of a semantic map: ``labels`` (H, W) int32, 0 none, i + 1 for piece i; ``classes`` (N,) int64 ids."""

    labels: LabelMap
    classes: npt.NDArray[np.int64]


def class_components(semantic: npt.NDArray[Any], *, connectivity: int = 8, unknown: int = UNKNOWN) -> Components:
    """Connected components of every class of an (H, W) semantic map; background (0) and ``unknown`` have none.

    Raises:
        ValueError: a map that is not (H, W), or a connectivity other than 4 or 8.
    """
    semantic = np.asarray(semantic)
    if semantic.ndim != 2:
        raise ValueError(f"a semantic map must be (H, W), got shape {semantic.shape}")
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity must be 4 or 8, got {connectivity}")
    labels = np.zeros(semantic.shape, dtype=np.int32)
    classes: list[int] = []
    for class_id in np.unique(semantic):
        if class_id in (0, unknown):
            continue
        count, pieces = cv2.connectedComponents((semantic == class_id).astype(np.uint8), connectivity=connectivity)
        np.add(labels, pieces + len(classes), out=labels, where=pieces > 0)
        classes += [int(class_id)] * (count - 1)
    return Components(labels, np.array(classes, dtype=np.int64))
