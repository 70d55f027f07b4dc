"""Average linkage against the plain rule, and what must hold of its segments."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pixelkin.grouping.gasp import _cut, agglomerate, gasp
from pixelkin.grouping.mutex_watershed import mutex_watershed

OFFSETS = [(-1, 0), (0, -1), (-3, 0), (0, -3), (2, -2), (0, 4)]


def slow(pairs: list[tuple[int, int]], parts: list[tuple[int, int]], touching: list[bool], number: int) -> list[int]:
    """The rule as it is told: all that lies between two clusters, the best mean first, then the earliest edge.

    Args:
        pairs: the nodes of each edge.
        parts: numerator and denominator of its weight; a mean adds both.
        touching: whether clusters with this edge may join.
        number: of nodes.
    """
    names = list(range(number))  # clusters are called by their first nodes
    while True:
        between: dict[tuple[int, int], list[int]] = {}
        for e, (a, b) in enumerate(pairs):
            if names[a] != names[b]:
                key = min(names[a], names[b]), max(names[a], names[b])
                between.setdefault(key, []).append(e)
        offers = []
        for key, own in between.items():
            mean = Fraction(sum(parts[e][0] for e in own), sum(parts[e][1] for e in own))
            if mean > 0 and any(touching[e] for e in own):
                offers.append((-mean, own[0], key))
        if not offers:
            return [sorted(set(names)).index(name) for name in names]
        one, two = min(offers)[2]
        names = [one if name == two else name for name in names]


def slow_pixels(
    affinities: np.ndarray, inside: np.ndarray, pulls: int, stride: tuple[int, int], threshold: float, touching: bool
) -> np.ndarray:
    """Each pixel is a node."""
    nodes = np.cumsum(inside).reshape(inside.shape) - 1
    pairs, parts, touch = [], [], []
    for c, y, x in np.ndindex(*affinities.shape):
        v, u = y + OFFSETS[c][0], x + OFFSETS[c][1]
        if not (0 <= v < inside.shape[0] and 0 <= u < inside.shape[1] and inside[y, x] and inside[v, u]):
            continue
        stands = 1
        if c >= pulls:
            stands = stride[0] * stride[1]
            if y % stride[0] or x % stride[1]:
                continue
        pairs.append((int(nodes[y, x]), int(nodes[v, u])))
        parts.append((round((float(affinities[c, y, x]) - threshold) * 2**24) * stands, stands))
        touch.append(c < pulls or not touching)
    number = int(inside.sum())
    labels = np.zeros(inside.shape, int)
    labels[inside] = np.array(slow(pairs, parts, touch, number), int) + 1
    return labels


def same_object(labels: np.ndarray, yes: float = 0.9, no: float = 0.1) -> np.ndarray:
    """(C, H, W) affinities that are right about every pair."""
    out = np.full((len(OFFSETS), *labels.shape), yes, np.float32)
    for c, (dy, dx) in enumerate(OFFSETS):
        for y, x in np.ndindex(*labels.shape):
            v, u = y + dy, x + dx
            if 0 <= v < labels.shape[0] and 0 <= u < labels.shape[1] and labels[y, x] != labels[v, u]:
                out[c, y, x] = no
    return out


def distinct(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Affinities of which no two are alike."""
    number = len(OFFSETS) * size[0] * size[1]
    return (rng.permutation(number) / number).reshape(-1, *size).astype(np.float32)


