"""Video files: every frame a sample, decoded when asked and found by its time, so that the number is exact."""

from __future__ import annotations

import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelkin.data import Dataset, ImageError, Sample
from pixelkin.data.sample import MAX_PIXELS
from pixelkin.formats.files import SourceError, list_files, sample_names

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv", ".ts", ".mts", ".m2ts"}
    | {".3gp", ".gif"}
)
FOLDER_SUFFIXES = VIDEO_SUFFIXES - {".gif", ".ts"}
"""Those looked for in folders, where a GIF is a picture and ``.ts`` rather a program."""

KEPT_BYTES = 128 * 2**20
"""How much of decoded frames a process keeps."""

OPEN_FILES = 4
"""How many videos a process holds open."""

NEAR = 48
"""A frame at most so far ahead is reached by decoding on; seeking decodes as many itself."""

ATTEMPTS = 32
"""So many broken frames in a row are passed over; more are the end."""

PROBED = 32
"""Frames decoded to see whether the times of the packets are those of the frames."""

Times = npt.NDArray[np.int64]
"""When frames are shown, microseconds from the start, ascending."""


@dataclass(frozen=True, eq=False)
class Video:
    """A video file as a list of frames.

    Frames are decoded one after another from the last point the file can be entered at, and known by their time, not
    by their count: so a number means the same frame however it is reached, also with frames that are stored out of
    order or shown for different times, and a frame that cannot be decoded is missing alone.

    Attributes:
        path: the file.
        times: (N,) microseconds, ascending; numbers of the frames where ``counted``.
        size: (height, width) in pixels, as shown upright.
        fps: frames a second, on average.
        counted: the file tells no usable times, so every way to a frame is from the first one.
    """

    path: Path
    times: Times = field(repr=False)
    size: tuple[int, int]
    fps: float
    counted: bool = False

    def __len__(self) -> int:
        return len(self.times)

    def frame(self, number: int) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB of a frame, upright.

        Raises:
            ImageError: it cannot be decoded.
        """
        return _OPENED.frame(self, number)


def open_video(path: Path | str, *, limit: int | None = None) -> Video:
    """List the frames of a video file without decoding them all.

    Args:
        path: the file; what can be read depends on the FFmpeg that comes with OpenCV.
        limit: only the first so many frames.

    Raises:
        SourceError: no such file, no video, none that can be decoded here, or no frame in it.
    """
    path = Path(path)
    if not path.is_file():
        raise SourceError(f"{path}: no such file: check the path")
    capture = _open(path)
    head: list[int] = []
    while len(head) < PROBED and _grab(capture):
        head.append(_time(capture))
        if len(head) == 1:
            size, fps = _shape(capture, path), float(capture.get(_cv2().CAP_PROP_FPS))
    capture.release()
    if not head:
        raise SourceError(
            f"{path}: no frame in it can be decoded: mend it, or convert it with ffmpeg -i IN -c:v libx264 OUT.mp4"
        )
    packets = _packet_times(path, None if limit is None else limit + PROBED)
    times = _shown(path, packets, np.array(head), whole=limit is None)
    counted = times is None
    if times is None:  # the container's times are not the frames': look at every frame once
        times = np.array(_decoded_times(path, limit))
        counted = bool((np.diff(times) <= 0).any())
        times = np.arange(len(times)) if counted else times
    return Video(path.absolute(), times[:limit], size, fps if 0 < fps < 1000 else _mean_rate(times, counted), counted)


def read_video(path: Path | str, *, limit: int | None = None, clip: str | None = None) -> Dataset:
    """Read a video file as the frames of one clip: samples ``CLIP/000000``, ``CLIP/000001``, ... without labels.

    Args:
        path: the file.
        limit: only the first so many frames.
        clip: what to call the clip. Default: the file's name without suffix.

    Raises:
        SourceError: it cannot be read.
    """
    video = open_video(path, limit=limit)
    clip = clip or Path(path).stem
    fps = round(video.fps, 3)
    samples = [
        Sample(f"{clip}/{number:06d}", partial(video.frame, number), size=video.size, clip=clip, frame=number, fps=fps)
        for number in range(len(video))
    ]
    return Dataset(samples, name=clip)


def read_videos(folder: Path, *, exclude: Iterable[Path] = (), limit: int | None = None) -> list[Sample]:
    """The frames of all video files in a folder, at any depth; each file is a clip named by its path below the folder.

    A file that cannot be read is one sample, named like the clip, that fails when it is loaded.
    """
    paths = list_files(folder, FOLDER_SUFFIXES, exclude=exclude)
    samples: list[Sample] = []
    for clip, path in zip(sample_names(paths), paths, strict=True):
        left = None if limit is None else limit - len(samples)
        if left is not None and left <= 0:
            break
        try:
            samples += read_video(folder / path, limit=left, clip=clip)
        except SourceError as error:
            samples.append(Sample(clip, partial(_unreadable, str(error)), clip=clip, frame=0))
    return samples


def is_animation(path: Path) -> bool:
    """Whether an image file, such as a GIF, has several frames."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return int(getattr(image, "n_frames", 1)) > 1
    except (OSError, ValueError, SyntaxError, EOFError):  # it will fail as an image, with its reason
        return False


