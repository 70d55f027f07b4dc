"""Which pairs of pixels are one object: same, different, or unknown. For any offsets, on the grid of the fields.

Answers and not a product of soft scores: what no cue vouches for teaches nothing (our own design after the idea of
Object Affinity Learning). "Different" is said of two objects; of an object and the background it is said apart from
that, as there are many such pairs, easy ones, and the foreground says it too. "Same" has two grades: things at rest
that touch at one depth, two parked cars, are one piece to every cue, so what depth alone joins is only likely. The map
of an offset says at pixel p what the pair of p and p + offset is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pixelkin.cues.geometry import BACKGROUND, FOREGROUND, jumps, path_maximum
from pixelkin.data.lattice import Offset, pair_slices

Codes = npt.NDArray[np.uint8]

DIFFERENT, SAME, LIKELY, OUTSIDE, UNKNOWN = 0, 1, 2, 3, 255

LOCAL: tuple[Offset, ...] = ((-1, 0), (0, -1))
LONG: tuple[Offset, ...] = ((-3, 0), (0, -3), (-9, 0), (0, -9), (-9, -9), (9, -9), (-27, 0), (0, -27))
OFFSETS: tuple[Offset, ...] = LOCAL + LONG
"""(dy, dx) in field pixels: neighbours, and the long range of the mutex watershed's authors."""


class Limits(NamedTuple):
    """Below ``same`` two pixels agree, above ``different`` they do not, between the two nobody knows."""

    same: float
    different: float


DEPTH_LIMITS = Limits(0.04, 0.09)
"""Relative gap in depth on the way from one to the other."""

MOTION_LIMITS = Limits(0.08, 0.18)
"""Difference of own motion: metres a frame where there is depth."""

FLOW_LIMITS = Limits(0.5, 1.5)
"""Difference of own motion in pixels a frame, where there is none."""


class Cues(NamedTuple):
    """What is known of one frame, on the grid of the fields.

    Attributes:
        foreground: (h, w) BACKGROUND, FOREGROUND or UNKNOWN of :mod:`pixelkin.cues.geometry`.
        inverse: (h, w) inverse depth, NaN unknown; None without depth.
        motion: (2, h, w) own motion, NaN unknown; None without a second frame.
    """

    foreground: Codes
    inverse: npt.NDArray[np.float32] | None = None
    motion: npt.NDArray[np.float32] | None = None


def geometric_targets(
    cues: Cues,
    offsets: Sequence[Offset] = OFFSETS,
    *,
    depth: Limits = DEPTH_LIMITS,
    motion: Limits = MOTION_LIMITS,
) -> Codes:
    """What depth and motion say of every pair.

    OUTSIDE where one is foreground and the other background. DIFFERENT where both are foreground and their depths
    differ with a break on the way, or they do not move alike; a break alone may be something that stands before one
    object. SAME where they move, alike, and the way between them is known to be one piece (without depth: foreground
    all along). LIKELY where it is one piece by depth, but they do not move or nobody saw whether they do. Pairs within
    the background, and all others, are UNKNOWN.

    Returns:
        (C, h, w) uint8 of DIFFERENT, SAME, LIKELY, OUTSIDE, UNKNOWN.
    """
    shape = cues.foreground.shape
    size = (shape[0], shape[1])
    inside = cues.foreground == FOREGROUND
    gaps = None if cues.inverse is None else jumps(np.where(inside, cues.inverse, np.nan))
    whole = jumps(np.where(inside, 1.0, np.nan).astype(np.float32))
    out = np.full((len(offsets), *size), UNKNOWN, np.uint8)
    for codes, offset in zip(out, offsets, strict=True):
        slices = pair_slices(offset, size)
        if slices is None:
            continue
        a, b = (cues.foreground[part] for part in slices)
        both = (a == FOREGROUND) & (b == FOREGROUND)
        outside = ((a == FOREGROUND) & (b == BACKGROUND)) | ((a == BACKGROUND) & (b == FOREGROUND))
        apart = np.zeros_like(both)
        way = path_maximum(whole if gaps is None else gaps, offset)
        largest, known = way.largest[slices[0]], way.known[slices[0]]
        together = both & known
        if cues.inverse is not None:
            together &= largest <= depth.same
            first, second = (cues.inverse[part] for part in slices)
            with np.errstate(invalid="ignore", divide="ignore"):
                ends = np.abs(first - second) / ((first + second) / 2)
            apart |= both & (largest > depth.different) & (ends > depth.different)
        moving = np.zeros_like(both)
        if cues.motion is not None:
            first, second = (cues.motion[:, part[0], part[1]] for part in slices)
            change = np.hypot(*(first - second))
            moving = np.fmax(np.hypot(*first), np.hypot(*second)) > motion.same
            moving &= change <= motion.same  # false where unknown
            together &= ~(change > motion.same)
            apart |= both & (change > motion.different)
        joined = np.where(moving, SAME, UNKNOWN if gaps is None else LIKELY)
        codes[slices[0]] = np.select([outside, apart, together], [OUTSIDE, DIFFERENT, joined], UNKNOWN)
    return out


