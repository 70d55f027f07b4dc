"""COCO run-length codes in NumPy: the same bytes as pycocotools, any number of masks, and no trust in what a file says.

A mask is read in column order as runs of alternately outside and inside pixels, beginning outside. The compressed form
writes each run from the third on as the difference to the run two before, in groups of five bits, lowest first, as the
characters ``0`` to ``o``; bit 6 says that another group follows.
"""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

Runs = npt.NDArray[np.int64]
"""Lengths of alternately outside and inside runs in column order, beginning outside."""

_GROUPS = 7  # 35 bits hold any difference of 32-bit runs


class RLE(TypedDict):
    """A COCO run-length code: ``size`` is (height, width), ``counts`` the compressed runs in column order."""

    size: list[int]
    counts: bytes


def runs_of(rle: RLE) -> Runs:
    """The run lengths of a code.

    Raises:
        ValueError: characters that are no code, or runs that do not fill the image.
    """
    size, text = rle["size"], rle["counts"]
    codes = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero((codes & 0x20) == 0)
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or not len(ends) or ends[-1] != len(codes) - 1:
        raise ValueError("a mask's run-length code is broken: write the annotation again")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _GROUPS:
        raise ValueError("a mask's run-length code is broken: write the annotation again")
    shift = 5 * (np.arange(len(codes)) - np.repeat(starts, lengths))
    runs = np.add.reduceat((codes & 0x1F) << shift, starts)
    runs -= ((codes[ends] & 0x10) != 0).astype(np.int64) << (5 * lengths)  # two's complement
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    if runs.min() < 0 or runs.sum() != size[0] * size[1]:
        raise ValueError(f"a mask's runs do not fill its size {tuple(size)} (height, width): correct the size")
    return runs


def code_of(runs: npt.ArrayLike, size: tuple[int, int]) -> RLE:
    """The code of run lengths that fill an image of (height, width).

    Raises:
        ValueError: negative runs, or runs that do not fill the image.
    """
    values = np.array(runs, dtype=np.int64)
    if values.ndim != 1 or (values < 0).any() or values.sum() != size[0] * size[1]:
        raise ValueError(f"a mask's runs do not fill its size {tuple(size)} (height, width): correct the size")
    values[3:] -= values[1:-2].copy()
    bits = values[:, None] >> (5 * np.arange(_GROUPS))
    groups, rest = bits & 0x1F, bits >> 5
    more = rest != np.where(groups & 0x10, -1, 0)  # stop where the sign of this group tells all that is left
    written = np.concatenate(
        [np.ones((len(values), 1), dtype=bool), np.logical_and.accumulate(more, axis=1)[:, :-1]], 1
    )
    text = (groups + 0x20 * more + 48).astype(np.uint8)[written]
    return RLE(size=[int(size[0]), int(size[1])], counts=text.tobytes())


def normal(rle: Any) -> RLE:
    """Any form a COCO file may hold, compressed as bytes or text or a list of run lengths, as an :class:`RLE`."""
    counts, size = rle["counts"], [int(s) for s in rle["size"]]
    if isinstance(counts, bytes):
        return RLE(size=size, counts=counts)
    if isinstance(counts, str):
        return RLE(size=size, counts=counts.encode("ascii", "replace"))
    return code_of(counts, (size[0], size[1]))


def encode_mask(mask: npt.NDArray[Any]) -> RLE:
    """Encode one dense (H, W) mask; anything non-zero is inside."""
    array = np.asarray(mask)
    if array.ndim != 2 or not array.size:
        raise ValueError(f"a mask must be (H, W) with pixels, got shape {array.shape}")
    flat = (array != 0).ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    first = [0, 0] if flat[0] else [0]  # a mask that begins inside begins with an empty run outside
    return code_of(np.diff(np.concatenate([first, edges, [flat.size]])), (array.shape[0], array.shape[1]))


def encode_label_map(label_map: npt.NDArray[Any]) -> dict[int, RLE]:
    """Every value of an (H, W) integer map with its code, ascending; one pass however many there are."""
    flat = label_map.ravel(order="F")
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    ends = np.append(starts[1:], flat.size)
    values, which, number = np.unique(flat[starts], return_inverse=True, return_counts=True)
    order = np.argsort(which, kind="stable")
    codes: dict[int, RLE] = {}
    for value, runs in zip(values, np.split(order, np.cumsum(number)[:-1]), strict=True):
        edges = np.stack([starts[runs], ends[runs]], axis=1).ravel()
        counts = np.diff(edges, prepend=0, append=flat.size)
        codes[int(value)] = code_of(
            counts[:-1] if counts[-1] == 0 else counts, (label_map.shape[0], label_map.shape[1])
        )
    return codes


def decode_mask(rle: RLE) -> npt.NDArray[np.bool_]:
    """Decode one run-length code to a dense (H, W) bool mask. Raises ValueError for a broken code."""
    height, width = rle["size"]
    flat = np.zeros(height * width, dtype=bool)
    paint(flat, rle, True)
    return np.asarray(flat.reshape(width, height).T)


def box_of(rle: RLE) -> tuple[int, int, int, int]:
    """Tight box (x0, y0, x1, y1) of a code, the lower right corner exclusive; zeros for an empty mask."""
    runs, height = runs_of(rle), rle["size"][0]
    ends = np.cumsum(runs)[1::2]
    starts, inside = ends - runs[1::2], runs[1::2] > 0
    if not inside.any():
        return 0, 0, 0, 0
    first, last = starts[inside], ends[inside] - 1
    if (first // height != last // height).any():  # a run that goes on in the next column touches top and bottom
        top, bottom = 0, height
    else:
        top, bottom = int((first % height).min()), int((last % height).max()) + 1
    return int(first[0] // height), top, int(last[-1] // height) + 1, bottom


def paint(flat: npt.NDArray[Any], rle: RLE, value: Any) -> None:
    """Set the inside of a code in a map that was flattened in column order, in place."""
    runs = runs_of(rle)
    if len(runs) > 100 + flat.size // 100:  # so many runs that a loop over them would be slower
        flat[np.repeat(np.arange(len(runs)) % 2 == 1, runs)] = value
        return
    ends = np.cumsum(runs)
    for start, end in zip(ends[:-1:2].tolist(), ends[1::2].tolist(), strict=True):
        flat[start:end] = value
