"""The choice of a region: both criteria by hand, and what frames say together."""

from __future__ import annotations

import numpy as np
import pytest

from pixelkin.cues.region_choice import (
    UNLIKE,
    RegionScores,
    center_distances,
    choose_region,
    normalised_cuts,
    region_scores,
)


def scene():
    """An object (1) in the middle of a ground in two halves (0 and 2), and features that know only the object."""
    owner = np.zeros((12, 16), int)
    owner[:, 8:] = 2
    owner[4:8, 6:10] = 1
    features = np.random.default_rng(0).normal(0, 0.01, (4, 12, 16))
    features[0] += owner == 1
    features[1] += owner != 1
    return owner, features


def slow_cut(owner, features, region):
    flat = features.reshape(len(features), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    inside, total, into = owner.ravel() == region, np.zeros(2), 0.0
    for i in range(flat.shape[1]):
        for j in range(flat.shape[1]):
            cosine = flat[:, i] @ flat[:, j] / (np.linalg.norm(flat[:, i]) * np.linalg.norm(flat[:, j]))
            affinity = 1.0 if cosine > 0.2 else UNLIKE
            total[int(inside[i])] += affinity
            into += affinity * float(inside[i] != inside[j]) / 2
    return into / total[0] + into / total[1]


def test_distances_from_the_middle_by_hand():
    owner = np.array([[1, 0], [0, 0]])
    assert center_distances(owner, 3).tolist() == [0.5, 0.5, np.inf]
    ring = np.zeros((9, 9), int)
    ring[3:6, 3:6] = 1  # its middle is the frame's, and so is the ground's
    far, near = center_distances(ring, 2)
    assert near < 0.4 < far


def test_the_cut_is_the_formula():
    rng = np.random.default_rng(3)
    owner, features = rng.integers(0, 3, (4, 5)), rng.normal(size=(6, 4, 5))
    found = normalised_cuts(owner, features, 4)
    assert found[:3] == pytest.approx([slow_cut(owner, features, k) for k in range(3)])
    assert found[3] == np.inf


def test_the_cut_finds_what_the_features_set_apart():
    owner, features = scene()
    for offset in (0.0, 5.0):  # what all cells share says nothing
        cuts = normalised_cuts(owner, features + offset, 3)
        assert cuts[1] < 0.1
        assert min(cuts[0], cuts[2]) > 0.5


@pytest.mark.parametrize("by", ["both", "center", "cut"])
def test_the_object_is_chosen_by_either_criterion(by):
    owner, features = scene()
    shares = np.stack([owner == k for k in range(4)]).astype(float)
    choice = choose_region([region_scores(shares, features)] * 3, by=by)
    assert choice.region == 1
    assert choice.agreement == 1
    assert choice.ranks[3] == choice.ranks.max()


def test_renaming_the_regions_renames_the_choice():
    owner, features = scene()
    order = [2, 0, 3, 1]
    shares = np.stack([owner == k for k in order]).astype(float)
    assert choose_region([region_scores(shares, features)]).region == order.index(1)


def test_most_frames_decide_and_the_others_are_counted():
    good = RegionScores(np.array([0.2, 0.8, 0.9]), np.array([0.1, 0.9, 1.5]))
    bad = RegionScores(np.array([0.9, 0.8, 0.1]), np.array([1.5, 0.9, 0.1]))
    choice = choose_region([good, good, bad, good])
    assert choice.region == 0
    assert choice.agreement == 0.75


def test_what_covers_nothing_or_all_is_never_chosen():
    shares = np.zeros((3, 4, 5))
    shares[2] = 1
    whole = region_scores(shares, np.ones((2, 4, 5)))
    assert np.isinf(whole.center).all()
    assert np.isinf(whole.cut).all()
    owner, features = scene()
    some = region_scores(np.stack([owner == k for k in range(3)]).astype(float), features)
    assert choose_region([whole, some]).region == 1


def test_without_frames_there_is_no_choice():
    with pytest.raises(ValueError, match="at least one"):
        choose_region([])
