from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelkin.cues.pair_targets import DIFFERENT, LIKELY, OFFSETS, OUTSIDE, SAME, UNKNOWN, identity_targets
from pixelkin.models import affinity_loss as losses
from pixelkin.models.affinity import AffinityFields, AffinityOutput, embedding_affinity, mirrored
from pixelkin.models.affinity_loss import affinity_loss, flip_consistency


def test_codes_are_those_of_the_cues():
    codes = (losses.DIFFERENT, losses.SAME, losses.LIKELY, losses.OUTSIDE)
    assert codes == (DIFFERENT, SAME, LIKELY, OUTSIDE)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), axis=st.sampled_from([-1, -2]))
def test_mirrored_affinities_are_those_of_the_picture(seed, axis):
    """Targets of a mirrored label map, read back, are the targets of the map, wherever they are known."""
    rng = np.random.default_rng(seed)
    offsets = [(-1, 0), (0, -1), (0, -3), (-2, -2), (2, -2), (-3, 1)]
    objects = rng.integers(0, 3, tuple(rng.integers(1, 9, 2)))
    there = identity_targets(np.flip(objects, axis), offsets).astype(np.float32)
    here = identity_targets(objects, offsets).astype(np.float32)
    found, known = mirrored(torch.from_numpy(there), offsets, axis=axis)
    assert torch.equal(found[known], torch.from_numpy(here)[known])
    inside = np.array([[c != 5] for c in range(6)])[:, :, None] & np.ones(here.shape, bool)
    for c, (dy, dx) in enumerate(offsets):  # all pairs in the picture but those of (-3, 1), which has no mirror
        y, x = np.mgrid[: objects.shape[0], : objects.shape[1]]
        inside[c] &= (y + dy >= 0) & (y + dy < objects.shape[0]) & (x + dx >= 0) & (x + dx < objects.shape[1])
    assert np.array_equal(known.numpy(), inside)


def test_flip_consistency_is_zero_for_the_same_scene_only():
    objects = np.zeros((12, 16), int)
    objects[2:9, 3:8], objects[4:12, 8:15] = 1, 2
    logits = {flip: identity_targets(objects[:, ::flip], OFFSETS) for flip in (1, -1)}
    here, there = (torch.from_numpy((logits[flip] == SAME) * 8.0 - 4.0)[None] for flip in (1, -1))
    assert flip_consistency(here, there, OFFSETS) == 0
    assert flip_consistency(here, here, OFFSETS) > 0.01


def test_embedding_affinity_pair_by_pair():
    torch.manual_seed(0)
    embedding = torch.randn(1, 3, 5, 6)
    found = embedding_affinity(embedding, [(0, -2), (2, 1)], margin=1.5)
    for c, (dy, dx) in enumerate([(0, -2), (2, 1)]):
        for y in range(5):
            for x in range(6):
                v, u = y + dy, x + dx
                expected = 0.0
                if 0 <= v < 5 and 0 <= u < 6:
                    expected = 1.5 - float((embedding[0, :, y, x] - embedding[0, :, v, u]).abs().sum())
                assert float(found[0, c, y, x]) == pytest.approx(expected, abs=1e-5)


def test_unknown_pairs_and_pixels_teach_nothing():
    logits = torch.zeros(1, 1, 2, 4, requires_grad=True)
    foreground = torch.zeros(1, 2, 4, requires_grad=True)
    codes = torch.full((1, 1, 2, 4), UNKNOWN, dtype=torch.uint8)
    codes[0, 0, 0, 0], codes[0, 0, 0, 1] = SAME, DIFFERENT
    wanted = torch.full((1, 2, 4), 255, dtype=torch.uint8)
    wanted[0, 0, 0] = 1
    affinity_loss(AffinityOutput(logits, foreground), codes, wanted, [(0, -1)])["loss"].backward()
    assert (logits.grad[0, 0, 0, :2] != 0).all()
    assert logits.grad[0, 0, 0, 0] < 0 < logits.grad[0, 0, 0, 1]
    assert (logits.grad[0, 0, 0, 2:] == 0).all()
    assert (logits.grad[0, 0, 1] == 0).all()
    assert (foreground.grad != 0).sum() == 1


def test_both_answers_weigh_the_same_however_few_one_is():
    codes = torch.full((1, 1, 10, 10), SAME, dtype=torch.uint8)
    codes[0, 0, 0, 0] = DIFFERENT
    unknown = torch.full((1, 10, 10), 255, dtype=torch.uint8)
    logits = torch.zeros(1, 1, 10, 10, requires_grad=True)
    loss = affinity_loss(AffinityOutput(logits, torch.zeros(1, 10, 10)), codes, unknown, [(0, -1)])["affinity"]
    loss.backward()
    grad = logits.grad[0, 0]
    assert float(grad[0, 0]) == pytest.approx(-float(grad.flatten()[1:].sum()), rel=1e-4)


