"""What lies in the unknown teaches a student nothing at all."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixelkin.data import Dataset, Instances, Sample
from pixelkin.models.backbone import build_backbone
from pixelkin.students.examples import LabelledImages, Padding, unpack
from pixelkin.students.losses import Sampling, losses, proposal_losses
from pixelkin.students.network import MaskRCNN, Proposals

SIZE = (64, 96)
IGNORED = np.s_[:, 48:]


@pytest.fixture(scope="module")
def network() -> MaskRCNN:
    torch.manual_seed(0)
    return MaskRCNN(
        build_backbone(pretrained=False), 1, channels=16, hidden=16, anchor_scale=4.0, candidates=50, proposals=40
    ).train()


def masks(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    out = np.zeros((len(boxes), *SIZE), bool)
    for mask, (x0, y0, x1, y1) in zip(out, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    return out


def batch(sample: Sample) -> dict[str, torch.Tensor]:
    make = LabelledImages(
        Dataset([sample]),
        [1],
        mean_score=0.0,
        short_side=SIZE[0],
        long_side=SIZE[1],
        jitter=(1.0, 1.0),
        flip=False,
        copy_paste=0.0,
        min_score=0.3,
        unknown=True,
    )
    return Padding(32)([make(np.random.default_rng(0))])


def said_of(network: MaskRCNN, sample: Sample) -> dict[str, float]:
    torch.manual_seed(5)
    return {name: value.item() for name, value in losses(network, *unpack(batch(sample)), Sampling()).items()}


def test_labels_under_the_ignore_mask_change_no_loss(network: MaskRCNN) -> None:
    image = np.random.default_rng(1).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    ignore = np.zeros(SIZE, bool)
    ignore[IGNORED] = True
    sure = Instances.from_masks(masks((8, 8, 32, 40)), scores=[0.9])
    more = Instances.from_masks(masks((8, 8, 32, 40), (60, 8, 80, 30), (52, 34, 90, 60)), scores=[0.9, 0.1, 0.29])
    semantic = np.zeros(SIZE, np.uint8)
    semantic[20:40, 60:90], semantic[50:, 50:] = 1, 255
    plain = said_of(network, Sample("a", image, instances=sure, ignore=ignore))
    assert said_of(network, Sample("a", image, instances=more, ignore=ignore, semantic=semantic)) == plain
    assert said_of(network, Sample("a", image, instances=sure)) != plain  # background would have taught


def test_what_is_found_in_the_unknown_is_not_punished(network: MaskRCNN) -> None:
    ignore = np.zeros(SIZE, bool)
    ignore[IGNORED] = True
    image = np.zeros((*SIZE, 3), np.uint8)
    sample = Sample("a", image, instances=Instances.from_masks(masks((8, 8, 32, 40))), ignore=ignore)
    _, _, targets = unpack(batch(sample))
    anchors = torch.tensor([[8, 8, 32, 40], [52, 8, 90, 40], [60, 40, 70, 50], [8, 44, 28, 60.0]])
    objectness, deltas = torch.zeros(1, 4, requires_grad=True), torch.zeros(1, 4, 4)
    found = Proposals(anchors, objectness, deltas, anchors[None], torch.ones(1, 4))
    proposal_losses(found, targets, Sampling(), network.rpn_weights)["objectness"].backward()
    assert objectness.grad[0, [1, 2]].tolist() == [0, 0]
    assert (objectness.grad[0, [0, 3]] != 0).all()
