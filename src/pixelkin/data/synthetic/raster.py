"""Drawing textured outlines: soft colour, exact ownership of pixels, depth. Pixel centres lie at whole numbers."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from pixelkin.data.synthetic.shapes import Contour

Array = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]

_SUB = 4  # sub-samples a pixel and axis
_BITS = 4  # fractional bits of cv2's fixed-point corners


class Patch(NamedTuple):
    """How much of each pixel an outline covers: (h, w) in 0..1, its first pixel at (y, x) of the image."""

    alpha: Array
    y: int
    x: int

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """(h, w): pixels of which at least half is covered."""
        return self.alpha >= 0.5


def coverage(contour: Contour, size: tuple[int, int] | None = None) -> Patch | None:
    """Rasterise a closed outline of (x, y) pixels.

    Args:
        contour: (n, 2) corners.
        size: (height, width) to clip to; None keeps everything, with negative coordinates too.

    Returns:
        The patch that holds it, or None when nothing lies inside the image.
    """
    if len(contour) < 3:
        return None
    x0, y0 = np.floor(contour.min(axis=0) - 0.5).astype(int).tolist()
    x1, y1 = (np.ceil(contour.max(axis=0) + 0.5).astype(int) + 1).tolist()
    if size is None:
        return Patch(_alpha(contour, x0, y0, x1, y1), y0, x0)
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, size[1]), min(y1, size[0])
    if right <= left or bottom <= top:
        return None
    far = max(size)
    if min(x0, y0) < -far or x1 > size[1] + far or y1 > size[0] + far:
        return Patch(_alpha(contour, left, top, right, bottom), top, left)
    # cv2 rounds an edge a little differently where it clips it, so draw the whole outline while that is cheap
    alpha = _alpha(contour, x0, y0, x1, y1)[top - y0 : bottom - y0, left - x0 : right - x0]
    return Patch(alpha, top, left)


def _alpha(contour: Contour, x0: int, y0: int, x1: int, y1: int) -> Array:
    """Covered share of the pixels from (x0, y0) to (x1, y1), exclusive."""
    fine = np.zeros(((y1 - y0) * _SUB, (x1 - x0) * _SUB), dtype=np.uint8)
    corners = ((contour - [x0, y0] + 0.5) * _SUB - 0.5) * (1 << _BITS)
    cv2.fillPoly(fine, [np.rint(corners).astype(np.int32)], 255, cv2.LINE_8, _BITS)
    share = cv2.resize(fine, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
    return np.asarray(share * np.float32(1 / 255), dtype=np.float32)


def sample(texture: Array, texels_from_pixels: Matrix, patch: Patch) -> Array:
    """The texture seen through a patch: (h, w, 3), bilinear, reflected beyond its edge."""
    shift = np.array([[1, 0, patch.x], [0, 1, patch.y], [0, 0, 1.0]])
    matrix = texels_from_pixels @ shift
    h, w = patch.alpha.shape
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    if matrix[2, 0] == 0 and matrix[2, 1] == 0:
        seen = cv2.warpAffine(
            texture, matrix[:2] / matrix[2, 2], (w, h), flags=flags, borderMode=cv2.BORDER_REFLECT_101
        )
    else:
        seen = cv2.warpPerspective(texture, matrix, (w, h), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(seen)


class Skin(NamedTuple):
    """A texture (h, w, 3) and the (3, 3) matrix from object units (x, y, 1) to texels (x, y, 1)."""

    texture: Array
    to_texels: Matrix

    def seen(self, units_from_pixels: Matrix, patch: Patch) -> Array:
        """The texture through a patch of the image, whose pixels map to object units: (h, w, 3)."""
        return sample(self.texture, self.to_texels @ units_from_pixels, patch)


class Canvas:
    """A picture in the making: ``image`` (H, W, 3) in 0..1, ``owner`` (H, W) the number on top, ``depth`` (H, W)."""

    def __init__(self, image: Array) -> None:
        self.image = image
        self.size = (image.shape[0], image.shape[1])
        self.owner = np.zeros(self.size, dtype=np.int32)
        self.depth = np.full(self.size, np.inf)

    def paint(self, patch: Patch, colour: Array, number: int, nearness: npt.NDArray[np.float64] | None = None) -> None:
        """Lay a coloured patch over the picture; pixels at least half covered become its own.

        Args:
            patch: where.
            colour: (h, w, 3) or (3,).
            number: the owner's number.
            nearness: g of 1 / depth = g . (x, y, 1) in image pixels, for a depth test; None paints over everything.
        """
        h, w = patch.alpha.shape
        at = (slice(patch.y, patch.y + h), slice(patch.x, patch.x + w))
        alpha, mine = patch.alpha, patch.mask
        if nearness is not None:
            ys, xs = np.arange(patch.y, patch.y + h)[:, None], np.arange(patch.x, patch.x + w)
            inverse = nearness[0] * xs + nearness[1] * ys + nearness[2]
            depth = 1 / np.maximum(inverse, 1e-9)
            front = depth <= self.depth[at] * (1 + 1e-6)  # at equal depth the later one shows
            alpha, mine = alpha * front, mine & front
            self.depth[at][mine] = depth[mine]
        self.image[at] += alpha[..., None] * (colour - self.image[at])
        self.owner[at][mine] = number
