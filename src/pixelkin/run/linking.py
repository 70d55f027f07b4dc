"""Track ids of a run: once its frames are labelled, the instances of every clip are linked along the optical flow."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, tee
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pixelkin.data import Dataset, ImageError, Instances, Sample
from pixelkin.formats.davis import write_frame
from pixelkin.run.films import film_of
from pixelkin.run.records import instances_of, size_of, with_track_ids
from pixelkin.run.spool import Spool
from pixelkin.training.progress import track

Picture = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Flow = npt.NDArray[np.float32]

LONG_SIDE = 384
"""Larger frames and masks are brought to it: things are linked, not outlines."""


def link_clips(folder: Path, dataset: Dataset, images: Spool, links: Spool) -> None:
    """Find the tracks of every clip that is not linked as it is now, and write its masks with them.

    A frame without labels is passed over, and what is before it linked with what follows it. One frame and the one
    before it are in memory, small.

    Args:
        folder: the run.
        dataset: what was labelled.
        images: the records of the frames that are done.
        links: takes up the tracks of each frame, and the state that its clip was in.
    """
    for clip, samples in dataset.clips().items():
        done = [sample for sample in samples if sample.name in images]
        state = _state(done, images)
        if all(sample.name in links and links.get(sample.name)["clip"] == state for sample in done):
            continue
        film_of(folder, clip).unlink(missing_ok=True)  # it shows other ids
        for sample, found in zip(done, _linked(track(samples, f"link {clip}"), images), strict=True):
            tracks = found.tracks.tolist()
            write_frame(folder / "masks", sample, instances_of(with_track_ids(images.get(sample.name), tracks)))
            links.append(sample.name, {"tracks": tracks, "clip": state})  # last: it says that the masks are there


def _state(samples: Sequence[Sample], images: Spool) -> str:
    """Differs where other frames are done, or one was done again."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(json.dumps([sample.name, images.get(sample.name)]).encode())
    return digest.hexdigest()[:16]


def _linked(samples: Iterable[Sample], images: Spool) -> Iterator[Instances]:
    """The instances of every frame that is done, small, with their tracks."""
    from pixelkin.grouping.tracks import link_tracks

    steps, again = tee(_steps(samples, images))  # both are read in step, so little lies between them
    flows = (flow for found, flow in again if found is not None)
    return link_tracks((found for found, _ in steps), islice(flows, 1, None))


def _steps(samples: Iterable[Sample], images: Spool) -> Iterator[tuple[Instances | None, Flow | None]]:
    """For each frame its instances, None where it is not done, and the flow into the one done before it, if any."""
    from pixelkin.cues.optical_flow import dis_flow

    before: Picture | None = None
    for sample in samples:
        if sample.name not in images:
            yield None, None
            continue
        record = images.get(sample.name)
        size = _small(size_of(record))
        picture = _picture(sample, size)
        flow = None
        if picture is not None and before is not None and picture.shape == before.shape:
            flow = dis_flow(picture, before)
        before = picture
        found = instances_of(record)
        masks = [_shrunk(found.mask(i), size) for i in range(len(found))]
        yield Instances.from_masks(np.stack(masks), labels=found.labels) if masks else Instances.empty(size), flow


def _small(size: tuple[int, int]) -> tuple[int, int]:
    scale = min(1.0, LONG_SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _picture(sample: Sample, size: tuple[int, int]) -> Picture | None:
    """The frame at a (height, width); None for one that was labelled and cannot be read any more."""
    import cv2

    try:
        image = sample.image
    except ImageError:
        return None
    return np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)


def _shrunk(mask: Mask, size: tuple[int, int]) -> Mask:
    """The mask at a (height, width), never empty unless it was."""
    import cv2

    share = cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray((share > 0) & (share >= min(0.5, float(share.max()))))
