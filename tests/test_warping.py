"""Warping: orders, signs, edges, and what arrives where."""

from __future__ import annotations

import pytest
import torch

from pixelkin.warping import arrivals, destinations, warp


def constant(dy, dx, size, batch=1, dtype=torch.float64):
    return torch.tensor([dy, dx], dtype=dtype).view(1, 2, 1, 1).expand(batch, 2, *size).clone()


@pytest.mark.parametrize("size", [(7, 11), (11, 7), (1, 5), (5, 1), (1, 1)])
def test_zero_flow_gives_the_values(size):
    values = torch.rand(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(warp(values, constant(0, 0, size, 2)), values, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dy", "dx"), [(0, 3), (3, 0), (-2, 1), (1, -2)])
def test_whole_steps_shift_rows_by_dy_and_columns_by_dx(dy, dx):
    values = torch.rand(1, 2, 9, 13, dtype=torch.float64)
    rows = torch.arange(9).add(dy).clamp(0, 8)  # beyond the edge, the edge
    columns = torch.arange(13).add(dx).clamp(0, 12)
    torch.testing.assert_close(warp(values, constant(dy, dx, (9, 13))), values[..., rows[:, None], columns])


def test_halves_are_moved_as_exactly_as_floats():
    values = (torch.arange(600) % 100).bfloat16().view(1, 1, 1, 600)
    moved = warp(values, constant(0, 1, (1, 600), dtype=torch.float32))
    assert moved.dtype == torch.bfloat16
    torch.testing.assert_close(moved[..., :-1], values[..., 1:], rtol=0, atol=0.01)


def test_a_ramp_moves_by_fractions():
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(20.0), indexing="ij")
    ramp = torch.stack([rows, columns])[None].double()
    moved = warp(ramp, constant(0.25, -0.5, (8, 20)))
    torch.testing.assert_close(moved[0, 0, :-1], ramp[0, 0, :-1] + 0.25)
    torch.testing.assert_close(moved[0, 1, :, 1:], ramp[0, 1, :, 1:] - 0.5)


def test_destinations_are_rows_then_columns():
    goal = destinations(constant(10, 20, (3, 4)))
    assert goal[0, :, 2, 1].tolist() == [12, 21]


def test_at_rest_one_arrives_everywhere():
    assert torch.equal(arrivals(constant(0, 0, (4, 6))), torch.ones(1, 1, 4, 6, dtype=torch.float64))


def test_what_is_sent_arrives_and_is_split():
    flow = constant(0, 0, (5, 7))
    flow[0, :, 2, 3] = torch.tensor([1.0, 0.25])
    landed = arrivals(flow)[0, 0]
    assert landed[2, 3] == 0
    assert landed[3, 3] == 1.75
    assert landed[3, 4] == 1.25
    assert landed.sum() == 35


def test_what_leaves_the_frame_is_lost():
    landed = arrivals(constant(0, 2, (4, 6)))[0, 0]
    assert torch.equal(landed[:, :2], torch.zeros(4, 2, dtype=torch.float64))
    assert torch.equal(landed[:, 2:], torch.ones(4, 4, dtype=torch.float64))
