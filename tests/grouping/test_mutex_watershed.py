"""The mutex watershed against the plain rule, and what must hold of any partition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelkin.grouping.mutex_watershed import mutex_watershed

OFFSETS = [(-1, 0), (0, -1), (-3, 0), (0, -3), (2, -2), (0, 4)]


def slow(
    affinities: np.ndarray,
    offsets: list[tuple[int, int]],
    inside: np.ndarray,
    pulls: int,
    stride: tuple[int, int] = (1, 1),
    classes: np.ndarray | None = None,
) -> tuple[np.ndarray, list[int]]:
    """The rule as it is told: a list of statements, sets of pixels, and a set of forbidden pairs of pixels."""
    height, width = inside.shape
    statements = []
    for c, (dy, dx) in enumerate(offsets):
        for y, x in np.argwhere(inside).tolist():
            v, u = y + dy, x + dx
            if not (0 <= v < height and 0 <= u < width and inside[v, u]):
                continue
            if c >= pulls and (y % stride[0] or x % stride[1]):
                continue
            strength = affinities[c, y, x] if c < pulls else np.float32(1) - affinities[c, y, x]
            if strength > 0:
                statements.append((-strength, c, y, x, v, u))
    if classes is not None:
        for k, y, x in np.ndindex(*classes.shape):  # every class of a pixel, not only its best
            if inside[y, x]:
                statements.append((-classes[k, y, x], len(offsets), y, x, k, k))
    homes = {(y, x): {(y, x)} for y, x in np.argwhere(inside).tolist()}
    names: dict[int, int] = {}
    mutexes = set()
    for _, c, y, x, v, u in sorted(statements):
        a = homes[y, x]
        if c == len(offsets):
            names.setdefault(id(a), v)
            continue
        b = homes[v, u]
        if a is not b and c >= pulls:
            mutexes.add(((y, x), (v, u)))
        elif a is not b:
            if any((p in a and q in b) or (p in b and q in a) for p, q in mutexes):
                continue
            if id(a) in names and id(b) in names and names[id(a)] != names[id(b)]:
                continue
            if id(b) in names:
                names[id(a)] = names[id(b)]
            a |= b
            for pixel in b:
                homes[pixel] = a
    labels = np.zeros(inside.shape, int)
    found: list[int] = []
    for y, x in np.argwhere(inside).tolist():
        if not labels[y, x]:
            for pixel in homes[y, x]:
                labels[pixel] = len(found) + 1
            found.append(names.get(id(homes[y, x]), -1))
    return labels, found


def same_object(labels: np.ndarray, offsets: list[tuple[int, int]]) -> np.ndarray:
    """(C, H, W) perfect affinities."""
    out = np.zeros((len(offsets), *labels.shape), np.float32)
    for c, (dy, dx) in enumerate(offsets):
        for y, x in np.ndindex(*labels.shape):
            if 0 <= y + dy < labels.shape[0] and 0 <= x + dx < labels.shape[1]:
                out[c, y, x] = labels[y, x] == labels[y + dy, x + dx]
    return out


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    levels=st.sampled_from([1, 2, 4, 10, 10**6]),
    share=st.sampled_from([0.6, 1.0]),
    stride=st.sampled_from([(1, 1), (2, 2), (1, 3), (4, 2)]),
    kinds=st.sampled_from([0, 1, 3]),
)
def test_it_is_the_plain_rule(seed: int, levels: int, share: float, stride: tuple[int, int], kinds: int) -> None:
    """Few levels: hardly anything but ties."""
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(1, 9, 2))
    affinities = (rng.integers(0, levels + 1, (len(OFFSETS), *size)) / levels).astype(np.float32)
    inside = rng.random(size) < share
    classes = (rng.integers(0, levels + 1, (kinds, *size)) / levels).astype(np.float32) if kinds else None
    found, channels = mutex_watershed(affinities, OFFSETS, inside, classes=classes, stride=stride)
    truth, names = slow(affinities, OFFSETS, inside, 2, stride, classes)
    np.testing.assert_array_equal(found, truth)
    if classes is None:
        assert channels is None
    else:
        assert channels is not None
        assert channels.tolist() == names


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_perfect_affinities_give_the_objects_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.zeros((24, 31), np.int64)
    for k in range(1, 8):
        y, x, h, w = (*rng.integers(0, 24, 2), *rng.integers(1, 10, 2))
        labels[y : y + h, x : x + w] = k
    found, _ = mutex_watershed(same_object(labels, OFFSETS), OFFSETS, labels > 0, stride=int(rng.integers(1, 5)))
    assert ((found > 0) == (labels > 0)).all()
    for k in range(1, found.max() + 1):
        assert len(np.unique(labels[found == k])) == 1
    for dy, dx in OFFSETS[:2]:  # neighbours of one object are together, of two apart
        one, two = np.s_[-dy:, -dx:], np.s_[: 24 + dy, : 31 + dx]
        both = (labels[one] > 0) & (labels[two] > 0)
        assert ((labels[one] == labels[two]) == (found[one] == found[two]))[both].all()


def test_a_gap_in_the_border_does_not_join_what_far_pairs_keep_apart() -> None:
    labels = np.ones((12, 20), np.int64)
    labels[:, 10:] = 2
    affinities = same_object(labels, OFFSETS)
    affinities[1, 5:7, 10] = 0.9  # a leak
    found, _ = mutex_watershed(affinities, OFFSETS)
    np.testing.assert_array_equal(found, labels)
    alone, _ = mutex_watershed(affinities[:2], OFFSETS[:2], attractive=2)
    assert alone.max() == 1


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_mutex_stronger_than_every_attraction_is_kept(seed: int) -> None:
    rng = np.random.default_rng(seed)
    affinities = rng.random((len(OFFSETS), 12, 13)).astype(np.float32)
    affinities[:2] *= 0.5
    forbidden = rng.random((12, 13)) < 0.2
    affinities[3] = np.where(forbidden, 0.1, 1)
    found, _ = mutex_watershed(affinities, OFFSETS)
    y, x = np.nonzero(forbidden[:, 3:])
    assert (found[y, x + 3] != found[y, x]).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), axis=st.sampled_from([0, 1]), masked=st.booleans())
def test_a_mirrored_image_has_the_mirrored_segments(seed: int, axis: int, masked: bool) -> None:
    rng = np.random.default_rng(seed)
    values = rng.permutation(len(OFFSETS) * 11 * 14 * 2)[: len(OFFSETS) * 11 * 14] + 1.0  # no ties, nor with 1 - a
    affinities = (values / (len(OFFSETS) * 11 * 14 * 2 + 1.5)).reshape(-1, 11, 14).astype(np.float32)
    inside = rng.random((11, 14)) < 0.8 if masked else None
    classes = rng.random((3, 11, 14)).astype(np.float32)
    offsets = np.array(OFFSETS)
    found, channels = mutex_watershed(affinities, offsets, inside, classes=classes)
    offsets[:, axis] *= -1
    mirrored, others = mutex_watershed(
        np.flip(affinities, axis + 1),
        offsets,
        None if inside is None else np.flip(inside, axis),
        classes=np.flip(classes, axis + 1),
    )
    assert channels is not None
    assert others is not None
    mirrored = np.flip(mirrored, axis)
    pairs = np.unique(np.stack([found.ravel(), mirrored.ravel()]), axis=1)
    assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
    for one, two in pairs.T[pairs[0] > 0]:
        assert channels[one - 1] == others[two - 1]


def test_segments_of_different_classes_do_not_join_and_those_of_one_class_do() -> None:
    affinities = np.full((len(OFFSETS), 9, 12), 0.9, np.float32)
    classes = np.zeros((3, 9, 12), np.float32)
    classes[0], classes[1, :, :6], classes[2, :, 6:] = 0.1, 0.95, 0.95
    found, channels = mutex_watershed(affinities, OFFSETS, classes=classes)
    np.testing.assert_array_equal(found, np.where(classes[1] > 0, 1, 2))
    assert channels is not None
    assert channels.tolist() == [1, 2]
    weak, channels = mutex_watershed(affinities, OFFSETS, classes=classes * 0.9)  # joined before a class is said
    assert weak.max() == 1
    assert channels is not None
    assert channels.tolist() == [1]


def test_what_nobody_says_anything_about_stays_single() -> None:
    affinities = np.zeros((2, 3, 4), np.float32)
    found, _ = mutex_watershed(affinities, OFFSETS[:2], attractive=2)
    np.testing.assert_array_equal(found, np.arange(1, 13).reshape(3, 4))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1)])
def test_offsets_longer_than_the_image(size: tuple[int, int]) -> None:
    found, _ = mutex_watershed(np.ones((len(OFFSETS), *size)), OFFSETS, stride=3)
    assert (found == 1).all()
    found, _ = mutex_watershed(np.ones((len(OFFSETS), *size)), OFFSETS, np.zeros(size, bool))
    assert not found.any()


def test_many_mutexes_between_few_segments() -> None:
    """The table of forbidden pairs grows, and forgets segments that are gone."""
    rng = np.random.default_rng(3)
    labels = np.kron(rng.permutation(16).reshape(4, 4) + 1, np.ones((20, 25), np.int64))
    offsets = [(-1, 0), (0, -1), *((dy, dx) for dy in (-7, 0, 7) for dx in (-9, -5, 0, 5, 9) if dy or dx)]
    affinities = same_object(labels, offsets) * 0.8 + 0.2 * rng.random((len(offsets), 80, 100)).astype(np.float32)
    affinities[:2] *= rng.random((2, 80, 100)) > 0.1
    found, _ = mutex_watershed(affinities, offsets)
    big = np.flatnonzero(np.bincount(found.ravel()) > 400)
    assert len(big) == 16
    for k in big:
        assert len(np.unique(labels[found == k])) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"affinities": np.zeros((4, 4))}, r"numbers of \(C, H, W\)"),
        ({"affinities": np.zeros((2, 0, 4))}, r"numbers of \(C, H, W\)"),
        ({"affinities": np.full((3, 4, 5), 2.0)}, "sigmoid"),
        ({"affinities": np.full((3, 4, 5), np.nan)}, "sigmoid"),
        ({"offsets": [(-1, 0), (0, -1)]}, "each of 3 affinities"),
        ({"offsets": [(-1.0, 0.0), (0.0, -1.0), (0.0, -3.0)]}, "integers"),
        ({"offsets": [(-1, 0), (0, -1), (0, 0)]}, "itself"),
        ({"offsets": [(-3, 0), (0, -1), (0, -3)]}, "attractive ones first"),
        ({"offsets": [(-1, 0), (0, -1), (1, 1)]}, "long-range"),
        ({"attractive": 4}, "from 0 to 3"),
        ({"stride": 0}, "at least 1"),
        ({"stride": (1, 2, 3)}, "two as"),
        ({"stride": 1.5}, "whole number"),
        ({"foreground": np.ones((5, 4), bool)}, r"bool of \(4, 5\)"),
        ({"foreground": np.ones((4, 5))}, "give bool"),
        ({"classes": np.ones((4, 5))}, r"\(K, 4, 5\)"),
        ({"classes": np.full((2, 4, 5), -1.0)}, "softmax"),
    ],
)
def test_what_cannot_work_is_said(change: dict[str, object], message: str) -> None:
    call = {"affinities": np.ones((3, 4, 5)), "offsets": [(-1, 0), (0, -1), (0, -3)]} | change
    with pytest.raises(ValueError, match=message) as caught:
        mutex_watershed(**call)
    assert "\n" not in str(caught.value)
