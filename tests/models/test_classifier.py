from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate

from pixelkin.models.classifier import CamClassifier, multi_scale_activation, tag_loss, tag_probabilities
from pixelkin.models.imagenet_names import imagenet_rows
from pixelkin.models.multi_scale import ScaledMaps


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return CamClassifier(3, pretrained=False).eval()


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def test_logits_are_the_mean_of_what_the_activation_clips(model):
    batch = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        cells = nn.functional.conv2d(model._features(batch), model.head.weight)
        assert torch.allclose(model(batch), cells.mean((2, 3)), atol=1e-5)
        assert torch.equal(model.activation(batch), cells.clamp(min=0))
        assert (cells < 0).any()
        assert model.activation(batch).shape == (2, 3, 4, 6)
        assert torch.allclose(model.activation(batch, [2, 0]), model.activation(batch)[:, [2, 0]], atol=1e-5)


@pytest.mark.parametrize("classes", [1, 1000])
def test_any_number_of_classes(classes, image):
    model = CamClassifier(classes, pretrained=False)
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, classes)
    cam = multi_scale_activation(model, image, keep=[classes - 1], scales=(1.0,))
    assert cam.full.shape == (1, 48, 64)
    assert tag_probabilities(model, image).shape == (classes,)


def test_no_class_is_refused():
    with pytest.raises(ValueError, match="at least one class"):
        CamClassifier(0, pretrained=False)


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "resnet10t"])
def test_stages_up_to_stride_8_get_no_gradient_and_all_later_ones_do(backbone):
    model = CamClassifier(2, backbone, pretrained=False).train()
    model.backbone.requires_grad_(True)
    maps = model.backbone(torch.rand(1, 3, 64, 64))
    early = [m for m, stride in zip(maps, model.backbone.strides, strict=True) if stride <= 8]
    sum(m.sum() for m in early).backward()
    reached = {name for name, p in model.backbone.named_parameters() if p.grad is not None}
    fresh = CamClassifier(2, backbone, pretrained=False)
    tag_loss(fresh(torch.rand(1, 3, 64, 64)), torch.tensor([[1, 0]])).backward()
    fixed = {name for name, p in fresh.backbone.named_parameters() if p.grad is None}
    assert fixed == reached
    assert 0 < len(fixed) < len(list(fresh.backbone.parameters()))
    assert all(p.grad is not None for p in (*fresh.head.parameters(), *fresh.embedding.parameters()))


def test_all_stages_can_be_trained():
    assert all(p.requires_grad for p in CamClassifier(2, pretrained=False, fixed_stride=0).parameters())


def test_training_leaves_the_fixed_stages_and_all_running_statistics_as_they_are():
    model = CamClassifier(2, pretrained=False).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([{"params": g["params"]} for g in model.parameter_groups()], lr=0.1)
    tag_loss(model(torch.rand(4, 3, 64, 64)), torch.tensor([[1, 0]] * 4)).backward()
    optimizer.step()
    after = model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert changed <= trained
    assert "head.weight" in changed
    assert any(name.startswith("backbone.") for name in changed)
    assert "backbone.body.conv_stem.weight" not in trained


def test_groups_hold_each_trained_parameter_once(model):
    groups = model.parameter_groups(head_rate=7)
    listed = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    assert [group.get("lr_scale", 1) for group in groups] == [1, 7]
    assert groups[1]["params"] == [model.head.weight]


def test_loss_is_the_mean_over_classes():
    logits, tags = torch.tensor([[2.0, -1.0, 0.0]]), torch.tensor([[1, 0, 1]], dtype=torch.uint8)
    wanted = -(torch.sigmoid(logits[0, 0]).log() + torch.sigmoid(-logits[0, 1]).log() + np.log(0.5)) / 3
    assert torch.allclose(tag_loss(logits, tags), wanted)
    assert torch.allclose(tag_loss(logits, tags), binary_cross_entropy_with_logits(logits, tags.float()))


class Steps(nn.Module):
    """Stands in for a classifier: the activation is the mean brightness of each cell, plus its column's number."""

    def __init__(self, classes=2):
        super().__init__()
        self.head = nn.Conv2d(1, classes, 1)
        self.backbone = nn.Module()
        self.backbone.strides = (8, 16)
        self.seen = []

    def activation(self, image, keep):
        self.seen.append(tuple(image.shape[-2:]))
        cells = nn.functional.avg_pool2d(image.mean(1, keepdim=True), 16)
        cells = cells + torch.arange(cells.shape[-1])
        return torch.cat([cells * (row + 1) for row in keep], dim=1)


def test_scales_are_summed_and_mirrors_added(image):
    model = Steps()
    cam = multi_scale_activation(model, image, scales=(1.0, 0.5, 1.5))
    assert model.seen[::2] == [(48, 64), (32, 32), (64, 96)]
    assert model.seen[1::2] == model.seen[::2]
    strided, full = np.zeros((2, 12, 16), np.float32), np.zeros((2, 48, 64), np.float32)
    for scale in (1.0, 0.5, 1.5):
        one = multi_scale_activation(model, image, scales=(scale,))
        strided += one.strided
        full += one.full
    assert np.allclose(cam.strided, strided, rtol=1e-5)
    assert np.allclose(cam.full, full, rtol=1e-5)


