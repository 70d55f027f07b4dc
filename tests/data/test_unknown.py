from __future__ import annotations

import numpy as np
import pytest

from pixelkin.data import Instances, Sample
from pixelkin.data.unknown import unknown_region

SIZE = (12, 16)


def area(rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[rows, columns] = True
    return mask


def sample(**labels) -> Sample:
    return Sample("a", np.zeros((*SIZE, 3), np.uint8), **labels)


def test_labels_stand_above_doubt_and_doubt_above_background():
    sure, doubtful, neither = (area(slice(0, 4), slice(x, x + 4)) for x in (0, 2, 10))
    instances = Instances.from_masks(np.stack([sure, doubtful, neither]))
    taken, doubted = np.array([True, False, False]), np.array([False, True, False])
    semantic = np.zeros(SIZE, np.uint8)
    semantic[6:8], semantic[8:10, :4], semantic[:2, :4] = 255, 7, 255
    ignore = area(slice(2, 3), slice(0, 16))
    found = unknown_region(sample(semantic=semantic, ignore=ignore), instances, taken, doubted)
    assert np.array_equal(found, (doubtful | (semantic > 0) | ignore) & ~sure)
    assert np.array_equal(unknown_region(sample(), instances, taken, doubted), doubtful & ~sure)


@pytest.mark.parametrize("labels", [{}, {"semantic": np.zeros(SIZE, np.uint8)}])
def test_all_is_known_where_nobody_doubts(labels):
    nothing = np.zeros(0, bool)
    assert not unknown_region(sample(**labels), Instances.empty(SIZE), nothing, nothing).any()
