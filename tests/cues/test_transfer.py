from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pixelkin.cues.transfer import (
    CERTIFIED,
    CROWDED,
    EMPTY,
    SMALL,
    center_targets,
    crop_points,
    one_pass_components,
    subsample,
    transfer,
)
from pixelkin.data.components import class_components


def boxes(size, *painted):
    out = np.zeros(size, np.int32)
    for class_id, y0, x0, y1, x1 in painted:
        out[y0:y1, x0:x1] = class_id
    return out


SCENE = boxes(
    (60, 90), (1, 2, 2, 12, 12), (1, 2, 20, 12, 40), (7, 30, 2, 45, 20), (7, 30, 40, 50, 60), (3, 55, 70, 58, 80)
)


def small_maps():
    return hnp.arrays(
        np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 1, 2, 255])
    )


def disc(size, y, x, radius):
    rows, columns = np.indices(size)
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def partition(labels):
    """The labels by their first pixels, so that two numberings of one partition are equal."""
    flat = labels.ravel()
    first = {value: int(np.flatnonzero(flat == value)[0]) + 1 for value in np.unique(flat) if value}
    return np.array([first.get(value, 0) for value in flat]).reshape(labels.shape)


@given(small_maps())
def test_one_pass_finds_the_components_of_every_class(semantic):
    ours, theirs = one_pass_components(semantic), class_components(semantic)
    np.testing.assert_array_equal(partition(ours.labels), partition(theirs.labels))
    np.testing.assert_array_equal(ours.classes, theirs.classes)
    for number, class_id in enumerate(ours.classes, 1):
        assert (semantic[ours.labels == number] == class_id).all()


def test_hundreds_of_classes_in_one_pass():
    semantic = (np.arange(400).reshape(20, 20) + 256).repeat(8, 0).repeat(8, 1).astype(np.int32)
    places = np.stack(np.divmod(np.arange(400), 20), 1) * 8 + 3
    got = transfer(semantic, places, np.arange(400) + 256)
    np.testing.assert_array_equal(got.labels, semantic - 255)
    assert not got.unknown.any()
    assert transfer(semantic, [[0, 0]], [656]).unknown.all()  # the right place, of another class


def test_exactly_one_point_certifies_and_the_rest_is_unknown():
    points = [(5, 5), (5, 25), (5, 35), (32, 5), (56, 75), (20, 20)]
    got = transfer(SCENE, points, [1, 1, 1, 7, 3, 1])
    assert got.verdicts.tolist() == [CERTIFIED, CROWDED, SMALL, CERTIFIED, EMPTY]
    assert got.counts.tolist() == [1, 2, 1, 1, 0]
    assert got.components.classes.tolist() == [1, 1, 3, 7, 7]
    assert (got.classes.tolist(), got.points.tolist()) == ([1, 7], [0, 3])
    expected = boxes(SCENE.shape, (1, 2, 2, 12, 12), (2, 30, 2, 45, 20))
    np.testing.assert_array_equal(got.labels, expected)
    np.testing.assert_array_equal(got.unknown, expected == 0)  # true background is unknown too
    assert got.labels.dtype == np.int32
    targets = center_targets(got.labels, got.classes, stride=1)
    np.testing.assert_array_equal(targets.weight > 0, expected > 0)


def slow_transfer(semantic, points, classes, min_area):
    out, names = np.zeros(semantic.shape, np.int32), []
    seen = np.zeros(semantic.shape, bool)
    for class_id in sorted({int(v) for v in semantic.ravel()} - {0, 255}):
        for start in np.argwhere((semantic == class_id) & ~seen):
            if seen[tuple(start)]:
                continue
            piece, front = {tuple(start)}, [tuple(start)]
            while front:
                y, x = front.pop()
                for dy in (-1, 0, 1):
                    for dx in (-1, 0, 1):
                        p = (y + dy, x + dx)
                        inside = 0 <= p[0] < semantic.shape[0] and 0 <= p[1] < semantic.shape[1]
                        if inside and p not in piece and semantic[p] == class_id:
                            piece.add(p)
                            front.append(p)
            for p in piece:
                seen[p] = True
            votes = sum(tuple(point) in piece and c == class_id for point, c in zip(points, classes, strict=True))
            if votes == 1 and len(piece) >= min_area:
                names.append(class_id)
                for p in piece:
                    out[p] = len(names)
    return out, names


@settings(max_examples=25)
@given(small_maps(), st.integers(0, 5), st.integers(0, 999), st.integers(1, 4))
def test_transfer_is_the_slow_rule(semantic, count, seed, min_area):
    rng = np.random.default_rng(seed)
    points = np.stack([rng.integers(side, size=count) for side in semantic.shape], 1)
    classes = rng.integers(1, 3, count)
    got = transfer(semantic, points, classes, min_area=min_area)
    labels, names = slow_transfer(semantic, points.tolist(), classes.tolist(), min_area)
    np.testing.assert_array_equal(got.labels, labels)
    assert got.classes.tolist() == names
    np.testing.assert_array_equal(got.unknown, labels == 0)


