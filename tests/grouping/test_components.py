from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pixelkin.grouping.components import (
    class_components,
    connected_components,
    distance_markers,
    flood,
    marker_distance,
    smooth_distance,
    watershed,
)


def discs(*circles, size=(60, 90)):
    """A map of 0 with a disc of ``value`` for every (y, x, radius, value)."""
    y, x = np.indices(size)
    out = np.zeros(size, dtype=np.uint8)
    for cy, cx, radius, value in circles:
        out[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = value
    return out


@settings(max_examples=30, deadline=None)
@given(h=st.integers(0, 14), w=st.integers(0, 14), connectivity=st.sampled_from([4, 8]), seed=st.integers(0, 50))
def test_class_components_are_scipys(h, w, connectivity, seed):
    semantic = np.random.default_rng(seed).choice([0, 3, 300, 255], (h, w)).astype(np.int32)
    labels, classes = class_components(semantic, connectivity=connectivity)
    structure = np.ones((3, 3)) if connectivity == 8 else None
    total = 0
    for class_id in (3, 300):
        pieces, count = ndimage.label(semantic == class_id, structure)
        total += count
        assert {(int(a), int(b)) for a, b in zip(pieces.ravel(), labels.ravel(), strict=True) if a} == {
            (i, int(labels[pieces == i][0])) for i in range(1, count + 1)
        }
    assert len(classes) == total == len(set(labels.ravel()) - {0})
    for i, class_id in enumerate(classes):
        assert set(semantic[labels == i + 1]) == {class_id}
    assert not labels[np.isin(semantic, [0, 255])].any()


def test_connected_components():
    semantic = discs((20, 20, 8, 1), (20, 60, 10, 2), (50, 50, 1, 2), (50, 80, 6, 255))
    instances = connected_components(semantic)
    assert instances.labels.tolist() == [1, 2]  # the speck has 5 pixels, the unknown disc no class
    np.testing.assert_allclose(instances.scores, np.sqrt(instances.areas))
    np.testing.assert_array_equal(instances.mask(1), semantic * (np.indices(semantic.shape)[0] < 40) == 2)
    assert len(connected_components(semantic, min_area=5)) == 3
    assert len(connected_components(np.zeros((5, 6), int))) == 0
    diagonal = np.eye(20, dtype=int)
    assert len(connected_components(diagonal)) == 1
    assert len(connected_components(diagonal, connectivity=4, min_area=1)) == 20


def test_watershed_parts_touching_discs():
    semantic = discs((30, 30, 14, 1), (30, 54, 14, 1), (30, 80, 9, 2))
    assert len(connected_components(semantic)) == 2
    instances = watershed(semantic, 5)
    assert instances.labels.tolist() == [1, 1, 2]
    np.testing.assert_array_equal(instances.semantic_map(), semantic)  # cut, nothing lost
    cut = instances.label_map()
    assert cut[30, 30] != cut[30, 54]
    assert len(np.unique(cut[:, 30][cut[:, 30] > 0])) == 1
    assert abs(int(instances.areas[0]) - int(instances.areas[1])) < 60
    assert len(watershed(semantic)) == 3
    assert len(watershed(np.zeros((4, 4), int))) == 0
    assert len(watershed(np.ones((20, 20), int), 3)) == 1  # a plateau everywhere


@settings(max_examples=40, deadline=None)
@given(h=st.integers(1, 12), w=st.integers(1, 12), seed=st.integers(0, 99), apart=st.integers(1, 4))
def test_watershed_keeps_every_pixel_once(h, w, seed, apart):
    semantic = np.random.default_rng(seed).choice([0, 1, 1, 1, 2, 255], (h, w))
    instances = watershed(semantic, apart, min_area=1)
    assert sum(instances.areas) == np.isin(semantic, [1, 2]).sum()
    for i, label in enumerate(instances.labels):
        assert (semantic[instances.mask(i)] == label).all()
        assert ndimage.label(instances.mask(i))[1] == 1


def test_markers_stand_apart_and_every_part_has_one():
    mask = ndimage.gaussian_filter(np.random.default_rng(3).random((80, 80)), 2) > 0.5
    parts, count = ndimage.label(mask, np.ones((3, 3)))
    height = smooth_distance(mask)
    markers = distance_markers(height, parts, 4)
    assert set(parts[markers > 0]) == set(range(1, count + 1))
    for i in range(1, count + 1):
        peaks = np.argwhere((markers > 0) & (parts == i))
        gaps = np.abs(peaks[:, None] - peaks[None]).max(2) + 99 * np.eye(len(peaks))
        assert gaps.min() > 4


def test_flood_goes_downhill_and_names_what_no_marker_reaches():
    height = np.array([[5.0, 3.0, 1.0, 2.0, 4.0, 9.0, 7.0]])
    mask = np.array([[1, 1, 1, 1, 1, 0, 1]], dtype=bool)
    markers = np.array([[1, 0, 0, 0, 2, 0, 0]])
    assert flood(height, markers, mask).tolist()[0][:2] == [1, 1]
    assert flood(height, markers, mask).tolist()[0][3:] == [2, 2, 0, 3]


def test_flood_is_scikit_images_watershed():
    segmentation = pytest.importorskip("skimage.segmentation")
    agree = []
    for seed in range(4):
        noise = np.random.default_rng(seed).random((120, 140))
        mask = ndimage.gaussian_filter(noise, 4) > 0.5
        height = smooth_distance(mask)
        markers = distance_markers(height, ndimage.label(mask)[0], 5)
        theirs = segmentation.watershed(-height, markers, mask=mask)
        agree.append((flood(height, markers, mask) == theirs)[mask].mean())
    assert min(agree) > 0.98, agree


def test_marker_distance_follows_the_objects():
    small = [discs((20, 20, 8, 1), (20, 60, 8, 1))]
    large = [discs((30, 45, 24, 1), (5, 5, 1, 1))]
    assert marker_distance(small) == 2
    assert marker_distance(large) == 6
    assert marker_distance([]) == marker_distance([np.zeros((9, 9), int)]) == 1


def test_errors_say_what_is_wrong():
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        class_components(np.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match="4 or 8"):
        class_components(np.zeros((3, 4)), connectivity=6)


def test_components_are_scored_by_the_confidence_of_their_pixels_where_it_is_given() -> None:
    semantic = np.zeros((6, 9), np.uint8)
    semantic[:3, :3], semantic[:3, 6:], semantic[5, 5] = 1, 1, 2
    confidence = np.linspace(0, 1, 54).reshape(6, 9)
    found = connected_components(semantic, min_area=2, confidence=confidence, source="made")
    assert np.allclose(found.scores, [confidence[:3, :3].mean(), confidence[:3, 6:].mean()])
    assert list(found.sources) == ["made", "made"]
    assert np.array_equal(found.masks(), connected_components(semantic, min_area=2).masks())
