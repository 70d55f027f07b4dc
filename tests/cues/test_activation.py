from __future__ import annotations

import numpy as np
import pytest

from pixelkin.cues.activation import confident_regions, normalise, threshold_semantic

IMAGE = np.zeros((1, 6, 3), np.uint8)


def test_each_class_is_divided_by_its_peak_plus_a_little():
    cam = np.array([[[0.0, 2.0], [1.0, 0.5]], [[0.0, 0.0], [0.0, 1e-5]], [[0, 0], [0, 0]]])
    found = normalise(cam)
    assert found.dtype == np.float32
    assert np.allclose(found[0], cam[0] / (2 + 1e-5))
    assert np.allclose(found[1], [[0, 0], [0, 0.5]])
    assert not found[2].any()
    assert normalise(np.zeros((0, 3, 4))).shape == (0, 3, 4)


def test_sure_objects_sure_background_and_the_rest_unknown():
    cam = np.array([[[0.9, 0.31, 0.30, 0.06, 0.05, 0.0]], [[0.95, 0.1, 0.2, 0.1, 0.01, 0.9]]])
    assert confident_regions(cam, [3, 17], IMAGE).tolist() == [[17, 3, 255, 255, 0, 17]]
    assert confident_regions(cam, [3, 17], IMAGE, foreground=0.1, background=0.1).tolist() == [[17, 3, 3, 0, 0, 17]]


def test_both_labellings_are_refined():
    seen = []

    def swap(labels, image, classes):
        seen.append((labels.copy(), classes))
        return np.stack([labels[0][:, ::-1], np.zeros_like(labels[1])])

    cam = np.array([[[0.9, 0.2, 0.1, 0.06, 0.05, 0.0]]])
    found = confident_regions(cam, [4], IMAGE, refine=swap)
    ((labels, classes),) = seen
    assert classes == 2
    assert labels.tolist() == [[[1, 0, 0, 0, 0, 0]], [[1, 1, 1, 1, 0, 0]]]
    assert found.tolist() == [[0, 0, 0, 0, 0, 4]]  # sure by the first, though background by the second


def test_nothing_is_background_where_a_class_activates_nowhere():
    cam = np.array([[[0.9, 0.2, 0.0, 0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0, 0.05, 0.0, 0.0]]])
    assert confident_regions(cam, [1, 2], IMAGE).tolist() == [[1] + [255] * 5]
    assert confident_regions(cam[1:], [2], IMAGE).tolist() == [[255] * 6]
    assert confident_regions(cam[:1], [1], IMAGE).tolist() == [[1, 255, 0, 0, 0, 0]]


def test_no_class_is_all_background():
    found = confident_regions(np.zeros((0, 1, 6)), [], IMAGE, refine=lambda *_: pytest.fail("nothing to refine"))
    assert found.tolist() == [[0] * 6]
    assert threshold_semantic(np.zeros((0, 1, 6)), [], 0.5).tolist() == [[0] * 6]


def test_a_thousand_classes_and_ids_beyond_a_byte():
    cam = np.zeros((1000, 1, 6), np.float32)
    cam[:, 0, 5] = np.linspace(0.1, 0.9, 1000)
    ids = [*range(1, 255), *range(256, 1002)]
    found = confident_regions(cam, ids, IMAGE)
    assert found.dtype == np.int32
    assert found.tolist() == [[0, 0, 0, 0, 0, 1001]]
    assert confident_regions(cam[:254], ids[:254], IMAGE).dtype == np.uint8


def test_threshold_against_the_classes():
    cam = np.array([[[0.5, 0.15, 0.1]], [[0.4, 0.16, 0.0]]])
    assert threshold_semantic(cam, [7, 9], 0.15).tolist() == [[7, 9, 0]]
    assert threshold_semantic(cam, np.array([7, 300]), 0.15).dtype == np.int32


@pytest.mark.parametrize(
    ("cam", "ids", "settings", "said"),
    [
        (np.zeros((2, 1, 6)), [1], {}, "for 1 classes"),
        (np.zeros((1, 6)), [1], {}, "for 1 classes"),
        (np.zeros((1, 1, 6)), [0], {}, "background"),
        (np.zeros((1, 1, 6)), [255], {}, "unknown"),
        (np.zeros((1, 1, 5)), [1], {}, "resize"),
        (np.zeros((1, 1, 6)), [1], {"foreground": 0.1, "background": 0.2}, "swap"),
    ],
)
def test_errors_in_one_line(cam, ids, settings, said):
    with pytest.raises(ValueError, match=said):
        confident_regions(cam, ids, IMAGE, **settings)
