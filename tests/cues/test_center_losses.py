from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from pixelkin.cues.center_losses import (
    FieldTargets,
    LossWeights,
    bestie_loss,
    center_loss,
    channel_of,
    mined_semantic_loss,
    offset_loss,
)


def random(seed, batch=2, channels=3, h=4, w=5):
    g = torch.Generator().manual_seed(seed)
    heat, target = (torch.randn(batch, channels, h, w, generator=g) for _ in range(2))
    offset, aim = (5 * torch.randn(batch, 2, h, w, generator=g) for _ in range(2))
    weight = torch.rand(batch, h, w, generator=g) * (torch.rand(batch, h, w, generator=g) < 0.4)
    return heat, target, offset, aim, weight


@given(st.integers(0, 99))
@settings(max_examples=15)
def test_sums_over_channels_over_the_count_of_weighted_pixels(seed):
    heat, target, offset, aim, weight = random(seed)
    center = motion = count = 0.0
    for b in range(2):
        for y in range(4):
            for x in range(5):
                v = float(weight[b, y, x])
                count += v > 0
                center += sum(v * float(heat[b, c, y, x] - target[b, c, y, x]) ** 2 for c in range(3))
                motion += sum(v * abs(float(offset[b, d, y, x] - aim[b, d, y, x])) for d in range(2))
    for w in (weight, weight[:, None]):
        assert float(center_loss(heat, target, w)) == pytest.approx(center / max(count, 1), rel=1e-4)
        assert float(offset_loss(offset, aim, w)) == pytest.approx(motion / max(count, 1), rel=1e-4)


def test_low_confidence_teaches_less():
    heat, target, offset, aim, weight = random(1)
    for loss in (center_loss(heat, target, weight), offset_loss(offset, aim, weight)):
        assert loss > 0
    assert center_loss(heat, target, weight / 2) == pytest.approx(float(center_loss(heat, target, weight)) / 2)
    assert offset_loss(offset, aim, weight / 2) == pytest.approx(float(offset_loss(offset, aim, weight)) / 2)


def test_without_weight_nothing_is_taught():
    heat, target, offset, aim, _ = random(2)
    heat.requires_grad_()
    offset.requires_grad_()
    nothing = torch.zeros(2, 4, 5)
    loss = center_loss(heat, target, nothing) + offset_loss(offset, aim, nothing)
    loss.backward()
    assert loss == 0
    assert not heat.grad.any()
    assert not offset.grad.any()


def test_background_targets_do_not_matter():
    heat, target, offset, aim, weight = random(3)
    outside = weight == 0
    other, elsewhere = target.clone(), aim.clone()
    other.permute(0, 2, 3, 1)[outside] = 1e6
    elsewhere.permute(0, 2, 3, 1)[outside] = -1e6
    assert center_loss(heat, target, weight) == center_loss(heat, other, weight)
    assert offset_loss(offset, aim, weight) == offset_loss(offset, elsewhere, weight)
    assert center_loss(heat, target, weight, guidance=False) != center_loss(heat, other, weight, guidance=False)


def test_without_guidance_the_known_part_is_the_same():
    """The ablation adds the background, each pixel as one that is known for sure; the divisor stays."""
    heat, target, offset, aim, weight = random(4)
    outside, known = (weight == 0).float(), (weight > 0).sum()
    for said, wanted, loss in ((heat, target, center_loss), (offset, aim, offset_loss)):
        apart = loss(said, wanted, weight) + loss(said, wanted, outside) * outside.sum() / known
        assert loss(said, wanted, weight, guidance=False) == pytest.approx(float(apart))
    wide = functional.pad(heat, (0, 45)), functional.pad(target, (0, 45)), functional.pad(weight, (0, 45))
    assert center_loss(*wide) == pytest.approx(float(center_loss(heat, target, weight)))


def test_without_guidance_few_known_pixels_do_not_make_it_huge():
    heat, target, offset, aim, _ = random(4, h=20, w=30)
    nothing = torch.zeros(2, 20, 30)
    one = nothing.clone()
    one[0, 0, 0] = 1.0
    for said, wanted, loss in ((heat, target, center_loss), (offset, aim, offset_loss)):
        mean = float(loss(said, wanted, nothing + 1))
        for weight in (nothing, one):
            assert loss(said, wanted, weight, guidance=False) == pytest.approx(10 * mean)


def test_empty_channels_do_not_count():
    heat, target, _, _, weight = random(5)
    used = torch.tensor([[True, False, True], [True, True, True]])
    other = heat.clone()
    other[0, 1] = 50
    assert center_loss(heat, target, weight, channels=used) == center_loss(other, target, weight, channels=used)
    assert center_loss(heat, target, weight) != center_loss(other, target, weight)


def pixels(*losses):
    """Logits of two channels (1, 2, 1, n) whose cross-entropy for label 0 is as given."""
    value = torch.tensor(losses)
    return torch.stack([torch.zeros_like(value), torch.log(torch.expm1(value))])[None, :, None]


