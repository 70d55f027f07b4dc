"""Video files of numbered frames: a square moves over noise, and a row of black and white cells spells the number."""

from __future__ import annotations

from pathlib import Path

import numpy as np

CELL = 16
BITS = 7


def picture(number: int, size: tuple[int, int] = (96, 128)) -> np.ndarray:
    """Frame ``number``: (H, W, 3) uint8 RGB, the square red, the cells at the top."""
    out = np.random.default_rng(1).integers(60, 100, (*size, 3), dtype=np.uint8)
    y, x = place(number, size)
    out[y : y + 24, x : x + 24] = (230, 30, 30)
    for bit in range(BITS):
        out[:CELL, bit * CELL : (bit + 1) * CELL] = 255 * (number >> bit & 1)
    return out


def place(number: int, size: tuple[int, int] = (96, 128)) -> tuple[int, int]:
    """(y, x) of the square's upper left corner."""
    return 40, 4 + 3 * number % (size[1] - 32)


def mask(number: int, size: tuple[int, int] = (96, 128)) -> np.ndarray:
    """(H, W) uint8 class ids: the square is 1."""
    out = np.zeros(size, dtype=np.uint8)
    y, x = place(number, size)
    out[y : y + 24, x : x + 24] = 1
    return out


def number_of(image: np.ndarray) -> int:
    """The number that a frame spells, after lossy compression."""
    cells = [image[4 : CELL - 4, bit * CELL + 4 : (bit + 1) * CELL - 4].mean() > 128 for bit in range(BITS)]
    return sum(int(cell) << bit for bit, cell in enumerate(cells))


def write_video(
    path: Path, count: int = 40, *, size: tuple[int, int] = (96, 128), code: str = "mp4v", fps: float = 20
) -> Path:
    """A video with OpenCV's own encoders."""
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*code), fps, size[::-1])
    assert writer.isOpened()
    for number in range(count):
        writer.write(np.ascontiguousarray(picture(number, size)[..., ::-1]))
    writer.release()
    return path


def rotated(path: Path, degrees: int) -> Path:
    """Write a turn into the matrix of an mp4's track header, as phones do."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version 0: 40 bytes come before the matrix
    one = 0x10000
    turns = {90: (0, one, -one, 0), 180: (-one, 0, 0, -one), 270: (0, -one, one, 0)}
    a, b, c, d = turns[degrees]
    for i, value in zip((0, 1, 3, 4), (a, b, c, d), strict=True):
        data[at + 4 * i : at + 4 * i + 4] = value.to_bytes(4, "big", signed=True)
    path.write_bytes(data)
    return path
