"""Dense label files: semantic masks, probabilities, depth; and the classes that masks hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelkin.data import ImageError
from pixelkin.data.sample import MAX_PIXELS, UNKNOWN, image_size, read_label_image

MILLIMETRES = 1e-3


def load_ids(path: Path) -> npt.NDArray[Any]:
    """(H, W) whole numbers of a label file: PNG, TIFF, BMP or .npy. Raises ImageError."""
    ids = load_array(path) if path.suffix.lower() == ".npy" else read_label_image(path)
    if ids.ndim != 2 or ids.dtype.kind not in "iub":
        raise ImageError(f"{path}: {ids.dtype} of shape {ids.shape}: a label map must be (H, W) whole numbers")
    if ids.dtype.kind == "i" and ids.min(initial=0) < 0:
        raise ImageError(f"{path}: negative ids: 0 is background, 255 unknown, everything else above 0")
    return ids.astype(np.uint8) if ids.dtype == np.bool_ else ids


def load_semantic(path: Path, classes: Sequence[int]) -> npt.NDArray[Any]:
    """(H, W) class ids, 0 background, 255 unknown, each checked against the class list.

    Raises:
        ImageError: unreadable, or an id that is no class.
    """
    ids = load_ids(path)
    present = unique_ids(ids)
    strange = sorted(present - set(classes) - {0, UNKNOWN})
    if strange:
        raise ImageError(
            f"{path}: the mask holds class {strange[0]}, which is not in the class list"
            f"{f' (and {len(strange) - 1} more)' if len(strange) > 1 else ''}: add it to the list or correct the mask"
        )
    return ids


def load_probabilities(path: Path, classes: Sequence[int]) -> npt.NDArray[np.float32]:
    """(1 + classes, H, W) float32 semantic probabilities, background first. Raises ImageError."""
    array = load_array(path)
    if array.ndim != 3 or array.shape[0] != 1 + len(classes) or array.dtype.kind != "f":
        raise ImageError(
            f"{path}: {array.dtype} of shape {array.shape}: probabilities are float ({1 + len(classes)}, H, W),"
            f" background and then {len(classes)} classes"
        )
    values = array.astype(np.float32, copy=False)
    if not (values.min() >= -1e-3 and values.max() <= 1 + 1e-3):  # false for NaN too
        raise ImageError(f"{path}: values outside 0..1 are no probabilities: apply a softmax first")
    return values


def load_most_probable(path: Path, classes: Sequence[int]) -> npt.NDArray[np.int32]:
    """(H, W) class ids: the most probable class of each pixel of a probability file. Raises ImageError."""
    ids = np.array([0, *classes], dtype=np.int32)
    return np.asarray(ids[load_probabilities(path, classes).argmax(axis=0)])


def load_depth(path: Path) -> npt.NDArray[np.float32]:
    """(H, W) float32 metres, 0 where unknown: a 16-bit PNG holds millimetres, a .npy metres. Raises ImageError."""
    if path.suffix.lower() == ".npy":
        array = load_array(path)
        if array.ndim != 2 or array.dtype.kind not in "fiu":
            raise ImageError(f"{path}: {array.dtype} of shape {array.shape}: depth must be (H, W) metres")
        return array.astype(np.float32, copy=False)
    millimetres = read_label_image(path)
    if millimetres.dtype.itemsize < 2:
        raise ImageError(f"{path}: 8-bit depth is too coarse to be millimetres: save 16-bit PNG or .npy metres")
    return np.asarray(millimetres * np.float32(MILLIMETRES), dtype=np.float32)


def load_array(path: Path) -> npt.NDArray[Any]:
    """A .npy array of bounded size, never unpickled. Raises ImageError."""
    shape = array_shape(path)
    if len(shape) < 2 or shape[-1] * shape[-2] > MAX_PIXELS:
        raise ImageError(f"{path}: an array of shape {shape} is no map of at most {MAX_PIXELS // 10**6} megapixels")
    try:
        return np.array(
            np.load(path, mmap_mode="r", allow_pickle=False)
        )  # mapped: a header may claim more than there is
    except (OSError, ValueError, EOFError) as error:
        raise ImageError(f"{path}: not a .npy array that can be read ({error})") from None


def array_shape(path: Path) -> tuple[int, ...]:
    """The shape in the header of a .npy file. Raises ImageError."""
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            return tuple(int(n) for n in read(file)[0])
    except (OSError, ValueError, EOFError) as error:
        raise ImageError(f"{path}: not a .npy array that can be read ({error})") from None


def label_size(path: Path) -> tuple[int, int] | None:
    """(height, width) of a label file from its header; None where it cannot be read, which shows when it is loaded."""
    try:
        if path.suffix.lower() == ".npy":
            height, width = array_shape(path)[-2:]
            return height, width
        return image_size(path)
    except (ImageError, ValueError):
        return None


def unique_ids(ids: npt.NDArray[Any]) -> set[int]:
    """The values of a label map."""
    if ids.dtype in (np.uint8, np.uint16):
        return {int(i) for i in np.flatnonzero(np.bincount(ids.ravel()))}
    return {int(i) for i in np.unique(ids)}


def scan_classes(paths: Iterable[Path]) -> dict[int, str]:
    """The class ids in semantic masks, named ``class ID``.

    Reads them all; broken ones are passed over, as they fail alone. A probability file
    (1 + K, H, W) speaks of the classes 1..K.
    """
    found: set[int] = set()
    for path in paths:
        try:
            shape = array_shape(path) if path.suffix.lower() == ".npy" else ()
            found |= set(range(1, shape[0])) if len(shape) == 3 else unique_ids(load_ids(path))
        except ImageError:
            continue
    return {i: f"class {i}" for i in sorted(found - {0, UNKNOWN}) if i > 0}