def identity_targets(
    objects: npt.NDArray[Any], offsets: Sequence[Offset] = OFFSETS, *, unknown: int = -1, background: int = 0
) -> Codes:
    """What known objects say of every pair: SAME within one, DIFFERENT between two, OUTSIDE with the background.

    Args:
        objects: (h, w) integers: ``background``, ``unknown``, else the object's number. Pairs with an unknown pixel
            and pairs within the background are UNKNOWN.
        offsets: (dy, dx) in field pixels.
        unknown: value of pixels of which nothing is known.
        background: value of the background.

    Returns:
        (C, h, w) uint8 of DIFFERENT, SAME, OUTSIDE, UNKNOWN.
    """
    objects = np.asarray(objects)
    out = np.full((len(offsets), *objects.shape), UNKNOWN, np.uint8)
    for codes, offset in zip(out, offsets, strict=True):
        slices = pair_slices(offset, (objects.shape[0], objects.shape[1]))
        if slices is None:
            continue
        a, b = (objects[part] for part in slices)
        answer = np.select([a == b, (a == background) | (b == background)], [SAME, OUTSIDE], DIFFERENT)
        silent = (a == unknown) | (b == unknown) | ((a == background) & (b == background))
        codes[slices[0]] = np.where(silent, UNKNOWN, answer)
    return out


def overlaid(
    codes: Codes,
    objects: npt.NDArray[Any],
    foreground: Codes,
    offsets: Sequence[Offset] = OFFSETS,
    *,
    likely: Sequence[int] = (),
) -> Codes:
    """Targets after objects of known extent were laid over the picture.

    Args:
        codes: (C, h, w) before.
        objects: (h, w) integers, 0 where nothing was laid over.
        foreground: (h, w) BACKGROUND, FOREGROUND or UNKNOWN before.
        offsets: those of ``codes``.
        likely: numbers of objects that may be several.

    Returns:
        (C, h, w): pairs within one such object are SAME, or LIKELY, pairs with one end in it OUTSIDE or DIFFERENT,
        others as before.
    """
    out = np.array(codes, np.uint8)
    for each, offset in zip(out, offsets, strict=True):
        slices = pair_slices(offset, (objects.shape[0], objects.shape[1]))
        if slices is None:
            continue
        a, b = (objects[part] for part in slices)
        touched = (a > 0) | (b > 0)
        ground = [(foreground[part] == BACKGROUND) & (objects[part] == 0) for part in slices]
        together = np.where(np.isin(a, likely), LIKELY, SAME)
        answer = np.select([a == b, ground[0] | ground[1]], [together, OUTSIDE], DIFFERENT)
        each[slices[0]] = np.where(touched, answer, each[slices[0]])
    return out


def certainty(
    codes: Codes,
    offsets: Sequence[Offset] = OFFSETS,
    *,
    inverse: npt.NDArray[np.float32] | None = None,
    limit: float = DEPTH_LIMITS.same,
) -> npt.NDArray[np.float32]:
    """Targets as affinities, for grouping the cues themselves.

    DIFFERENT and OUTSIDE are 0, so that all that forbids is heard before anything joins; UNKNOWN is a half. SAME and
    LIKELY lie between a half and 1. With inverse depth they are the lower, the more depth breaks off on the way: first
    smooth surfaces come together, and what would leak through a border comes last.

    Args:
        codes: (C, h, w).
        offsets: of the channels.
        inverse: (h, w) inverse depth that the codes were made from.
        limit: gap at which nothing is left of the certainty.
    """
    out = np.where(codes == UNKNOWN, 0.5, 0).astype(np.float32)
    steps = None if inverse is None else jumps(inverse)
    for each, own, offset in zip(out, codes, offsets, strict=True):
        smooth = 1.0 if steps is None else np.exp(-((path_maximum(steps, offset).largest / (limit / 2)) ** 2))
        for code, most in ((SAME, 0.45), (LIKELY, 0.4)):
            each[own == code] = (0.5 + most * np.broadcast_to(smooth, each.shape))[own == code]
    return out