def test_areas_and_floats():
    semantic = boxes((20, 20), (4, 0, 0, 7, 7))  # 49 pixels
    assert transfer(semantic, [(0, 0)], [4]).verdicts.tolist() == [SMALL]
    assert transfer(semantic, [(0, 0)], [4], min_area=49).verdicts.tolist() == [CERTIFIED]
    semantic = boxes((20, 20), (4, 0, 0, 10, 10))
    for point, inside in (((9.4, 9.4), True), ((9.6, 5), False), ((-0.5, -0.5), True)):  # the nearest pixel counts
        assert transfer(semantic, [point], [4]).verdicts.tolist() == [CERTIFIED if inside else EMPTY]
    for weird in (semantic.astype(np.uint8), semantic.astype(np.int64)):
        assert transfer(weird, [(0, 0)], [4]).classes.tolist() == [4]


def test_nothing_there():
    for semantic in (np.zeros((5, 5), int), np.full((5, 5), 255), np.zeros((0, 4), int)):
        got = transfer(semantic, np.zeros((0, 2)), [])
        assert len(got.classes) == len(got.verdicts) == 0
        assert got.unknown.all()
    assert transfer(SCENE, [], []).verdicts.tolist() == [EMPTY, EMPTY, SMALL, EMPTY, EMPTY]
    targets = center_targets(np.zeros((9, 9), int), [])
    assert targets.heat.shape == (0, 3, 3)
    assert not targets.weight.any()


def test_errors_are_one_clear_line():
    for point in ((60, 5), (5, 90), (-1, 5), (np.nan, 3)):
        with pytest.raises(ValueError, match=r"point 2 at .* is outside the image of 90x60 pixels") as error:
            transfer(SCENE, [(1, 1), point], [1, 1])
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="class each"):
        transfer(SCENE, [(1, 1)], [1, 2])
    for nobody in (0, 255):
        with pytest.raises(ValueError, match="names no object"):
            transfer(SCENE, [(1, 1)], [nobody])
    with pytest.raises(ValueError, match=r"\(H, W\) integers"):
        transfer(SCENE.astype(float), [(1, 1)], [1])
    with pytest.raises(ValueError, match="as many as classes"):
        center_targets(SCENE, [1])
    with pytest.raises(ValueError, match="no channel"):
        center_targets(np.ones((8, 8), int), [3], ids=[1, 2])
    with pytest.raises(ValueError, match="two channels"):
        center_targets(np.ones((8, 8), int), [3], ids=[3, 3])
    with pytest.raises(ValueError, match="instance_points"):
        center_targets(np.ones((8, 8), int), [3], center="point")
    with pytest.raises(ValueError, match="'centroid' or 'point'"):
        center_targets(np.ones((8, 8), int), [3], center="middle")
    with pytest.raises(ValueError, match="above 0"):
        center_targets(np.ones((8, 8), int), [3], stride=0)


def test_the_crop_decides_what_is_certified():
    semantic, points = boxes((40, 60), (1, 5, 5, 25, 50)), np.array([(10, 10), (10, 40)])
    assert transfer(semantic, points, [1, 1]).verdicts.tolist() == [CROWDED]
    inside, rows = crop_points(points, (2, 4), (30, 30))
    assert (inside.tolist(), rows.tolist()) == ([[8, 6]], [0])
    crop = transfer(semantic[2:32, 4:34], inside, np.array([1, 1])[rows])
    assert crop.verdicts.tolist() == [CERTIFIED]  # label noise of crops, as released
    assert crop_points(points, (11, 0), (20, 20))[0].shape == (0, 2)


