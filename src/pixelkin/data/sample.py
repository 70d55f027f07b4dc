"""Sample: one image and whatever labels it came with, loaded when asked."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from pixelkin.data.instances import Instances

UNKNOWN = 255
"""The class id that says "nobody knows" in a semantic map."""

MAX_PIXELS = 100_000_000
"""Images with more pixels are refused: decoding them would take gigabytes."""

T = TypeVar("T")
Lazy = T | Callable[[], T] | None


class ImageError(ValueError):
    """An image or label file that cannot be used; the message is one line: the file, what is wrong, the mend."""


class Point(NamedTuple):
    """One click on one object: x and y in image pixels (pixel centres at .0), and a class id."""

    x: float
    y: float
    label: int


class Boxes(NamedTuple):
    """Object boxes: ``xyxy`` (N, 4) float pixels, lower right exclusive; ``labels`` (N,) class ids."""

    xyxy: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]


class Sample:
    """One image and its labels. Dense fields are read from disk at every access and never kept, so hold on to what you use.

    Args:
        name: unique in its dataset: the file's path below the source, without suffix, with ``/`` between folders.
        image: a path, an (H, W, 3) uint8 RGB array, or a function that makes one.
        size: (height, width) if known; otherwise read from the file's header.
        tags: ids of the classes in the image; None when nobody said, an empty tuple when there are none.
        points: clicks, one an object.
        boxes: object boxes.
        semantic: (H, W) integer class ids, 0 background, 255 unknown.
        probabilities: (1 + classes, H, W) float32 semantic probabilities, background first, classes in the dataset's order.
        instances: object masks.
        ignore: (H, W) bool, true where nothing may be learned or scored.
        depth: (H, W) float32 metres, 0 or NaN unknown.
        clip: the video it belongs to; ``frame`` its number there, from 0.
    """

    def __init__(
        self,
        name: str,
        image: Path | str | Lazy[npt.NDArray[np.uint8]],
        *,
        size: tuple[int, int] | None = None,
        tags: tuple[int, ...] | None = None,
        points: tuple[Point, ...] | None = None,
        boxes: Boxes | None = None,
        semantic: Lazy[npt.NDArray[Any]] = None,
        probabilities: Lazy[npt.NDArray[np.float32]] = None,
        instances: Lazy[Instances] = None,
        ignore: Lazy[npt.NDArray[np.bool_]] = None,
        depth: Lazy[npt.NDArray[np.float32]] = None,
        clip: str | None = None,
        frame: int | None = None,
    ) -> None:
        self.name = name
        self.path = Path(image) if isinstance(image, (str, Path)) else None
        self._image = image
        self._size = size
        self.tags = tags
        self.points = points
        self.boxes = boxes
        self._semantic = semantic
        self._probabilities = probabilities
        self._instances = instances
        self._ignore = ignore
        self._depth = depth
        self.clip = clip
        self.frame = frame

    @property
    def image(self) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB, upright (EXIF applied). Raises ImageError."""
        array = read_image(self.path) if self.path is not None else _resolve(self._image)
        if array is None:
            raise ImageError(f"{self.name}: the sample has no image")
        return np.asarray(array)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels, upright; from the header where the image is a file."""
        if self._size is None:
            self._size = image_size(self.path) if self.path is not None else self.image.shape[:2]  # type: ignore[assignment]
        return self._size  # type: ignore[return-value]

    @property
    def semantic(self) -> npt.NDArray[Any] | None:
        """(H, W) class ids, 0 background, 255 unknown, or None."""
        return self._dense(self._semantic, "semantic mask")

    @property
    def probabilities(self) -> npt.NDArray[np.float32] | None:
        """(1 + classes, H, W) semantic probabilities, or None."""
        return self._dense(self._probabilities, "probability map")

    @property
    def instances(self) -> Instances | None:
        """Object masks, or None."""
        instances = _resolve(self._instances)
        if instances is not None and instances.size != tuple(self.size):
            raise ImageError(
                f"{self.name}: masks are {instances.size}, the image is {tuple(self.size)} (height, width)"
            )
        return instances

    @property
    def ignore(self) -> npt.NDArray[np.bool_] | None:
        """(H, W) bool, or None."""
        return self._dense(self._ignore, "ignore mask")

    @property
    def depth(self) -> npt.NDArray[np.float32] | None:
        """(H, W) float32 metres, or None."""
        return self._dense(self._depth, "depth map")

    def has(self, label: str) -> bool:
        """Whether a kind of label came with the image (``"semantic"``, ``"tags"``, ...), without loading it."""
        return getattr(self, f"_{label}" if f"_{label}" in self.__dict__ else label) is not None

    def replace(self, **changes: Any) -> Sample:
        """A copy with some of the constructor's arguments changed; everything else stays lazy.

        Raises:
            TypeError: for a name the constructor does not have.
        """
        other = copy.copy(self)
        for key, value in changes.items():
            if key == "image":
                other.path = Path(value) if isinstance(value, (str, Path)) else None
                other._image, other._size = value, changes.get("size")
            elif f"_{key}" in self.__dict__:
                setattr(other, f"_{key}", value)
            elif key in self.__dict__:
                setattr(other, key, value)
            else:
                raise TypeError(f"a sample has no field {key!r}")
        return other

    def _dense(self, value: Any, what: str) -> Any:
        array = _resolve(value)
        if array is not None and tuple(array.shape[-2:]) != tuple(self.size):
            raise ImageError(
                f"{self.name}: the {what} is {tuple(array.shape[-2:])}, the image {tuple(self.size)} (height, width):"
                " give both the same size"
            )
        return array

    def __repr__(self) -> str:
        kinds = ("tags", "points", "boxes", "semantic", "probabilities", "instances", "ignore", "depth")
        return f"Sample({self.name!r}, {', '.join(kind for kind in kinds if self.has(kind)) or 'no labels'})"


def _resolve(value: Any) -> Any:
    return value() if callable(value) else value


def read_image(path: Path | str) -> npt.NDArray[np.uint8]:
    """Read any image file as (H, W, 3) uint8 RGB, upright.

    Grey, palette, CMYK and alpha images become RGB (alpha over black is dropped, not blended); 16-bit and float images
    are stretched from their own minimum and maximum to 0..255, as microscopes rarely use the full range.

    Raises:
        ImageError: unreadable, empty or larger than MAX_PIXELS.
    """
    with _open(path) as image:
        try:
            image.load()
            upright = ImageOps.exif_transpose(image)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ImageError(f"{path}: broken image ({error}): replace or remove it") from error
        if upright.mode in ("I", "F") or upright.mode.startswith("I;16"):
            values = np.asarray(upright, dtype=np.float64)
            low, high = float(values.min()), float(values.max())
            grey = ((values - low) * (255.0 / (high - low)) if high > low else np.zeros_like(values)).round()
            return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
        return np.array(upright.convert("RGB"))


def image_size(path: Path | str) -> tuple[int, int]:
    """(height, width) of an image file as shown upright, from its header. Raises ImageError."""
    with _open(path) as image:
        width, height = image.size
        turned = image.getexif().get(0x0112, 1) >= 5  # EXIF orientations 5 to 8 swap the axes
        return (width, height) if turned else (height, width)


def read_label_image(path: Path | str) -> npt.NDArray[Any]:
    """Read an image whose pixel values are ids, unchanged: (H, W) uint8, uint16 or int32; a palette PNG gives its indices.

    Raises:
        ImageError: unreadable, or a colour image, whose values are no ids.
    """
    with _open(path) as image:
        if image.mode not in ("L", "P", "I", "1") and not image.mode.startswith("I;16"):
            raise ImageError(
                f"{path}: a {image.mode} image, but ids need one channel: save it as 8- or 16-bit grey PNG"
            )
        try:
            return np.array(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise ImageError(f"{path}: broken image ({error}): replace or remove it") from error


def _open(path: Path | str) -> Image.Image:
    try:
        image = Image.open(path)
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: not an image that can be read ({error})") from error
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise ImageError(
            f"{path}: {image.width}x{image.height} is over the limit of {MAX_PIXELS // 10**6} megapixels: shrink it"
        )
    return image
