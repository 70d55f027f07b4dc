from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refinement_scenes import (
    EIGHT,
    IDS,
    RELEASED,
    bar,
    lead,
    plain,
    points_of,
    run,
    same_as_oracle,
    same_partition,
    scene,
)
from scipy import ndimage

from pixelkin.cues.self_refinement import Refinement, refine
from pixelkin.cues.transfer import center_targets


@settings(max_examples=8)
@given(st.integers(0, 10**6), st.sampled_from([1, 4]), st.sampled_from([9, 41]), st.sampled_from([2.0, 12.0, 100.0]))
def test_refinement_is_the_slow_rule(seed, stride, kernel, apart):
    s = Refinement(stride=stride, kernel=kernel * (stride if kernel == 9 else 1), merge_distance=apart * stride)
    scenes = [scene(seed + k, stride=stride) for k in range(2)]
    got = run(scenes, s)
    for k in range(2):
        same_as_oracle(got, k, scenes[k], s)
    assert 0 <= got.targets.weight.min() <= got.targets.weight.max() <= 1


def test_the_scenes_of_the_parity_test_exercise_it():
    found = [run([scene(seed)], Refinement(stride=1, kernel=9, merge_distance=12.0)) for seed in range(8)]
    assert sum(len(each.instances.unique()) - 1 for each in found) > 12


def test_only_components_large_enough_and_only_the_labelled_foreground():
    labels = np.zeros((40, 60), int)
    labels[2:9, 2:9], labels[20:30, 20:30] = 5, 300  # 49 and 100 pixels
    one = plain(labels)
    one[1][:] = 0.8
    one[3][:] = 9.0  # what the network says of classes does not change the foreground
    got = run([one])
    np.testing.assert_array_equal(got.instances[0] > 0, labels == 300)
    assert run([one], Refinement(stride=1, min_area=49)).instances[0, 4, 4] > 0


def test_rule_a_heat_of_other_components_and_classes_is_masked():
    labels = np.zeros((30, 60), int)
    labels[5:25, 5:25], labels[5:25, 30:50] = 5, 5
    one = plain(labels)
    one[1][0, 10, 24], one[1][0, 10, 32] = 0.9, 0.5  # 8 apart: one window, but two components
    one[1][1, 10, 10] = 5.0  # of the other class
    got = run([one])
    assert len(got.instances.unique()) == 3
    assert got.targets.weight[0, 6, 40] == pytest.approx(0.5, abs=1e-3)
    assert not got.targets.heat[0, 1].any()


def test_rule_b_peaks_of_the_published_window():
    for distance, count in ((20, 1), (21, 2)):
        one = plain(bar())
        one[1][0, 20, 50], one[1][0, 20, 50 + distance] = 0.9, 0.5
        lead(one[2], (20, 50), (20, 50 + distance))
        assert len(run([one]).instances.unique()) == 1 + count
    one[1][0, 20, 71] = 0.29
    assert len(run([one]).instances.unique()) == 2  # below the threshold of 0.3


def test_of_a_plateau_one_cell_is_the_peak():
    one = plain(bar(), fill=0.5)
    lead(one[2], (20, 80))
    got = run([one])
    assert len(got.instances.unique()) < 9  # not one centre a pixel
    one[1][:] = 0
    one[1][0, 20:23, 60:64] = 1.0
    got = run([one])
    assert len(got.instances.unique()) == 2
    end = got.targets.offset[0, :, 10, 10] + torch.tensor([10, 10])
    assert end.tolist() == [20, 60]


@pytest.mark.parametrize(("gain", "found"), [(1.0, True), (0.9, True), (1.1, True), (0.85, False), (1.2, False)])
def test_rule_c_offsets_of_unit_slope_make_blobs_of_21_pixels(gain, found):
    one = plain(bar())
    lead(one[2], (20, 80))
    short = np.hypot(*(one[2] * gain)) < 2.5
    assert short.sum() == {1.0: 21, 0.9: 21, 1.1: 21, 0.85: 25, 1.2: 13}[gain]
    one[2] *= gain
    one[1][:] = 0.06
    assert bool(run([one]).instances.any()) is found
    one[1][:] = 0.05  # the heat must be above it
    assert not run([one]).instances.any()


def test_rule_c_at_stride_4_accepts_unit_slope_wherever_the_centre_is():
    rng = np.random.default_rng(0)
    for _ in range(12):
        one = plain(bar(30, 30))
        lead(one[2], rng.uniform(13, 16, 2))
        one[2] *= 4
        one[1][:] = 0.1
        assert run([one], Refinement()).instances.any()
        one[2] *= 0.85
        assert not run([one], Refinement()).instances.any()


