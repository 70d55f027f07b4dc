from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelkin.cues.geometry import BACKGROUND, FOREGROUND, jumps, line
from pixelkin.cues.pair_targets import (
    DEPTH_LIMITS,
    DIFFERENT,
    LIKELY,
    MOTION_LIMITS,
    OFFSETS,
    OUTSIDE,
    SAME,
    UNKNOWN,
    Cues,
    certainty,
    geometric_targets,
    identity_targets,
    overlaid,
)

FEW = ((-1, 0), (0, -1), (0, -3), (3, -3), (-5, 2))


def slow_targets(cues: Cues, offsets):
    """Pair by pair, as the documentation says it."""
    h, w = cues.foreground.shape
    inside = cues.foreground == FOREGROUND
    steps = None if cues.inverse is None else jumps(np.where(inside, cues.inverse, np.nan))
    out = np.full((len(offsets), h, w), UNKNOWN, np.uint8)
    for c, (dy, dx) in enumerate(offsets):
        for y in range(h):
            for x in range(w):
                v, u = y + dy, x + dx
                if not (0 <= v < h and 0 <= u < w):
                    continue
                kinds = {int(cues.foreground[y, x]), int(cues.foreground[v, u])}
                if kinds == {FOREGROUND, BACKGROUND}:
                    out[c, y, x] = OUTSIDE
                if kinds != {FOREGROUND}:
                    continue
                way = [(y + a, x + b) for a, b in line((dy, dx))]
                gaps = []
                for here, there in pairwise(way):
                    step = (there[0] - here[0], there[1] - here[1])
                    if steps is None:
                        gaps.append(0.0 if inside[here] and inside[there] else np.nan)
                    else:
                        gaps.append(steps[step][here] if step in steps else steps[-step[0], -step[1]][there])
                one_piece = all(gap <= DEPTH_LIMITS.same for gap in gaps)
                broken = steps is not None and any(gap > DEPTH_LIMITS.different for gap in gaps)
                change = np.nan if cues.motion is None else np.hypot(*(cues.motion[:, y, x] - cues.motion[:, v, u]))
                if steps is not None:
                    ends = cues.inverse[y, x], cues.inverse[v, u]
                    broken = broken and abs(ends[0] - ends[1]) / (sum(ends) / 2) > DEPTH_LIMITS.different
                if broken or change > MOTION_LIMITS.different:
                    out[c, y, x] = DIFFERENT
                elif one_piece and (change <= MOTION_LIMITS.same or (np.isnan(change) and steps is not None)):
                    moves = not np.isnan(change) and max(
                        np.hypot(*cues.motion[:, y, x]), np.hypot(*cues.motion[:, v, u])
                    )
                    if moves > MOTION_LIMITS.same:
                        out[c, y, x] = SAME
                    elif steps is not None:
                        out[c, y, x] = LIKELY
    return out


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), depth=st.booleans(), motion=st.booleans())
def test_same_as_pair_by_pair(seed, depth, motion):
    rng = np.random.default_rng(seed)
    h, w = (int(n) for n in rng.integers(1, 12, 2))
    foreground = rng.choice([FOREGROUND] * 6 + [BACKGROUND, 255], (h, w)).astype(np.uint8)
    levels = rng.choice([0.1, 0.104, 0.107, 0.13], (h, w)).astype(np.float32)
    levels[rng.random((h, w)) < 0.05] = np.nan
    moves = rng.choice([0.0, 0.06, 0.12, 0.3], (2, h, w)).astype(np.float32)
    moves[:, rng.random((h, w)) < 0.2] = np.nan
    cues = Cues(foreground, levels if depth else None, moves if motion else None)
    np.testing.assert_array_equal(geometric_targets(cues, FEW), slow_targets(cues, FEW))


