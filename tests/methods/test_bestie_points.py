"""What the user's points do in bestie: mend classes, divide components, and join pieces."""

from __future__ import annotations

import numpy as np
import pytest

from pixelkin.cues.transfer import center_targets
from pixelkin.data import Point, Sample
from pixelkin.methods.base import Field, Fields
from pixelkin.methods.bestie_config import BESTIEConfig
from pixelkin.methods.bestie_examples import CenterExamples, targets_of
from pixelkin.methods.bestie_labels import fields_of, instances_of
from pixelkin.methods.bestie_training import build_fields
from pixelkin.methods.bestie_views import Paths, view_of
from pixelkin.methods.windows import Window

WHOLE = Window((64, 64), (slice(0, 64), slice(0, 64)), (slice(0, 64), slice(0, 64)), 64, False)


def config(**settings):
    small = {"fields.crop": "64", "fields.long_side": "64,64", "fields.widths": "16", "fields.head_width": "16"}
    return BESTIEConfig.from_settings(small | {key: str(value) for key, value in settings.items()})


def two_in_one(points, *, edge=None):
    """A rectangle of class 7, rows 16 to 48 and columns 8 to 56, perhaps with an edge of the image in it."""
    semantic = np.zeros((64, 64), np.uint8)
    semantic[16:48, 8:56] = 7
    image = np.full((64, 64, 3), 40, np.uint8)
    if edge is not None:
        image[:, edge:] = 220
    return Sample("a", image, semantic=semantic, points=points)


def cold(sample, class_id=7, offset=None):
    """Fields that know nothing."""
    nothing = np.zeros((16, 16), np.float32)
    maps = {
        "semantic": Field(np.asarray(sample.semantic)),
        "offset": Field(np.zeros((2, 16, 16), np.float32) if offset is None else offset, 4),
        f"center/{class_id}": Field(nothing, 4),
        f"class/{class_id}": Field(nothing + 0.5, 4),
    }
    return Fields(sample.size, maps)


POINTS = (Point(20, 32, 7), Point(50, 32, 7))


def test_labels_follow_the_edge_and_not_the_middle():
    sample = two_in_one(POINTS, edge=44)
    found = instances_of(cold(sample), sample, config(score="heat"))
    first, second = found.masks()
    assert first[16:48, 8:43].all()
    assert second[16:48, 46:56].all()
    assert found.scores == pytest.approx(0.5)
    straight = instances_of(cold(sample), sample, config(division="votes")).masks()[0]
    assert not straight[32, 38]


def test_small_instances_have_lower_scores():
    sample = two_in_one(POINTS, edge=44)
    fields, sides = cold(sample), np.sqrt([32 * 36, 32 * 12])
    expected = np.sqrt(sides / (sides + 6.4))
    assert instances_of(fields, sample, config()).scores == pytest.approx(expected, rel=0.02)
    bare = sample.replace(semantic=None)  # the map is the network's own: its classes may be wrong
    assert instances_of(fields, bare, config()).scores == pytest.approx(0.5 * expected, rel=0.02)


def test_what_the_map_says_is_not_doubted_without_points_either():
    sample = two_in_one(POINTS, edge=44).replace(points=None)
    fields = cold(sample)
    fields.maps["center/7"].array[4:12, 3:13] = 0.8
    given, own = (instances_of(fields, each, config()).scores for each in (sample, sample.replace(semantic=None)))
    assert own == pytest.approx(0.5 * given)


def test_labels_follow_a_jump_of_the_offsets():
    truth = np.zeros((64, 64), np.int32)
    truth[16:48, 8:44], truth[16:48, 44:56] = 1, 2
    sample = two_in_one(POINTS)
    offset = center_targets(truth, [7, 7]).offset / 4
    first, second = instances_of(cold(sample, offset=offset), sample, config()).masks()
    assert (first[16:48, 8:56] == (truth[16:48, 8:56] == 1)).mean() > 0.95
    assert second[32, 50]