def assert_same_segments(one: np.ndarray, two: np.ndarray) -> None:
    pairs = np.unique(np.stack([one.ravel(), two.ravel()]), axis=1)
    assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
    np.testing.assert_array_equal(one == 0, two == 0)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    number=st.integers(1, 14),
    density=st.sampled_from([0.5, 1.5, 4.0]),
    levels=st.sampled_from([1, 2, 5, 10**6]),
    share=st.sampled_from([0.0, 0.4, 1.0]),
    lean=st.sampled_from([-0.3, 0.0, 0.3]),
)
def test_it_is_the_plain_rule(seed: int, number: int, density: float, levels: int, share: float, lean: float) -> None:
    """Few levels: hardly anything but ties; and several edges between the same two nodes."""
    rng = np.random.default_rng(seed)
    pairs = rng.integers(0, number, (int(density * number), 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    weights = np.clip(rng.integers(-levels, levels + 1, len(pairs)) / levels + lean, -1, 1)
    touching = rng.random(len(pairs)) < share
    parts = [(round(weight * 2**24), 1) for weight in weights.tolist()]
    truth = slow(pairs.tolist(), parts, touching.tolist(), number)
    found = agglomerate(pairs, weights, touching, number=number)
    assert found.tolist() == truth
    if share == 1:
        assert agglomerate(pairs, weights, number=number).tolist() == truth


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    levels=st.sampled_from([1, 4, 10**6]),
    share=st.sampled_from([0.6, 1.0]),
    stride=st.sampled_from([(1, 1), (2, 2), (1, 3)]),
    pulls=st.sampled_from([1, 2, 6]),
    threshold=st.sampled_from([0.25, 0.5]),
    touching=st.booleans(),
)
def test_of_pixels_it_is_the_plain_rule(
    seed: int,
    levels: int,
    share: float,
    stride: tuple[int, int],
    pulls: int,
    threshold: float,
    touching: bool,
) -> None:
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(1, 6, 2))
    affinities = (rng.integers(0, levels + 1, (len(OFFSETS), *size)) / levels).astype(np.float32)
    inside = rng.random(size) < share
    found = gasp(
        affinities,
        OFFSETS,
        inside,
        attractive=pulls,
        stride=stride,
        threshold=threshold,
        touching=touching,
        tile=1,
    )
    np.testing.assert_array_equal(found, slow_pixels(affinities, inside, pulls, stride, threshold, touching))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_many_contractions_against_the_plain_rule(seed: int) -> None:
    """Long lists of neighbours, so that the table of edges is made anew."""
    rng = np.random.default_rng(seed)
    pairs = np.stack(np.triu_indices(24, 1), axis=1)
    weights = rng.normal(0.1, 0.3, len(pairs)).clip(-1, 1)
    parts = [(round(weight * 2**24), 1) for weight in weights.tolist()]
    truth = slow(pairs.tolist(), parts, [True] * len(pairs), 24)
    assert agglomerate(pairs, weights, number=24).tolist() == truth