def test_at_the_images_own_size_the_published_sum(image):
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    model = Steps()
    summed = model.activation(pixels, [0, 1]) + model.activation(pixels.flip(-1), [0, 1]).flip(-1)
    cam = multi_scale_activation(model, image, scales=(1.0,))
    assert np.allclose(cam.strided, interpolate(summed, (12, 16), mode="bilinear")[0], rtol=1e-5)
    assert np.allclose(cam.full, interpolate(summed, (48, 64), mode="bilinear")[0], rtol=1e-5)
    alone = multi_scale_activation(model, image, scales=(1.0,), flip=False)
    assert np.allclose(alone.full, interpolate(model.activation(pixels, [0, 1]), (48, 64), mode="bilinear")[0])


def test_the_mirror_image_gives_the_mirrored_activation(image):
    model = Steps()
    cam, mirrored = (multi_scale_activation(model, shown).full for shown in (image, image[:, ::-1]))
    assert np.allclose(cam, mirrored[..., ::-1], atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1), (37, 53), (100, 64)])
def test_images_of_any_size(model, size):
    image = np.full((*size, 3), 100, np.uint8)
    cam = multi_scale_activation(model, image, keep=[1], scales=(1.0, 0.5))
    assert cam.strided.shape == (1, (size[0] - 1) // 4 + 1, (size[1] - 1) // 4 + 1)
    assert cam.full.shape == (1, *size)
    assert np.isfinite(cam.full).all()
    assert (cam.full >= 0).all()


def test_only_the_rows_kept(model, image):
    every = multi_scale_activation(model, image, scales=(1.0,)).full
    kept = multi_scale_activation(model, image, keep=[2, 0], scales=(1.0,)).full
    assert np.allclose(kept, every[[2, 0]], atol=1e-5)
    none = multi_scale_activation(model, image, keep=[])
    assert none.full.shape == (0, 48, 64)
    assert none.strided.shape == (0, 12, 16)


def test_large_images_are_shrunk():
    model = Steps()
    cam = multi_scale_activation(
        model, np.zeros((300, 400, 3), np.uint8), scales=(1.0, 2.0, 0.25), max_pixels=160 * 120, flip=False
    )
    assert model.seen == [(128, 160), (128, 160), (80, 96)]
    assert cam.full.shape == (2, 300, 400)


@pytest.mark.parametrize("scales", [(), (1.0, 0.0), (float("nan"),), (-1.0,)])
def test_bad_scales(model, image, scales):
    with pytest.raises(ValueError, match="scales"):
        multi_scale_activation(model, image, scales=scales)


def test_a_cam_on_any_grid():
    cam = ScaledMaps((torch.arange(4.0).view(1, 2, 2), torch.ones(1, 1, 1)), (2, 2))
    assert cam.full.tolist() == [[[1, 2], [3, 4]]]
    assert cam.strided.tolist() == [[[2.5]]]


def test_tags_of_an_image_and_its_mirror_image_are_the_same(model, image):
    assert np.allclose(tag_probabilities(model, image), tag_probabilities(model, image[:, ::-1]), atol=1e-6)


@pytest.fixture(scope="module")
def seedable():
    return CamClassifier(3, embedding=True)


def test_seeds_are_the_rows_of_imagenet_less_their_mean(seedable):
    model = seedable
    before = model.head.weight.detach().clone()
    assert model.seed_from_imagenet({5: "gadget", 9: "cat", 7: "dining_table"}) == {
        9: (281, 282, 283, 284, 285),
        7: (532,),
    }
    rows = model.backbone.imagenet_head().classifier.weight.detach()
    after = model.head.weight.detach()[..., 0, 0]
    assert torch.equal(after[0], before[0, :, 0, 0])
    assert torch.allclose(after[1], rows[281:286].mean(0) - rows.mean(0), atol=1e-6)
    assert torch.allclose(after[2], rows[532] - rows.mean(0), atol=1e-6)


def test_a_seeded_classifier_knows_a_cat(seedable):
    pictures = pytest.importorskip("skimage.data")
    seedable.seed_from_imagenet({1: "aeroplane", 2: "cat", 3: "bus"})
    assert tag_probabilities(seedable, pictures.chelsea()).argmax() == 1
    seedable.seed_from_imagenet({3: "bus", 1: "aeroplane", 2: "cat"})
    assert tag_probabilities(seedable, pictures.chelsea()).argmax() == 2


def test_seeds_need_an_embedding_and_a_name_for_each_class(seedable):
    with pytest.raises(ValueError, match="embedding=True"):
        CamClassifier(1, embedding=False).seed_from_imagenet({1: "cat"})
    with pytest.raises(ValueError, match="2 class names for 3 classes"):
        seedable.seed_from_imagenet({1: "cat", 2: "dog"})
    with pytest.raises(ValueError, match="without an ImageNet head"):
        CamClassifier(1, pretrained=False).seed_from_imagenet({1: "cat"})
    with pytest.raises(ValueError, match="has no embedding"):
        CamClassifier(1, "resnet10t", embedding=True, pretrained=False)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("tench", (0,)),
        ("Traffic Light", (920,)),
        ("traffic_light", (920,)),
        ("diningtable", (532,)),
        ("aeroplane", (404, 895)),
        ("tvmonitor", (664, 851)),
        ("potted plant", (738,)),
        ("cats", (281, 282, 283, 284, 285)),
        ("Buses", (654, 779, 874)),
        ("gizmo", ()),
        ("", ()),
        ("kite", ()),
        ("car mirror", (475,)),
    ],
)
def test_names(name, rows):
    assert imagenet_rows(name) == rows


def test_a_name_is_the_last_words_of_a_name_not_its_last_letters():
    assert 358 in imagenet_rows("polecat")
    assert not set(imagenet_rows("polecat")) & set(imagenet_rows("cat"))
    assert 475 not in imagenet_rows("car")  # a car mirror
    assert not imagenet_rows("ench")
    assert len(imagenet_rows("dog")) == 118
