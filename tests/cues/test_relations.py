from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelkin.cues.relations import (
    BACKGROUND,
    EXCLUDED,
    FOREGROUND,
    NEGATIVE,
    PairGeometry,
    affinity_loss,
    displacement_loss,
    pair_labels,
    path_max,
)
from pixelkin.data.lattice import half_plane_offsets, lattice_path, pair_slices


def slow_pairs(h, w, radius, window=False):
    """(source, destination) pixels in the flat order, one by one."""
    for dy, dx in half_plane_offsets(radius):
        for y in range(h):
            for x in range(w):
                inner = y < h - radius + 1 and radius - 1 <= x < w - radius + 1
                if 0 <= y + dy < h and 0 <= x + dx < w and (inner or not window):
                    yield (y, x), (y + dy, x + dx)


def slow_path_max(b, source, destination):
    (y, x), (v, u) = source, destination
    dy, dx = v - y, u - x
    return max(
        float(b[p, q])
        for p in range(min(y, v), max(y, v) + 1)
        for q in range(min(x, u), max(x, u) + 1)
        if (dy * (q - x) - dx * (p - y)) ** 2 < dy * dy + dx * dx
    )


def slow_code(labels, source, destination, components=None):
    a, b = int(labels[source]), int(labels[destination])
    if 255 in (a, b):
        return EXCLUDED
    if a != b:
        return NEGATIVE
    if a == 0:
        return BACKGROUND
    if components is not None:
        if components[source] != components[destination]:
            return NEGATIVE
        if components[source] < 0:
            return EXCLUDED
    return FOREGROUND


def random_maps(h, w, seed, batch=2):
    g = torch.Generator().manual_seed(seed)
    labels = torch.tensor([0, 1, 7, 255])[torch.randint(0, 4, (batch, h, w), generator=g)]
    components = torch.randint(-1, 3, (batch, h, w), generator=g)
    boundary = torch.rand(batch, h, w, generator=g, dtype=torch.float64)
    field = torch.randn(batch, 2, h, w, generator=g, dtype=torch.float64)
    return labels, components, boundary, field


@pytest.mark.parametrize(("radius", "offsets", "total", "longest"), [(10, 152, 2134, 22), (5, 34, 242, 11)])
def test_published_counts(radius, offsets, total, longest):
    lengths = [len(lattice_path(offset)) for offset in half_plane_offsets(radius)]
    assert len(lengths) == offsets
    assert sum(lengths) == total
    assert (min(lengths), max(lengths)) == (2, longest)


def test_published_window_has_13090_sources():
    geometry = PairGeometry(10, published_window=True)
    assert path_max(torch.zeros(1, 128, 128), geometry).shape == (1, 152 * 13090)
    assert path_max(torch.zeros(1, 9, 128), geometry).shape == (1, 0)


@settings(max_examples=30, deadline=None)
@given(
    h=st.integers(1, 9), w=st.integers(1, 11), radius=st.integers(1, 6), window=st.booleans(), seed=st.integers(0, 9)
)
def test_pairs_paths_and_losses_are_the_slow_ones(h, w, radius, window, seed):
    labels, components, boundary, field = random_maps(h, w, seed)
    geometry = PairGeometry(radius, published_window=window)
    pairs = list(slow_pairs(h, w, radius, window))
    got = path_max(boundary, geometry)
    assert got.shape == (2, len(pairs))
    expected = torch.tensor([[slow_path_max(b, *pair) for pair in pairs] for b in boundary], dtype=torch.float64)
    torch.testing.assert_close(got, expected.view(2, -1), rtol=0, atol=0)

    for parts in (None, components):
        codes = pair_labels(labels, geometry, components=parts)
        slow = [
            [slow_code(labels[i], *pair, components=None if parts is None else parts[i]) for pair in pairs]
            for i in range(2)
        ]
        assert codes.tolist() == slow

        positive = {BACKGROUND: [], FOREGROUND: []}
        negative, moved = [], {BACKGROUND: [], FOREGROUND: []}
        for i in range(2):
            for (s, d), code in zip(pairs, slow[i], strict=True):
                affinity = 1 - slow_path_max(boundary[i], s, d)
                if code == NEGATIVE:
                    negative.append(-math.log(1 + 1e-5 - affinity))
                elif code != EXCLUDED:
                    positive[code].append(-math.log(affinity + 1e-5))
                    for axis in range(2):
                        delta = float(field[i, axis][s] - field[i, axis][d])
                        moved[code].append(abs(delta - (d[axis] - s[axis]) * (code == FOREGROUND)))
        mean = {code: sum(v) / (len(v) + 1e-5) for code, v in positive.items()}
        loss = affinity_loss(boundary, codes, geometry)
        assert float(loss.positive) == pytest.approx(sum(mean.values()) / 2, rel=1e-3)
        assert float(loss.negative) == pytest.approx(sum(negative) / (len(negative) + 1e-5), rel=1e-3)
        assert float(loss.total) == pytest.approx(float(loss.positive + loss.negative) / 2)
        drift = displacement_loss(field, codes, geometry)
        for code, value in ((FOREGROUND, drift.foreground), (BACKGROUND, drift.background)):
            assert float(value) == pytest.approx(sum(moved[code]) / (len(moved[code]) + 1e-5), rel=1e-3)
        assert float(drift.total) == pytest.approx(float(drift.foreground + drift.background) / 2)


