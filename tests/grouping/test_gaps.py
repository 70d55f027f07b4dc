import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pixelkin.grouping.gaps import MOST, join_across_gaps


def test_near_parts_join_before_far_ones_and_far_ones_never():
    boxes = np.array([[0, 0, 10, 10], [0, 12, 10, 22], [0, 30, 10, 40], [0, 500, 10, 510]])
    joins = join_across_gaps(boxes, np.full(4, 100), most=1.0)
    assert [set(join.members) for join in joins] == [{0, 1}, {0, 1, 2}]
    assert joins[0].gap == 0.2
    assert np.isclose(joins[1].gap, 8 / np.sqrt(200))


def test_the_gap_is_measured_in_sides_of_the_larger_part():
    boxes = np.array([[0, 0, 4, 4], [0, 20, 100, 120]])
    assert len(join_across_gaps(boxes, np.array([16, 10_000]), most=0.2)) == 1
    assert join_across_gaps(boxes, np.array([16, 400]), most=0.2) == []


def test_one_component_or_too_many_join_nothing():
    assert join_across_gaps(np.zeros((1, 4)), np.ones(1)) == []
    assert join_across_gaps(np.zeros((0, 4)), np.zeros(0)) == []
    assert join_across_gaps(np.tile([0, 0, 1, 1], (MOST + 1, 1)), np.ones(MOST + 1)) == []


@given(st.lists(st.tuples(*[st.integers(0, 60)] * 2, *[st.integers(1, 20)] * 2), min_size=2, max_size=12))
def test_joins_are_a_tree_over_the_components(parts):
    boxes = np.array([(y, x, y + h, x + w) for y, x, h, w in parts])
    areas = np.array([h * w for *_, h, w in parts])
    joins = join_across_gaps(boxes, areas, most=0.5)
    assert len(joins) < len(parts)
    for i, join in enumerate(joins):
        assert len(join.members) >= 2
        assert join.gap <= 0.5
        assert all(join.members > earlier.members or not join.members & earlier.members for earlier in joins[:i])
