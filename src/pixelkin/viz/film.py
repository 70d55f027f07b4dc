"""Films: a clip with its instances painted on every frame, as an mp4."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelkin.data import Instances
from pixelkin.viz.colors import RGB
from pixelkin.viz.overlay import overlay

LONGEST_SIDE = 1920
"""Larger frames are scaled down to it."""

Frame = tuple[npt.NDArray[np.uint8], Instances | None]
"""(H, W, 3) uint8 RGB, and its instances if it has been labelled."""


def write_film(path: Path | str, frames: Iterable[Frame], *, fps: float = 24.0) -> int:
    """Write the frames of a clip as an mp4 with their instances painted on; one frame in memory at a time.

    A colour belongs to an id, so a track keeps its own; alternatives to surer instances are left out. The first frame
    sets the size, later ones of another size are fitted into it. The codec is MPEG-4 part 2, which every build of
    OpenCV has and most players read; browsers do not. The file appears whole or not at all.

    Args:
        path: the mp4.
        frames: images and instances in order; read once.
        fps: frames a second.

    Returns:
        How many frames were written; with none there is no file.

    Raises:
        OSError: the file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}.{os.getpid()}.part.mp4")  # the ending says what is written
    writer: Any = None
    count = 0
    try:
        for image, instances in frames:
            picture = image if instances is None else overlay(image, instances[~instances.alternative])
            if writer is None:
                size = _film_size(picture.shape[:2])
                writer = _open(beside, size, fps)
            writer.write(np.ascontiguousarray(_fitted(picture, size)[..., ::-1]))
            count += 1
        if writer is not None:
            writer.release()
            if not beside.is_file() or not beside.stat().st_size:  # it fails without a word
                raise OSError(f"{path}: nothing could be written: is the disk full?")
            beside.replace(path)
    finally:
        if writer is not None:
            writer.release()
        beside.unlink(missing_ok=True)
    return count


def _film_size(size: tuple[int, ...]) -> tuple[int, int]:
    """(height, width) of a film of frames of a size: not too large, and even, as the codec halves its colours."""
    scale = min(1.0, LONGEST_SIDE / max(size))
    height, width = (max(2, 2 * round(side * scale / 2)) for side in size)
    return height, width


def _fitted(picture: RGB, size: tuple[int, int]) -> RGB:
    """The picture scaled into a frame of (height, width), black around it where its shape is another one."""
    if picture.shape[:2] == size:
        return picture
    height, width = picture.shape[:2]
    scale = min(size[0] / height, size[1] / width)
    inner = [min(side, max(1, round(own * scale))) for side, own in zip(size, (height, width), strict=True)]
    if abs(inner[0] - size[0]) <= 1 and abs(inner[1] - size[1]) <= 1:  # odd sides
        inner = list(size)
    y, x = ((side - part) // 2 for side, part in zip(size, inner, strict=True))
    out = np.zeros((*size, 3), dtype=np.uint8)
    scaled = Image.fromarray(np.ascontiguousarray(picture)).resize((inner[1], inner[0]), Image.Resampling.BILINEAR)
    out[y : y + inner[0], x : x + inner[1]] = np.asarray(scaled)
    return out


def _open(path: Path, size: tuple[int, int], fps: float) -> Any:
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), fps, (size[1], size[0]))
    if not writer.isOpened():
        raise OSError(f"{path.parent}: no mp4 can be written there by this build of OpenCV")
    return writer
