"""Motion in closed form against NumPy's least squares, robustness, and what a division costs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixelkin.cues.region_flow import (
    RegionFlowConfig,
    camera_fit,
    explain,
    first_guess,
    fit_motion,
    motion_basis,
    motion_flow,
)

SIZE = (18, 30)


def random(*shape, seed=0, **options):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), **options)


def scene(dy=2.0, dx=-1.0, *, noise=0.02, seed=0, box=(slice(5, 12), slice(9, 20))):
    """A turning, zooming camera's flow, a box that moves by itself, and the box."""
    basis = motion_basis(SIZE, 2)
    motion = random(1, 6, 2, seed=seed) * 0.8
    share = torch.zeros(1, *SIZE)
    share[:, box[0], box[1]] = 1
    flow = motion_flow(motion, basis) + share[:, None] * torch.tensor([dy, dx])[:, None, None]
    return flow + noise * random(1, 2, *SIZE, seed=seed + 1), share, motion


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_closed_form_is_weighted_least_squares(order, dtype):
    flow, weight = random(3, 2, *SIZE, dtype=dtype), random(3, *SIZE, seed=1, dtype=dtype).abs()
    basis = motion_basis(SIZE, order, like=flow)
    found = fit_motion(flow, weight, basis, ridge=0)
    terms = basis.flatten(1).T.double().numpy()
    for i in range(3):
        root = weight[i].flatten().double().sqrt().numpy()[:, None]
        slow = np.linalg.lstsq(root * terms, root * flow[i].flatten(1).T.double().numpy(), rcond=None)[0]
        np.testing.assert_allclose(found[i].double().numpy(), slow, atol=2e-6 if dtype == torch.float32 else 1e-9)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_a_motion_of_the_model_is_found_from_any_pixels(order):
    basis = motion_basis(SIZE, order).double()
    motion = random(2, len(basis), 2).double()
    weight = (random(2, *SIZE, seed=3) > 0.5).double()
    assert torch.allclose(fit_motion(motion_flow(motion, basis), weight, basis, ridge=0), motion, atol=1e-6)


def test_terms_stand_in_the_order_said():
    basis = motion_basis((3, 5), 2)
    assert basis.shape == (6, 3, 5)
    assert basis[1, :, 0].tolist() == [-1, 0, 1]
    assert basis[2, 0].tolist() == [-1, -0.5, 0, 0.5, 1]
    assert torch.equal(basis[4], basis[1] * basis[2])
    assert motion_basis((1, 1), 1)[1:].abs().max() == 0
    with pytest.raises(ValueError, match="give 0"):
        motion_basis(SIZE, 3)


def test_few_pixels_none_and_a_row_of_them_have_a_finite_motion():
    flow, basis = random(1, 2, *SIZE), motion_basis(SIZE, 2)
    for weight in (torch.zeros(1, *SIZE), torch.zeros(1, *SIZE)):
        weight[:, 3] = float(weight is not None)
        assert fit_motion(flow, weight, basis).isfinite().all()
    assert torch.equal(fit_motion(flow, torch.zeros(1, *SIZE), basis), torch.zeros(1, 6, 2))


def test_the_gradient_of_the_closed_form_is_exact():
    flow, basis = random(1, 2, 4, 5).double(), motion_basis((4, 5), 1).double()
    weight = random(1, 4, 5, seed=1).double().abs().requires_grad_()
    flow.requires_grad_()
    assert torch.autograd.gradcheck(lambda f, w: fit_motion(f, w, basis), (flow, weight))


def test_the_camera_is_found_under_what_moves_by_itself():
    flow, share, motion = scene()
    camera = camera_fit(flow)
    assert (camera.motion - motion).abs().max() < 0.05
    assert camera.noise.item() == pytest.approx(RegionFlowConfig().noise_floor)
    outside = share == 0
    assert camera.error[outside].max() < 0.15
    assert camera.error[~outside].min() > 2
    assert camera.weight[outside].min() > 0.2 > 0.01 > camera.weight[~outside].max()


