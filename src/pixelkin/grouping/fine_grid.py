"""From a field's coarse grid to the image's pixels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatMap = npt.NDArray[np.float32]


class Axis(NamedTuple):
    """One axis of an image beside that of its field.

    Attributes:
        starts: first image pixel of each field pixel.
        cells: the field pixel that the centre of each image pixel lies in.
        places: where the centre of each image pixel lies on the field's grid, pixel centres at whole numbers.
    """

    starts: npt.NDArray[np.int64]
    cells: npt.NDArray[np.int64]
    places: npt.NDArray[np.float64]

    @classmethod
    def of(cls, count: int, side: int, stride: float) -> Axis:
        """The axis of ``count`` field pixels over ``side`` image pixels.

        Raises:
            ValueError: at this stride they would be too many or too few.
        """
        if not (count - 1) * stride < side < (count + 1) * stride:
            raise ValueError(f"{count} field pixels of stride {stride:g} do not cover {side} image pixels")
        starts = np.minimum(np.ceil(np.arange(count) * stride - 0.5).astype(np.int64), side - 1)
        pixels = np.arange(side)
        cells = np.searchsorted(starts, pixels, side="right") - 1
        return cls(starts, cells, np.clip((pixels + 0.5) / stride - 0.5, 0, count - 1))

    def span(self, part: slice) -> slice:
        """The image pixels of a range of field pixels and of one more on both sides."""
        first, last = max(part.start - 1, 0), part.stop + 1
        return slice(int(self.starts[first]), int(self.starts[last]) if last < len(self.starts) else len(self.cells))


def interpolate(values: FloatMap, ys: npt.NDArray[np.float64], xs: npt.NDArray[np.float64]) -> FloatMap:
    """(len(ys), len(xs)) bilinear values at places within the grid."""
    top, left = (
        np.minimum(np.floor(at).astype(np.int64), n - 2 if n > 1 else 0)
        for at, n in ((ys, values.shape[0]), (xs, values.shape[1]))
    )
    fy, fx = (ys - top).astype(np.float32)[:, None], (xs - left).astype(np.float32)[None, :]
    below, right = (np.minimum(at + 1, n - 1) for at, n in ((top, values.shape[0]), (left, values.shape[1])))
    band = values[top] * (1 - fy) + values[below] * fy
    return np.asarray(band[:, left] * (1 - fx) + band[:, right] * fx)