def test_rule_c_blobs_are_4_connected():
    one = plain(bar())
    lead(one[2], (20, 80))
    one[2][:, 17, 82] = one[2][:, 18, 82] = 0  # two more than the 21
    one[1][:] = 0.2
    assert run([one], Refinement(stride=1, blob_area=(23, 23))).instances.any()
    one[2][:, 18, 82] = 30  # now (17, 82) touches by its corner only
    assert not run([one], Refinement(stride=1, blob_area=(22, 23))).instances.any()


def test_rule_d_blobs_count_alone_or_far_from_every_peak():
    for distance, count in ((100, 1), (101, 2)):
        one = plain(bar())
        lead(one[2], (20, 25), (20, 25 + distance))
        one[1][:] = 0.1
        one[1][0, 20, 25] = 0.7
        got = run([one])
        assert len(got.instances.unique()) == 1 + count
        confidence = got.targets.weight[0, 20].unique()[1:]
        assert confidence.tolist() == pytest.approx([0.7, 1.0][:count], abs=1e-3)  # a blob's heat is 1
    one[1][0, 20, 25] = 0.1  # without any peak, both blobs
    got = run([one])
    assert got.targets.weight[0, 20].unique()[1:].tolist() == pytest.approx([1.0], abs=1e-3)
    assert len(got.instances.unique()) == 3
    assert got.targets.offset[0, :, 10, 40].tolist() == [10, -15]  # to the blob, not to the middle of the mask


def test_rule_e_without_a_centre_nothing_is_labelled():
    got = run([plain(bar(), fill=0.29)])
    assert not got.instances.any()
    assert not any(target.any() for target in got.targets)


def test_rule_f_pixels_go_where_their_offset_leads():
    one = plain(bar())
    one[1][0, 20, 30], one[1][0, 20, 130] = 0.9, 0.9
    lead(one[2], (20, 130))
    one[2][:, 10:15, 140] = np.array([10, -110])[:, None]  # these point at the other
    got = run([one])
    first, second = int(got.instances[0, 12, 140]), int(got.instances[0, 20, 20])
    assert first != second
    assert (got.instances[0] == first).sum() == 5


@pytest.mark.parametrize(("count", "taught"), [(5, True), (6, False)])
def test_rule_g_more_than_five_are_no_labels(count, taught):
    one = plain(bar(40, 200))
    places = [(20, 20 + 30 * k) for k in range(count)]
    for place in places:
        one[1][0][place] = 0.9
    lead(one[2], *places)
    got = run([one])
    assert len(got.instances.unique()) == (count + 1 if taught else 1)
    assert bool(got.targets.weight.any()) is bool(got.targets.heat.any()) is taught


def test_confidence_is_the_heat_times_the_mean_probability():
    one = plain(bar())
    one[1][0, 20, 50] = 0.6
    lead(one[2], (20, 50))
    one[3][:] = 0
    one[3][1, :, :80] = np.log(2.0)  # probabilities 1/2 and 1/3
    got = run([one])
    inside = bar() > 0
    share = (inside[:, :80].sum() / 2 + inside[:, 80:].sum() / 3) / inside.sum()
    np.testing.assert_allclose(got.targets.weight[0], inside * 0.6 * share, rtol=1e-4)
    one[1][0, 20, 50] = 7.0  # raw heat knows no bound, the confidence does
    assert run([one]).targets.weight.max() == 1


def test_an_instance_without_its_centre_aims_at_its_own_middle():
    """Defect 7: the release takes the middle of the whole component."""
    one = plain(bar())
    one[1][0, 20, 30], one[1][0, 20, 130] = 0.9, 0.8
    lead(one[2], (20, 30))
    one[2][:, 20:25, 60:70] = np.stack(np.meshgrid(20 - np.arange(20, 25), 130 - np.arange(60, 70), indexing="ij"))
    got = run([one])
    mine = got.instances[0] == got.instances[0, 22, 65]
    assert mine.sum() == 50
    ends = got.targets.offset[0] + torch.stack(torch.meshgrid(torch.arange(40), torch.arange(160), indexing="ij"))
    np.testing.assert_allclose(ends[:, mine].T, np.broadcast_to((22, 64.5), (50, 2)), atol=1e-4)
    assert got.targets.weight[0, 22, 65] == pytest.approx(1, abs=1e-4)  # the probability alone
    assert got.targets.weight[0, 8, 8] == pytest.approx(0.9, abs=1e-3)


