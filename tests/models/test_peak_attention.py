from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.nn.functional import interpolate, multilabel_soft_margin_loss

from pixelkin.models.backbone import BackboneError, build_backbone
from pixelkin.models.classifier import multi_scale_activation, tag_loss, tag_probabilities
from pixelkin.models.peak_attention import VGG16, PeakAttention, PeakClassifier, peak_attention, peak_views


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return PeakClassifier(3, width=16, pretrained=False).eval()


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.7, 1.0])
def test_zero_below_a_share_of_the_largest_and_relu_above(alpha):
    x = torch.randn(3, 4, 7, 9, generator=torch.Generator().manual_seed(0))
    x[1, 2] = -x[1, 2].abs()
    found = peak_attention(x, alpha)
    for sample in range(3):
        for channel in range(4):
            a = x[sample, channel].clamp(min=0)
            for y in range(7):
                for column in range(9):
                    value = a[y, column]
                    assert found[sample, channel, y, column] == (value if value >= alpha * a.max() else 0)
    if alpha == 0:
        assert torch.equal(found, x.relu())
    assert torch.equal(PeakAttention(alpha)(x), found)


def test_each_channel_of_each_sample_has_its_own_largest_value():
    x = torch.tensor([[[[1.0, 0.8, 0.2]], [[10.0, 8.0, 2.0]]], [[[0.1, 0.08, 0.02]], [[5.0, 3.0, 4.0]]]])
    wanted = [[[[1.0, 0.8, 0]], [[10.0, 8.0, 0]]], [[[0.1, 0.08, 0]], [[5.0, 0, 4.0]]]]
    assert torch.equal(peak_attention(x), torch.tensor(wanted))


def test_peaks_pass_their_gradient_and_nothing_else_does():
    x = torch.tensor([[[[1.0, 0.8, 0.2, -3.0]]]], dtype=torch.float64, requires_grad=True)
    peak_attention(x).sum().backward()
    assert x.grad.tolist() == [[[[1, 1, 0, 0]]]]
    assert torch.autograd.gradcheck(peak_attention, (x.detach().requires_grad_(True),))


@pytest.mark.parametrize("fill", [0.0, -1.0])
def test_channels_without_activation(fill):
    x = torch.full((2, 3, 4, 4), fill, requires_grad=True)
    found = peak_attention(x)
    found.sum().backward()
    assert not found.any()
    assert not x.grad.any()


def test_half_precision():
    x = torch.rand(1, 2, 8, 8).to(torch.bfloat16)
    found = peak_attention(x)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found.amax((2, 3)), x.amax((2, 3)))


def test_settings_out_of_range():
    with pytest.raises(ValueError, match="0 to 1"):
        PeakClassifier(2, alpha=1.5, pretrained=False)
    with pytest.raises(ValueError, match="0 or more"):
        PeakClassifier(2, layers=-1, pretrained=False)
    with pytest.raises(ValueError, match="at least one class"):
        PeakClassifier(0, pretrained=False)


def test_the_head_as_published(model):
    kinds = [type(layer) for layer in model.peaks]
    assert kinds == [nn.Conv2d, PeakAttention] * 3
    assert all(layer.kernel_size == (3, 3) for layer in model.peaks[::2])
    assert model.head.kernel_size == (1, 1)
    fresh = PeakClassifier(20, pretrained=False)
    assert [layer.out_channels for layer in fresh.peaks[::2]] == [512] * 3
    for layer in (*fresh.peaks[::2], fresh.head):
        k = layer.kernel_size[0]
        assert layer.weight.std().item() == pytest.approx((2 / (k * k * layer.out_channels)) ** 0.5, rel=0.05)
        assert not layer.bias.any()


def test_logits_are_the_mean_of_the_activation_before_it_is_clipped(model):
    batch = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        model.head.bias.copy_(torch.tensor([0.1, -0.2, 0.3]))
        cells = model.head(model._features(batch))
        assert torch.allclose(model(batch), cells.mean((2, 3)), atol=1e-5)
        assert torch.equal(model.activation(batch), cells.clamp(min=0))
        assert model.activation(batch).shape == (2, 3, 4, 6)
        assert torch.allclose(model.activation(batch, [2, 0]), model.activation(batch)[:, [2, 0]], atol=1e-5)
        model.head.bias.zero_()


