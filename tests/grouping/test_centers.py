from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pixelkin.grouping.centers import (
    BLOB,
    MANY,
    PEAK,
    POINT,
    WHOLE,
    CenterRules,
    converging_blobs,
    find_centers,
    group_by_centers,
    group_to_centers,
    heat_peaks,
)


def discs(size=(96, 128), centres=((24, 30), (24, 52), (66, 40), (60, 96)), radii=(12, 12, 16, 24)):
    """Touching discs: instance map."""
    grid = np.indices(size)
    out = np.zeros(size, int)
    for number, ((y, x), radius) in enumerate(zip(centres, radii, strict=True), 1):
        out[(grid[0] - y) ** 2 + (grid[1] - x) ** 2 <= radius**2] = number
    return out


def encode(instances, classes, ids, stride=1):
    """The perfect fields of an instance map: Gaussians and offsets to the middle of each mask; fast and independent."""
    h, w = (-(-side // stride) for side in instances.shape)
    places = np.indices((h, w)) * stride + (stride - 1) / 2
    own = instances[stride // 2 :: stride, stride // 2 :: stride]
    heat, offset = np.zeros((len(ids), h, w), np.float32), np.zeros((2, h, w), np.float32)
    for number, class_id in enumerate(classes, 1):
        centre = np.argwhere(instances == number).mean(0)[:, None, None]
        bump = np.exp(-((places - centre) ** 2).sum(0) / 72)
        heat[ids.index(class_id)] = np.maximum(heat[ids.index(class_id)], bump)
        offset[:, own == number] = (centre - places)[:, own == number]
    return heat, offset


def same_partition(a, b):
    np.testing.assert_array_equal(a > 0, b > 0)
    pairs = set(zip(a.ravel().tolist(), b.ravel().tolist(), strict=True))
    assert len(pairs) == len({p for p, _ in pairs}) == len({q for _, q in pairs})


@pytest.mark.parametrize("stride", [1, 4])
def test_encode_then_decode_is_the_identity(stride):
    instances, classes, ids = discs(), [7, 7, 7, 300], [300, 7]
    semantic = np.array([0, *classes])[instances]
    heat, offset = encode(instances, classes, ids, stride)
    if stride > 1:
        small = instances[2::4, 2::4]
        got = group_by_centers(heat, offset, semantic[2::4, 2::4], ids, stride=4, rules=CenterRules(kernel=21))
        same_partition(got.labels, small)
    got = group_by_centers(heat, offset, semantic, ids, stride=stride, rules=CenterRules(kernel=21))
    if stride == 1:
        same_partition(got.labels, instances)
    else:  # where two instances meet, offsets are mixed
        assert (np.unique(got.labels).size, got.labels.astype(bool).tolist()) == (5, (semantic > 0).tolist())
        agree = [
            np.mean(got.labels[instances == k] == np.bincount(got.labels[instances == k]).argmax()) for k in (1, 2, 3)
        ]
        assert min(agree) > 0.97
    assert sorted(got.classes.tolist()) == [7, 7, 7, 300]
    for number, (class_id, place) in enumerate(zip(got.classes, got.centers.places, strict=True), 1):
        assert (semantic[got.labels == number] == class_id).all()
        assert np.abs(place - np.argwhere(got.labels == number).mean(0)).max() < 3
    assert set(got.centers.kinds.tolist()) == {PEAK}
    np.testing.assert_allclose(got.scores, got.centers.heat)


def slow_group(offset, centers, mask, stride):
    out = np.zeros(mask.shape, int)
    for y, x in np.argwhere(mask):
        end = np.array([y, x]) * stride + (stride - 1) / 2 + offset[:, y, x]
        out[y, x] = np.argmin([np.hypot(*(end - c)) for c in centers]) + 1
    return out


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from([1, 4]), st.sampled_from([1, 2, 5, MANY + 9]))
def test_grouping_is_the_slow_loop(seed, stride, count):
    rng = np.random.default_rng(seed)
    offset, mask = rng.normal(0, 6, (2, 9, 11)), rng.random((9, 11)) < 0.7
    centers = rng.uniform(0, 44, (count, 2))
    got = group_to_centers(offset, centers, mask, stride=stride)
    np.testing.assert_array_equal(got, slow_group(offset, centers, mask, stride))
    assert got.dtype == np.int32


def test_of_equally_near_centres_the_first():
    field = np.zeros((2, 3, 3))
    assert (group_to_centers(field, [(0, 0), (0, 2)])[:, 1] == 1).all()
    assert (group_to_centers(field, [(0, 2), (0, 0)])[:, 1] == 1).all()
    assert not group_to_centers(field, np.zeros((0, 2))).any()
    assert group_to_centers(np.zeros((2, 0, 3)), [(1, 1)]).shape == (0, 3)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_peaks_are_the_largest_of_their_window_in_the_mask(seed, reach):
    rng = np.random.default_rng(seed)
    heat, mask = rng.integers(0, 6, (10, 12)) / 5, rng.random((10, 12)) < 0.7
    expected = []
    for y, x in np.argwhere(mask & (heat >= 0.4)):
        rivals = [
            (heat[v, u], -(v * 12 + u))
            for v in range(max(0, y - reach), min(10, y + reach + 1))
            for u in range(max(0, x - reach), min(12, x + reach + 1))
            if mask[v, u]
        ]
        if all(heat[y, x] >= rival for rival, _ in rivals):
            expected.append((y, x))
    got = heat_peaks(heat, mask, reach=reach, threshold=0.4)
    assert {tuple(p) for p in got.tolist()} <= set(expected)  # those of the release, but of equals the first
    values = {heat[p] for p in expected}
    assert {heat[tuple(p)] for p in got} == values
    for i, a in enumerate(got):
        assert all(np.abs(a - b).max() > reach for b in got[:i])
    if len({heat[p] for p in expected}) == len(expected):
        assert len(got) == len(expected)


def test_a_plateau_has_one_peak():
    assert heat_peaks(np.ones((30, 30)), np.ones((30, 30), bool), reach=5, threshold=0.5).tolist() == [[0, 0]]


def pointing(size, *centres):
    grid = np.indices(size)
    c = np.array(centres, dtype=np.float64)
    return c[((grid[None] - c[:, :, None, None]) ** 2).sum(1).argmin(0)].transpose(2, 0, 1) - grid


@pytest.mark.parametrize(("gain", "pixels"), [(1.0, 21), (0.9, 21), (1.1, 21), (0.85, 25), (1.2, 13)])
def test_a_perfect_field_gives_a_blob_of_21_pixels(gain, pixels):
    offset, mask = pointing((30, 40), (15, 20)) * gain, np.ones((30, 40), bool)
    assert (np.hypot(*offset) < 2.5).sum() == pixels
    got = converging_blobs(offset, mask, area=(19, 23))
    assert got.tolist() == ([[15, 20]] if pixels == 21 else [])


def test_blobs_at_any_stride_and_any_middle():
    rng = np.random.default_rng(0)
    for _ in range(30):
        middle = rng.uniform(10, 14, 2)
        offset = pointing((24, 24), middle) * 4
        mask = np.ones((24, 24), bool)
        got = converging_blobs(offset, mask, stride=4, area=(16, 23))
        assert len(got) == 1
        assert np.abs(got[0] - middle).max() < 0.6
        assert not len(converging_blobs(offset * 0.85, mask, stride=4, area=(16, 23)))
        assert find_centers(np.ones((24, 24)) * 0.07, offset, mask, stride=4).kinds.tolist() == [BLOB]


def test_blobs_are_4_connected_and_in_the_mask():
    offset = pointing((30, 30), (15, 15))
    mask = np.ones((30, 30), bool)
    offset[:, 12, 17] = 0  # beside (13, 16) by the corner only
    assert len(converging_blobs(offset, mask, area=(21, 21))) == 1
    mask[15, 15] = False
    assert len(converging_blobs(offset, mask, area=(20, 20))) == 1


def test_blobs_join_peaks_only_from_afar():
    mask = np.ones((40, 200), bool)
    for distance, kinds in ((100, [PEAK]), (101, [PEAK, BLOB])):
        heat, offset = np.full((40, 200), 0.06), pointing((40, 200), (20, 30), (20, 30 + distance))
        heat[20, 30] = 0.4
        got = find_centers(heat, offset, mask)
        assert got.kinds.tolist() == kinds
        assert got.heat.tolist() == pytest.approx([0.4, 1.0][: len(kinds)])
        assert got.places.tolist() == [[20, 30], [20, 30 + distance]][: len(kinds)]
    assert find_centers(np.full((40, 200), 0.06), offset, mask).kinds.tolist() == [BLOB, BLOB]
    assert not len(find_centers(np.full((40, 200), 0.05), offset, mask).places)
    near = CenterRules(merge_distance=10)
    heat, offset = heat * 1, pointing((40, 200), (20, 30), (20, 50))
    assert find_centers(heat, offset, mask, rules=near).kinds.tolist() == [PEAK, BLOB]


def test_the_window_follows_the_components_scale():
    mask, heat = np.zeros((20, 60), bool), np.zeros((20, 60))
    mask[2:17, 2:32] = True
    heat[9, 9], heat[9, 23] = 0.9, 0.8
    offset = np.full((2, 20, 60), 50.0)
    assert len(find_centers(heat, offset, mask).places) == 1
    assert len(find_centers(heat, offset, mask, rules=CenterRules(relative_kernel=0.4)).places) == 2


def test_other_components_do_not_suppress_and_small_ones_are_left_out():
    semantic = np.zeros((30, 60), np.uint8)
    semantic[5:25, 5:25], semantic[5:25, 30:50], semantic[0:4, 55:59] = 1, 1, 1
    heat = np.zeros((1, 30, 60))
    heat[0, 10, 24], heat[0, 10, 32], heat[0, 2, 56] = 0.9, 0.5, 0.9
    got = group_by_centers(heat, np.zeros((2, 30, 60)), semantic, [1])
    assert sorted(got.scores.tolist()) == pytest.approx([0.5, 0.9])
    assert (
        len(group_by_centers(heat, np.zeros((2, 30, 60)), semantic, [1], rules=CenterRules(min_area=16)).classes) == 3
    )


def test_scores_as_specified():
    semantic = np.zeros((40, 240), int)
    semantic[5:35, 5:170], semantic[5:35, 180:230] = 3, 4
    heat, offset = np.full((2, 40, 240), 0.06), pointing((40, 240), (20, 30), (20, 140), (2, 239))
    heat[0, 20, 30] = 0.8
    probability = np.stack([np.full((40, 240), 0.5), np.full((40, 240), 0.25)])
    probability[0, :, 100:] = 0.75
    got = group_by_centers(heat, offset, semantic, [3, 4], probability=probability)
    assert got.centers.kinds.tolist() == [PEAK, BLOB, WHOLE]
    first, second = got.labels == 1, got.labels == 2
    seg = [probability[0][mask].mean() for mask in (first, second)]
    # A peak's heat counts; a blob's is replaced by the probability; a component without centre has its largest heat.
    assert got.scores.tolist() == pytest.approx([0.8 * seg[0], seg[1] ** 2, 0.06 * 0.25], rel=1e-5)
    np.testing.assert_array_equal(got.labels == 3, semantic == 4)
    kept = group_by_centers(heat, offset, semantic, [3, 4], rules=CenterRules(leftover="drop"))
    assert set(np.unique(kept.labels)) == {0, 1, 2}


def test_the_best_scored_centres_are_the_warmest():
    """Defect 8: what is ranked is the heat, not the place."""
    heat = np.zeros((40, 120), np.float32)
    for x, value in ((20, 0.3), (60, 0.9), (100, 0.5)):
        heat[20, x] = value
    got = find_centers(heat, np.full((2, 40, 120), 60.0), np.ones((40, 120), bool))
    for place, value in zip(got.places.astype(int), got.heat, strict=True):
        assert heat[tuple(place)] == value
    assert got.places[got.heat.argmax()].tolist() == [20, 60]


def two_components():
    semantic = np.zeros((40, 100), int)
    semantic[5:35, 5:40], semantic[5:35, 60:95] = 5, 5
    heat, offset = np.zeros((1, 40, 100)), np.zeros((2, 40, 100))
    heat[0, 20, 80] = 0.5
    return semantic, heat, offset


def test_given_points_are_the_centres():
    semantic, heat, offset = two_components()
    heat[0, 10, 10] = 0.9  # gives way
    points, probability = [(20, 10), (20, 35)], np.full((1, 40, 100), 0.6)
    got = group_by_centers(heat, offset, semantic, [5], probability=probability, points=points, point_classes=[5, 5])
    assert got.centers.kinds.tolist() == [POINT, POINT, PEAK]
    assert got.centers.places[:2].tolist() == [[20, 10], [20, 35]]
    assert got.scores.tolist() == pytest.approx([0.6, 0.6, 0.3])  # the probability alone, where a point was given
    released = group_by_centers(
        heat, offset, semantic, [5], points=points, point_classes=[5, 5], rules=CenterRules(scope="class")
    )
    assert (released.labels[semantic > 0].min(), released.labels.max()) == (1, 2)
    assert (released.labels[:, 60:] != 1).all()  # all of the other component is nearest to the second point
    other = group_by_centers(heat, offset, semantic, [5], points=points, point_classes=[8, 8])
    assert POINT not in other.centers.kinds  # points of another class say nothing here


def test_points_in_row_or_column_0_and_on_crumbs_count():
    semantic = np.zeros((20, 40), int)
    semantic[:4, :4], semantic[10:, 10:] = 5, 5
    points = [(0, 0), (19, 39), (10, 10)]
    got = group_by_centers(
        np.zeros((1, 20, 40)), np.zeros((2, 20, 40)), semantic, [5], points=points, point_classes=[5] * 3
    )
    assert sorted(map(tuple, got.centers.places.tolist())) == sorted(points)
    assert got.labels[1, 1] > 0


def test_a_mirrored_image_has_mirrored_instances():
    instances, classes = discs(), [7, 7, 7, 300]
    semantic = np.array([0, *classes])[instances]
    heat, offset = encode(instances, classes, [7, 300], 4)
    turned = offset[..., ::-1] * np.array([1, -1])[:, None, None]
    a = group_by_centers(heat, offset, semantic, [7, 300], stride=4)
    b = group_by_centers(heat[..., ::-1], turned, semantic[:, ::-1], [7, 300], stride=4)
    same_partition(b.labels, a.labels[:, ::-1])
    np.testing.assert_allclose(sorted(a.scores), sorted(b.scores), rtol=1e-4)


def test_offsets_are_image_pixels_at_every_stride():
    """Defect 6: what is brought to a finer grid keeps its unit."""
    semantic = np.full((64, 96), 2)
    places = np.indices((16, 24)) * 4 + 1.5
    offset = np.array([20.0, 30.0])[:, None, None] - places
    got = group_by_centers(np.zeros((1, 16, 24)), offset, semantic, [2], stride=4, rules=CenterRules(blob_heat=-1))
    assert got.centers.kinds.tolist() == [BLOB]
    np.testing.assert_allclose(got.centers.places, [[20, 30]], atol=0.3)


def test_images_that_are_no_multiple_of_the_stride():
    semantic = np.zeros((37, 51), np.uint8)
    semantic[3:36, 4:50] = 9
    heat = np.full((1, 10, 13), 0.5)
    got = group_by_centers(heat, np.zeros((2, 10, 13)), semantic, [9], stride=4, probability=heat)
    np.testing.assert_array_equal(got.labels > 0, semantic > 0)
    full = group_by_centers(heat, np.zeros((2, 10, 13)), semantic, [9], stride=4, probability=np.full((1, 37, 51), 0.5))
    np.testing.assert_allclose(full.scores, got.scores)


def test_nothing_there():
    for semantic in (np.zeros((8, 8), int), np.full((8, 8), 255), np.full((8, 8), 3)):
        got = group_by_centers(np.ones((1, 8, 8)), np.zeros((2, 8, 8)), semantic, [255])
        assert not got.labels.any()
        assert len(got.classes) == len(got.scores) == len(got.centers.places) == 0
    none = group_by_centers(np.zeros((0, 8, 8)), np.zeros((2, 8, 8)), semantic, [])
    assert not none.labels.any()


def test_errors_are_one_clear_line():
    heat, offset, semantic = np.zeros((1, 8, 8)), np.zeros((2, 8, 8)), np.ones((8, 8), int)
    with pytest.raises(ValueError, match="point 1 at y 9, x 2 is outside the image of 8x8 pixels"):
        group_by_centers(heat, offset, semantic, [1], points=[(9, 2)], point_classes=[1])
    with pytest.raises(ValueError, match="a class each"):
        group_by_centers(heat, offset, semantic, [1], points=[(2, 2)])
    with pytest.raises(ValueError, match="its class"):
        group_by_centers(heat, offset, semantic, [1], points=[(2, 2)], point_classes=[1, 1])
    with pytest.raises(ValueError, match=r"\(2, h, w\)"):
        group_by_centers(heat, offset[0], semantic, [1])
    with pytest.raises(ValueError, match=r"\(H, W\) integers"):
        group_by_centers(heat, offset, semantic.astype(float), [1])
    with pytest.raises(ValueError, match="stride 4"):
        group_by_centers(heat, offset, np.ones((20, 20), int), [1], stride=4)
    with pytest.raises(ValueError, match="probability"):
        group_by_centers(heat, offset, semantic, [1], probability=heat[0])
    with pytest.raises(ValueError, match="same size"):
        group_to_centers(offset, [(1, 1)], np.ones((3, 3), bool))
    with pytest.raises(ValueError, match=r"\(2, h, w\)"):
        group_to_centers(offset[0], [(1, 1)])
    with pytest.raises(ValueError, match="leftover"):
        CenterRules(leftover="keep")
    with pytest.raises(ValueError, match="scope"):
        CenterRules(scope="image")


@settings(max_examples=15)
@given(st.integers(0, 10**6))
def test_labels_cover_what_is_grouped_without_gaps(seed):
    rng = np.random.default_rng(seed)
    semantic = rng.choice([0, 1, 2, 255], size=(5, 6)).repeat(8, 0).repeat(8, 1)
    heat = ndimage.gaussian_filter(rng.normal(0, 1, (2, 40, 48)), (0, 2, 2)) * 3
    offset = rng.normal(0, 8, (2, 40, 48))
    got = group_by_centers(heat, offset, semantic, [2, 1], rules=CenterRules(kernel=9))
    np.testing.assert_array_equal(got.labels > 0, np.isin(semantic, [1, 2]))
    assert np.unique(got.labels[got.labels > 0]).tolist() == list(range(1, len(got.classes) + 1))
    np.testing.assert_array_equal(np.append(0, got.classes)[got.labels], np.where(got.labels > 0, semantic, 0))
    assert len(got.scores) == len(got.centers.places) == len(got.centers.kinds) == len(got.classes)
