"""The same thing in every frame has the same id: masks of a clip are linked along its optical flow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
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


@dataclass
class _Linked:
    """A frame that waits for the one after it to say what of it is noise."""

    instances: Instances
    numbers: npt.NDArray[np.int64]
    alone: set[int] = field(default_factory=set)
    """Numbers of tracks that begin here and had nothing near in the frame right before."""

    def result(self) -> Instances:
        of = self.instances
        return Instances(
            of.size,
            of.rles,
            labels=of.labels,
            scores=of.scores,
            sources=[str(source) for source in of.sources],
            crowd=of.crowd,
            tracks=self.numbers,
        )


def link_tracks(
    frames: Iterable[Instances | None],
    flows: Iterable[Flow | None],
    *,
    least_overlap: float = 0.2,
    patience: int = 3,
    refuse_lone: bool = False,
) -> Iterator[Instances]:
    """Give the instances of each frame of one clip tracks, in memory for two frames.

    The masks of a frame are brought into the next along the flow and matched to its instances of the same class, one to
    one, so that the sum of their overlaps is highest. What is not seen for a few frames is brought along meanwhile.

    Args:
        frames: the instances of every frame in order; None for a frame without labels, which is passed over: what is
            before it is matched with what follows it.
        flows: for every frame that is not None but the first, the flow on *its* grid that leads into the one before:
            (2, H, W), (dy, dx) in pixels. None, and where a frame has another size than the one before, ends all
            tracks: a cut.
        least_overlap: intersection over union below which two masks are not the same thing.
        patience: for how many frames in a row a thing may be missing and keep its id.
        refuse_lone: give track 0 to what is there in a single frame only, brought along the flow overlaps nothing in
            the frames right before and after it, and these are labelled and of the same scene: noise, most likely.

    Yields:
        For every frame that is not None the same instances in the same order, with ``tracks``, and the same as ``ids``,
        from 1; an id is never given again to another thing. With ``refuse_lone``, ``found[found.tracks > 0]`` is what
        to keep.

    Raises:
        ValueError: fewer flows than frames need, or a flow of another size than its frame.
    """
    steps = iter(flows)
    tracks: list[_Track] = []
    given = 0
    last: _Linked | None = None
    gap = False
    for instances in frames:
        if instances is None:
            gap = True
            continue
        masks = list(instances.masks())
        neighbours = False
        if last is not None:
            try:
                flow = next(steps)
            except StopIteration:
                raise ValueError("fewer flows than frames: give one for every frame but the first") from None
            cut = flow is None or last.instances.size != instances.size
            tracks = [] if flow is None or cut else _carried(tracks, flow, instances.size)
            neighbours = refuse_lone and not cut and not gap
            if neighbours and last.alone:
                refused = {t.number for t in tracks if t.number in last.alone and not _meets(t.mask, masks)}
                last.numbers[np.isin(last.numbers, list(refused))] = 0
                tracks = [track for track in tracks if track.number not in refused]
            yield last.result()
        gap = False
        before = [track.mask for track in tracks if not track.unseen]
        numbers = np.zeros(len(masks), np.int64)
        for row, column in _matches(tracks, masks, instances.labels, least_overlap):
            numbers[column] = tracks[row].number
            tracks[row] = _Track(tracks[row].number, tracks[row].label, masks[column])
        seen = set(numbers.tolist())
        for track in tracks:
            track.unseen += track.number not in seen
        tracks = [track for track in tracks if track.unseen <= patience]
        last = _Linked(instances, numbers)
        for i in np.flatnonzero(numbers == 0):
            given += 1
            numbers[i] = given
            tracks.append(_Track(given, int(instances.labels[i]), masks[i]))
            if neighbours and not _meets(masks[i], before):
                last.alone.add(given)
    if last is not None:
        yield last.result()


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


def _meets(mask: Mask, others: list[Mask]) -> bool:
    return any(bool((mask & other).any()) for other in others)


def _matches(
    tracks: list[_Track], masks: list[Mask], labels: npt.NDArray[np.int64], least: float
) -> list[tuple[int, int]]:
    """(track, instance) pairs."""
    if not tracks or not masks:
        return []
    carried, here = (
        np.stack([mask.ravel() for mask in some]).astype(np.float32) for some in ([t.mask for t in tracks], masks)
    )
    shared = carried @ here.T  # counts of pixels, which float32 holds exactly
    either = carried.sum(axis=1)[:, None] + here.sum(axis=1)[None] - shared
    overlap = shared / np.maximum(either, 1)
    overlap[np.array([track.label for track in tracks])[:, None] != labels[None]] = 0
    overlap[overlap < least] = 0
    rows, columns = linear_sum_assignment(-overlap)
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if overlap[r, c] > 0]
