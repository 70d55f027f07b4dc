from __future__ import annotations

import pytest
import torch

from pixelkin.models.pair_fields import PairFields


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return PairFields(width=32, pretrained=False)


def test_the_backbone_stays_frozen_while_the_heads_learn(model):
    model.train()
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    out = model(torch.rand(2, 3, 64, 96))
    (out.displacement.square().mean() + out.boundary.square().mean()).backward()
    assert all(torch.equal(value, before[name]) for name, value in model.backbone.state_dict().items())
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    assert all(parameter.grad is not None for parameter in model.displacement.parameters())
    assert all(parameter.grad is not None for parameter in model.boundary.parameters())
    assert out.displacement.shape == (2, 2, 16, 24)
    assert out.boundary.shape == (2, 1, 16, 24)
    model.zero_grad()


def test_the_heads_learn_apart(model):
    model.train()
    model(torch.rand(1, 3, 64, 64)).boundary.sum().backward()
    assert all(parameter.grad is None for parameter in model.displacement.parameters())
    model.zero_grad()


@pytest.mark.parametrize("size", [(8, 8), (1, 1), (37, 130), (64, 64)])
def test_whole_images_of_any_size(model, size):
    found = model.predict(torch.rand(3, *size))
    cells = (-(-size[0] // 4), -(-size[1] // 4))
    assert found.displacement.shape == (2, *cells)
    assert found.boundary.shape == cells
    assert ((found.boundary >= 0) & (found.boundary <= 1)).all()


def test_the_boundary_of_the_mirror_image_is_the_mirrored_boundary(model):
    image = torch.rand(3, 64, 96)  # a multiple of the coarsest stride: the same grid
    boundary, mirrored = model.predict(image).boundary, model.predict(image.flip(-1)).boundary
    assert torch.allclose(boundary, mirrored.flip(-1), atol=1e-5)


def test_beyond_the_image_its_edge_goes_on(model):
    image = torch.rand(3, 40, 50)
    rows, columns = torch.arange(64).clamp(max=39), torch.arange(64).clamp(max=49)
    found, whole = model.predict(image), model.predict(image[:, rows][:, :, columns])
    assert torch.equal(found.displacement, whole.displacement[:, :10, :13])
    assert torch.equal(found.boundary, whole.boundary[:10, :13])
    assert torch.equal(model.predict(image, mirror=False).displacement, found.displacement)


def test_the_displacement_is_centred_when_used(model):
    image = torch.rand(3, 64, 64)
    before = model.predict(image).displacement
    model.displacement.centre(torch.tensor([1.0, -2.0]))
    after = model.predict(image).displacement
    model.displacement.centre(torch.zeros(2))
    assert torch.allclose(before - after, torch.tensor([1.0, -2.0])[:, None, None].expand_as(before), atol=1e-5)
