"""Video in COCO files: a list of ``videos``, and images that say which of them they are a frame of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pixelkin.data import Sample
from pixelkin.formats.files import SourceError, inside


def number_clips(samples: Iterable[Sample]) -> dict[str, int]:
    """An id for every clip, from 1 in the order in which they begin."""
    clips: dict[str, int] = {}
    for sample in samples:
        if sample.clip is not None:
            clips.setdefault(sample.clip, len(clips) + 1)
    return clips


def video_records(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """The ``videos`` of a COCO file: id, name, how many frames it has (``length``) and, where known, ``fps``."""
    lengths = Counter(sample.clip for sample in samples)
    fps = {sample.clip: sample.fps for sample in samples if sample.fps is not None}
    return [
        {"id": number, "name": clip, "length": lengths[clip]} | ({"fps": fps[clip]} if clip in fps else {})
        for clip, number in number_clips(samples).items()
    ]


def clips_of_images(
    images: Mapping[Any, Mapping[str, Any]],
    videos: Mapping[Any, Mapping[str, Any]],
    names: Sequence[PurePosixPath],
    path: Path,
) -> dict[Any, dict[str, Any]]:
    """Which clip an image is a frame of.

    Args:
        images: image records by id.
        videos: video records by id.
        names: the file names of the images, in their order.
        path: the file, for messages.

    Returns:
        For the images that have a ``video_id``, by id: ``clip``, ``frame`` and ``fps`` of the sample. Frames without
        ``frame_id`` are numbered in the order of the file.

    Raises:
        SourceError: the name of a video is no relative path, though folders are named by it.
    """
    found: dict[Any, dict[str, Any]] = {}
    counts: Counter[str] = Counter()
    for (identity, image), name in zip(images.items(), names, strict=True):
        if image.get("video_id") is None:
            continue
        video = videos.get(image["video_id"], {}) if isinstance(image["video_id"], (int, str)) else {}
        clip = video.get("name") or (name.parent.as_posix() if name.parent.name else str(image["video_id"]))
        inside(path.parent, clip, f"{path}, video {image['video_id']!r}")
        number, fps = image.get("frame_id"), video.get("fps")
        if number is not None and (not isinstance(number, int) or number < 0):
            raise SourceError(f"{path}: frame_id {number!r} of {name}: number the frames of a video from 0")
        found[identity] = {
            "clip": clip,
            "frame": counts[clip] if number is None else number,
            "fps": float(fps) if isinstance(fps, (int, float)) and fps > 0 else None,
        }
        counts[clip] += 1
    return found
