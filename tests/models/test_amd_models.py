"""Both pathways of AMD: published sizes, invariants of the segment flow, and gradients."""

from __future__ import annotations

import pytest
import torch

from pixelkin.cues.photometric import photometric_loss
from pixelkin.models.amd import AMDNetwork
from pixelkin.models.amd_appearance import AppearancePathway, soft_regions
from pixelkin.models.amd_motion import MotionPathway, compose, cost_volume, pool, standardised

SIZE = (64, 128)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def shares(seed, regions=5, size=(6, 9), batch=2):
    return soft_regions(3 * torch.randn(batch, regions, *size, generator=torch.Generator().manual_seed(seed)))


def frames(seed, size=SIZE, batch=2):
    return torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def motion():
    torch.manual_seed(0)
    pathway = MotionPathway()
    for parameter in pathway.decoder.parameters():
        parameter.data *= 20  # the first weights hardly move anything
    return pathway


@pytest.fixture
def network():
    torch.manual_seed(0)
    appearance = AppearancePathway("resnet10t", head_channels=16)
    return AMDNetwork(appearance, MotionPathway(), SIZE)


def test_sizes_are_the_published_ones():
    appearance = AppearancePathway()
    assert count(appearance.backbone) == pytest.approx(23.5e6, rel=0.002)
    assert count(appearance.head) == pytest.approx(5.31e6, rel=0.002)
    assert count(MotionPathway()) == pytest.approx(1.72e6, rel=0.005)


def test_the_published_backbone_has_stride_8_its_dilations_and_its_first_weights():
    body = AppearancePathway().backbone.body
    found = {
        stage: {block.conv2.dilation for block in getattr(body, stage)} for stage in ("layer2", "layer3", "layer4")
    }
    assert found == {"layer2": {(1, 1)}, "layer3": {(1, 1)}, "layer4": {(2, 2)}}
    assert not any(block.bn3.weight.any() for block in body.layer4)