def test_hard_pixels():
    losses = [0.1, 2.0, 0.2, 3.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    logits, labels = pixels(*losses), torch.zeros(1, 1, 10, dtype=torch.long)
    assert mined_semantic_loss(logits, labels) == pytest.approx(2.5)
    assert mined_semantic_loss(logits, labels, hardest=1.0) == pytest.approx(sum(losses) / 10, rel=1e-5)
    labels[0, 0, 1] = 255
    assert mined_semantic_loss(logits, labels) == pytest.approx(3.0)  # a fifth of nine is one
    assert mined_semantic_loss(logits, labels, unknown_in_ranking=True) == pytest.approx((3.0 + 0.8) / 2)


def test_where_most_is_unknown_the_release_counts_zeros():
    logits, labels = pixels(*[2.0] * 10), torch.full((1, 1, 10), 255)
    labels[0, 0, 4] = 0
    assert mined_semantic_loss(logits, labels, hardest=0.5) == pytest.approx(2.0)
    assert mined_semantic_loss(logits, labels, hardest=0.5, unknown_in_ranking=True) == pytest.approx(2.0 / 5)


def test_nothing_known_is_zero_with_zero_gradient():
    logits = torch.randn(1, 4, 3, 3, requires_grad=True)
    for ranking in (False, True):
        loss = mined_semantic_loss(logits, torch.full((1, 3, 3), 255), unknown_in_ranking=ranking)
        loss.backward()
        assert loss == 0
        assert not logits.grad.any()
    assert mined_semantic_loss(logits[..., :0], torch.zeros(1, 3, 0, dtype=torch.long)) == 0
    with pytest.raises(ValueError, match="share"):
        mined_semantic_loss(logits, torch.zeros(1, 3, 3), hardest=0.0)


def test_semantic_labels_are_the_users_ids():
    logits = torch.randn(1, 3, 2, 3)
    labels = torch.tensor([[[0, 70, 300], [255, 9, 70]]])  # 9 has no channel
    channels = torch.tensor([[[0, 1, 2], [255, 255, 1]]])
    got = mined_semantic_loss(logits, labels, torch.tensor([70, 300]), hardest=1.0)
    assert got == mined_semantic_loss(logits, channels, hardest=1.0)
    assert got == pytest.approx(float(functional.cross_entropy(logits, channels, ignore_index=255)))


@settings(max_examples=15)
@given(st.integers(0, 99))
def test_channel_of_is_the_place_in_the_list(seed):
    g = torch.Generator().manual_seed(seed)
    ids = torch.stack([torch.randperm(8, generator=g)[:5] * 100 for _ in range(2)])  # 0 is an empty channel
    labels = torch.randint(0, 9, (2, 3, 4), generator=g) * 100
    for wanted in (ids, ids[0]):
        got = channel_of(labels, wanted)
        for b, y, x in torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(4)).tolist():
            row = wanted.expand(2, -1)[b].tolist()
            label = int(labels[b, y, x])
            assert got[b, y, x] == (row.index(label) if label and label in row else -1)
    assert (channel_of(labels, torch.zeros(0)) == -1).all()
    assert (channel_of(labels.to(torch.uint8), torch.tensor([300])) == -1).all()


def test_the_whole_loss():
    heat, target, offset, aim, weight = random(6)
    logits, labels = torch.randn(2, 4, 4, 5), torch.randint(0, 4, (2, 4, 5))
    certified = FieldTargets(target, aim, weight, weight)
    refined = FieldTargets(target + 1, aim - 1, weight.flip(0), weight.flip(0))
    alone = bestie_loss(logits, heat, offset, labels=labels, certified=certified)
    same = bestie_loss(logits, heat, offset, labels=labels, certified=certified, refined=certified)
    both = bestie_loss(logits, heat, offset, labels=labels, certified=certified, refined=refined)
    for part, value in alone.items():  # without refinement, the certified count twice
        assert value == pytest.approx(float(same[part]))
    assert both["center"] == pytest.approx(
        float(center_loss(heat, target, weight) + center_loss(heat, target + 1, weight.flip(0))) / 2
    )
    assert both["offset"] == pytest.approx(
        float(offset_loss(offset, aim, weight) + offset_loss(offset, aim - 1, weight.flip(0))) / 2
    )
    assert both["loss"] == pytest.approx(
        float(both["semantic"] + 200 * both["center"] + 0.01 * both["offset"]), rel=1e-5
    )
    only = LossWeights(semantic=1, center=0, offset=0)
    mined = bestie_loss(logits, heat, offset, labels=labels, certified=certified, weights=only)
    assert mined["loss"] == mined["semantic"] == mined_semantic_loss(logits, labels)
    plain = bestie_loss(logits, heat, offset, labels=labels, certified=certified, guidance=False)
    assert plain["center"] == center_loss(heat, target, weight, guidance=False)
    assert plain["offset"] == offset_loss(offset, aim, weight, guidance=False)
