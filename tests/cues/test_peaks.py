from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelkin.cues.peaks import average_views, confident_peaks, find_peaks


def bumps(size, *peaks, width=6.0):
    """A map with a bump (y, x, height) each."""
    y, x = np.indices(size)
    made = np.zeros(size)
    for py, px, height in peaks:
        made = np.maximum(made, height * np.exp(-((y - py) ** 2 + (x - px) ** 2) / (2 * width**2)))
    return made


def slow_peaks(values, smoothing, kernel, threshold):
    """(y, x, confidence) of one class, pixel by pixel."""
    height, width = values.shape

    def window(of, y, x, side):
        r = side // 2
        return of[max(y - r, 0) : y + r + 1, max(x - r, 0) : x + r + 1]

    smooth = np.array([[window(values, y, x, smoothing).mean() for x in range(width)] for y in range(height)])
    left = {
        (y, x)
        for y in range(height)
        for x in range(width)
        if smooth[y, x] >= max(threshold, 1e-6) and smooth[y, x] >= window(smooth, y, x, kernel).max() - 1e-6
    }
    found = []
    while left:
        group, todo = [], [left.pop()]
        while todo:
            y, x = todo.pop()
            group.append((y, x))
            near = {p for p in left if max(abs(p[0] - y), abs(p[1] - x)) <= kernel // 2}
            left -= near
            todo += near
        my, mx = np.mean(group, axis=0)
        found.append(min(group, key=lambda p: (round((p[0] - my) ** 2 + (p[1] - mx) ** 2, 6), p)))
    found.sort(key=lambda p: (-smooth[p], p))
    return np.array([(*p, smooth[p]) for p in found]).reshape(-1, 3)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 10**6),
    st.tuples(st.integers(1, 14), st.integers(1, 14)),
    st.sampled_from([1, 3]),
    st.sampled_from([3, 5, 9]),
    st.integers(1, 6),
    st.sampled_from([0.0, 0.1000317, 0.5000317]),  # no mean of levels: rounding must not decide
    st.sampled_from([1, 2, 5, 1000]),
)
def test_as_pixel_by_pixel(seed, size, smoothing, kernel, top, threshold, levels):
    values = np.random.default_rng(seed).integers(0, levels + 1, size) / levels  # few levels: many ties
    found = find_peaks(values[None], [7], size, smoothing=smoothing, kernel=kernel, top=top, threshold=threshold)
    every = slow_peaks(values, smoothing, kernel, threshold)
    wanted = every[:top]
    assert len(found) == len(wanted)
    assert np.allclose(np.sort(found[:, 3]), np.sort(wanted[:, 2]), atol=1e-9)
    places = {tuple(peak[:2]): peak[2] for peak in every}
    assert all(places[y, x] == pytest.approx(confidence) for y, x, _, confidence in found)
    if len(np.unique(np.round(every[:, 2], 9))) == len(every):  # else rounding decides which comes first
        assert np.allclose(found[:, [0, 1, 3]], wanted, atol=1e-9)


def test_classes_ascend_and_the_surest_comes_first():
    size = (60, 80)
    cat = bumps(size, (20, 20, 0.8), (20, 60, 1.0), (45, 40, 0.9))
    dog = bumps(size, (30, 10, 1.0))
    found = find_peaks(np.stack([cat, dog]), [9, 4], size, smoothing=1)
    assert found.dtype == np.float64
    assert found.tolist() == [[30, 10, 4, 1.0], [20, 60, 9, 1.0], [45, 40, 9, 0.9], [20, 20, 9, 0.8]]
    other = find_peaks(np.stack([dog, cat]), np.array([4, 9]), size, smoothing=1)
    assert np.array_equal(other, found)


def test_the_top_are_chosen_by_confidence_not_by_place():
    peaks = [(10, 10, 0.5), (10, 40, 0.6), (10, 70, 0.7), (50, 10, 1.0), (50, 40, 0.9), (50, 70, 0.8)]
    found = find_peaks(bumps((60, 80), *peaks)[None], [1], (60, 80), smoothing=1, top=3)
    assert found[:, :2].tolist() == [[50, 10], [50, 40], [50, 70]]


@pytest.mark.parametrize("shape", ["square", "ring", "stripe", "all", "rounded"])
def test_a_flat_top_is_one_peak_on_it(shape):
    size = (90, 120)
    flat = np.zeros(size, np.float32)
    if shape == "square":
        flat[20:70, 30:80] = 0.8
    elif shape == "ring":
        flat[20:70, 30:80] = 0.8
        flat[25:65, 35:75] = 0
    elif shape == "stripe":
        flat[:, 50:53] = 1
    elif shape == "all":
        flat[:] = 1
    else:  # as interpolation leaves it
        flat[20:70, 30:80] = 0.8
        flat *= 1 + np.random.default_rng(0).integers(-2, 3, size).astype(np.float32) * 1.2e-7
    (peak,) = find_peaks(flat[None], [3], size)
    y, x, name, confidence = peak
    assert name == 3
    assert flat[int(y), int(x)] == pytest.approx(flat.max(), abs=1e-5)
    assert confidence == pytest.approx(flat.max(), abs=1e-5)
    if shape in ("square", "rounded"):
        assert (abs(y - 44.5), abs(x - 54.5)) == (0.5, 0.5)


def test_equal_peaks_in_reach_are_one_and_beyond_it_two():
    for apart, count in ((7, 1), (8, 2)):
        spikes = np.zeros((40, 40))
        spikes[20, 10] = spikes[20, 10 + apart] = 1
        assert len(find_peaks(spikes[None], [1], (40, 40), smoothing=1)) == count


