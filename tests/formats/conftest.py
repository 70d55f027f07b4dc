"""Small data sets on disk for the tests of the formats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_up import save


@pytest.fixture
def picture(tmp_path: Path) -> Callable[..., Path]:
    """Writes an image below the test's folder; random pixels, or the array given."""

    def write(name: str, array: np.ndarray | None = None, size: tuple[int, int] = (12, 16)) -> Path:
        if array is None:
            array = np.random.default_rng(len(name)).integers(0, 256, (*size, 3), dtype=np.uint8)
        return save(tmp_path / name, array)

    return write