def _unreadable(reason: str) -> npt.NDArray[np.uint8]:
    raise ImageError(reason)


def _cv2() -> Any:
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # its decoders would comment on every broken block
    import cv2

    return cv2


def _open(path: Path, *, packets: bool = False) -> Any:
    """A capture of a file's frames, or of its packets as they are stored. Raises SourceError."""
    cv2 = _cv2()
    capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1] if packets else [])
    if not capture.isOpened():
        raise SourceError(f"{path}: not a video that can be read (broken, cut off or an unknown format): replace it")
    if not packets:
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
    return capture


def _grab(capture: Any) -> bool:
    """Decode the next frame that can be; false at the end."""
    return any(capture.grab() for _ in range(ATTEMPTS))  # each try takes a broken packet out of the way


def _time(capture: Any) -> int:
    """When the last grabbed frame or packet is shown, in microseconds."""
    return round(float(capture.get(_cv2().CAP_PROP_POS_MSEC)) * 1000)


def _shape(capture: Any, path: Path) -> tuple[int, int]:
    width, height = (int(capture.get(key)) for key in (_cv2().CAP_PROP_FRAME_WIDTH, _cv2().CAP_PROP_FRAME_HEIGHT))
    if width * height > MAX_PIXELS:
        raise SourceError(f"{path}: frames of {width}x{height} pixels are too large: scale the video down")
    done, picture = capture.retrieve()
    return (int(picture.shape[0]), int(picture.shape[1])) if done else (height, width)


def _packet_times(path: Path, limit: int | None) -> Times:
    """Times of the stored frames, ascending; reads the file without decoding it."""
    try:
        capture = _open(path, packets=True)
    except SourceError:  # not for every codec
        return np.zeros(0, np.int64)
    times: list[int] = []
    while (limit is None or len(times) < limit) and capture.grab():
        times.append(_time(capture))
    capture.release()
    return np.array(sorted(times), np.int64)


def _decoded_times(path: Path, limit: int | None) -> list[int]:
    capture = _open(path)
    times: list[int] = []
    while (limit is None or len(times) < limit) and _grab(capture):
        times.append(_time(capture))
    capture.release()
    return times


def _shown(path: Path, packets: Times, head: Times, *, whole: bool) -> Times | None:
    """The packets that are shown as frames; None where their times are not those of the frames.

    What lies before the first decoded frame and after the last one is cut off by the file's edit list or damaged.
    """
    if (np.diff(packets) <= 0).any() or (np.diff(head) <= 0).any() or not np.isin(head, packets).all():
        return None
    packets = packets[packets >= head[0]]
    if not whole:
        return packets
    cv2, capture = _cv2(), _open(path)
    last = None
    for back in (0, 64, 512):
        if back < len(packets):
            capture.set(cv2.CAP_PROP_POS_MSEC, packets[-1 - back] / 1000)
            while _grab(capture):
                last = _time(capture)
        if last is not None:
            break
    capture.release()
    if last is None or last not in packets:
        return None
    lost = int((packets > last).sum())
    if lost > PROBED:
        warnings.warn(f"{path}: the last {lost} frames cannot be decoded and are left out", stacklevel=4)
    return packets[packets <= last]


def _mean_rate(times: Times, counted: bool) -> float:
    span = 0 if counted or len(times) < 2 else int(times[-1] - times[0])
    return 1e6 * (len(times) - 1) / span if span > 0 else 25.0


