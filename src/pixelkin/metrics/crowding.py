"""Which true instances are crowded: those that no connected component of their class holds alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pixelkin.data import Instances

_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Half of the eight neighbours, as (dy, dx); the other half are the same pairs seen from the other side."""


def crowded(truth: Instances) -> npt.NDArray[np.bool_]:
    """(N,) bool: the instance shares an 8-connected component of its class's mask with another instance.

    The class's mask is the union of its instances; crowd regions (``truth.crowd``) belong to none and are never marked.
    A component with several instances can only be entered from one instance by a step onto another, so it is enough to
    look for neighbouring or shared pixels. One dense mask and one owner map are held at a time.
    """
    out = np.zeros(len(truth), dtype=bool)
    boxes = truth.boxes
    for label in np.unique(truth.labels[~truth.crowd]):
        members = np.flatnonzero((truth.labels == label) & ~truth.crowd)
        if len(members) < 2:
            continue
        owner = np.full(truth.size, -1, dtype=np.int32)
        for i in members:
            x0, y0, x1, y1 = boxes[i]
            mask = truth.mask(int(i))[y0:y1, x0:x1]
            window = owner[y0:y1, x0:x1]
            below = window[mask]
            if (shared := below[below >= 0]).size:
                out[i] = out[shared] = (
                    True  # who is painted over is crowded by then, and so is whoever touches it there
                )
            window[mask] = i
        for dy, dx in _SHIFTS:
            height, width = truth.size
            here = owner[: height - dy, max(0, -dx) : width - max(0, dx)]
            there = owner[dy:, max(0, dx) : width + min(0, dx)]
            meet = (here >= 0) & (there >= 0) & (here != there)
            out[here[meet]] = out[there[meet]] = True
    return out
