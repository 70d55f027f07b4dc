"""Division by the shortest path, against SciPy's Dijkstra on the explicit graph."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.sparse import csgraph

from pixelkin.grouping.geodesic import geodesic_groups


def slow_ways(mask: np.ndarray, cells: list[tuple[int, int]], cost: np.ndarray, votes: np.ndarray) -> np.ndarray:
    """(N, h, w) the cheapest way from each source."""
    height, width = mask.shape
    ends: list[tuple[int, int]] = []
    prices: list[float] = []
    for y, x in np.argwhere(mask):
        for v in range(max(0, y - 1), min(height, y + 2)):
            for u in range(max(0, x - 1), min(width, x + 2)):
                if mask[v, u] and (v, u) != (y, x):
                    step = np.hypot(v - y, u - x) * (1 + (cost[y, x] + cost[v, u]) / 2)
                    ends.append((y * width + x, v * width + u))
                    prices.append(step + np.hypot(*(votes[:, y, x] - votes[:, v, u])))
    rows, columns = np.array(ends, int).reshape(-1, 2).T
    graph = sparse.coo_matrix((prices, (rows, columns)), shape=(mask.size, mask.size)).tocsr()
    return csgraph.dijkstra(graph, indices=[y * width + x for y, x in cells]).reshape(len(cells), height, width)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), sources=st.integers(1, 4), share=st.sampled_from([0.5, 0.8, 1.0]))
def test_every_pixel_takes_the_cheapest_way(seed: int, sources: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((7, 9)) < share
    cells = [tuple(cell) for cell in rng.permutation(np.argwhere(mask))[:sources].tolist()]
    if not cells:
        return
    cost, votes = rng.random(mask.shape).astype(np.float32) * 5, rng.normal(size=(2, *mask.shape)).astype(np.float32)
    groups = geodesic_groups(mask, cells, cost=cost, votes=votes)
    ways = slow_ways(mask, cells, cost, votes)
    best = ways.min(axis=0)
    reached = mask & np.isfinite(best)
    own = np.take_along_axis(ways, np.maximum(groups - 1, 0)[None].astype(int), axis=0)[0]
    np.testing.assert_allclose(own[reached], best[reached], rtol=1e-5)
    assert (groups[mask] > 0).all()
    assert not groups[~mask].any()


def test_a_path_shuns_an_edge_that_a_straight_line_crosses() -> None:
    mask = np.ones((20, 21), bool)
    cost = np.zeros(mask.shape)
    cost[:, 14] = 50
    groups = geodesic_groups(mask, [(10, 2), (10, 18)], cost=cost)
    assert (groups[:, :14] == 1).all()
    assert (groups[:, 15:] == 2).all()
    assert (geodesic_groups(mask, [(10, 2), (10, 18)])[:, 13] == 2).all()  # without the edge


def test_a_jump_of_the_votes_is_an_edge() -> None:
    votes = np.zeros((2, 5, 21))
    votes[1, :, 14:] = 40
    groups = geodesic_groups(np.ones((5, 21), bool), [(2, 2), (2, 18)], votes=votes)
    assert (groups[:, :14] == 1).all()
    assert (groups[:, 14:] == 2).all()


def test_a_piece_without_a_source_goes_to_the_nearest_in_a_straight_line() -> None:
    mask = np.ones((3, 11), bool)
    mask[:, 4] = mask[:, 8] = False
    groups = geodesic_groups(mask, [(1, 0), (1, 10)])
    assert (groups[:, :4] == 1).all()
    assert (groups[:, 9:] == 2).all()
    assert (groups[:, 5] == 1).all()
    assert (groups[:, 6:8] == 2).all()


def test_a_source_beside_the_mask_starts_at_its_nearest_pixel_and_has_walked_there() -> None:
    mask = np.zeros((1, 11), bool)
    mask[:, 3:] = True
    groups = geodesic_groups(mask, [(0, 0), (0, 9)])[0]
    assert (groups[3:5] == 1).all()
    assert (groups[5:] == 2).all()


@pytest.mark.parametrize("sources", [[], [(0, 0)]])
def test_nothing_to_divide(sources: list[tuple[int, int]]) -> None:
    assert not geodesic_groups(np.zeros((4, 5), bool), sources).any()
    assert geodesic_groups(np.ones((4, 5), bool), sources).max() == len(sources)


def test_sizes_and_costs_are_checked() -> None:
    mask = np.ones((4, 5), bool)
    with pytest.raises(ValueError, match="make the sizes equal"):
        geodesic_groups(mask, [(0, 0)], cost=np.zeros((5, 4)))
    with pytest.raises(ValueError, match="make the sizes equal"):
        geodesic_groups(mask, [(0, 0)], votes=np.zeros((4, 5)))
    with pytest.raises(ValueError, match="clip it"):
        geodesic_groups(mask, [(0, 0)], cost=np.full(mask.shape, -1.0))
