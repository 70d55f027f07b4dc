from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelkin.cues.extent import full_extent
from pixelkin.cues.geometry import BACKGROUND, FOREGROUND, Ground, find_ground, inverse_of, object_mask
from pixelkin.data.synthetic import render_clip
from pixelkin.data.synthetic.sensing import noisy_depth

SIZE = (80, 120)
GROUND = Ground(0.0, 0.01, -0.2, 1.0)  # the horizon is row 20
BOX = (slice(20, 50), slice(30, 60))  # stands at row 50, where the ground has inverse depth 0.3


def scene(seen=BOX):
    """A box of which ``seen`` was seen."""
    objects = np.zeros(SIZE, np.int32)
    objects[seen] = 1
    inverse = np.maximum(GROUND.inverse_depth(SIZE), 0)
    inverse[BOX] = 0.3
    return objects, inverse


def test_an_object_reaches_down_to_where_the_ground_is_as_near():
    objects, inverse = scene((slice(20, 41), BOX[1]))
    inverse[41:50, BOX[1]] = np.nan
    found, depth = full_extent(objects, inverse, GROUND)
    whole, _ = scene()
    assert np.array_equal(found, whole)
    assert np.allclose(depth[BOX], 0.3)
    outside = whole == 0
    assert np.array_equal(depth[outside], inverse[outside])
    assert objects[45, 40] == 0  # the input stays


def test_what_hangs_stays_where_it_is():
    objects, inverse = scene((slice(4, 12), BOX[1]))
    inverse[4:12, BOX[1]] = 0.3
    found, _ = full_extent(objects, inverse, GROUND)
    assert np.array_equal(found, objects)


def test_holes_are_closed_and_crumbs_in_them_taken():
    objects, inverse = scene()
    objects[30:34, 40:44] = 0
    objects[38:40, 50:52] = 2  # a crumb
    inverse[30:34, 40:44] = np.nan
    found, depth = full_extent(objects, inverse, None)
    assert np.array_equal(found, scene()[0])
    assert np.allclose(depth[BOX], 0.3)


def test_another_object_is_not_taken():
    objects, inverse = scene((slice(20, 41), BOX[1]))
    objects[44:64, 35:55] = 2
    inverse[44:64, 35:55] = 0.44
    found, _ = full_extent(objects, inverse, GROUND)
    assert (found[44:64, 35:55] == 2).all()
    assert (found[41:44, 35:55] == 1).all()
    assert (found[41:50, 30:35] == 1).all()
    assert (found[64:, :] == 0).all()


def test_without_depth_of_its_own_an_object_does_not_grow():
    objects, inverse = scene((slice(20, 41), BOX[1]))
    inverse[20:41, BOX[1]] = np.nan
    found, _ = full_extent(objects, inverse, GROUND)
    assert np.array_equal(found, objects)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 100), st.integers(3, 40), st.integers(3, 40)), max_size=4),
    st.integers(0, 99),
)
def test_nothing_is_lost_but_crumbs(boxes, seed):
    rng = np.random.default_rng(seed)
    objects = np.zeros(SIZE, np.int32)
    inverse = np.maximum(GROUND.inverse_depth(SIZE), 0)
    for number, (y, x, h, w) in enumerate(boxes, start=1):
        objects[y : y + h, x : x + w] = number
        inverse[y : y + h, x : x + w] = rng.uniform(0.01, 0.6)
    inverse[rng.random(SIZE) < 0.05] = np.nan
    found, depth = full_extent(objects, inverse, GROUND)
    areas = np.bincount(objects.ravel())
    large = (objects > 0) & (areas[objects] >= 100)
    assert np.array_equal(found[large], objects[large])
    assert ((found == 0) | (areas[found] > 0)).all()
    untouched = found == objects
    assert np.array_equal(depth[untouched], inverse[untouched], equal_nan=True)


def test_noisy_drives_give_fuller_objects():
    gained = []
    for seed in range(4):
        clip = render_clip((61, seed), 1, preset="driving", size=(256, 512))
        truth = clip.instances[0].label_map()
        depth = noisy_depth(clip.depth[0], np.random.default_rng(seed))
        ground = find_ground(depth)
        seen = object_mask(depth, ground) == FOREGROUND
        objects = np.where(seen, truth, 0).astype(np.int32)
        found, _ = full_extent(objects, inverse_of(depth), ground)
        for number, area in zip(*np.unique(truth, return_counts=True), strict=True):
            if number == BACKGROUND or area < 400:
                continue
            overlaps = [
                ((each == number) & (truth == number)).sum() / ((each == number) | (truth == number)).sum()
                for each in (objects, found)
            ]
            gained.append(overlaps)
    before, after = np.mean(gained, axis=0)
    assert after > before + 0.03
    assert after > 0.85


def test_under_what_has_air_beneath_it_the_ground_stays():
    """A table: its legs reach the ground, and the road is seen between them."""
    objects, inverse = scene((slice(20, 42), BOX[1]))
    between = (slice(42, 50), slice(36, 54))
    inverse[between] = np.maximum(GROUND.inverse_depth(SIZE), 0)[between]
    for legs in (slice(30, 36), slice(54, 60)):
        inverse[42:50, legs] = np.nan
    noise = 1 + 0.02 * np.random.default_rng(0).standard_normal(SIZE).astype(np.float32)
    found, _ = full_extent(objects, inverse * noise, GROUND)
    assert (found[42:48, 40:50] == 0).all()
    assert (found[42:48, 30:33] == 1).all()
    assert (found[42:48, 57:60] == 1).all()