class _Decoder:
    """One open file and where in it decoding stands."""

    def __init__(self, video: Video) -> None:
        self._video = video
        self._capture: Any = None
        self._at = -1  # number of the frame last decoded

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def decode(self, number: int, passed: Callable[[int, npt.NDArray[np.uint8]], None] | None) -> None:
        """Decode up to a frame, which :meth:`picture` then gives; ``passed`` takes those on the way.

        Raises:
            ImageError: it cannot be decoded.
        """
        if self._capture is not None and self._at == number:
            return
        for back in (0, 256):  # where the first way in does not lead to it, one further ahead may
            if back or self._capture is None or not self._at < number <= self._at + NEAR:
                self._enter(number, back)
            while self._capture is not None and self._at < number:
                self._step()
                if passed is not None and self._capture is not None and self._at < number:
                    passed(self._at, self.picture())
            if self._capture is not None and self._at == number:
                return
        raise ImageError(f"{self._video.path.name}: frame {number} cannot be decoded: mend or cut the video")

    def picture(self) -> npt.NDArray[np.uint8]:
        """(H, W, 3) RGB of the frame last decoded. Raises ImageError."""
        done, picture = self._capture.retrieve()
        if not done:
            raise ImageError(f"{self._video.path.name}: frame {self._at} cannot be decoded: mend or cut the video")
        return np.ascontiguousarray(picture[..., ::-1])

    def _enter(self, number: int, back: int) -> None:
        """Seek to a frame at least ``back`` before ``number``, or to the start where no other way is known."""
        cv2, video = _cv2(), self._video
        for target in (number - back, number - back - 64, number - back - 512):
            if target <= 0 or video.counted or self._capture is None:
                break
            self._capture.set(cv2.CAP_PROP_POS_MSEC, video.times[target] / 1000)
            self._step()
            if self._capture is not None and self._at <= number:
                return
        self.close()
        try:
            self._capture, self._at = _open(video.path), -1
        except SourceError as error:
            raise ImageError(str(error)) from None

    def _step(self) -> None:
        """Decode the next frame; at the end, close."""
        while _grab(self._capture):
            if self._video.counted:
                self._at += 1
                return
            time = _time(self._capture)
            at = int(np.searchsorted(self._video.times, time))
            if at < len(self._video) and self._video.times[at] == time:
                self._at = at
                return
            if at >= len(self._video):
                break
        self.close()


class _Opened:
    """The videos this process holds open, and frames it decoded lately."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._decoders: OrderedDict[tuple[str, int], _Decoder] = OrderedDict()
        self._frames: OrderedDict[tuple[str, int], npt.NDArray[np.uint8]] = OrderedDict()
        self._bytes = 0
        if hasattr(os, "register_at_fork"):  # two processes must not read through one open file
            os.register_at_fork(
                before=self._close, after_in_parent=self._lock.release, after_in_child=self._lock.release
            )

    def frame(self, video: Video, number: int) -> npt.NDArray[np.uint8]:
        if not 0 <= number < len(video):
            raise ImageError(f"{video.path.name}: no frame {number}: it has {len(video)}")
        name = str(video.path)
        with self._lock:
            found = self._frames.get((name, number))
            if found is None:
                # on the way to a frame of a short clip all others are kept: they will be asked for too
                short = len(video) * video.size[0] * video.size[1] * 3 <= KEPT_BYTES
                decoder = self._decoder(name, video)
                decoder.decode(number, partial(self._keep, name) if short else None)
                found = decoder.picture()
                self._keep(name, number, found)
            self._frames.move_to_end((name, number))
            return np.array(found)

    def _decoder(self, name: str, video: Video) -> _Decoder:
        key = name, len(video)
        if key not in self._decoders:
            self._decoders[key] = _Decoder(video)
        self._decoders.move_to_end(key)
        while len(self._decoders) > OPEN_FILES:
            self._decoders.popitem(last=False)[1].close()
        return self._decoders[key]

    def _keep(self, name: str, number: int, picture: npt.NDArray[np.uint8]) -> None:
        if (name, number) not in self._frames:
            self._bytes += picture.nbytes
        self._frames[name, number] = picture
        while self._bytes > KEPT_BYTES and len(self._frames) > 1:
            self._bytes -= self._frames.popitem(last=False)[1].nbytes

    def _close(self) -> None:
        """Close every file and keep others out until the lock is released."""
        self._lock.acquire()
        for decoder in self._decoders.values():
            decoder.close()
        self._decoders.clear()


_OPENED = _Opened()