def test_regions_are_shares_of_every_cell():
    appearance = AppearancePathway("resnet10t", head_channels=16).eval()
    for size in ((64, 96), (96, 64), (65, 70)):  # landscape, portrait, odd
        logits = appearance(frames(0, size, 1))
        assert logits.shape == (1, 5, -(-size[0] // 8), -(-size[1] // 8))
        torch.testing.assert_close(soft_regions(logits).sum(dim=1), torch.ones_like(logits[:, 0]))


def test_the_cost_volume_is_the_mean_product_with_each_neighbour():
    a, b = torch.randn(2, 3, 5, 6), torch.randn(2, 3, 5, 6)
    found = cost_volume(a, b, 2)
    assert found.shape == (2, 25, 5, 6)
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            for y, x in ((0, 0), (2, 3), (4, 5)):
                inside = 0 <= y + dy < 5 and 0 <= x + dx < 6
                expected = (a[1, :, y, x] * b[1, :, y + dy, x + dx]).mean() if inside else torch.zeros(())
                torch.testing.assert_close(found[1, (dy + 2) * 5 + dx + 2, y, x], expected)


def test_cells_are_compared_by_correlation():
    a, b = (torch.randn(1, 16, 5, 6, generator=torch.Generator().manual_seed(k)) for k in (0, 1))
    found = cost_volume(standardised(3 * a + 1), standardised(0.01 * b - 2), search=1)[0, 4]
    for y, x in ((0, 0), (2, 3), (4, 5)):
        true = torch.corrcoef(torch.stack([a[0, :, y, x], b[0, :, y, x]]))[0, 1]
        assert found[y, x] == pytest.approx(float(true), abs=0.1)  # epsilon shrinks what hardly varies
    assert standardised(torch.ones(1, 4, 2, 2)).abs().max() == 0


def test_normalised_layers_pass_on_what_they_are_given():
    """Torch's first weights shrink it from layer to layer, until no motion is seen."""
    picture = frames(0)
    strengths = {}
    for normalised in (False, True):
        torch.manual_seed(0)
        coarsest = MotionPathway(normalised=normalised)._features(picture)[0]
        strengths[normalised] = coarsest.std(dim=(2, 3)).mean().item()  # what tells one place from another
    assert strengths[True] > 20 * strengths[False]


def test_normalised_regions_start_at_rest_and_move_no_farther_than_is_searched():
    torch.manual_seed(0)
    pathway = MotionPathway(normalised=True)
    inputs = frames(0), frames(1), shares(0), shares(1)
    assert not pathway(*inputs).forward.vectors.any()
    pathway.decoder[-1].bias.data[:] = 1e9
    found = pathway(*inputs).forward.vectors
    levels = len(pathway.pyramid) - 1
    assert float(found.detach().abs().max()) == pytest.approx(4 * sum(4 * 2**level for level in range(levels)))


def test_pooling_is_the_mean_over_the_region_and_finite_without_one():
    values, hard = torch.randn(1, 4, 6, 8), torch.zeros(1, 3, 6, 8)
    hard[:, 0, :, :3], hard[:, 1, :, 3:] = 1, 1
    pooled = pool(values, hard)
    torch.testing.assert_close(pooled[0, 0], values[0, :, :, :3].mean(dim=(1, 2)))
    torch.testing.assert_close(pooled[0, 1], values[0, :, :, 3:].mean(dim=(1, 2)))
    assert not pooled[0, 2].any()


def test_one_motion_for_all_regions_moves_every_pixel_so_whatever_they_are():
    vectors = torch.tensor([2.5, -1.0]).expand(2, 5, 2)
    flow = compose(vectors, shares(0))
    torch.testing.assert_close(flow, torch.tensor([2.5, -1.0]).view(1, 2, 1, 1).expand_as(flow))


@pytest.mark.parametrize("size", [(64, 128), (128, 64), (64, 64)])
def test_flows_halve_in_size_and_mean_pixels_of_their_own_grid(motion, size):
    there = motion(frames(0, size), frames(1, size), shares(0), shares(1)).forward
    assert [tuple(flow.shape) for flow in there.flows] == [(2, 2, size[0] >> i, size[1] >> i) for i in range(5)]
    hard = torch.zeros(2, 5, *size)
    hard[:, 3] = 1  # one region only: its vector is the flow, in pixels of the finest grid
    there = motion(frames(0, size), frames(1, size), hard, hard).forward
    expected = there.vectors[:, 3, :, None, None].expand_as(there.flows[0])
    torch.testing.assert_close(there.flows[0], expected)
    assert there.vectors[:, 3].abs().max() > 0.1


def test_renaming_regions_renames_their_vectors_and_leaves_the_flow(motion):
    order = torch.tensor([3, 0, 4, 1, 2])
    a, b, s, t = frames(0), frames(1), shares(0), shares(1)
    before, after = motion(a, b, s, t), motion(a, b, s[:, order], t[:, order])
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one.vectors[:, order], other.vectors, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(one.flows[0], other.flows[0], rtol=1e-4, atol=1e-4)
    assert before.forward.vectors.std(dim=1).min() > 1e-4


def test_swapping_the_frames_swaps_the_directions(motion):
    a, b, s, t = frames(0), frames(1), shares(0), shares(1)
    one, other = motion(a, b, s, t), motion(b, a, t, s)
    torch.testing.assert_close(one.forward.flows[0], other.backward.flows[0])
    torch.testing.assert_close(one.backward.vectors, other.forward.vectors)


@pytest.mark.parametrize("mask_of", ["target", "source"])
def test_a_flow_is_made_of_the_regions_of_the_frame_it_is_said_to_be(mask_of):
    torch.manual_seed(0)
    motion = MotionPathway(mask_of=mask_of)
    a, b = frames(0), frames(1)
    before, after = (motion(a, b, shares(0), shares(seed)) for seed in (1, 2))
    same = [torch.equal(x.flows[0], y.flows[0]) for x, y in zip(before, after, strict=True)]
    assert same == ([True, False] if mask_of == "target" else [False, True])


def test_flow_keeps_its_precision_where_features_do_not(motion):
    with torch.autocast("cpu", torch.bfloat16):
        there = motion(frames(0), frames(1), shares(0), shares(1)).forward
    full = motion(frames(0), frames(1), shares(0), shares(1)).forward
    assert there.vectors.dtype == torch.float32
    assert there.flows[0].dtype == torch.float32
    torch.testing.assert_close(there.flows[0], full.flows[0], rtol=0.1, atol=0.1)


def test_an_empty_region_does_no_harm(motion):
    empty = torch.zeros(2, 5, 6, 9)
    empty[:, 0] = 1
    empty.requires_grad_()
    a, b = frames(0), frames(1)
    flow = motion(a, b, empty, empty)
    loss = photometric_loss(a, b, flow.forward.flows, flow.backward.flows)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(empty.grad).all()


def test_gradients_reach_every_weight_of_both_pathways(network):
    network.train()
    out = network(torch.stack([frames(0), frames(1)], dim=1))
    assert out.regions.shape == (2, 2, 5, 8, 16)
    assert out.frames.shape == (2, 2, 3, *SIZE)
    frame = out.frames.unbind(1)
    photometric_loss(*frame, out.flow.forward.flows, out.flow.backward.flows).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not without
    assert network.appearance.head[-1].weight.grad.abs().sum() > 0
    assert network.motion.pyramid[0][0].weight.grad.abs().sum() > 0


def test_a_portrait_pair_is_brought_to_the_motion_size(network):
    out = network.eval()(torch.rand(1, 2, 3, 96, 64))
    assert out.regions.shape == (1, 2, 5, 12, 8)
    assert out.flow.forward.flows[0].shape == (1, 2, *SIZE)


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="multiples of 64"):
        AMDNetwork(AppearancePathway("resnet10t"), MotionPathway(), (60, 64))
    with pytest.raises(ValueError, match="multiples of 64"):
        MotionPathway()(*(frames(0, (60, 64)),) * 2, shares(0), shares(1))
