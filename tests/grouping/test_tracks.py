"""Track ids along the flow: fast things, crossings, gaps, cuts; nothing but ids changes."""

from __future__ import annotations

import numpy as np
import pytest

from pixelkin.data import Instances
from pixelkin.data.synthetic.clip import render_clip
from pixelkin.grouping.tracks import carry_mask, link_tracks

SIZE = (20, 30)


def box(top, left, height=4, width=4):
    mask = np.zeros(SIZE, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def frame(*masks, **columns):
    return Instances.from_masks(np.stack(masks), **columns) if masks else Instances.empty(SIZE)


def still(dy=0.0, dx=0.0):
    """The flow into the frame before of what has moved by (dy, dx)."""
    return np.stack([np.full(SIZE, -dy), np.full(SIZE, -dx)]).astype(np.float32)


def ids(frames, flows, **options):
    return [found.ids.tolist() for found in link_tracks(frames, flows, **options)]


def test_a_mask_is_carried_to_where_the_flow_comes_from():
    np.testing.assert_array_equal(carry_mask(box(5, 5), still(3, -2)), box(8, 3))
    np.testing.assert_array_equal(carry_mask(box(5, 5), still()), box(5, 5))
    assert carry_mask(box(0, 0), still(-4, 0)).sum() == 0  # out of the picture
    with pytest.raises(ValueError, match="give \\(2, H, W\\)"):
        carry_mask(box(0, 0), np.zeros((2, 3, 3)))


def test_things_faster_than_their_size_keep_their_ids_in_any_order():
    a, b = (lambda t: box(2, 2 + 8 * t)), (lambda t: box(12, 20 - 8 * t))
    flow = np.zeros((2, *SIZE), np.float32)
    flow[1, :10], flow[1, 10:] = -8, 8
    frames = [frame(a(0), b(0)), frame(b(1), a(1)), frame(a(2), b(2))]
    assert ids(frames, [flow, flow]) == [[1, 2], [2, 1], [1, 2]]
    assert ids(frames, [still(), still()]) == [[1, 2], [3, 4], [5, 6]]  # without the flow nothing overlaps


def test_what_hides_for_a_while_comes_back_as_itself():
    frames = [frame(box(2, 2)), frame(), frame(), frame(box(2, 8))]
    flows = [still(0, 2)] * 3
    assert ids(frames, flows, patience=2) == [[1], [], [], [1]]
    assert ids(frames, flows, patience=1) == [[1], [], [], [2]]


def test_a_cut_another_size_and_another_class_end_a_track():
    same = frame(box(2, 2))
    assert ids([same, same], [None]) == [[1], [2]]
    other = Instances.from_masks(np.ones((1, 5, 5), bool))
    assert ids([same, other, same], [still(), still()]) == [[1], [2], [3]]
    assert ids([same, frame(box(2, 2), labels=[7])], [still()]) == [[1], [2]]


def test_of_two_pieces_the_larger_overlap_is_it_and_nothing_else_changes():
    whole = frame(box(2, 2, 10, 10), scores=[0.5], labels=[3], sources=["s"])
    pieces = frame(box(2, 2, 10, 3), box(2, 6, 10, 6), scores=[0.25, 0.75], labels=[3, 3], sources=["s", "t"])
    first, second = link_tracks([whole, pieces], [still()])
    assert first.ids.tolist() == [1]
    assert second.ids.tolist() == [2, 1]
    assert second.rles == pieces.rles
    assert second.scores.tolist() == [0.25, 0.75]
    assert second.sources.tolist() == ["s", "t"]


def test_true_masks_and_true_flow_of_a_clip_give_its_true_tracks():
    clip = render_clip(3, 6, preset="layers", size=(64, 80))
    flows = []
    for t in range(5):  # the true flow leads forward; a nearest neighbour of every pixel makes it lead back
        back = np.zeros((2, 64, 80), np.float32)
        y, x = np.indices((64, 80))
        there = np.round(np.stack([y, x]) + clip.flow[t]).astype(int)
        inside = clip.valid[t] & (there >= 0).all(0) & (there[0] < 64) & (there[1] < 80)
        back[:, there[0][inside], there[1][inside]] = -clip.flow[t][:, inside]
        flows.append(back)
    seen: dict[int, set[int]] = {}
    for truth, found in zip(clip.instances, link_tracks(clip.instances, flows, least_overlap=0.1), strict=True):
        for true, track in zip(truth.ids.tolist(), found.ids.tolist(), strict=True):
            seen.setdefault(track, set()).add(true)
    assert all(len(true) == 1 for true in seen.values())
    assert len(seen) == len(set().union(*seen.values()))


def test_too_few_flows_or_wrong_ones_are_errors():
    with pytest.raises(ValueError, match="fewer flows"):
        ids([frame(), frame()], [])
    with pytest.raises(ValueError, match="for a frame of"):
        ids([frame(box(0, 0)), frame()], [np.zeros((2, 3, 3))])


def test_tracks_are_set_too_and_frames_without_labels_are_passed_over():
    frames = [frame(box(2, 2)), None, None, None, None, None, frame(box(2, 8)), None]
    found = list(link_tracks(frames, [still(0, 6)], patience=1))
    assert [f.tracks.tolist() for f in found] == [f.ids.tolist() for f in found] == [[1], [1]]
    assert list(link_tracks([None, None], [])) == []


def lone(frames, flows):
    return [found.tracks.tolist() for found in link_tracks(frames, flows, refuse_lone=True)]


def test_what_is_there_once_and_meets_nothing_is_refused():
    frames = [frame(box(2, 2)), frame(box(2, 4), box(12, 20)), frame(box(2, 6))]
    assert lone(frames, [still(0, 2)] * 2) == [[1], [1, 0], [1]]
    assert ids(frames, [still(0, 2)] * 2) == [[1], [1, 2], [1]]  # unless asked, nothing is refused
    flicker = [frame(), frame(box(12, 20)), frame(), frame(box(12, 20)), frame()]
    assert lone(flicker, [still()] * 4) == [[], [0], [], [0], []]


def test_what_may_be_more_than_a_flicker_is_kept():
    spot, other = box(12, 20), box(2, 2)
    around = [frame(other), frame(other, spot), frame(other)]
    assert lone(around[1:], [still()]) == [[1, 2], [1]]  # at the start of the clip
    assert lone(around[:2], [still()]) == [[1], [1, 2]]  # at its end
    assert lone([around[0], None, *around[1:]], [still()] * 2) == [[1], [1, 2], [1]]  # after a gap
    assert lone([*around[:2], None, around[2]], [still()] * 2) == [[1], [1, 2], [1]]  # before one
    assert lone(around, [None, still()]) == [[1], [2, 3], [2]]  # after a cut
    assert lone(around, [still(), None]) == [[1], [1, 2], [3]]  # before one
    piece, grown = box(2, 2, 4, 1), box(2, 2, 4, 18)
    assert lone([frame(grown), frame(piece), frame(grown)], [still()] * 2) == [[1], [2], [1]]  # part of what was there
    later = [frame(), frame(spot), frame(box(10, 16, 10, 12))]
    assert lone(later, [still()] * 2) == [[], [1], [2]]  # part of what comes
    seen_before = [frame(spot), frame(), frame(spot), frame()]
    assert lone(seen_before, [still()] * 3) == [[1], [], [1], []]
