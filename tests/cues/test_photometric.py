"""The photometric objective: what is exact, what it prefers, and what it leaves out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixelkin.cues.photometric import (
    PhotometricConfig,
    photometric_loss,
    reconstruction_error,
    ssim_distance,
    visible,
)


def picture(seed, size=(64, 96), batch=2):
    return torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


def flows(dy, dx, size=(64, 96), batch=2, scales=5):
    """A constant flow at all scales, in pixels of each."""
    made = []
    for scale in range(scales):
        shape = (batch, 1, size[0] >> scale, size[1] >> scale)
        made.append(torch.cat([torch.full(shape, dy / 2**scale), torch.full(shape, dx / 2**scale)], dim=1))
    return made


def panned(dy, dx, size=(64, 96)):
    """Two views of a smooth picture, the second of which shows at p + (dy, dx) what the first shows at p."""
    rng = np.random.default_rng(0)
    fine = torch.from_numpy(rng.random((1, 3, 24, 32))).float()
    large = torch.nn.functional.interpolate(fine, (size[0] + 32, size[1] + 32), mode="bicubic").clamp(0, 1)

    def view(y, x):
        return large[..., 16 + y : 16 + y + size[0], 16 + x : 16 + x + size[1]]

    return view(0, 0), view(-dy, -dx)


def slow_ssim_distance(a, b):
    height, width = a.shape
    out = np.zeros((height - 2, width - 2))
    for y in range(height - 2):
        for x in range(width - 2):
            p, q = a[y : y + 3, x : x + 3], b[y : y + 3, x : x + 3]
            cross = ((p - p.mean()) * (q - q.mean())).mean()
            above = (2 * p.mean() * q.mean() + 0.01**2) * (2 * cross + 0.03**2)
            below = (p.mean() ** 2 + q.mean() ** 2 + 0.01**2) * (p.var() + q.var() + 0.03**2)
            out[y, x] = np.clip((1 - above / below) / 2, 0, 1)
    return out


def test_ssim_is_the_formula():
    a, b = np.random.default_rng(1).random((2, 7, 9))
    fast = ssim_distance(*(torch.from_numpy(each)[None, None] for each in (a, b)))[0, 0]
    np.testing.assert_allclose(fast.numpy(), slow_ssim_distance(a, b), atol=1e-9)


def test_the_error_is_the_formula():
    image, made = picture(1, (8, 9), 2).double(), picture(2, (8, 9), 2).double()
    seen = (torch.rand(2, 1, 8, 9, generator=torch.Generator().manual_seed(3)) > 0.3).double()
    structural = np.mean(
        [
            slow_ssim_distance((made[i, c] * seen[i, 0]).numpy(), (image[i, c] * seen[i, 0]).numpy())
            for i in range(2)
            for c in range(3)
        ]
    )
    absolute = ((image - made).abs() * seen).mean().item()
    expected = (0.15 * absolute + 0.85 * structural) / seen.mean().item()
    assert reconstruction_error(image, made, seen).item() == pytest.approx(expected, rel=1e-6)


def test_identical_frames_at_rest_cost_nothing():
    image = picture(0)
    assert photometric_loss(image, image, flows(0, 0), flows(0, 0)).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("dy", "dx"), [(0, 8), (8, 0), (-8, 8)])
def test_the_true_pan_costs_next_to_nothing_and_any_other_more(dy, dx):
    first, second = panned(dy, dx)
    true = photometric_loss(first, second, flows(dy, dx, batch=1), flows(-dy, -dx, batch=1))
    wrong = [(0, 0), (-dy, -dx), (dx, dy + 1), (dy * 0.5, dx * 0.5)]
    assert true < 0.05
    for y, x in wrong:
        assert photometric_loss(first, second, flows(y, x, batch=1), flows(-y, -x, batch=1)) > 4 * true


def test_without_occlusion_what_left_the_frame_costs():
    first, second = panned(0, 8)
    there, back = flows(0, 8, batch=1), flows(0, -8, batch=1)
    plain = photometric_loss(first, second, there, back, PhotometricConfig(occlusion=False))
    assert photometric_loss(first, second, there, back) < 0.3 * plain


def test_leading_everything_out_of_the_frame_is_no_way_out():
    first, second = panned(0, 4)
    far, back = flows(0, 500, batch=1), flows(0, -500, batch=1)
    assert photometric_loss(first, second, far, back) == 0  # as published
    guarded = PhotometricConfig(least_shown=0.5)
    assert photometric_loss(first, second, far, back, guarded) > 0.5
    near = flows(0, 4, batch=1), flows(0, -4, batch=1)
    assert photometric_loss(first, second, *near, guarded) == photometric_loss(first, second, *near)


def test_swapping_the_frames_swaps_the_directions():
    a, b = picture(1), picture(2)
    there, back = flows(1, 2), flows(-1, 0.5)
    torch.testing.assert_close(photometric_loss(a, b, there, back), photometric_loss(b, a, back, there))


def test_scales_add_up_and_those_of_no_weight_do_not_count():
    a, b = picture(1), picture(2)
    there, back = flows(1, 2), flows(-1, -2)
    single = [
        photometric_loss(a, b, there, back, PhotometricConfig(scales=tuple(float(i == k) for i in range(5))))
        for k in range(4)
    ]
    torch.testing.assert_close(photometric_loss(a, b, there, back), torch.stack(single).sum())
    torch.testing.assert_close(photometric_loss(a, b, there[:4], back[:4]), torch.stack(single).sum())
    with pytest.raises(ValueError, match="one flow a scale"):
        photometric_loss(a, b, there[:3], back[:3])


def test_at_rest_all_is_visible():
    assert visible(torch.zeros(1, 2, 5, 6)).all()


def test_an_object_hides_what_it_moves_onto_and_bares_what_it_leaves():
    """Columns 2 to 4 of the first frame move right by 3: in the first frame, what they will hide is not seen again."""
    there, back = torch.zeros(1, 2, 4, 12), torch.zeros(1, 2, 4, 12)
    there[:, 1, :, 2:5] = 3
    back[:, 1, :, 5:8] = -3
    seen_first, seen_second = visible(back)[0, 0, 0], visible(there)[0, 0, 0]
    assert seen_first.tolist() == [1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1, 1]
    assert seen_second.tolist() == [1, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1]


def test_gradients_reach_the_flow_and_not_the_visibility():
    first, second = panned(0, 4)
    there = [flow.requires_grad_() for flow in flows(0, 3, batch=1)]
    back = [flow.requires_grad_() for flow in flows(0, -3, batch=1)]
    photometric_loss(first, second, there, back).backward()
    assert all(flow.grad is not None and flow.grad.abs().sum() > 0 for flow in (*there[:4], *back[:4]))
    assert there[0].grad[:, 1].mean() < 0  # further right is better
    assert not visible(there[0]).requires_grad


def test_a_flow_that_leads_out_of_the_frame_has_a_finite_loss():
    image = picture(0)
    assert torch.isfinite(photometric_loss(image, image, flows(500, 500), flows(500, 500)))
