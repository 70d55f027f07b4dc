"""Given flow: direction, units and order, on any size; RAFT's conventions with an untrained model."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from torch import nn

from pixelkin.cues.optical_flow import FlowError, dis_flow, flow_estimator, raft_flow, resized_flow


def texture(size=(80, 112)):
    rough = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    return cv2.GaussianBlur(rough, (0, 0), 2)


@pytest.mark.parametrize(("dy", "dx"), [(0, 0), (3, 0), (0, -4), (-2, 5)])
def test_a_shift_is_found_where_it_leads_to_dy_first(dy, dx):
    first = texture()
    second = np.roll(first, (dy, dx), axis=(0, 1))
    flow = dis_flow(first, second)
    assert flow.shape == (2, 80, 112)
    assert flow.dtype == np.float32
    inner = flow[:, 12:-12, 12:-12]
    assert np.abs(np.median(inner, axis=(1, 2)) - (dy, dx)).max() < 0.15


@pytest.mark.parametrize("size", [(8, 9), (17, 40), (60, 16)])
def test_frames_of_any_size(size):
    image = np.full((*size, 3), 90, np.uint8)
    flow = dis_flow(image, image)
    assert flow.shape == (2, *size)
    assert np.abs(flow).max() < 1e-3


def test_a_flow_on_another_grid_has_its_vectors_in_pixels_of_that():
    flow = np.zeros((2, 8, 12), np.float32)
    flow[0], flow[1] = 2, -6
    small = resized_flow(flow, (4, 3))
    assert small.shape == (2, 4, 3)
    np.testing.assert_allclose(small[0], 1)
    np.testing.assert_allclose(small[1], -1.5)
    np.testing.assert_array_equal(resized_flow(flow, (8, 12)), flow)
    with pytest.raises(FlowError, match="give \\(2, h, w\\)"):
        resized_flow(flow[0], (4, 3))


def test_raft_gets_what_it_was_trained_on_and_its_answer_is_turned_round():
    seen = []

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Linear(1, 1)

        def forward(self, first, second):
            seen.append((first, second))
            flow = first.new_zeros(1, 2, *first.shape[-2:])
            flow[:, 0], flow[:, 1] = 8.0, 4.0  # x before y
            return [flow * 0, flow]

    image = np.full((100, 256, 3), 255, np.uint8)
    flow = raft_flow(Model())(image, image)
    assert seen[0][0].shape == (1, 3, 128, 256)
    assert float(seen[0][0].max()) == pytest.approx(1)
    np.testing.assert_allclose(flow[0], 4 * 100 / 128, rtol=1e-5)
    np.testing.assert_allclose(flow[1], 8, rtol=1e-5)


def test_calls_that_cannot_work_say_so():
    with pytest.raises(FlowError, match="one size"):
        dis_flow(texture(), texture((40, 40)))
    with pytest.raises(FlowError, match="unknown flow"):
        flow_estimator("magic")
    assert flow_estimator() is dis_flow
