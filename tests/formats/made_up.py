"""What the tests of the formats share: masks with holes, pieces and overlaps, and image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from pixelkin.data import Instances


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


sizes = st.tuples(st.integers(1, 14), st.integers(1, 14))


@st.composite
def masks(draw: st.DrawFn, size: tuple[int, int] | None = None) -> np.ndarray:
    """One (H, W) bool mask of any kind, none and all of the pixels included."""
    shape = size or draw(sizes)
    kind = draw(st.sampled_from(["noise", "ring", "blocks"]))
    if kind == "noise":
        return draw(hnp.arrays(bool, shape))
    mask = np.zeros(shape, dtype=bool)
    for _ in range(draw(st.integers(1, 3))):
        y0, x0 = draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))
        y1, x1 = draw(st.integers(y0 + 1, shape[0])), draw(st.integers(x0 + 1, shape[1]))
        mask[y0:y1, x0:x1] = True
        if kind == "ring":
            mask[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1] = False
    return mask


@st.composite
def instances(draw: st.DrawFn, *, overlaps: bool = True, crowds: bool = True, labels: int = 3) -> Instances:
    """Instances of one image with every column filled."""
    size = draw(sizes)
    n = draw(st.integers(0, 4))
    if overlaps:
        stack = np.array([draw(masks(size)) for _ in range(n)]).reshape(n, *size)
    else:
        owner = draw(hnp.arrays(np.int64, size, elements=st.integers(0, n)))
        stack = np.array([owner == i + 1 for i in range(n)]).reshape(n, *size)
    return Instances.from_masks(
        stack,
        labels=draw(hnp.arrays(np.int64, n, elements=st.integers(1, labels))),
        scores=draw(hnp.arrays(np.float32, n, elements=st.floats(0, 1, width=32))),
        sources=draw(st.lists(st.sampled_from(["", "siseg/crowding:semantic", "π"]), min_size=n, max_size=n)),
        crowd=draw(hnp.arrays(bool, n)) if crowds else None,
        ids=draw(st.lists(st.integers(1, 250), min_size=n, max_size=n, unique=True)),
        tracks=draw(st.none() | st.lists(st.integers(0, 250), min_size=n, max_size=n)),
    )
