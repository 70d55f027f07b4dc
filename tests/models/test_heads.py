from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelkin.models.boundary import BoundaryHead
from pixelkin.models.displacement import DisplacementHead
from pixelkin.models.grids import to_grid

RESNET = (64, 256, 512, 1024, 2048), (4, 4, 8, 16, 16)


def maps(channels, strides, height, width, batch=1):
    g = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, c, -(-height // s), -(-width // s), generator=g)
        for c, s in zip(channels, strides, strict=True)
    ]


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_published_parameter_counts():
    assert count(BoundaryHead(*RESNET)) == 125_409
    assert count(DisplacementHead(*RESNET)) == 1_269_120


def test_published_layers():
    """Layer by layer from the published description, on a size every stride divides."""
    up = torch.nn.functional.interpolate

    def by(factor, x):
        return up(x, scale_factor=factor, mode="bilinear", align_corners=False)

    features = maps(*RESNET, 64, 96, batch=2)
    head = BoundaryHead(*RESNET)
    parts = [layer(x) for layer, x in zip(head.reduce, features, strict=True)]
    parts = [parts[0], parts[1], by(2, parts[2]), by(4, parts[3]), by(4, parts[4])]
    expected = head.join(torch.cat([p.relu() for p in parts], 1))
    torch.testing.assert_close(head(features), expected)
    assert expected.shape == (2, 1, 16, 24)

    head = DisplacementHead(*RESNET)
    assert [layer[1].num_groups for layer in head.reduce] == [8, 16, 16, 16, 16]
    assert [layer[0].out_channels for layer in head.reduce] == [64, 128, 256, 256, 256]
    parts = [layer(x) for layer, x in zip(head.reduce, features, strict=True)]
    coarse = torch.cat([parts[2].relu(), by(2, parts[3]).relu(), by(2, parts[4]).relu()], 1)
    joined = torch.cat([parts[0].relu(), parts[1].relu(), by(2, head.join_coarse(coarse)).relu()], 1)
    torch.testing.assert_close(head(features), head.join(joined))
    assert head.join[0][0].in_channels == 448
    assert head.join_coarse[0].in_channels == 768


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    taps=st.sampled_from(
        [(4, 4, 8, 16, 16), (2, 4, 8, 16, 32), (1, 2, 4), (8, 16), (6, 12), (14, 14, 14), (4,), (16,)]
    ),
    target=st.sampled_from([2, 4]),
)
def test_any_taps_and_any_size(height, width, taps, target):
    channels = tuple(range(3, 3 + len(taps)))
    features = maps(channels, taps, height, width)
    size = (-(-height // target), -(-width // target))
    for head, depth in (
        (BoundaryHead(channels, taps, target_stride=target, width=8), 1),
        (DisplacementHead(channels, taps, target_stride=target, width=32), 2),
    ):
        out = head(features, size)
        assert out.shape == (1, depth, *size)
        assert torch.isfinite(out).all()
        if min(taps) <= target:
            torch.testing.assert_close(head(features), out)
        else:
            with pytest.raises(ValueError, match="coarser"):
                head(features)
        out.sum().backward()
        assert all(p.grad is not None for p in head.parameters())


def test_maps_stay_over_their_pixels_at_odd_sizes():
    """A ramp over the image is the same ramp on every grid, where stretching to the size would bend it."""
    for stride, target in ((16, 4), (8, 4), (14, 4), (6, 8), (2, 4), (1, 2), (4, 4)):
        cells = -(-67 // stride)
        ramp = (torch.arange(cells) + 0.5) * stride
        x = ramp.view(1, 1, 1, -1).expand(1, 1, 3, cells)
        size = -(-67 // target)
        out = to_grid(x, stride, target, (1, size))[0, 0, 0]
        inner = slice(int(stride / target), size - int(stride / target) - 1)  # beyond the outer cell centres it is flat
        torch.testing.assert_close(out[inner], ((torch.arange(size) + 0.5) * target)[inner])


def test_only_layers_that_look_around_know_what_is_beside():
    """Features that differ far to the left change the displacement with context, never without."""
    channels, strides = (16, 24, 32), (4, 8, 16)
    beside = {}
    for context in (0, 4):
        torch.manual_seed(0)
        head = DisplacementHead(channels, strides, width=32, context=context).eval()
        features = maps(channels, strides, 128, 256)
        other = [feature.clone() for feature in features]
        for feature in other:
            feature[..., : feature.shape[-1] // 4] = feature[..., : feature.shape[-1] // 4].flip(-2)  # the same mean
        one, two = (head(each, (32, 64)) for each in (features, other))
        beside[context] = float((one - two).detach().abs()[..., 24:32].max())
    assert beside[0] < 5e-3  # the norms of whole maps
    assert beside[4] > 10 * beside[0]
    assert count(DisplacementHead(channels, strides, width=32)) == count(
        DisplacementHead(channels, strides, width=32, context=0)
    )


def test_centring_acts_in_eval_mode_only_and_is_saved():
    head = DisplacementHead((8, 16), (4, 8), width=32)
    features = maps((8, 16), (4, 8), 32, 32)
    raw = head(features)
    head.centre(torch.tensor([1.5, -2.0]))
    torch.testing.assert_close(head(features), raw)
    head.eval()
    torch.testing.assert_close(head(features), raw - torch.tensor([1.5, -2.0]).view(1, 2, 1, 1))
    other = DisplacementHead((8, 16), (4, 8), width=32).eval()
    other.load_state_dict(head.state_dict())
    torch.testing.assert_close(other(features), head(features))


def test_errors_say_what_is_wrong():
    with pytest.raises(ValueError, match="one stride for each"):
        BoundaryHead((8, 8), (4,))
    with pytest.raises(ValueError, match="leave it out"):
        DisplacementHead((8, 8), (3, 4))
    with pytest.raises(ValueError, match="multiple of 32"):
        DisplacementHead((8,), (4,), width=40)
    with pytest.raises(ValueError, match="groups"):
        BoundaryHead((8,), (4,), width=30)
    with pytest.raises(ValueError, match="two finite"):
        DisplacementHead((8,), (4,)).centre(torch.tensor([float("nan"), 0.0]))