def test_the_order_of_edges_does_not_matter_on_a_large_graph() -> None:
    rng = np.random.default_rng(1)
    number = 3000
    pairs = rng.integers(0, number, (30000, 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    weights = rng.normal(0, 0.3, len(pairs)).clip(-0.9, 0.9) + rng.random(len(pairs)) * 0.1
    first = agglomerate(pairs, weights, number=number)
    assert 1 < first.max() + 1 < number
    order, names = rng.permutation(len(pairs)), rng.permutation(number)
    other = agglomerate(names[pairs[order]][:, ::-1], weights[order], number=number)
    assert_same_segments(first + 1, other[names] + 1)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_right_affinities_give_the_objects_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.zeros((24, 31), np.int64)
    for k in range(1, 8):
        y, x, h, w = (*rng.integers(0, 24, 2), *rng.integers(1, 10, 2))
        labels[y : y + h, x : x + w] = k
    found = gasp(same_object(labels), OFFSETS, labels > 0, stride=int(rng.integers(1, 4)), tile=int(rng.integers(1, 6)))
    pieces, count = np.zeros_like(labels), 0
    for k in range(1, 8):
        own, n = ndimage.label(labels == k)
        pieces, count = np.where(own > 0, own + count, pieces), count + n
    assert_same_segments(found, pieces)


def test_two_squares_that_repel_each_other() -> None:
    labels = np.ones((8, 16), np.int64)
    labels[:, 8:] = 2
    found = gasp(same_object(labels), OFFSETS)
    np.testing.assert_array_equal(found, labels)
    assert found.dtype == np.int32


@pytest.mark.parametrize("tile", [1, 4])
def test_one_wrong_edge_does_not_join_what_the_mean_keeps_apart(tile: int) -> None:
    labels = np.ones((8, 16), np.int64)
    labels[:, 8:] = 2
    affinities = same_object(labels)[:2]
    affinities[1, 4, 8] = 0.95  # the strongest pair of all: single linkage begins with it
    one, _ = mutex_watershed(affinities, OFFSETS[:2], attractive=2)
    assert one.max() == 1
    found = gasp(affinities, OFFSETS[:2], tile=tile)
    if tile == 1:  # the two pixels of the pair go first, and one of them is on the wrong side for ever
        assert (found != labels).sum() == 1
    else:
        np.testing.assert_array_equal(found, labels)


def test_the_mean_of_many_weak_pairs_joins_what_one_strong_one_forbids() -> None:
    affinities = np.full((len(OFFSETS), 8, 12), 0.7, np.float32)
    affinities[3, :, 6:9] = np.where(np.arange(8)[:, None] == 4, 0, 0.7)
    assert gasp(affinities, OFFSETS).max() == 1
    assert mutex_watershed(affinities, OFFSETS)[0].max() > 1


def test_far_pairs_join_pieces_only_where_that_is_asked() -> None:
    inside = np.ones((6, 10), bool)
    inside[:, 4:6] = False
    affinities = np.full((len(OFFSETS), 6, 10), 0.9, np.float32)
    np.testing.assert_array_equal(gasp(affinities, OFFSETS, inside), ndimage.label(inside)[0])
    np.testing.assert_array_equal(gasp(affinities, OFFSETS, inside, touching=False), inside)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), tile=st.integers(1, 6))
def test_all_positive_gives_the_components_and_all_negative_single_pixels(seed: int, tile: int) -> None:
    rng = np.random.default_rng(seed)
    inside = rng.random((13, 17)) < 0.7
    affinities = distinct(rng, inside.shape) / 2
    found = gasp(affinities + 0.5 + 1e-4, OFFSETS, inside, tile=tile)
    np.testing.assert_array_equal(found, ndimage.label(inside)[0])
    apart = gasp(affinities, OFFSETS, inside, tile=tile)
    np.testing.assert_array_equal(apart, np.where(inside, np.cumsum(inside).reshape(inside.shape), 0))


def test_what_repels_leaves_the_superpixels_as_they_are() -> None:
    affinities = np.zeros((3, 8, 8), np.float32)
    affinities[:2] = 0.9
    affinities[0, 4], affinities[1, :, 4] = 0.2, 0.2  # between four tiles
    found = gasp(affinities, [*OFFSETS[:2], (0, -4)])
    np.testing.assert_array_equal(found, np.kron([[1, 2], [3, 4]], np.ones((4, 4), int)))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    tile=st.sampled_from([1, 3, 4]),
    stride=st.integers(1, 3),
    share=st.sampled_from([0.7, 1]),
)
def test_segments_are_connected_and_cover_the_foreground(seed: int, tile: int, stride: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    inside = rng.random((15, 14)) < share
    affinities = np.sqrt(rng.random((len(OFFSETS), 15, 14))).astype(np.float32)
    found = gasp(affinities, OFFSETS, inside, tile=tile, stride=stride)
    np.testing.assert_array_equal(found > 0, inside)
    for k in range(1, found.max() + 1):
        assert ndimage.label(found == k)[1] == 1
    names, first = np.unique(found[inside], return_index=True)
    assert names.tolist() == list(range(1, len(names) + 1))
    assert (np.diff(first) > 0).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), axis=st.sampled_from([0, 1]), tile=st.sampled_from([1, 4]), touching=st.booleans())
