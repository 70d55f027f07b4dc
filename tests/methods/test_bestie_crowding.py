"""Crowding in bestie: a certified object of another image, pressed against one of its class, and what is known then."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pixelkin.cues.transfer import cell_places, subsample
from pixelkin.data import Dataset, Point, Sample
from pixelkin.data.synthetic import scene_dataset
from pixelkin.methods.bestie_config import BESTIEConfig
from pixelkin.methods.bestie_crowding import Certified, Crowder, certified_object, press_against
from pixelkin.methods.bestie_examples import CenterExamples, targets_of
from pixelkin.methods.bestie_views import Paths, view_of
from pixelkin.methods.windows import Window, random_window

SIDE = 96
WHOLE = Window((SIDE, SIDE), (slice(0, SIDE), slice(0, SIDE)), (slice(0, SIDE), slice(0, SIDE)), SIDE, False)
INSIDE = np.ones((SIDE, SIDE), bool)
HERE, THERE = (30, 60, 90), (210, 150, 120)


def config(**settings):
    small = {"crop": str(SIDE), "long_side": f"{SIDE},{SIDE}", "jitter": "0", "crowding": "1"}
    small |= {key: str(value) for key, value in settings.items()}
    return BESTIEConfig.from_settings({f"fields.{key}": value for key, value in small.items()}).fields


def disc(y, x, radius, side=SIDE):
    rows, columns = np.indices((side, side))
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def photo(name, colour, *objects, points=None):
    """An even picture; its objects are (mask, class id), each with a point in the middle unless points are given."""
    semantic = np.zeros((SIDE, SIDE), np.uint8)
    for mask, class_id in objects:
        semantic[mask] = class_id
    middles = [(*np.argwhere(mask).mean(axis=0)[::-1], class_id) for mask, class_id in objects]
    image = np.full((SIDE, SIDE, 3), colour, np.uint8)
    return Sample(
        name, image, semantic=semantic, points=tuple(Point(*p) for p in (middles if points is None else points))
    )


def here(**others):
    return photo("here", HERE, (disc(48, 48, 14), 7), **others)


def seen(sample, settings, **paths):
    view = view_of(sample, WHOLE, [5, 7], settings, **paths)
    return view, WHOLE.cut(sample.image)


def cut(radius=12, class_id=7):
    """A disc of another colour, its point two pixels below and three right of the middle."""
    side = 2 * radius + 9
    mask, image = disc(side // 2, side // 2, radius, side), np.full((side, side, 3), THERE, np.uint8)
    return Certified(class_id, image, mask, np.array([side // 2 + 2.0, side // 2 + 3.0]))


def pressed(view, image, seed=0, settings=None, donor=None, inside=INSIDE):
    rng = np.random.default_rng(seed)
    return press_against(view, image, inside, 0, donor or cut(), settings or config(), rng)


def touch(a, b):
    return bool((cv2.dilate(a.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & b).any())


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("paths", [{}, {"paths": Paths(30.0, 0.05), "mend": True}])
@pytest.mark.parametrize("seed", range(12))
def test_both_objects_are_known_and_touch(seed, paths):
    settings = config()
    view, image = seen(here(), settings, **paths)
    old = view.labels == 1
    made, picture = pressed(view, image, seed)
    partner, donor = made.labels == 1, made.labels == 2
    assert made.classes.tolist() == [7, 7]
    assert touch(partner, donor)
    assert old[partner].all()
    assert (old & ~partner & ~donor).sum() == 0  # what it lost is the donor's
    assert (made.semantic[donor] == 7).all()
    assert np.array_equal(made.semantic[~donor], view.semantic[~donor])
    assert np.array_equal(made.components[~donor], view.components[~donor])
    assert not np.isin(made.components[donor], view.components).any()
    assert len(np.unique(made.components[donor])) == 1
    assert 0.5 <= np.sqrt(donor.sum() / old.sum()) <= 1.45  # a rim is lost, and some may be hidden
    heart = cv2.erode(np.pad(donor, 1).astype(np.uint8), np.ones((9, 9), np.uint8), borderValue=0)[1:-1, 1:-1] > 0
    assert heart.any()
    assert (picture[:, heart].T == THERE).all()
    far = cv2.dilate(donor.astype(np.uint8), np.ones((15, 15), np.uint8)) == 0
    assert np.array_equal(picture[:, far], image[:, far])
    assert picture.dtype == np.uint8


def test_the_view_and_image_it_was_made_of_stay_as_they_were():
    view, image = seen(here(), config())
    copies, before = [each.copy() for each in view], image.copy()
    assert pressed(view, image) is not None
    assert same(view, copies)
    assert np.array_equal(image, before)


@pytest.mark.parametrize("center", ["centroid", "point"])
def test_offsets_lead_to_the_own_centre(center):
    settings = config(center=center)
    view, image = seen(here(), settings)
    made, _ = next(found for seed in range(9) if (found := pressed(view, image, seed, settings)))
    targets = targets_of(made, settings, exact=True)
    cells = subsample(made.labels, 4)
    assert np.array_equal(targets["weight"] > 0, cells > 0)
    for number in (1, 2):
        middle = np.argwhere(made.labels == number).mean(axis=0)
        aim = middle if center == "centroid" else made.witnesses[number - 1]
        at = np.argwhere(cells == number)
        landed = cell_places(at, 4) + targets["offset"][:, at[:, 0], at[:, 1]].T
        assert np.abs(landed - aim).max() < 1e-3
    assert len(targets["points"]) == 2


@pytest.mark.parametrize("seed", range(8))
def test_the_witness_moves_with_the_donor(seed):
    donor = cut(16)
    donor.image[int(donor.witness[0]) - 2 :][:5, int(donor.witness[1]) - 2 :][:, :5] = 0  # a mark around it
    view, image = seen(here(), config())
    found = pressed(view, image, seed, donor=donor)
    assert found is not None
    dark = np.argwhere((found[1].max(axis=0) < 60) & (found[0].labels == 2))
    if len(dark) > 6:  # not hidden by the partner
        assert np.abs(dark.mean(axis=0) - found[0].witnesses[1]).max() < 1.5


def test_a_centre_that_is_hidden_is_no_centre():
    settings = config(center="point")
    view, image = seen(here(points=[(62, 48, 7)]), settings)
    found = [pressed(view, image, seed, settings) for seed in range(30)]
    assert any(each is None for each in found)
    for made, _ in filter(None, found):
        at = made.witnesses.round().astype(int)
        assert made.labels[at[:, 0], at[:, 1]].tolist() == [1, 2]


def test_who_is_hidden_too_much_is_unknown_then():
    near = [disc(48 + y, 48 + x, 6) for y, x in ((0, 22), (0, -22), (22, 0), (-22, 0))]
    sample = photo("here", HERE, (disc(48, 48, 12), 7), *((mask, 5) for mask in near))
    settings = config(min_area=100)
    view, image = seen(sample, settings)
    partner = int(np.flatnonzero(view.classes == 7)[0])
    dropped = 0
    for seed in range(60):
        found = press_against(view, image, INSIDE, partner, cut(), settings, np.random.default_rng(seed))
        if found is None:
            continue
        made = found[0]
        areas = np.bincount(made.labels.ravel(), minlength=len(made.classes) + 1)[1:]
        assert len(areas) == len(made.classes) == len(made.witnesses)
        assert areas.min() >= 100
        assert made.classes.tolist()[-1] == 7
        for mask in near:
            left = mask & (made.semantic == 5)
            assert len(np.unique(made.labels[left])) == 1
            assert bool(made.labels[left].any()) == (left.sum() >= 100)
            dropped += bool(left.sum() < 100)
    assert dropped


def test_points_that_are_hidden_say_nothing_more():
    settings = config()
    pair = disc(48, 70, 9) | disc(48, 80, 9)
    clicks = [(48, 48, 7), (70, 48, 7), (80, 48, 7), (66, 30, 7), (20, 85, 7)]
    sample = photo("here", HERE, (disc(48, 44, 12), 7), (pair, 7), points=clicks)
    view, image = seen(sample, settings)
    assert len(view.crowded) == 2
    assert len(view.spare) == 4
    outcomes = set()
    for seed in range(40):
        found = pressed(view, image, seed)
        if found is None:
            continue
        made = found[0]
        donor = made.labels == 2
        hidden = donor[[48, 48], [70, 80]]
        outcomes.add(bool(hidden.any()))
        rest = made.components[pair & ~donor]
        assert bool(rest.any()) != hidden.any()
        assert len(made.crowded) == len(made.crowded_classes) == (0 if hidden.any() else 2)
        at = made.spare.astype(int)
        assert not donor[at[:, 0], at[:, 1]].any()
        gone = sum(donor[y, x] for y, x in view.spare.astype(int))
        assert len(made.spare) == len(made.spare_classes) == 4 - gone
        targets_of(made, settings, exact=True)
    assert outcomes == {False, True}


def test_nothing_is_put_beyond_the_image():
    view, image = seen(here(), config())
    inside = INSIDE.copy()
    inside[:, 60:] = inside[:36] = False
    for seed in range(12):
        found = pressed(view, image, seed, inside=inside)
        assert found is None or not (found[0].labels == 2)[~inside].any()


def test_a_donor_that_would_be_coarse_is_left():
    view, image = seen(photo("here", HERE, (disc(48, 48, 30), 7)), config())
    assert all(pressed(view, image, seed, donor=cut(4)) is None for seed in range(5))


def test_donors_are_whole_alone_and_certified():
    rng, settings = np.random.default_rng(0), config()

    def found(*objects, class_id=7, **points):
        return certified_object(photo("there", THERE, *objects, **points), class_id, [5, 7], settings, rng)

    alone, cropped = disc(30, 40, 9), disc(30, 4, 9)
    donor = found((alone, 7), (disc(70, 70, 9), 5))
    assert donor.class_id == 7
    assert donor.mask.sum() == alone.sum()
    assert np.abs(donor.witness - np.argwhere(donor.mask).mean(axis=0)).max() < 1e-9
    assert (donor.image == THERE).all()
    assert donor.mask.shape == (31, 31)
    assert found((alone, 7), class_id=5) is None
    assert found((cropped, 7)) is None
    assert found((disc(30, 40, 3), 7)) is None  # too small
    assert found((alone, 7), points=[]) is None
    assert found((alone, 7), points=[(38, 30, 7), (42, 30, 7)]) is None  # two of them
    assert found((alone, 7), points=[(38, 30, 7), (42, 50, 7)]) is None  # perhaps two of them
    assert found((alone, 7), (cropped, 7)).mask.sum() == alone.sum()


def test_a_large_donor_image_is_looked_at_no_larger_than_crops_are():
    sample = photo("there", THERE, (disc(30, 40, 18), 7))
    half = certified_object(sample, 7, [7], config(long_side="48,48"), np.random.default_rng(0))
    assert half.mask.sum() == pytest.approx(disc(30, 40, 18).sum() / 4, rel=0.05)
    assert np.abs(half.witness - np.argwhere(half.mask).mean(axis=0)).max() < 0.5


def crowd(*others, settings=None, seed=0):
    settings = settings or config()
    view, image = seen(here(), settings)
    crowder = Crowder(Dataset([here(), *others]), [5, 7], settings)
    return (view, image), crowder(view, image, WHOLE, 0, np.random.default_rng(seed))


def test_the_donor_is_of_another_image_and_of_the_same_class():
    (view, _), (made, picture) = crowd(photo("there", THERE, (disc(40, 40, 10), 7), (disc(75, 75, 10), 5)))
    assert made.classes.tolist() == [7, 7]
    assert (np.abs(picture.transpose(1, 2, 0)[made.labels == 2].astype(int) - THERE).max(axis=1) == 0).mean() > 0.3
    assert view.classes.tolist() == [7]


@pytest.mark.parametrize("others", [(), (photo("there", THERE, (disc(40, 40, 10), 5)),), (photo("there", THERE),)])
def test_without_a_donor_nothing_changes(others):
    before, after = crowd(*others)
    assert after[0] is before[0]
    assert after[1] is before[1]


def test_without_a_certified_object_nothing_changes():
    settings, points = config(), [(44, 48, 7), (52, 48, 7)]
    sample = photo("crowded", HERE, (disc(48, 48, 12), 7), points=points)
    view, image = seen(sample, settings)
    crowder = Crowder(Dataset([sample, here()]), [7], settings)
    rng = np.random.default_rng(0)
    made = crowder(view, image, WHOLE, 0, rng)
    assert made[0] is view
    assert made[1] is image


def examples(exact=True, **settings):
    lazy = scene_dataset(4, 0, labels=("points", "semantic"), size=(96, 96), classes=2, touching=0.0)
    settings = config(min_area=20, **settings)
    return CenterExamples(settings, lazy, [1, 2], exact=exact, paths=Paths(30.0, 0.05), mend=True, weak=True)


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def test_examples_of_any_share_are_the_same_every_time():
    for share in (0.5, 1.0):
        one, other = examples(crowding=share), examples(crowding=share)
        for k in (3, 0, 1, 2):  # what was looked at before makes no difference
            other(np.random.default_rng((1, k)))
        for k in range(4):
            assert equal(one(np.random.default_rng((0, k))), other(np.random.default_rng((0, k))))


@pytest.mark.parametrize("exact", [True, False])
def test_the_share_is_that_of_the_examples(exact):
    plain, never, half, always = (examples(exact, **({} if s is None else {"crowding": s})) for s in (0, 0, 0.5, 1))
    assert plain.crowder is None
    changed = []
    for k in range(12):
        rngs = [np.random.default_rng((0, k)) for _ in range(4)]
        before, again, some, crowded = (each(rng) for each, rng in zip((plain, never, half, always), rngs, strict=True))
        assert equal(before, again)
        changed.append((not equal(before, some), not equal(before, crowded)))
        assert np.array_equal(crowded["image"], crowded["weak"])
    counts = np.sum(changed, axis=0)
    assert 0 < counts[0] < counts[1]
    assert counts[1] >= 9


def test_without_crowding_a_generator_is_asked_for_nothing_more():
    rngs = [np.random.default_rng(3), np.random.default_rng(3)]
    examples(crowding=0)(rngs[0])
    rngs[1].integers(4)  # the image
    random_window(rngs[1], (96, 96), (SIDE, SIDE), SIDE)
    assert rngs[0].bit_generator.state == rngs[1].bit_generator.state