def test_what_is_scored_is_peaks_only(model):
    with torch.no_grad():
        features = model._features(torch.rand(1, 3, 96, 128))
    assert torch.equal(features, peak_attention(features))
    assert (features == 0).float().mean() > 0.8


def test_the_loss_is_the_soft_margin(model):
    tags = torch.tensor([[1, 0, 1], [0, 0, 1]])
    with torch.no_grad():
        logits = model(torch.rand(2, 3, 64, 64))
    assert torch.allclose(tag_loss(logits, tags), multilabel_soft_margin_loss(logits, tags.float()))


@pytest.mark.parametrize("layers", [3, 0])
def test_everything_learns_and_running_statistics_stay(layers):
    torch.manual_seed(0)
    model = PeakClassifier(2, layers=layers, width=8, pretrained=False).train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    tag_loss(model(torch.rand(2, 3, 64, 64)), torch.tensor([[1, 0]] * 2)).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


@pytest.mark.parametrize(("layers", "rates"), [(3, {1.0, 2.0, 10.0, 20.0}), (0, {1.0, 2.0, 10.0})])
def test_rates_as_published(layers, rates):
    model = PeakClassifier(2, layers=layers, width=8, pretrained=False)
    groups = {group["lr_scale"]: {id(p) for p in group["params"]} for group in model.parameter_groups()}
    assert set(groups) == rates
    assert sum(len(group) for group in groups.values()) == len(list(model.parameters()))
    assert id(model.head.weight) in groups[10.0]
    if layers:
        assert {id(layer.bias) for layer in (*model.peaks[::2], model.head)} == groups[20.0]
        assert {id(layer.weight) for layer in (*model.peaks[::2], model.head)} == groups[10.0]
    assert {id(p) for name, p in model.backbone.named_parameters() if name.endswith("bias")} <= groups[2.0]
    plain = PeakClassifier(2, width=8, fixed_stride=8, pretrained=False)
    listed = [p for group in plain.parameter_groups(1, 1) for p in group["params"]]
    assert sorted(map(id, listed)) == sorted(id(p) for p in plain.parameters() if p.requires_grad)