def test_pairs_with_the_background_weigh_a_quarter():
    codes = torch.tensor([[[[DIFFERENT, OUTSIDE, OUTSIDE, SAME]]]], dtype=torch.uint8)
    unknown = torch.full((1, 1, 4), 255, dtype=torch.uint8)
    logits = torch.zeros(1, 1, 1, 4, requires_grad=True)
    affinity_loss(AffinityOutput(logits, torch.zeros(1, 1, 4)), codes, unknown, [(0, -1)])["affinity"].backward()
    two, first, second, one = logits.grad[0, 0, 0].tolist()
    assert first == pytest.approx(second)
    assert first + second == pytest.approx(two / 4)
    assert one == pytest.approx(-two)


def test_likely_pairs_count_as_much_as_they_are_believed():
    unknown = torch.full((1, 1, 4), 255, dtype=torch.uint8)
    codes = torch.tensor([[[[LIKELY, LIKELY, SAME, DIFFERENT]]]], dtype=torch.uint8)
    logits = torch.tensor([[[[-4.0, 4.0, -4.0, 0.0]]]], requires_grad=True)
    grads = {}
    for doubt in (True, False):
        (grad,) = torch.autograd.grad(
            affinity_loss(AffinityOutput(logits, torch.zeros(1, 1, 4)), codes, unknown, [(0, -1)], doubt=doubt)[
                "affinity"
            ],
            logits,
        )
        grads[doubt] = grad[0, 0, 0]
    ratio = float(grads[True][0] / grads[True][2])
    assert ratio == pytest.approx(0.1)  # disbelieved
    assert float(grads[False][0] / grads[False][2]) == pytest.approx(1)


def test_a_perfect_answer_costs_next_to_nothing():
    objects = np.zeros((1, 16, 16), int)
    objects[0, 2:9, 2:9], objects[0, 9:15, 3:12] = 1, 2
    codes = torch.from_numpy(identity_targets(objects[0], OFFSETS))[None]
    foreground = torch.from_numpy((objects > 0).astype(np.uint8))
    good = AffinityOutput((codes == SAME) * 40.0 - 20.0, (foreground == 1) * 40.0 - 20.0)
    assert affinity_loss(good, codes, foreground, OFFSETS)["loss"] < 0.02
    bad = AffinityOutput(-good.affinity, -good.foreground)
    assert affinity_loss(bad, codes, foreground, OFFSETS)["loss"] > 10


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return AffinityFields(OFFSETS, widths=(16, 16, 16), head_width=16, embedding=4, pretrained=False)


def test_shapes_at_stride_4_of_any_size(network):
    network.train()
    said = network(torch.rand(2, 3, 64, 96))
    assert said.affinity.shape == (2, 10, 16, 24)
    assert said.foreground.shape == (2, 16, 24)
    assert said.embedding.shape == (2, 4, 16, 24)
    found = network.predict(torch.rand(3, 45, 70))
    assert found.affinity.shape == (10, 12, 18)
    assert found.foreground.shape == (12, 18)
    assert found.embedding.shape == (4, 12, 18)
    assert 0 <= float(found.affinity.min()) <= float(found.affinity.max()) <= 1


def test_predictions_of_a_mirrored_picture_are_mirrored(network):
    image = torch.rand(3, 64, 96)
    here, there = network.predict(image), network.predict(image.flip(-1))
    turned, known = mirrored(there.affinity, OFFSETS)
    assert torch.allclose(turned[known], here.affinity[known], atol=1e-5)
    assert torch.allclose(there.foreground.flip(-1), here.foreground, atol=1e-5)


def test_a_few_steps_learn_a_scene(network):
    objects = np.zeros((1, 16, 16), int)
    objects[0, 2:8, 2:12], objects[0, 8:14, 4:12] = 1, 2
    image = torch.rand(1, 3, 64, 64) * 0.1 + torch.from_numpy(np.kron(objects, np.ones((4, 4))))[:, None].float() * 0.4
    codes = torch.from_numpy(identity_targets(objects[0], OFFSETS))[None]
    foreground = torch.from_numpy((objects > 0).astype(np.uint8))
    network.train()
    optimizer = torch.optim.AdamW(network.parameter_groups(1.0), lr=3e-3)
    history = []
    for _ in range(15):
        loss = affinity_loss(network(image), codes, foreground, OFFSETS)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(float(loss.detach()))
    assert history[-1] < 0.75 * history[0]


def test_no_offset_is_refused():
    with pytest.raises(ValueError, match="at least one offset"):
        AffinityFields([], pretrained=False)