def test_a_lower_peak_in_reach_is_none():
    for apart, count in ((7, 1), (8, 2)):
        spikes = np.zeros((40, 40))
        spikes[20, 10], spikes[20 + apart, 10] = 1, 0.9
        assert len(find_peaks(spikes[None], [1], (40, 40), smoothing=1)) == count


@pytest.mark.parametrize("corner", [(0, 0), (0, 39), (29, 0), (29, 39), (0, 17)])
def test_peaks_on_the_edge_and_at_coordinate_zero_stay_and_lose_nothing(corner):
    inside = find_peaks(bumps((30, 40), (15, 20, 1.0))[None], [1], (30, 40))
    (found,) = find_peaks(bumps((30, 40), (*corner, 1.0))[None], [1], (30, 40))
    assert tuple(found[:2]) == corner
    assert found[3] > 0.95 * inside[0, 3]  # pixels beyond the image are no zeros in the mean


def test_confidence_is_the_smoothed_activation():
    spike = np.zeros((20, 20))
    spike[10, 10] = 0.9
    (peak,) = find_peaks(spike[None], [1], (20, 20), threshold=0.05)
    assert peak[3] == pytest.approx(0.1)
    assert tuple(peak[:2]) == (10, 10)
    assert not len(find_peaks(spike[None], [1], (20, 20), threshold=0.11))


def test_thresholds():
    size = (40, 90)
    found = find_peaks(bumps(size, (20, 15, 0.09), (20, 45, 0.65), (20, 75, 0.95))[None], [2], size, smoothing=1)
    assert found[:, 3].tolist() == [0.95, 0.65]
    assert confident_peaks(found)[:, 1].tolist() == [75]
    assert not len(confident_peaks(found, 0.95))  # above, not at
    assert len(confident_peaks(found, 0.6)) == 2


def test_nothing_active_is_no_peak_even_without_a_threshold():
    assert find_peaks(np.zeros((2, 8, 8)), [1, 2], (8, 8), threshold=0).shape == (0, 4)
    assert find_peaks(np.zeros((0, 8, 8)), [], (8, 8)).shape == (0, 4)


def test_a_coarse_grid_gives_image_pixels_and_a_kernel_of_the_same_reach():
    size = (80, 120)
    cells = np.zeros((20, 30))  # every fourth pixel
    cells[5, 7], cells[5, 8], cells[5, 9] = 0.8, 0.1, 0.9  # 8 pixels apart
    cells[15, 20] = 1.0
    found = find_peaks(cells[None], [6], size)  # 15 pixels are 3 cells, 3 pixels one: no smoothing
    assert found.tolist() == [[61.5, 81.5, 6, 1.0], [21.5, 37.5, 6, 0.9], [21.5, 29.5, 6, 0.8]]
    assert len(find_peaks(cells[None], [6], size, kernel=19)) == 2  # 5 cells reach two cells far
    fine = np.zeros((2, 2))
    fine[0, 0] = 1
    assert find_peaks(fine[None], [6], (1, 1), smoothing=1).tolist() == [[0, 0, 6, 1.0]]


def test_a_coarse_grid_finds_the_peaks_of_the_fine_one():
    size, places = (120, 160), [(30, 40, 1.0), (34, 70, 0.9), (90, 120, 0.8)]
    fine = bumps(size, *places, width=8)
    coarse = fine.reshape(30, 4, 40, 4).mean((1, 3))
    a, b = (find_peaks(each[None], [1], size) for each in (fine, coarse))
    assert len(a) == len(b) == 3
    assert np.abs(a[:, :2] - b[:, :2]).max() <= 2


def test_the_mirror_image_has_the_mirrored_peaks():
    values = np.random.default_rng(1).random((2, 40, 60))
    found = find_peaks(values, [1, 2], (40, 60))
    mirrored = find_peaks(values[..., ::-1], [1, 2], (40, 60))
    mirrored[:, 1] = 59 - mirrored[:, 1]
    assert np.allclose(found[np.lexsort(found.T)], mirrored[np.lexsort(mirrored.T)])


def test_each_view_counts_the_same_and_disagreement_lowers_the_top():
    one = np.array([[[4.0, 0.0, 2.0]], [[0.0, 0.0, 0.0]]])
    two = np.array([[[0.0, 0.0, 0.5]], [[0.0, 8.0, 0.0]]])
    found = average_views([one, two])
    assert found.dtype == np.float32
    assert np.allclose(found, [[[0.5, 0, 0.75]], [[0, 0.5, 0]]], atol=1e-4)
    assert len(confident_peaks(find_peaks(found, [1, 2], (1, 3), smoothing=1))) == 1
    assert np.allclose(average_views([one])[0], one[0] / 4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ids": [1]}, "for 1 classes"),
        ({"activation": np.zeros((4, 4))}, "give"),
        ({"ids": [1, 0]}, "background"),
        ({"ids": [1, 255]}, "unknown"),
        ({"size": (0, 4)}, "empty"),
        ({"smoothing": 2}, "odd"),
        ({"kernel": 14}, "odd"),
        ({"kernel": 1}, "at least 1 and 3"),
        ({"top": 0}, "at least 1 peak"),
        ({"activation": np.full((2, 4, 4), np.nan)}, "finite"),
    ],
)
def test_errors_in_one_line(change, said):
    given = {"activation": np.zeros((2, 4, 4)), "ids": [1, 2], "size": (4, 4)} | change
    with pytest.raises(ValueError, match=said):
        find_peaks(**given)
    with pytest.raises(ValueError, match="at least one"):
        average_views([])
    with pytest.raises(ValueError, match="one shape"):
        average_views([np.zeros((1, 2, 2)), np.zeros((1, 2, 3))])