def test_two_that_touch_at_one_depth_are_told_apart_by_motion_alone():
    foreground = np.full((6, 12), FOREGROUND, np.uint8)
    inverse = np.full((6, 12), 0.1, np.float32)
    motion = np.zeros((2, 6, 12), np.float32)
    motion[1, :, 6:] = 0.4
    at = (0, -3)
    silent = geometric_targets(Cues(foreground, inverse), (at,))[0]
    assert (silent[:, 3:] == LIKELY).all()
    spoken = geometric_targets(Cues(foreground, inverse, motion), (at,))[0]
    assert (spoken[:, 6:9] == DIFFERENT).all()
    assert (spoken[:, 3:6] == LIKELY).all()  # at rest
    assert (spoken[:, 9:] == SAME).all()
    unknown = motion.copy()
    unknown[:, :, 5:8] = np.nan  # hidden in the next frame: depth alone decides, and nobody says different
    assert (geometric_targets(Cues(foreground, inverse, unknown), (at,))[0][:, 8:9] == LIKELY).all()


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1))
def test_identities_pair_by_pair(seed):
    rng = np.random.default_rng(seed)
    objects = rng.integers(-1, 4, tuple(rng.integers(1, 9, 2)))
    found = identity_targets(objects, FEW)
    for c, (dy, dx) in enumerate(FEW):
        for y, x in np.ndindex(objects.shape):
            v, u = y + dy, x + dx
            expected = UNKNOWN
            if 0 <= v < objects.shape[0] and 0 <= u < objects.shape[1]:
                a, b = objects[y, x], objects[v, u]
                if min(a, b) >= 0 and max(a, b) > 0:
                    expected = SAME if a == b else OUTSIDE if min(a, b) == 0 else DIFFERENT
            assert found[c, y, x] == expected


def test_what_is_laid_over_is_known():
    below = np.full((1, 4, 8), UNKNOWN, np.uint8)
    below[0, 0] = SAME
    objects = np.zeros((4, 8), int)
    objects[:2, 2:5] = 1
    objects[:2, 5:7] = 2
    foreground = np.full((4, 8), FOREGROUND, np.uint8)
    foreground[:, 7] = BACKGROUND
    found = overlaid(below, objects, foreground, ((0, -1),))[0]
    assert found[0].tolist() == [SAME, SAME, DIFFERENT, SAME, SAME, DIFFERENT, SAME, OUTSIDE]
    assert (found[2:] == UNKNOWN).all()
    assert below[0, 0].tolist() == [SAME] * 8  # what was given stays
    unsure = overlaid(below, objects, foreground, ((0, -1),), likely=[2])[0]
    assert unsure[0].tolist() == [SAME, SAME, DIFFERENT, SAME, SAME, DIFFERENT, LIKELY, OUTSIDE]


def test_as_affinities():
    codes = np.array([[[DIFFERENT, OUTSIDE, UNKNOWN, LIKELY, SAME]]], np.uint8)
    found = certainty(codes, [(0, -1)])[0, 0]
    assert found[0] == found[1] == 0
    assert found[2] == 0.5
    assert found[2] < found[3] < found[4] < 1  # what forbids goes first
    joined = np.full((1, 1, 5), LIKELY, np.uint8)
    graded = certainty(joined, [(0, -1)], inverse=np.array([[0.1, 0.1, 0.1, 0.102, 0.102]], np.float32))[0, 0]
    assert graded[3] < graded[2] == graded[1]


def test_what_stands_before_an_object_does_not_part_it():
    foreground = np.full((1, 9), FOREGROUND, np.uint8)
    inverse = np.full((1, 9), 0.1, np.float32)
    inverse[0, 4] = 0.2
    found = geometric_targets(Cues(foreground, inverse), ((0, -1), (0, -3)))
    assert found[0, 0, 4] == found[0, 0, 5] == DIFFERENT
    assert found[1, 0, 6] == UNKNOWN  # a post before a wall: the wall may go on behind it
    assert len(OFFSETS) == 10


@pytest.mark.parametrize("offset", [(40, 0), (0, -40)])
def test_offsets_larger_than_the_picture_know_nothing(offset):
    cues = Cues(np.ones((5, 6), np.uint8), np.ones((5, 6), np.float32))
    assert (geometric_targets(cues, (offset,)) == UNKNOWN).all()
    assert (identity_targets(np.ones((5, 6), int), (offset,)) == UNKNOWN).all()
