"""Instances: the object masks of one image, stored as run-length codes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelkin.data.rle import RLE, box_of, decode_mask, encode_label_map, encode_mask, normal, paint, runs_of

__all__ = ["RLE", "Instances", "decode_mask", "encode_mask"]


ALTERNATIVE = ":alternative"
"""Ending of a source whose instance is another way to divide pixels that a surer instance already has."""

Index = int | slice | Sequence[int] | npt.NDArray[Any]


class Instances:
    """The masks of one image with parallel arrays; length N, indexed like a NumPy array.

    Masks live as COCO RLE and become dense only when asked, one at a time or all together. Holes, separate pieces and
    overlaps between instances survive every round trip bit for bit.

    Args:
        size: (height, width) of the image in pixels.
        rles: N run-length codes, each of that size.
        labels: (N,) int64 class ids, the user's own. Default: all 1.
        scores: (N,) float32, higher is better. Default: all 1.
        sources: N strings saying where a mask came from, e.g. ``"siseg/crowding:semantic"``. Default: empty.
        crowd: (N,) bool, true where the mask covers a group nobody separated (COCO ``iscrowd``). Default: all false.
        ids: (N,) int64 identities within the image, which formats keep and colours follow. Default: the tracks where
            there are any, with numbers above them for those without; else 1..N.
        tracks: (N,) int64 which object of the clip it is: the same positive number in every frame the object is in,
            0 for none. A method for video sets these and leaves ``ids`` alone. Several masks of one frame may share a
            track. Default: all 0.

    Raises:
        ValueError: when lengths or sizes disagree, or the size is not positive.
    """

    def __init__(
        self,
        size: tuple[int, int],
        rles: Iterable[RLE] = (),
        *,
        labels: npt.ArrayLike | None = None,
        scores: npt.ArrayLike | None = None,
        sources: Iterable[str] | None = None,
        crowd: npt.ArrayLike | None = None,
        ids: npt.ArrayLike | None = None,
        tracks: npt.ArrayLike | None = None,
    ) -> None:
        self.size = (int(size[0]), int(size[1]))
        if min(self.size) < 1:
            raise ValueError(f"an image of {self.size} (height, width) has no pixels: give its real size")
        self.rles: tuple[RLE, ...] = tuple(normal(rle) for rle in rles)
        n = len(self.rles)
        for rle in self.rles:
            if tuple(rle["size"]) != self.size:
                raise ValueError(f"a mask has size {tuple(rle['size'])}, the image {self.size}: resize it first")
        self.labels = _column(labels, n, np.int64, 1, "labels")
        self.scores = _column(scores, n, np.float32, 1.0, "scores")
        self.sources = _column(None if sources is None else list(sources), n, np.str_, "", "sources")
        self.crowd = _column(crowd, n, np.bool_, False, "crowd")
        self.tracks = _column(tracks, n, np.int64, 0, "tracks")
        if n and self.tracks.min() < 0:
            raise ValueError(f"track {self.tracks.min()}: tracks are numbered from 1, and 0 is none")
        self.ids = _own_numbers(self.tracks) if ids is None else _column(ids, n, np.int64, 0, "ids")

    @classmethod
    def from_masks(cls, masks: npt.NDArray[Any], **columns: Any) -> Instances:
        """Build from dense (N, H, W) masks; ``columns`` are the keyword arguments of the class."""
        masks = np.asarray(masks)
        if masks.ndim != 3:
            raise ValueError(f"masks must be (N, H, W), got shape {masks.shape}")
        return cls((masks.shape[1], masks.shape[2]), [encode_mask(mask) for mask in masks], **columns)

    @classmethod
    def from_label_map(cls, label_map: npt.NDArray[Any], *, ignore: int | None = None, **columns: Any) -> Instances:
        """Build from an (H, W) integer map: 0 is background, every other value one instance, kept as its id.

        Args:
            label_map: (H, W) integers.
            ignore: a value that is no instance (e.g. 255 in VOC).
            columns: the keyword arguments of the class, N long in ascending order of the ids.

        Raises:
            ValueError: not two-dimensional, no pixels, or not integers.
        """
        label_map = np.asarray(label_map)
        if label_map.ndim != 2 or label_map.size == 0 or label_map.dtype.kind not in "iub":
            raise ValueError(f"a label map must be (H, W) integers, got {label_map.dtype} of shape {label_map.shape}")
        codes = encode_label_map(label_map)
        ids = [i for i in codes if i not in (0, ignore)]
        columns.setdefault("ids", ids)
        return cls((label_map.shape[0], label_map.shape[1]), [codes[i] for i in ids], **columns)

    @classmethod
    def empty(cls, size: tuple[int, int]) -> Instances:
        """No instance in an image of (height, width)."""
        return cls(size)

    @classmethod
    def concatenate(cls, parts: Sequence[Instances]) -> Instances:
        """Join the instances of several lists over one image, in order. Ids are kept as they are.

        Raises:
            ValueError: no parts, or parts of different image sizes.
        """
        if not parts:
            raise ValueError("nothing to concatenate: give at least one Instances")
        if len({part.size for part in parts}) > 1:
            raise ValueError(f"image sizes differ: {sorted({part.size for part in parts})}")
        return cls(
            parts[0].size,
            [rle for part in parts for rle in part.rles],
            labels=np.concatenate([part.labels for part in parts]),
            scores=np.concatenate([part.scores for part in parts]),
            sources=[str(source) for part in parts for source in part.sources],
            crowd=np.concatenate([part.crowd for part in parts]),
            ids=np.concatenate([part.ids for part in parts]),
            tracks=np.concatenate([part.tracks for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.rles)

    def __iter__(self) -> Iterator[Instances]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Index) -> Instances:
        """A part of the list: an int, slice, integer array or bool mask; always Instances (an int gives length 1).

        Raises:
            IndexError: out of range, or an index that is not one-dimensional.
        """
        order = np.atleast_1d(np.arange(len(self))[index])
        if order.ndim != 1:
            raise IndexError(f"instances have one axis, the index has {order.ndim}")
        return Instances(
            self.size,
            [self.rles[i] for i in order],
            labels=self.labels[order],
            scores=self.scores[order],
            sources=self.sources[order].tolist(),
            crowd=self.crowd[order],
            ids=self.ids[order],
            tracks=self.tracks[order],
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Instances):
            return NotImplemented
        return (
            self.size == other.size
            and self.rles == other.rles
            and all(
                np.array_equal(getattr(self, name), getattr(other, name))
                for name in ("labels", "scores", "sources", "crowd", "ids", "tracks")
            )
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Instances({len(self)} in {self.size[0]}x{self.size[1]}, labels {np.unique(self.labels).tolist()})"

    def mask(self, i: int) -> npt.NDArray[np.bool_]:
        """Dense (H, W) mask of instance ``i``."""
        return decode_mask(self.rles[i])

    def masks(self) -> npt.NDArray[np.bool_]:
        """All masks dense, (N, H, W). Costs N*H*W bytes: prefer :meth:`mask` in a loop for many."""
        if not self.rles:
            return np.zeros((0, *self.size), dtype=bool)
        return np.stack([decode_mask(rle) for rle in self.rles])

    @property
    def areas(self) -> npt.NDArray[np.int64]:
        """(N,) mask areas in pixels."""
        return np.array([runs_of(rle)[1::2].sum() for rle in self.rles], dtype=np.int64)

    @property
    def boxes(self) -> npt.NDArray[np.int64]:
        """(N, 4) tight boxes as (x0, y0, x1, y1), the lower right corner exclusive; an empty mask has a zero box."""
        return np.array([box_of(rle) for rle in self.rles], dtype=np.int64).reshape(-1, 4)

    @property
    def alternative(self) -> npt.NDArray[np.bool_]:
        """(N,) bool, true where the source says it is an alternative to surer instances: leave these out to count."""
        return np.char.endswith(self.sources, ALTERNATIVE) if len(self) else np.zeros(0, dtype=bool)

    def label_map(self) -> npt.NDArray[np.int32]:
        """(H, W) map: 0 background, i + 1 for instance i; where masks overlap, the higher score is on top."""
        flat = np.zeros(self.size[0] * self.size[1], dtype=np.int32)
        for i in np.argsort(self.scores, kind="stable").tolist():
            paint(flat, self.rles[i], i + 1)
        return np.ascontiguousarray(flat.reshape(self.size[::-1]).T)

    def semantic_map(self, ignore_crowd: int | None = 255) -> npt.NDArray[np.int32]:
        """(H, W) map of class ids, 0 background; smaller instances over larger.

        Args:
            ignore_crowd: value painted where only a crowd covers; None paints crowds with their class.
        """
        flat = np.zeros(self.size[0] * self.size[1], dtype=np.int32)
        for i in np.lexsort((-self.areas, ~self.crowd)).tolist():  # crowds first, then large to small
            hidden = self.crowd[i] and ignore_crowd is not None
            paint(flat, self.rles[i], ignore_crowd if hidden else int(self.labels[i]))
        return np.ascontiguousarray(flat.reshape(self.size[::-1]).T)


def _own_numbers(tracks: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The tracks, with numbers above all of them for instances that have none."""
    free = tracks == 0
    return np.where(free, tracks.max(initial=0) + np.cumsum(free), tracks)


def _column(values: Any, n: int, dtype: Any, default: Any, name: str) -> npt.NDArray[Any]:
    """A one-dimensional array of length n, or an error that names the column."""
    array = np.full(n, default, dtype=dtype) if values is None else np.asarray(values)
    if array.shape != (n,):
        raise ValueError(f"{name} must have one entry a mask: {n} masks, shape {array.shape}")
    return np.asarray(array.astype(dtype))
