from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pixelkin.data.synthetic import render_scene
from pixelkin.grouping.cuts import CRUMB, Node, divide, oversegment

EIGHT = np.ones((3, 3))


def oracle(labels):
    """What a perfect network says of a label map: (dy, dx) to the middle of the object, and where another begins."""
    places = np.indices(labels.shape).astype(float)
    displacement, boundary = np.zeros_like(places), np.zeros(labels.shape)
    for number in np.unique(labels[labels > 0]):
        mask = labels == number
        others = ndimage.binary_dilation((labels > 0) & ~mask, EIGHT)
        boundary[mask & others] = 1
        displacement[:, mask] = places[:, mask].mean(axis=1, keepdims=True) - places[:, mask]
    return displacement, boundary


def standing(division, threshold):
    """The division at a threshold as a label map; no cell may be claimed twice."""
    labels = np.zeros(division.pieces.shape, int)
    for number, node in enumerate((n for n in division.nodes if n.stands(threshold)), start=1):
        mask = np.isin(division.pieces, list(node.pieces))
        assert not labels[mask].any()
        labels[mask] = number
    return labels


def rand_index(a, b):
    """Adjusted Rand index of two labellings of the same cells."""
    table = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(table, (a, b), 1)
    pairs = lambda n: (n * (n - 1) / 2).sum()  # noqa: E731
    rows, columns, both = pairs(table.sum(1)), pairs(table.sum(0)), pairs(table)
    expected = rows * columns / pairs(np.array([len(a)]))
    most = (rows + columns) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)


def ellipses(*blobs, size=(48, 64)):
    """Touching ellipses (y, x, ry, rx), the later ones on top."""
    rows, columns = np.indices(size)
    labels = np.zeros(size, int)
    for number, (y, x, ry, rx) in enumerate(blobs, start=1):
        labels[((rows - y) / ry) ** 2 + ((columns - x) / rx) ** 2 <= 1] = number
    return labels


@pytest.mark.parametrize(
    "labels",
    [
        ellipses((24, 20, 10, 10), (24, 38, 10, 10)),
        ellipses((24, 14, 11, 9), (24, 30, 8, 9), (24, 48, 12, 11)),
        ellipses((14, 20, 9, 9), (14, 36, 9, 9), (30, 28, 9, 9), (36, 44, 8, 9)),
        ellipses((24, 32, 16, 28)),
    ],
)
@pytest.mark.parametrize("threshold", [0.15, 0.4, 0.65])
def test_a_perfect_field_divides_perfectly(labels, threshold):
    division = divide(labels > 0, *oracle(labels))
    found, inside = standing(division, threshold), labels > 0
    assert found.max() == labels.max()
    assert rand_index(found[inside], labels[inside]) > 0.97


def test_a_perfect_field_divides_rendered_objects():
    indices = []
    for seed in range(3):
        scene = render_scene(seed, size=(128, 144), preset="nuclei", scale=(0.05, 0.08), touching=0.9)
        truth = scene.instances.label_map()
        parts, count = ndimage.label(truth > 0, EIGHT)
        for place, number in zip(ndimage.find_objects(parts), range(1, count + 1), strict=True):
            mask = parts[place] == number
            own = np.where(mask, truth[place], 0)
            _, dense = np.unique(own, return_inverse=True)
            found = standing(divide(mask, *oracle(own)), 0.4)
            indices.append(rand_index(found[mask], dense.reshape(own.shape)[mask]))
    assert len(indices) > 10
    assert np.mean(indices) > 0.95


def test_without_evidence_a_mask_stays_whole():
    labels = ellipses((24, 20, 10, 10), (24, 38, 10, 10))
    one = (labels > 0).astype(int)
    for boundary in (np.zeros(labels.shape), oracle(labels)[1]):  # a ridge alone earns no cut
        division = divide(labels > 0, oracle(one)[0], boundary)
        assert division.pieces.max() > 1  # the shape alone was enough to try
        for threshold in (0.1, 0.4, 0.9):
            assert np.array_equal(standing(division, threshold), one)


def test_the_cut_follows_the_ridge():
    labels = np.ones((20, 40), int)
    labels[:, 15:] = 2
    pieces = oversegment(labels > 0, oracle(labels)[1])
    sides = {int(i): set(np.unique(labels[pieces == i])) for i in np.unique(pieces)}
    assert len(sides) >= 2
    agreed = sum(max((labels[pieces == i] == side).sum() for side in (1, 2)) for i in sides)
    assert agreed >= 0.97 * labels.size


def masks():
    size = st.tuples(st.integers(1, 14), st.integers(1, 14))
    return st.builds(
        lambda size, seed, share: (np.random.default_rng(seed).random(size) < share, seed),
        size,
        st.integers(0, 10**6),
        st.sampled_from([0.3, 0.6, 0.85, 1.0]),
    )