def test_a_mirrored_image_has_the_mirrored_segments(seed: int, axis: int, tile: int, touching: bool) -> None:
    """The sides are multiples of the tile's: the tiles begin at the upper left."""
    rng = np.random.default_rng(seed)
    affinities = distinct(rng, (12, 16)) * 0.999
    inside = rng.random((12, 16)) < 0.8
    offsets = np.array(OFFSETS)
    found = gasp(affinities, offsets, inside, tile=tile, touching=touching)
    offsets[:, axis] *= -1
    flipped = np.flip(affinities, axis + 1), offsets, np.flip(inside, axis)
    assert_same_segments(found, np.flip(gasp(*flipped, tile=tile, touching=touching), axis))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_transposed_image_has_the_transposed_segments(seed: int) -> None:
    rng = np.random.default_rng(seed)
    affinities = distinct(rng, (11, 14)) * 0.999
    found = gasp(affinities, OFFSETS)
    turned = gasp(affinities.transpose(0, 2, 1), np.array(OFFSETS)[:, ::-1], attractive=2)
    assert_same_segments(found, turned.T)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), tile=st.integers(1, 5))
def test_segments_are_cut_at_tiles_into_connected_pieces(seed: int, tile: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, (9, 11)).astype(np.int32)
    pieces, number = _cut(labels, np.array(OFFSETS[:2]), tile)
    assert number == pieces.max()
    truth, count = np.zeros_like(labels), 0
    for y in range(0, 9, tile):
        for x in range(0, 11, tile):
            for k in (1, 2, 3):
                own, n = ndimage.label(labels[y : y + tile, x : x + tile] == k)
                part = truth[y : y + tile, x : x + tile]
                part[own > 0] = own[own > 0] + count
                count += n
    assert number == count
    assert_same_segments(pieces, truth)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1)])
def test_offsets_longer_than_the_image_and_no_foreground(size: tuple[int, int]) -> None:
    assert (gasp(np.ones((len(OFFSETS), *size)), OFFSETS, stride=3) == 1).all()
    assert not gasp(np.ones((len(OFFSETS), *size)), OFFSETS, np.zeros(size, bool)).any()


def test_graphs_without_edges() -> None:
    assert agglomerate(np.zeros((0, 2), int), [], number=3).tolist() == [0, 1, 2]
    assert agglomerate(np.zeros((0, 2), int), [], number=0).tolist() == []


def test_the_inputs_stay_as_they_were() -> None:
    affinities = np.full((len(OFFSETS), 6, 7), 0.4, np.float32)
    affinities.flags.writeable = False
    gasp(affinities, OFFSETS)
    assert (affinities == np.float32(0.4)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"affinities": np.full((3, 4, 5), np.nan)}, "sigmoid"),
        ({"offsets": [(-3, 0), (0, -1), (0, -3)]}, "attractive ones first"),
        ({"stride": 0}, "at least 1"),
        ({"foreground": np.ones((4, 5))}, "give bool"),
        ({"threshold": 1.5}, "from 0 to 1"),
        ({"threshold": float("nan")}, "from 0 to 1"),
        ({"tile": 0}, "at least 1 pixel"),
    ],
)
def test_what_cannot_work_is_said(change: dict[str, object], message: str) -> None:
    call = {"affinities": np.ones((3, 4, 5)), "offsets": [(-1, 0), (0, -1), (0, -3)]} | change
    with pytest.raises(ValueError, match=message) as caught:
        gasp(**call)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pairs": [(0, 1, 2)]}, r"\(E, 2\)"),
        ({"pairs": [(0.0, 1.0)]}, r"\(E, 2\)"),
        ({"pairs": [(0, 3)]}, "from 0 to 2"),
        ({"pairs": [(1, 1)]}, "itself"),
        ({"weights": [0.5, 0.5]}, "each of 1 pairs"),
        ({"weights": [2.0]}, "-1..1"),
        ({"weights": [np.nan]}, "-1..1"),
        ({"touching": [1]}, "each of 1 pairs"),
    ],
)
def test_what_is_no_graph_is_said(change: dict[str, object], message: str) -> None:
    call = {"pairs": [(0, 1)], "weights": [0.5], "number": 3} | change
    with pytest.raises(ValueError, match=message) as caught:
        agglomerate(**call)
    assert "\n" not in str(caught.value)