@pytest.mark.parametrize("stride", [1, 2, 4, 5])
def test_targets_lead_to_the_centroid(stride):
    labels = np.zeros((64, 80), np.int32)
    labels[disc(labels.shape, 20, 22, 12)] = 1
    labels[disc(labels.shape, 44, 60, 15)] = 2
    got = center_targets(labels, [9, 4], stride=stride)
    assert got.ids.tolist() == [4, 9]
    h, w = -(-64 // stride), -(-80 // stride)
    assert (got.heat.shape, got.offset.shape, got.weight.shape) == ((2, h, w), (2, h, w), (h, w))
    places = np.indices((h, w)) * stride + (stride - 1) / 2
    own = subsample(labels, stride)
    for number, centre in ((1, (20, 22)), (2, (44, 60))):
        ends = (places + got.offset)[:, own == number]
        np.testing.assert_allclose(ends.T, np.broadcast_to(centre, ends.T.shape), atol=1e-4)
    assert not got.offset[:, own == 0].any()
    np.testing.assert_array_equal(got.weight, own > 0)
    np.testing.assert_array_equal(got.center_weight, got.weight)
    far = np.hypot(*(places - np.array([20, 22])[:, None, None]))
    near = np.abs(places - np.array([20, 22])[:, None, None]).max(0) <= 19
    np.testing.assert_allclose(got.heat[1], np.exp(-(far**2) / 72) * near, atol=1e-6)


def test_the_published_gaussian():
    labels = np.zeros((61, 61), np.int32)
    labels[30, 30] = 1
    heat = center_targets(labels, [1], stride=1).heat[0]
    assert heat[30, 30] == 1
    assert (heat > 0).sum() == 39 * 39
    for radius, value in ((9.3, 0.3), (12.9, 0.1), (14.7, 0.05)):
        rings = np.hypot(*(np.indices((61, 61)) - 30))
        assert abs(np.interp(radius, rings[30, 30:], heat[30, 30:]) - value) < 0.005


def test_gaussians_of_a_class_merge_by_maximum():
    labels = np.zeros((40, 40), np.int32)
    labels[10:13, 10:13], labels[10:13, 20:23] = 1, 2
    both = center_targets(labels, [5, 5], stride=1).heat
    alone = [center_targets((labels == k).astype(int), [5], stride=1).heat for k in (1, 2)]
    np.testing.assert_array_equal(both, np.maximum(*alone))
    assert center_targets(labels, [5, 6], stride=1).heat.shape[0] == 2


def test_channels_on_demand():
    labels = boxes((16, 16), (1, 0, 0, 8, 8))
    got = center_targets(labels, [7], ids=[3, 7, 0, 0])
    assert got.ids.tolist() == [3, 7, 0, 0]
    assert [bool(channel.any()) for channel in got.heat] == [False, True, False, False]
    assert center_targets(labels, [7, 9]).ids.tolist() == [7]  # the other has been cropped away


@pytest.mark.parametrize("stride", [1, 4])
def test_centres_at_the_users_points_on_the_very_edge(stride):
    """Points in row or column 0 count like any other."""
    labels = boxes((24, 32), (1, 0, 0, 16, 16))
    got = center_targets(labels, [2], stride=stride, center="point", instance_points=[(0, 0)])
    places = np.indices(got.weight.shape) * stride + (stride - 1) / 2
    np.testing.assert_allclose((places + got.offset)[:, got.weight > 0], 0, atol=1e-5)
    assert got.heat[0].argmax() == 0
    assert transfer(labels, [(0, 0)], [1]).classes.tolist() == [1]


def test_points_teach_centres_in_crowded_components_if_asked():
    semantic = boxes((40, 80), (3, 4, 4, 36, 76))
    points = [(20, 20), (20, 60)]
    done = transfer(semantic, points, [3, 3])
    assert not len(done.classes)
    plain = center_targets(done.labels, done.classes, points=points, point_classes=[3, 3], stride=1)
    assert plain.heat[0, 20, 20] == plain.heat[0, 20, 60] == 1
    assert not plain.center_weight.any()  # as published: drawn, but they do not reach the loss
    taught = center_targets(done.labels, done.classes, points=points, point_classes=[3, 3], stride=1, disc=8)
    expected = disc((40, 80), 20, 20, 8) | disc((40, 80), 20, 60, 8)
    np.testing.assert_array_equal(taught.center_weight, expected)
    assert not taught.weight.any()


def test_sigma_follows_the_object():
    labels = np.zeros((200, 200), np.int32)
    labels[disc(labels.shape, 150, 40, 5)] = 1
    labels[disc(labels.shape, 100, 130, 60)] = 2
    got = center_targets(labels, [1, 2], stride=1, relative_sigma=0.1)
    wide = 0.1 * np.sqrt((labels == 2).sum())
    assert got.heat[1, 100, 140] == pytest.approx(np.exp(-100 / (2 * wide**2)), abs=1e-5)
    assert got.heat[0, 150, 43] == pytest.approx(np.exp(-9 / (2 * 2**2)), abs=1e-5)  # a third of 6 at least


@settings(max_examples=25)
@given(st.integers(0, 999), st.sampled_from([1, 4]))
def test_a_mirrored_image_has_mirrored_targets(seed, stride):
    rng = np.random.default_rng(seed)
    coarse = np.zeros((6, 8), np.int32)
    for number in (1, 2, 3):
        y, x = rng.integers(4), rng.integers(6)
        coarse[y : y + 2, x : x + 2] = number
    labels = coarse.repeat(4, 0).repeat(4, 1)
    a, b = (center_targets(each, [1, 2, 1], stride=stride, ids=[1, 2]) for each in (labels, labels[:, ::-1]))
    np.testing.assert_allclose(b.heat, a.heat[..., ::-1], atol=1e-5)
    np.testing.assert_allclose(b.offset, a.offset[..., ::-1] * np.array([1, -1])[:, None, None], atol=1e-4)
    np.testing.assert_array_equal(b.weight, a.weight[:, ::-1])
