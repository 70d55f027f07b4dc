"""What ImageNet knows of classes, as a start for semantics."""

import pytest
import torch

from pixelkin.models.backbone import BackboneError, build_backbone
from pixelkin.models.center_fields import CenterFields
from pixelkin.models.class_rows import GAIN, ClassScores, embedding_of, has_embedding


@pytest.fixture(scope="module")
def backbone():
    return build_backbone()


def test_scores_start_from_the_rows_of_known_classes_and_from_nothing_for_others(backbone):
    scores = ClassScores(backbone, 3)
    assert scores.seed_from_imagenet(backbone, {4: "gadget", 9: "cat", 7: "dining_table"}) == (9, 7)
    rows = backbone.imagenet_head().classifier.weight.detach()
    found = scores.rows.weight.detach()[..., 0, 0]
    assert not found[:2].any()  # the background and what ImageNet does not know
    assert torch.allclose(found[2], GAIN * (rows[281:286].mean(0) - rows.mean(0)), atol=1e-6)
    assert torch.allclose(found[3], GAIN * (rows[532] - rows.mean(0)), atol=1e-6)


def test_a_seeded_network_knows_where_the_cat_is(backbone):
    pictures = pytest.importorskip("skimage.data")
    image = torch.from_numpy(pictures.chelsea()).permute(2, 0, 1)[:, :256, :384].float() / 255
    torch.manual_seed(0)
    model = CenterFields(3)
    assert model.scores is not None
    model.scores.seed_from_imagenet(model.backbone, {1: "aeroplane", 2: "cat", 3: "bus"})
    odds = model.predict(image).semantic
    assert odds.shape == (4, 64, 96)
    assert odds[2].mean() > 1.5 * max(odds[1].mean(), odds[3].mean())


def test_a_backbone_without_an_embedding_has_no_scores(backbone):
    other = build_backbone("resnet10t", pretrained=False)
    assert has_embedding(backbone)
    assert not has_embedding(other)
    assert CenterFields(1, "resnet10t", pretrained=False).scores is None
    with pytest.raises(ValueError, match="has no embedding"):
        embedding_of(other)
    with pytest.raises(ValueError, match="has no embedding"):
        CenterFields(1, "resnet10t", class_scores=True, pretrained=False)


def test_untrained_weights_have_no_rows_to_start_from():
    plain = build_backbone(pretrained=False)
    scores = ClassScores(plain, 1, pretrained=False)
    with pytest.raises(BackboneError, match="ImageNet head"):
        scores.seed_from_imagenet(plain, {1: "cat"})


def test_the_embedding_learns_with_the_backbone_and_the_rows_with_the_heads():
    model = CenterFields(2, pretrained=False)
    slow, fast = model.parameter_groups(30.0)
    assert fast["lr_scale"] == 30.0
    assert any(p is model.scores.rows.weight for p in fast["params"])
    assert any(p is model.scores.embedding[0].weight for p in slow["params"])
    assert len(slow["params"]) + len(fast["params"]) == len(list(model.parameters()))
    assert not any(m.training for m in model.train().modules() if isinstance(m, torch.nn.BatchNorm2d))