def guesses(mask, seed):
    rng = np.random.default_rng((seed, 1))
    smooth = ndimage.gaussian_filter(rng.normal(size=(3, *mask.shape)), (0, 1, 1)) * 4
    return smooth[:2], 1 / (1 + np.exp(-smooth[2]))


@given(masks())
@settings(max_examples=150)
def test_the_tree_of_joins(given_mask):
    mask, seed = given_mask
    displacement, boundary = guesses(mask, seed)
    division = divide(mask, displacement, boundary)
    pieces, nodes = division
    numbers = set(np.unique(pieces).tolist()) - {0}
    assert np.array_equal(pieces > 0, mask)
    assert numbers == set(range(1, len(numbers) + 1))
    for a, b in itertools.combinations(nodes, 2):
        assert a.pieces != b.pieces
        assert not a.pieces & b.pieces or a.pieces < b.pieces  # nested or disjoint, finest first
    assert {p for node in nodes for p in node.pieces} == numbers
    assert all(0 <= node.inner <= node.outer <= 1 for node in nodes)
    roots = [a for a in nodes if not any(a.pieces < b.pieces for b in nodes)]
    parts, count = ndimage.label(mask, EIGHT)
    assert len(roots) == count  # one for each contact component, which it is
    assert {frozenset(np.unique(pieces[parts == i + 1]).tolist()) for i in range(count)} == {r.pieces for r in roots}
    assert all(root.outer == 1 for root in roots)
    for threshold in (1e-6, 0.1, 0.33, 0.5, 0.9, 1.0, *[node.outer for node in nodes if node.outer > 0][:5]):
        stand = [node for node in nodes if node.stands(threshold)]
        assert sorted(p for node in stand for p in node.pieces) == sorted(numbers)
        assert all(0 <= node.confidence(threshold) <= 1 for node in nodes)
        assert np.array_equal(standing(division, threshold) > 0, mask)


def slow_nodes(pieces, displacement):
    """The same tree, everything measured anew for each join."""
    places = np.indices(pieces.shape)
    goals = places + displacement

    def evidence(a, b):
        masks = [np.isin(pieces, list(group)) for group in (a, b)]
        if min(mask.sum() for mask in masks) < CRUMB:
            return 0.0
        apart = [np.hypot(*(v[:, masks[0]].mean(axis=1) - v[:, masks[1]].mean(axis=1))) for v in (places, goals)]
        return min(apart[1] / max(apart[0], 1e-6), 1.0)

    def meet(a, b):
        return (ndimage.binary_dilation(np.isin(pieces, list(a)), EIGHT) & np.isin(pieces, list(b))).any()

    groups = {frozenset([int(i)]): 0.0 for i in np.unique(pieces) if i}
    nodes, level = [], 0.0
    while True:
        pairs = [
            (evidence(a, b), min(a), min(b), a, b) for a, b in itertools.permutations(groups, 2) if min(a) < min(b)
        ]
        pairs = [pair for pair in pairs if meet(*pair[3:])]
        if not pairs:
            return nodes + [Node(group, inner, 1.0) for group, inner in groups.items()]
        weight, _, _, a, b = min(pairs, key=lambda pair: (round(pair[0], 9), *pair[1:3]))
        level = max(level, weight)
        nodes += [Node(a, groups.pop(a), level), Node(b, groups.pop(b), level)]
        groups[a | b] = level


@given(masks())
@settings(max_examples=40)
def test_the_tree_is_that_of_the_slow_reference(given_mask):
    mask, seed = given_mask
    mask = mask[:9, :9]
    displacement, boundary = guesses(mask, seed)
    pieces, nodes = divide(mask, displacement, boundary)
    expected = {node.pieces: node for node in slow_nodes(pieces, displacement)}
    assert {node.pieces for node in nodes} == set(expected)
    for node in nodes:
        assert node.inner == pytest.approx(expected[node.pieces].inner, abs=1e-6)
        assert node.outer == pytest.approx(expected[node.pieces].outer, abs=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 7)])
@pytest.mark.parametrize("filled", [False, True])
def test_small_and_empty_masks(size, filled):
    division = divide(np.full(size, filled), np.zeros((2, *size)), np.zeros(size))
    assert np.array_equal(standing(division, 0.5), np.full(size, int(filled)))


def test_confidence_grows_with_the_margin():
    sure, unsure = Node(frozenset([1]), 0.05, 0.9), Node(frozenset([1]), 0.3, 0.4)
    whole = Node(frozenset([1, 2]), 0.05, 1.0)
    assert whole.confidence(0.35) > sure.confidence(0.35) > unsure.confidence(0.35) > 0
    assert sure.stands(0.35)
    assert sure.stands(0.9)
    assert not sure.stands(0.05)
    assert not sure.stands(0.95)