@pytest.mark.parametrize("backbone", ["resnet10t", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("classes", [1, 80])
def test_other_backbones_and_any_number_of_classes(backbone, classes, image):
    stride = None if "vit" in backbone else 16
    model = PeakClassifier(classes, backbone, width=8, output_stride=stride, pretrained=False)
    (view, mirrored) = peak_views(model, image, keep=[classes - 1], size=(64, 64))
    assert view.full.shape == mirrored.full.shape == (1, 50, 70)


def test_vgg_as_published():
    backbone = build_backbone(VGG16, pretrained=False)
    assert (backbone.channels, backbone.strides, backbone.licence) == ((512,), (8,), "bsd-3-clause")
    assert np.allclose(backbone.mean.flatten(), (0.485, 0.456, 0.406))
    (cells,) = backbone(torch.zeros(1, 3, 320, 320))
    assert cells.shape == (1, 512, 40, 40)
    features = backbone.body.features
    pools = [layer for layer in features if isinstance(layer, nn.MaxPool2d)]
    assert [(p.kernel_size, p.stride) for p in pools] == [(2, 2), (2, 2), (2, 2), (3, 1)]
    assert [layer.dilation for layer in features if isinstance(layer, nn.Conv2d)][-4:] == [(1, 1)] + [(2, 2)] * 3
    assert isinstance(features[-1], nn.ReLU)
    with torch.device("meta"):
        known = timm.create_model("vgg16").features.state_dict()
    assert {k: v.shape for k, v in features.state_dict().items()} == {k: v.shape for k, v in known.items()}


def test_a_classifier_on_vgg(image):
    model = PeakClassifier(2, VGG16, width=8, pretrained=False)
    assert max(model.backbone.strides) == 8
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert peak_views(model, image, size=(64, 64))[0].maps[0].shape == (2, 8, 8)


def test_vgg_takes_the_weights_it_is_given(monkeypatch):
    torch.manual_seed(1)
    own = build_backbone(VGG16, pretrained=False).body
    create = timm.create_model

    def created(name, *args, **settings):
        return own if name == "vgg16.tv_in1k" else create(name, *args, **settings)

    monkeypatch.setattr(timm, "create_model", created)
    found = build_backbone(VGG16).body.features.state_dict()
    assert all(torch.equal(found[name], value) for name, value in own.features.state_dict().items())


def test_without_its_weights_vgg_is_refused_not_random(monkeypatch):
    create = timm.create_model

    def offline(name, *args, **settings):
        if name == "vgg16.tv_in1k":
            raise OSError("cannot reach the hub")
        return create(name, *args, **settings)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(BackboneError, match=r"no weights for vgg16_stride8 \(cannot reach the hub\)"):
        PeakClassifier(2, VGG16)


def test_views_are_the_image_and_its_mirror_image_turned_back(model, image):
    upright, mirrored = peak_views(model, image, size=(96, 128))
    assert upright.size == mirrored.size == (50, 70)
    turned, again = peak_views(model, image[:, ::-1], size=(96, 128))
    assert np.allclose(turned.full[..., ::-1], mirrored.full, atol=1e-5)
    assert np.allclose(again.full[..., ::-1], upright.full, atol=1e-5)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    shown = interpolate(pixels, (96, 128), mode="bicubic", antialias=True).clamp(0, 1)
    with torch.no_grad():
        assert torch.allclose(upright.maps[0], model.activation(shown)[0])
    (alone,) = peak_views(model, image, size=(96, 128), flip=False)
    assert np.array_equal(alone.full, upright.full)
    assert not upright.maps[0].requires_grad


def test_views_of_only_the_rows_kept(model, image):
    every, kept = (peak_views(model, image, keep=rows, size=(64, 64))[0].full for rows in (None, [2, 0]))
    assert np.allclose(kept, every[[2, 0]], atol=1e-5)
    assert [view.full.shape for view in peak_views(model, image, keep=[])] == [(0, 50, 70)] * 2


def test_views_at_a_size_of_multiples_of_the_stride(model):
    tall = np.zeros((300, 100, 3), np.uint8)
    assert peak_views(model, tall)[0].maps[0].shape == (3, 20, 20)  # whatever its shape, as published
    assert peak_views(model, tall, size=None)[0].maps[0].shape == (3, 19, 6)
    assert peak_views(model, tall, size=None, max_pixels=75 * 100)[0].maps[0].shape == (3, 9, 3)
    assert peak_views(model, tall[:1, :1], size=None)[0].full.shape == (3, 1, 1)


def test_what_serves_its_parent_serves_it(model, image):
    assert multi_scale_activation(model, image, keep=[1], scales=(1.0, 0.5)).full.shape == (1, 50, 70)
    assert tag_probabilities(model, image).shape == (3,)


@pytest.fixture(scope="module")
def seedable():
    return PeakClassifier(3, layers=0)


def test_peaks_of_the_embedding_know_a_cat_from_the_start(seedable):
    pictures = pytest.importorskip("skimage.data")
    assert seedable.seed_from_imagenet({1: "aeroplane", 2: "cat", 3: "bus"})[2] == (281, 282, 283, 284, 285)
    assert tag_probabilities(seedable, pictures.chelsea()).argmax() == 1
    cat, bus = peak_views(seedable, pictures.chelsea(), keep=[1, 2])[0].full
    assert cat.max() > 2 * bus.max()


def test_seeds_need_the_embedding_itself(seedable):
    with pytest.raises(ValueError, match="layers=0"):
        PeakClassifier(1, pretrained=False).seed_from_imagenet({1: "cat"})
    with pytest.raises(ValueError, match="embedding=True"):
        PeakClassifier(1, layers=0, embedding=False).seed_from_imagenet({1: "cat"})
    with pytest.raises(ValueError, match="2 class names for 3 classes"):
        seedable.seed_from_imagenet({1: "cat", 2: "dog"})
    assert PeakClassifier(1, layers=0, pretrained=False).head.in_channels == 1280
    assert PeakClassifier(1, "resnet10t", layers=0, pretrained=False).head.in_channels == 512