def test_perfect_fields_give_the_targets_they_come_from():
    labels = np.zeros((96, 128), int)
    grid = np.indices(labels.shape)
    instances = np.zeros(labels.shape, int)
    for number, (y, x) in enumerate([(30, 30), (30, 66), (66, 90)], 1):  # the first two touch
        instances[(grid[0] - y) ** 2 + (grid[1] - x) ** 2 <= 18**2] = number
    classes = [5, 5, 300]
    made = center_targets(instances, classes, stride=4, ids=IDS)
    small = instances[2::4, 2::4]
    labels = np.array([0, *classes])[small]
    one = [labels, made.heat, made.offset, plain(labels)[3]]
    got = run([one], Refinement())
    same_partition(got.instances[0].numpy(), small)
    ends = made.offset - got.targets.offset[0].numpy()
    assert np.abs(ends).max() <= 2  # half a cell
    np.testing.assert_array_equal(got.targets.weight[0] > 0, made.weight > 0)


def test_a_mirrored_output_has_mirrored_labels():
    one = scene(3, 32, 40)
    mirrored = [x[..., ::-1].copy() for x in one]
    mirrored[2][1] *= -1
    a, b = run([one]), run([mirrored])
    assert a.targets.weight.any()
    np.testing.assert_allclose(b.targets.weight, a.targets.weight.flip(-1), atol=1e-5)
    np.testing.assert_allclose(b.targets.heat, a.targets.heat.flip(-1), atol=1e-5)
    np.testing.assert_allclose(
        b.targets.offset, a.targets.offset.flip(-1) * torch.tensor([1.0, -1.0]).view(1, 2, 1, 1), atol=1e-4
    )


def test_given_points_divide_crowded_components_too():
    one = plain(bar(40, 200))
    places = [(20, 15 + 25 * k) for k in range(7)]  # more than five
    lead(one[2], *places)
    one[1][0, 20, 100] = 0.9  # predicted centres give way
    points, classes = points_of(*((y, x, 5) for y, x in places), (0, 0, 0))
    got = run([one], points=points, point_classes=classes)
    assert len(got.instances.unique()) == 8
    np.testing.assert_array_equal(got.targets.weight[0], bar(40, 200) > 0)  # weight 1, no scores
    ends = got.targets.offset[0] + torch.from_numpy(np.indices((40, 200)))
    for y, x in places:
        assert got.targets.heat[0, 0, y, x] == 1
        assert ends[:, y, x].tolist() == [y, x]


def test_points_at_row_or_column_0_count():
    """Defect 7: zero is no empty place."""
    labels = np.zeros((20, 40), int)
    labels[:, :] = 5
    one = plain(labels)
    lead(one[2], (0, 0), (0, 39))
    points, classes = points_of((0, 0, 5), (0, 39, 5))
    for scope in ("component", "class"):
        got = run([one], Refinement(stride=1, scope=scope), points=points, point_classes=classes)
        assert len(got.instances.unique()) == 2
        assert got.targets.offset[0, :, 4, 3].tolist() == [-4, -3]


def test_components_without_points_are_left_to_the_network_or_go_to_the_points_of_their_class():
    labels = np.zeros((40, 100), int)
    labels[5:35, 5:40], labels[5:35, 60:95] = 5, 5
    labels[36:40, 0:4] = 5  # a crumb
    one = plain(labels)
    one[2][:] = 0
    one[1][0, 20, 80] = 0.5
    points, classes = points_of((20, 20, 5), (7, 7, 300), (2, 2, 5))  # the last two are not where their class is
    own = run([one], points=points, point_classes=classes)
    assert len(own.instances.unique()) == 3
    assert own.targets.weight[0, 20, 70] == pytest.approx(0.5, abs=1e-3)
    assert own.targets.weight[0, 20, 30] == 1
    assert own.instances[0, 38, 2] == 0
    released = run([one], Refinement(stride=1, scope="class"), points=points[:, :2], point_classes=classes[:, :2])
    np.testing.assert_array_equal(released.instances[0] > 0, labels == 5)
    assert len(released.instances.unique()) == 2
    assert released.targets.offset[0, :, 20, 80].tolist() == [0, -60]