def test_what_no_point_reaches_is_left_to_the_network():
    sample = two_in_one(POINTS[:1])
    semantic = np.array(sample.semantic)
    semantic[52:62, 8:56] = 7
    sample = sample.replace(semantic=semantic)
    found = instances_of(cold(sample), sample, config())
    assert found.labels.tolist() == [7, 7]
    assert found.masks()[0][16:48, 8:56].all()
    assert found.masks()[1][52:62, 8:56].all()
    assert len(instances_of(cold(sample), sample, config(leftover="drop"))) == 1


def test_points_mend_the_given_map_at_labelling_unless_told_not_to():
    sample = two_in_one(tuple(Point(x, y, 9) for x, y, _ in POINTS))
    model = build_fields(config(), {1: "one", 2: "two"}, pretrained=False)
    assert set(np.unique(fields_of(model, sample, [7, 9], config())["semantic"])) == {0, 9}
    assert set(np.unique(fields_of(model, sample, [7, 9], config(mend=False))["semantic"])) == {0, 7}


def test_a_divided_component_teaches_both_objects():
    sample = two_in_one(POINTS, edge=44)
    view = view_of(sample, WHOLE, [7], config().fields, paths=Paths(30.0, 0.05))
    assert view.classes.tolist() == [7, 7]
    assert (view.labels[16:48, 8:44] == 1).all()
    assert (view.labels[16:48, 44:56] == 2).all()
    assert np.array_equal(view.labels > 0, view.semantic == 7)
    targets = targets_of(view, config().fields, exact=True)
    assert targets["weight"].sum() == (32 * 48) / 16
    assert targets["offset"][1, 8, 13] < 0 < targets["offset"][1, 8, 3]
    apart = view_of(sample, WHOLE, [7], config().fields)
    assert not apart.labels.any()  # as published


def test_a_piece_without_a_point_and_a_mended_class_in_training():
    sample = two_in_one((Point(20, 32, 9),))
    semantic = np.array(sample.semantic)
    semantic[52:62, 8:56] = 7
    view = view_of(sample.replace(semantic=semantic), WHOLE, [7, 9], config().fields, paths=Paths(0.0, 0.0), mend=True)
    assert set(np.unique(view.semantic)) == {0, 7, 9}
    assert view.classes.tolist() == [9]
    assert not view.labels[50:].any()
    assert view.components[56, 20] not in (0, view.components[30, 20])


def test_a_point_on_nothing_still_says_where_its_centre_is():
    sample = two_in_one((POINTS[0], Point(3, 3, 7)))
    view = view_of(sample, WHOLE, [7], config().fields, paths=Paths(0.0, 0.0))
    assert view.spare.tolist() == [[3, 3]]
    assert targets_of(view, config().fields, exact=True)["heat"][0, 0, 0] > 0.8


def test_a_crop_teaches_what_it_shows_of_an_object():
    cut = Window((64, 64), (slice(0, 64), slice(40, 64)), (slice(0, 64), slice(0, 24)), 64, False)
    view = view_of(two_in_one(POINTS, edge=44), cut, [7], config().fields, paths=Paths(30.0, 0.05))
    assert view.classes.tolist() == [7, 7]
    assert (view.labels[16:48, 4:16] == 2).all()
    assert (view.labels[16:48, :4] == 1).all()
    assert not view.labels[:, 24:].any()


@pytest.mark.parametrize("divide", [True, False])
def test_peaks_divide_and_mend_nothing(divide):
    sample, settings = two_in_one(POINTS), config(**{"fields.divide": divide}).fields
    known, guessed = (
        CenterExamples(settings, [sample], [7], exact=exact, paths=Paths(30.0, 0.05), mend=True)
        for exact in (True, False)
    )
    assert bool(known(np.random.default_rng(0))["weight"].any()) == divide
    assert not guessed(np.random.default_rng(0))["weight"].any()