def test_path_max_gradient_goes_to_the_largest_pixel_of_each_path():
    boundary = torch.rand(1, 7, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    geometry = PairGeometry(5)
    weights = torch.rand(path_max(boundary, geometry).shape, dtype=torch.float64)
    (path_max(boundary, geometry) * weights).sum().backward()
    expected = torch.zeros(7, 8, dtype=torch.float64)
    for n, (s, d) in enumerate(slow_pairs(7, 8, 5)):
        dy, dx = d[0] - s[0], d[1] - s[1]
        path = [(s[0] + y, s[1] + x) for y, x in lattice_path((dy, dx))]
        expected[max(path, key=lambda p: float(boundary.detach()[0][p]))] += weights[0, n]
    torch.testing.assert_close(boundary.grad[0], expected)


def test_exact_displacement_costs_nothing():
    labels = torch.zeros(1, 20, 30, dtype=torch.long)
    labels[0, 4:14, 3:12] = 1
    labels[0, 5:18, 18:28] = 2
    grid = torch.stack(torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij"))
    field = torch.zeros(1, 2, 20, 30)
    for label, centre in ((1, (8.0, 7.0)), (2, (11.0, 22.0))):
        inside = labels[0] == label
        field[0, :, inside] = (torch.tensor(centre)[:, None, None] - grid)[:, inside]
    geometry = PairGeometry(10)
    codes = pair_labels(labels, geometry)
    loss = displacement_loss(field, codes, geometry)
    assert float(loss.total) == pytest.approx(0, abs=1e-6)
    assert float(displacement_loss(-field, codes, geometry).foreground) > 1
    torch.testing.assert_close(
        displacement_loss(field + 3.5, codes, geometry).total, loss.total
    )  # only differences count


def test_boundary_on_the_border_costs_nothing_between_classes():
    labels = torch.zeros(1, 12, 12, dtype=torch.long)
    labels[0, :, 6:] = 1
    labels[0, :, 5] = 255
    boundary = torch.zeros(1, 1, 12, 12)
    boundary[..., 5] = 1
    geometry = PairGeometry(5)
    loss = affinity_loss(boundary, pair_labels(labels, geometry), geometry)
    assert float(loss.total) < 1e-4
    assert float(affinity_loss(1 - boundary, pair_labels(labels, geometry), geometry).total) > 5


def test_sampled_offsets_are_a_part_of_all():
    boundary = torch.rand(1, 15, 16)
    full = PairGeometry(10)
    part = full.sample(20, torch.Generator().manual_seed(1))
    assert len(part.offsets) == 20
    by_offset = dict(zip(full.offsets, _split(path_max(boundary, full), full), strict=True))
    for offset, values in zip(part.offsets, _split(path_max(boundary, part), part), strict=True):
        torch.testing.assert_close(values, by_offset[offset])
    assert full.sample(999) is full


def _split(pairs, geometry):
    counts = []
    for offset in geometry.offsets:
        slices = pair_slices(offset, (15, 16))
        counts.append((slices[0][0].stop - slices[0][0].start) * (slices[0][1].stop - slices[0][1].start))
    return pairs.split(counts, dim=1)


def test_nothing_known_is_no_loss_and_no_nan():
    labels = torch.full((1, 8, 8), 255)
    geometry = PairGeometry(5)
    codes = pair_labels(labels, geometry)
    field = torch.randn(1, 2, 8, 8, requires_grad=True)
    boundary = torch.rand(1, 1, 8, 8, requires_grad=True)
    loss = affinity_loss(boundary, codes, geometry).total + displacement_loss(field, codes, geometry).total
    loss.backward()
    assert loss.item() == 0
    assert not field.grad.any()
    assert not boundary.grad.any()


def test_errors_say_what_is_wrong():
    with pytest.raises(ValueError, match="radius"):
        PairGeometry(0)
    with pytest.raises(ValueError, match="half_plane_offsets"):
        PairGeometry(3, ((-1, 0),))
    with pytest.raises(ValueError, match="same shape"):
        pair_labels(torch.zeros(1, 4, 4), PairGeometry(3), components=torch.zeros(1, 4, 5))