def test_present_channels_and_components_of_the_loader():
    one = scene(5, 32, 40)
    both, swapped = run([one]), run([[one[0], one[1][[1, 0, 0]], *one[2:]]], present=torch.tensor([[300, 5, 0]]))
    np.testing.assert_array_equal(both.targets.weight, swapped.targets.weight)
    np.testing.assert_array_equal(both.targets.heat[:, [1, 0]], swapped.targets.heat[:, :2])
    assert not swapped.targets.heat[:, 2].any()
    only = run([[one[0], one[1][:1], *one[2:]]], present=torch.tensor([[5]]))
    np.testing.assert_array_equal(only.targets.weight[0], both.targets.weight[0].numpy() * (one[0] == 5))
    pieces = sum((ndimage.label(one[0] == c, EIGHT)[0] + 100 * c) * (one[0] == c) for c in IDS)
    loaded = run([one], components=torch.from_numpy(pieces)[None])
    same_partition(loaded.instances[0].numpy(), both.instances[0].numpy())


def test_windows_follow_the_components_scale():
    labels = np.zeros((40, 100), int)
    labels[5:20, 5:35] = 5  # 450 pixels; two peaks 14 apart are one in a window of 41
    one = plain(labels)
    one[1][0, 12, 12], one[1][0, 12, 26] = 0.9, 0.8
    lead(one[2], (12, 12), (12, 26))
    assert len(run([one]).instances.unique()) == 2
    scaled = Refinement(stride=1, relative_kernel=0.4)  # reaches 8 pixels
    assert len(run([one], scaled).instances.unique()) == 3
    wide = run([one], Refinement(stride=1, relative_kernel=0.4, relative_sigma=0.5))
    ratio = -np.log(float(wide.targets.heat[0, 0, 12, 5])) * 2 / 49
    assert ratio == pytest.approx(1 / (0.25 * 225), rel=0.1)


def test_many_centres_in_bounded_memory(monkeypatch):
    monkeypatch.setattr("pixelkin.cues.self_refinement.CHUNK", 500)
    s = Refinement(stride=1, kernel=3, most=10**6)
    labels = np.full((20, 24), 5)
    rng = np.random.default_rng(1)
    one = [labels, rng.uniform(0, 1, (2, 20, 24)), rng.normal(0, 2, (2, 20, 24)), plain(labels)[3]]
    one = [one[0], *(x.astype(np.float32) for x in one[1:])]
    got = run([one], s)
    assert len(same_as_oracle(got, 0, one, s)[0]) > 0
    assert len(got.instances.unique()) > 33  # over two chunks of sixteen


def test_no_gradient_and_no_change_of_the_inputs():
    one = scene(7)
    tensors = [torch.from_numpy(x)[None].clone() for x in (one[1], one[2], one[3])]
    heat, offset, logits = (x.requires_grad_() for x in tensors)
    before = heat.detach().clone()
    got = refine(heat, offset, logits, torch.from_numpy(one[0])[None], torch.tensor(IDS), settings=RELEASED)
    assert not any(target.requires_grad for target in got.targets)
    assert torch.equal(heat, before)
    half = refine(*(x.bfloat16() for x in tensors), torch.from_numpy(one[0])[None], torch.tensor(IDS))
    assert half.targets.heat.dtype == torch.float32


def test_empty_images():
    for labels in (np.zeros((8, 8), int), np.full((8, 8), 255), np.full((8, 8), 77)):
        got = run([plain(labels, fill=1.0)])
        assert not got.instances.any()
        assert [tuple(t.shape) for t in got.targets] == [(1, 2, 8, 8), (1, 2, 8, 8), (1, 8, 8), (1, 8, 8)]


def test_batches_without_any_class():
    labels, heat, offset, logits = (torch.from_numpy(x)[None] for x in plain(bar()))
    points, classes = points_of((20, 20, 5))
    for scope in ("component", "class"):
        s = Refinement(stride=1, scope=scope)
        more = {"present": torch.zeros(1, 0), "points": points, "point_classes": classes}
        got = refine(heat[:, :0], offset, logits, labels, torch.tensor(IDS), settings=s, **more)
        assert not got.targets.weight.any()


def test_errors_say_what_is_wrong():
    labels, heat, offset, logits = (torch.from_numpy(x)[None] for x in plain(bar()))
    with pytest.raises(ValueError, match="one grid"):
        refine(heat[..., :-1], offset, logits, labels, torch.tensor(IDS))
    with pytest.raises(ValueError, match="a class each"):
        refine(heat, offset, logits, labels, torch.tensor(IDS), points=torch.zeros(1, 1, 2))
    with pytest.raises(ValueError, match="above 0"):
        Refinement(stride=0)
    with pytest.raises(ValueError, match="scope"):
        Refinement(scope="image")
