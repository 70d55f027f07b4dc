"""Sample: one image and whatever labels it came with, loaded when asked."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from pixelkin.data.instances import Instances

UNKNOWN = 255
"""The class id that says "nobody knows" in a semantic map."""

MAX_PIXELS = 100_000_000
"""Images with more pixels are refused: decoding them would take gigabytes."""

T = TypeVar("T")
Lazy: TypeAlias = T | Callable[[], T] | None


class ImageError(ValueError):
    """An image or label file that cannot be used; the message is one line: the file, what is wrong, the mend."""


class Point(NamedTuple):
    """One click on one object: x and y in image pixels (pixel centres at .0), and a class id."""

    x: float
    y: float
    label: int


class Camera(NamedTuple):
    """What is known of the camera of one frame; axes are x right, y down, z forward, lengths in metres.

    Attributes:
        intrinsics: (3, 3) pinhole matrix, pixel centres at whole numbers.
        pose: (4, 4) camera to world, None where unknown.
        right: the right picture of a rectified pair, None where there is none.
        baseline: from the left camera to the right one, 0 where unknown.
        shift: difference of their principal points (right - left) in x, in pixels.
    """

    intrinsics: npt.NDArray[np.float64]
    pose: npt.NDArray[np.float64] | None = None
    right: Path | None = None
    baseline: float = 0.0
    shift: float = 0.0


class Boxes(NamedTuple):
    """Object boxes: ``xyxy`` (N, 4) float pixels, lower right exclusive; ``labels`` (N,) class ids."""

    xyxy: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]


class Sample:
    """One image and its labels.

    Dense fields are read from disk at every access and never kept, so hold on to what you use.

    Args:
        name: unique in its dataset: the file's path below the source, without suffix, with ``/`` between folders.
        image: a path, an (H, W, 3) uint8 RGB array, or a function that makes one.
        size: (height, width) if known; otherwise read from the file's header.
        tags: ids of the classes in the image; None when nobody said, an empty tuple when there are none.
        points: clicks, one an object.
        boxes: object boxes.
        semantic: (H, W) integer class ids, 0 background, 255 unknown.
        probabilities: (1 + classes, H, W) float32 semantic probabilities, background first, then the dataset's order.
        instances: object masks.
        ignore: (H, W) bool, true where nothing may be learned or scored.
        depth: (H, W) float32 metres, 0 or NaN unknown.
        clip: the video it belongs to; ``frame`` its number there, from 0; ``fps`` how many of them make a second, where
            that is known.
        camera: calibration and pose, where known.
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
        fps: float | None = None,
        camera: Camera | None = None,
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
        self.fps = fps
        self.camera = camera

    @property
    def image(self) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB, upright (EXIF applied). Raises ImageError, also where it has not the size it should."""
        array = np.asarray(read_image(self.path) if self.path is not None else _resolve(self._image))
        if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
            raise ImageError(
                f"{self.name}: an image is (H, W, 3) uint8, not {array.dtype} of shape {array.shape}: convert it"
            )
        if self._size is not None and array.shape[:2] != tuple(self._size):
            raise ImageError(
                f"{self.name}: the image is {array.shape[:2]}, its labels are for {tuple(self._size)} (height, width):"
                " correct the size in the label file or turn the image upright"
            )
        return array

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
        instances: Instances | None = _resolve(self._instances)
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
            if key not in _FIELDS:
                raise TypeError(f"a sample has no field {key!r}: use one of {', '.join(_FIELDS)}")
            if key == "image":
                other.path = Path(value) if isinstance(value, (str, Path)) else None
                other._image, other._size = value, changes.get("size")
            else:
                setattr(other, f"_{key}" if f"_{key}" in self.__dict__ else key, value)
        return other

    def _dense(self, value: Any, what: str) -> npt.NDArray[Any] | None:
        array: npt.NDArray[Any] | None = _resolve(value)
        if array is not None and tuple(array.shape[-2:]) != tuple(self.size):
            raise ImageError(
                f"{self.name}: the {what} is {tuple(array.shape[-2:])}, the image {tuple(self.size)} (height, width):"
                " give both the same size"
            )
        return array

    def __repr__(self) -> str:
        kinds = ("tags", "points", "boxes", "semantic", "probabilities", "instances", "ignore", "depth")
        return f"Sample({self.name!r}, {', '.join(kind for kind in kinds if self.has(kind)) or 'no labels'})"


_FIELDS = tuple(inspect.signature(Sample).parameters)


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
            upright = ImageOps.exif_transpose(image)
            if upright.mode in ("I", "F") or upright.mode.startswith("I;16"):
                return np.repeat(_stretch(np.asarray(upright, dtype=np.float64))[..., None], 3, axis=2)
            return np.array(upright.convert("RGB"))
        except Exception as error:  # decoders fail in many ways on broken bytes
            raise ImageError(f"{path}: broken image ({error}): replace or remove it") from error


def image_size(path: Path | str) -> tuple[int, int]:
    """(height, width) of an image file as shown upright, from its header. Raises ImageError."""
    with _open(path) as image:
        try:
            (width, height), turned = image.size, _orientation(image) >= 5  # EXIF orientations 5 to 8 swap the axes
            if isinstance(image, TiffImageFile):  # Pillow versions differ on whether .size is turned before loading
                width, height = int(image.tag_v2[256]), int(image.tag_v2[257])
        except Exception as error:
            raise ImageError(f"{path}: broken image ({error}): replace or remove it") from error
        return (width, height) if turned else (height, width)


def read_label_image(path: Path | str) -> npt.NDArray[Any]:
    """Read an image whose values are ids, unchanged: (H, W) uint8, uint16 or int32; a palette PNG gives its indices.

    Raises:
        ImageError: unreadable, or a colour image, whose values are no ids.
    """
    with _open(path) as image:
        if image.mode not in ("L", "P", "I", "1") and not image.mode.startswith("I;16"):
            raise ImageError(
                f"{path}: a {image.mode} image, but ids need one channel: save it as 8- or 16-bit grey PNG"
            )
        try:
            ids = np.array(image)
        except Exception as error:
            raise ImageError(f"{path}: broken image ({error}): replace or remove it") from error
    return ids.astype(np.uint8 if ids.dtype == np.bool_ else ids.dtype.newbyteorder("="))


def _stretch(values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Least to greatest finite value onto 0..255; what is not finite becomes the nearer end, NaN black."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if high <= low:
        return np.zeros(values.shape, dtype=np.uint8)
    clipped = np.clip(np.nan_to_num(values, nan=low), low, high)
    return np.asarray(((clipped - low) * (255.0 / (high - low))).round(), dtype=np.uint8)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8, without decoding pixels where that can be avoided."""
    if image.format == "PNG" and not _png_tells_late(image):
        return int(Image.Image.getexif(image).get(0x0112, 1))  # PngImageFile.getexif would decode the pixels first
    return int(image.getexif().get(0x0112, 1))


def _png_tells_late(image: Image.Image) -> bool:
    """Whether a PNG has metadata that may hold an orientation behind its pixels."""
    with open(image.filename, "rb") as file:  # type: ignore[attr-defined]
        file.seek(8)
        pixels = False
        while len(head := file.read(8)) == 8:
            pixels = pixels or head[4:] == b"IDAT"
            if pixels and head[4:] in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
                return True
            file.seek(int.from_bytes(head[:4], "big") + 4, 1)
    return False


def _open(path: Path | str) -> Image.Image:
    try:
        image = Image.open(path)
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except Exception as error:
        raise ImageError(f"{path}: not an image that can be read ({error})") from error
    if image.width * image.height > MAX_PIXELS:
        (width, height), megapixels = image.size, MAX_PIXELS // 10**6
        image.close()
        raise ImageError(f"{path}: {width}x{height} is over the limit of {megapixels} megapixels: shrink it")
    return image