def test_the_flow_alone_guesses_the_box_and_not_what_is_restless():
    flow, share, _ = scene()
    restless = torch.zeros_like(share)
    restless[:, 13:17, 4:26] = 1  # as large as the box, but no two pixels move alike
    flow = flow + 3 * restless[:, None] * random(1, 2, *SIZE, seed=9)
    guess = first_guess(flow, camera_fit(flow))
    assert guess[(share == 1) & (restless == 0)].mean() > 3 * guess[restless == 1].mean()
    assert guess[(share == 0) & (restless == 0)].mean() < 0.02
    assert ((guess >= 0) & (guess <= 1)).all()


def test_the_true_division_costs_nothing_and_every_other_more():
    flow, share, _ = scene(noise=0)
    camera = camera_fit(flow)
    made = explain(flow, share, camera)
    assert made.cost.item() < 1e-3
    exact = explain(flow, share, camera, RegionFlowConfig(object_order=2))  # what rides on a turning view turns too
    assert (exact.flow - flow).abs().max() < 0.02
    for other in (1 - share, share.roll(4, -1), share * 0, share * 0 + 1, share * 0 + 0.5):
        assert explain(flow, other, camera).cost.item() > made.cost.item() + 0.05


def test_what_neither_explains_costs_a_half_wherever_it_is_counted():
    flow = 50 * random(1, 2, 64, 64)
    camera = camera_fit(torch.zeros_like(flow))  # of noise that is nothing against it
    camera = camera._replace(weight=torch.ones_like(camera.weight))
    for share in (torch.full((1, 64, 64), 0.3), (random(1, 64, 64, seed=4) > 0).float()):
        assert explain(flow, share, camera).cost.item() == pytest.approx(0.5, abs=0.03)


def test_fast_clips_and_slow_ones_teach_alike():
    flow, share, _ = scene(noise=0)
    config, faster = RegionFlowConfig(noise_floor=0.01), RegionFlowConfig(noise_floor=0.1)
    wrong = share.roll(3, -1) * 0.8 + 0.1
    slow = explain(flow, wrong, camera_fit(flow, config), config).cost
    fast = explain(10 * flow, wrong, camera_fit(10 * flow, faster), faster).cost
    assert slow.item() == pytest.approx(fast.item(), rel=1e-3)


def test_the_gradient_leads_from_a_blurred_guess_to_the_box():
    flow, share, _ = scene()
    camera = camera_fit(flow)
    logits = torch.full((1, *SIZE), -1.0).requires_grad_()
    guess = first_guess(flow, camera)
    optimiser = torch.optim.Adam([logits], lr=0.3)
    for step in range(40):
        optimiser.zero_grad()
        explain(flow, logits.sigmoid(), camera, guess=guess, trust=min(1.0, step / 20)).cost.sum().backward()
        optimiser.step()
    found = logits.detach() > 0
    assert (found & (share == 1)).sum() / (found | (share == 1)).sum() > 0.9


def test_a_bounded_residual_forgives_that_much_and_no_more():
    flow, share, _ = scene(noise=0)
    camera = camera_fit(flow)
    plain = explain(flow, share * 0, camera)
    bounded = explain(flow, share * 0, camera, RegionFlowConfig(bound=2.0))
    free = 2 * camera.noise.item()
    expected = (plain.background.sqrt() - free).clamp(min=0).square()
    assert torch.allclose(bounded.background, expected, atol=1e-3)


def test_each_example_of_a_batch_is_alone():
    (a, share_a, _), (b, share_b, _) = scene(seed=0), scene(-1, 3, seed=5)
    flow, share = torch.cat([a, b]), torch.cat([share_a, share_b]) * 0.9
    together = explain(flow, share, camera_fit(flow), guess=share, trust=0.5).cost
    apart = [
        explain(f, s, camera_fit(f), guess=s, trust=0.5).cost
        for f, s in zip(flow[:, None], share[:, None], strict=True)
    ]
    assert torch.allclose(together, torch.cat(apart), atol=1e-6)
