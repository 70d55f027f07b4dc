from __future__ import annotations

import cv2
import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pixelkin.cues.pressing import VISIBLE, Canvas, Donor, false_seams, press

SIDE = 96


def ellipse(size, centre, radii, angle=0.0):
    rows, columns = np.indices(size)
    y, x = rows - centre[0], columns - centre[1]
    a, b = y * np.cos(angle) + x * np.sin(angle), x * np.cos(angle) - y * np.sin(angle)
    return (a / radii[0]) ** 2 + (b / radii[1]) ** 2 <= 1


def canvas_of(*masks):
    objects = np.zeros((SIDE, SIDE), np.int32)
    for number, mask in enumerate(masks, start=1):
        objects[mask] = number
    shape = objects.shape
    return Canvas(np.zeros((*shape, 3), np.float32), objects, np.zeros(shape, bool), np.ones(shape, bool))


def copy_of(canvas):
    return Canvas(canvas.image.copy(), canvas.objects.copy(), canvas.unknown.copy(), canvas.inside.copy())


def donor_of(radii, angle=0.0):
    side = 2 * int(max(radii)) + 5
    mask = ellipse((side, side), (side // 2, side // 2), radii, angle)
    return Donor(np.full((side, side, 3), 200, np.float32), mask)


def same(a, b):
    names = ("image", "objects", "unknown", "inside")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


def touch(a, b):
    return bool((cv2.dilate(a.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & b).any())


RADII = st.tuples(st.floats(4, 12), st.floats(4, 12))
ANGLES = st.floats(0, 2 * np.pi)


@given(RADII, RADII, ANGLES, ANGLES, ANGLES, st.floats(0.0, 0.4), st.floats(0.2, 0.9), st.integers(0, 99))
def test_a_donor_touches_what_it_is_pressed_against(radii, donors, turn, turned, angle, overlap, bury, seed):
    canvas = canvas_of(ellipse((SIDE, SIDE), (48, 48), radii, turn))
    donor = donor_of(donors, turned)
    before = copy_of(canvas)
    put = press(canvas, donor, 1, angle, np.random.default_rng(seed), overlap=overlap, bury=bury)
    if not put:
        assert same(canvas, before)
        return
    there, anchor = canvas.objects == 2, before.objects == 1
    left = canvas.objects == 1
    assert set(np.unique(canvas.objects)) == {0, 1, 2}
    assert touch(there, left)
    lost, hidden = anchor.sum() - left.sum(), donor.mask.sum() - there.sum()
    assert lost == 0 or hidden == 0  # one lies in front
    assert lost <= bury * anchor.sum()
    assert there.sum() >= max(VISIBLE, (1 - bury) * donor.mask.sum())
    if overlap > 0.01:
        assert max(lost, hidden) <= overlap * min(anchor.sum(), donor.mask.sum())
    assert np.array_equal(canvas.objects[~there], before.objects[~there])
    heart = cv2.erode(there.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)
    assert (canvas.image[heart] > 190).all()
    away = ~cv2.dilate(there.astype(np.uint8), np.ones((25, 25), np.uint8)).astype(bool)
    assert not canvas.image[away].any()
    assert 0 <= canvas.image.min() <= canvas.image.max() <= 200.01
    middle = np.argwhere(there).mean(axis=0) - np.argwhere(anchor).mean(axis=0)
    assert middle @ (np.sin(angle), np.cos(angle)) > 0  # it lies on the side it was asked for


@given(
    st.lists(st.tuples(st.integers(0, SIDE), st.integers(0, SIDE), RADII), min_size=2, max_size=6),
    RADII,
    ANGLES,
    st.floats(0, 0.4),
    st.integers(0, 99),
    st.data(),
)
@settings(max_examples=80)
def test_in_a_crowd_no_object_is_buried_and_nothing_unknown_becomes_known(blobs, radii, angle, overlap, seed, data):
    canvas = canvas_of(*[ellipse((SIDE, SIDE), (y, x), r) for y, x, r in blobs])
    present = [int(i) for i in np.unique(canvas.objects) if i]
    assume(present)
    onto = data.draw(st.sampled_from(present))
    canvas.unknown = np.isin(canvas.objects, data.draw(st.sets(st.sampled_from(present))))
    canvas.inside[:, data.draw(st.integers(40, SIDE)) :] = False
    before, number = copy_of(canvas), canvas.objects.max() + 1
    if not press(canvas, donor_of(radii), onto, angle, np.random.default_rng(seed), overlap=overlap, bury=0.5):
        assert same(canvas, before)
        return
    there = canvas.objects == number
    assert there.any()
    assert not (there & ~canvas.inside).any()
    assert not canvas.unknown[there].any()
    assert np.array_equal(canvas.unknown[~there], before.unknown[~there])
    assert np.array_equal(canvas.objects[~there], before.objects[~there])
    for i in present:
        assert (canvas.objects == i).sum() >= 0.5 * (before.objects == i).sum()


def test_both_come_to_lie_in_front():
    fronts = set()
    for seed in range(20):
        canvas = canvas_of(ellipse((SIDE, SIDE), (48, 48), (10, 10)))
        area = (canvas.objects == 1).sum()
        assert press(canvas, donor_of((9, 9)), 1, 0.3, np.random.default_rng(seed), overlap=0.2)
        fronts.add(bool((canvas.objects == 1).sum() < area))
    assert fronts == {True, False}


def test_what_cannot_be_pressed_changes_nothing():
    rng = np.random.default_rng(0)
    canvas = canvas_of(ellipse((SIDE, SIDE), (48, 48), (10, 10)))
    before = copy_of(canvas)
    assert not press(canvas, donor_of((9, 9)), 2, 0.0, rng, overlap=0.1)  # there is no such object
    nothing = Donor(np.zeros((9, 9, 3), np.float32), np.zeros((9, 9), bool))
    assert not press(canvas, nothing, 1, 0.0, rng, overlap=0.1)
    speck = Donor(np.zeros((3, 3, 3), np.float32), np.ones((3, 3), bool))
    assert not press(canvas, speck, 1, 0.0, rng, overlap=0.1)
    canvas.inside[:] = before.inside[:] = False
    assert not press(canvas, donor_of((9, 9)), 1, 0.0, rng, overlap=0.1)
    assert same(canvas, before)


def test_a_donor_larger_than_the_canvas():
    canvas = canvas_of(ellipse((SIDE, SIDE), (48, 48), (10, 10)))
    for seed in range(10):
        press(canvas, donor_of((80, 80)), 1, float(seed), np.random.default_rng(seed), overlap=0.3, bury=0.9)
    assert (canvas.objects == 1).any()


def test_direction_is_right_then_down():
    for angle, axis, sign in ((0.0, 1, 1), (np.pi / 2, 0, 1), (np.pi, 1, -1)):
        canvas = canvas_of(ellipse((SIDE, SIDE), (48, 48), (10, 10)))
        assert press(canvas, donor_of((8, 8)), 1, angle, np.random.default_rng(0), overlap=0.1)
        shift = np.argwhere(canvas.objects == 2).mean(axis=0) - 48
        assert shift[axis] * sign > 10
        assert abs(shift[1 - axis]) < 2


@given(RADII, RADII, st.integers(40, 90), ANGLES, st.integers(0, 99))
def test_a_donor_stands_on_the_row_it_is_given(radii, donors, foot, angle, seed):
    canvas = canvas_of(ellipse((SIDE, SIDE), (60, 48), radii))
    donor = donor_of(donors)
    place = press(canvas, donor, 1, angle, np.random.default_rng(seed), overlap=0.2, foot=foot, seam=0)
    assume(place is not None)
    assert place[0] + np.nonzero(donor.mask)[0].max() == foot - 1
    right = place[1] + donor.mask.shape[1] / 2 > 48
    if touch(canvas.objects == 1, canvas.objects == 2) and abs(place[1] + donor.mask.shape[1] / 2 - 48.5) > 1.5:
        assert right == (np.cos(angle) >= 0)
    assert np.array_equal(canvas.image.any(axis=-1), canvas.objects == 2)  # a hard seam blends nothing


def test_false_seams_change_objects_alone():
    rng = np.random.default_rng(3)
    objects = np.zeros((SIDE, SIDE), np.int32)
    objects[20:60, 20:50], objects[4:8, 4:8] = 1, 2
    image = rng.uniform(0, 255, (SIDE, SIDE, 3)).astype(np.float32)
    changed = np.zeros(objects.shape, bool)
    for seed in range(20):
        other = image.copy()
        false_seams(other, objects, np.random.default_rng(seed))
        changed |= (other != image).any(axis=-1)
        assert abs(other[objects == 1].mean() - image[objects == 1].mean()) < 15
    assert changed[objects == 1].mean() > 0.9
    near = cv2.dilate((objects == 1).astype(np.uint8), np.ones((13, 13), np.uint8)) > 0
    assert not changed[~near].any()
    before = image.copy()
    false_seams(image, np.zeros_like(objects), rng)
    assert np.array_equal(image, before)
