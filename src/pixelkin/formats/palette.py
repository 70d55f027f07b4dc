"""PNG with the colours of PASCAL VOC, so that ids can be told apart by eye."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelkin.data import ImageError
from pixelkin.formats.files import whole


def voc_palette() -> npt.NDArray[np.uint8]:
    """(256, 3) RGB: the bits of the id, dealt in turn to red, green and blue from their highest bit down."""
    ids = np.arange(256)
    colors = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            if 3 * bit + channel < 8:
                colors[:, channel] |= (((ids >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colors


def write_palette_png(path: Path, ids: npt.NDArray[Any]) -> None:
    """Write an (H, W) map of ids 0..255 as a palette PNG.

    Raises:
        ImageError: ids that 8 bits cannot hold.
    """
    if ids.ndim != 2 or ids.min(initial=0) < 0 or ids.max(initial=0) > 255:
        raise ImageError(f"{path}: {ids.dtype} of shape {ids.shape}: a palette PNG holds (H, W) ids 0..255")
    image = Image.fromarray(ids.astype(np.uint8))
    image.putpalette(voc_palette().ravel().tolist())
    with whole(path) as beside:
        image.save(beside, format="PNG")
