from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pixelkin.models.division_loss import division_loss, middle_displacement, object_edges
from pixelkin.models.mask_unet import Division

OBJECTS = hnp.arrays(
    np.int64,
    st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7)),
    elements=st.sampled_from([-1, 0, 0, 1, 2, 3, 17]),
)


def said_of(objects, seed=0):
    generator = torch.Generator().manual_seed(seed)
    batch, height, width = objects.shape
    parts = (
        torch.randn(size, generator=generator).requires_grad_()
        for size in ((batch, 2, height, width), (batch, height, width), (batch,))
    )
    return Division(*parts)


@given(OBJECTS)
def test_displacement_points_to_the_middle(objects):
    found = middle_displacement(torch.from_numpy(objects)).numpy()
    assert found.shape == (len(objects), 2, *objects.shape[1:])
    assert found.dtype == np.float32
    for one, field in zip(objects, found, strict=True):
        for y, x in np.argwhere(one > 0):
            middle = np.argwhere(one == one[y, x]).mean(axis=0)
            assert field[:, y, x] == pytest.approx(middle - (y, x), abs=1e-4)


@given(OBJECTS)
def test_edges_lie_beside_another_object(objects):
    found = object_edges(torch.from_numpy(objects)).numpy()
    for one, edges in zip(objects, found, strict=True):
        for y, x in np.ndindex(one.shape):
            near = one[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
            assert edges[y, x] == float(one[y, x] > 0 and bool(((near > 0) & (near != one[y, x])).any()))


@given(OBJECTS, st.integers(0, 99))
def test_only_known_objects_teach(objects, seed):
    cells, said = torch.from_numpy(objects), said_of(objects, seed)
    losses = division_loss(said, cells, torch.full((len(objects),), -1.0), reach=4.0)
    assert all(torch.isfinite(value) and value.ndim == 0 for value in losses.values())
    losses["loss"].backward()
    unknown = (cells <= 0)[:, None]
    assert not said.displacement.grad[unknown.expand_as(said.displacement)].any()
    assert not said.boundary.grad[cells <= 0].any()
    assert not said.crowd.grad.any()  # nobody knows
    if (cells > 0).any():
        assert said.boundary.grad[cells > 0].any()
    else:
        assert losses["loss"] == 0


def test_crowd_is_learned_where_it_is_known():
    objects = torch.zeros(3, 4, 4, dtype=torch.int64)
    said = said_of(objects)
    division_loss(said, objects, torch.tensor([1.0, -1.0, 0.0]), reach=1.0)["loss"].backward()
    assert said.crowd.grad[0] < 0 == said.crowd.grad[1] < said.crowd.grad[2]


def two_squares():
    objects = torch.zeros(2, 8, 12, dtype=torch.int64)
    objects[0, 1:7, 1:6], objects[0, 1:7, 6:11] = 1, 2
    objects[1, 1:7, 1:11] = 1
    return objects


def test_what_is_right_costs_nothing():
    objects, reach = two_squares(), 3.0
    right = Division(middle_displacement(objects) / reach, object_edges(objects) * 60 - 30, torch.tensor([30.0, -30.0]))
    losses = division_loss(right, objects, torch.tensor([1.0, 0.0]), reach)
    assert {key: value.item() for key, value in losses.items()} == pytest.approx(dict.fromkeys(losses, 0.0), abs=1e-3)
    wrong = division_loss(right._replace(boundary=-right.boundary), objects, torch.tensor([1.0, 0.0]), reach)
    assert wrong["boundary"] > 5
    assert wrong["dice"] > 0.5


def test_the_same_number_in_two_images_is_two_objects():
    objects = torch.zeros(2, 6, 6, dtype=torch.int64)
    objects[0, :2, :2] = objects[1, 4:, 4:] = 1
    field = middle_displacement(objects)
    assert field[0, :, 0, 0].tolist() == [0.5, 0.5]
    assert field[1, :, 5, 5].tolist() == [-0.5, -0.5]


def test_reach_is_the_unit_of_the_displacement():
    objects, said = two_squares(), said_of(two_squares())
    double = said._replace(displacement=said.displacement * 0 + middle_displacement(objects) / 8)
    crowd = torch.tensor([1.0, 0.0])
    assert division_loss(double, objects, crowd, reach=8.0)["displacement"] == 0
    assert division_loss(double, objects, crowd, reach=4.0)["displacement"] > 0.1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_targets_are_the_same_on_a_gpu():
    objects = torch.randint(-1, 5, (3, 40, 50))
    assert torch.equal(middle_displacement(objects), middle_displacement(objects.cuda()).cpu())
    assert torch.equal(object_edges(objects), object_edges(objects.cuda()).cpu())
