"""The same thing in every frame has the same id: masks of a clip are linked along its optical flow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from pixelkin.data import Instances

Mask = npt.NDArray[np.bool_]
Flow = npt.NDArray[Any]


@dataclass
class _Track:
    number: int
    label: int
    mask: Mask
    """Where it should be in the frame that is looked at."""
    unseen: int = 0


def link_tracks(
    frames: Iterable[Instances],
    flows: Iterable[Flow | None],
    *,
    least_overlap: float = 0.2,
    patience: int = 3,
) -> Iterator[Instances]:
    """Give the instances of each frame of one clip track ids, one frame at a time.

    The masks of a frame are brought into the next along the flow and matched to its instances of the same class, one to
    one, so that the sum of their overlaps is highest. What is not seen for a few frames is brought along meanwhile.

    Args:
        frames: the instances of every frame in order.
        flows: for every frame but the first, the flow on *its* grid that leads into the frame before: (2, H, W),
            (dy, dx) in pixels. None, and where a frame has another size than the one before, ends all tracks: a cut.
        least_overlap: intersection over union below which two masks are not the same thing.
        patience: for how many frames in a row a thing may be missing and keep its id.

    Yields:
        The same instances in the same order, with ``ids`` from 1; an id is never given again to another thing.

    Raises:
        ValueError: fewer flows than frames need, or a flow of another size than its frame.
    """
    steps = iter(flows)
    tracks: list[_Track] = []
    given = 0
    size: tuple[int, int] | None = None
    for instances in frames:
        if size is not None:
            try:
                flow = next(steps)
            except StopIteration:
                raise ValueError("fewer flows than frames: give one for every frame but the first") from None
            tracks = _carried(tracks, flow, instances.size) if size == instances.size and flow is not None else []
        size = instances.size
        masks = list(instances.masks())
        ids = np.zeros(len(masks), np.int64)
        for row, column in _matches(tracks, masks, instances.labels, least_overlap):
            ids[column] = tracks[row].number
            tracks[row] = _Track(tracks[row].number, tracks[row].label, masks[column])
        seen = set(ids.tolist())
        for track in tracks:
            track.unseen += track.number not in seen
        tracks = [track for track in tracks if track.unseen <= patience]
        for i in np.flatnonzero(ids == 0):
            given += 1
            ids[i] = given
            tracks.append(_Track(given, int(instances.labels[i]), masks[i]))
        yield Instances(
            instances.size,
            instances.rles,
            labels=instances.labels,
            scores=instances.scores,
            sources=[str(source) for source in instances.sources],
            crowd=instances.crowd,
            ids=ids,
        )


def carry_mask(mask: Mask, flow: Flow) -> Mask:
    """A mask of one frame in the next, to the nearest pixel.

    Args:
        mask: (H, W) bool.
        flow: (2, H, W), (dy, dx) in pixels, on the grid of the *next* frame, leading into the mask's.

    Returns:
        (H, W) bool; what lies beyond the edge of the mask's frame is not in it.

    Raises:
        ValueError: a flow of another size.
    """
    if flow.shape != (2, *mask.shape):
        raise ValueError(f"a flow of shape {flow.shape} for a mask of {mask.shape}: give (2, H, W)")
    y, x = np.indices(mask.shape, np.float32)
    there = cv2.remap(
        mask.astype(np.uint8),
        (x + flow[1]).astype(np.float32),
        (y + flow[0]).astype(np.float32),
        cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    return np.asarray(there, bool)


def _carried(tracks: list[_Track], flow: Flow, size: tuple[int, int]) -> list[_Track]:
    if flow.shape != (2, *size):
        raise ValueError(f"a flow of shape {flow.shape} for a frame of {size}: give (2, H, W)")
    return [_Track(t.number, t.label, carry_mask(t.mask, flow), t.unseen) for t in tracks]


def _matches(
    tracks: list[_Track], masks: list[Mask], labels: npt.NDArray[np.int64], least: float
) -> list[tuple[int, int]]:
    """(track, instance) pairs."""
    overlap = np.zeros((len(tracks), len(masks)))
    for row, track in enumerate(tracks):
        for column, mask in enumerate(masks):
            if track.label != labels[column]:
                continue
            either = int(np.count_nonzero(track.mask | mask))
            overlap[row, column] = int(np.count_nonzero(track.mask & mask)) / max(either, 1)
    overlap[overlap < least] = 0
    rows, columns = linear_sum_assignment(-overlap)
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if overlap[r, c] > 0]
