from __future__ import annotations

import multiprocessing
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from moving_squares import mask, number_of, picture, rotated, write_video
from pixelkin.data import ImageError
from pixelkin.formats import SourceError, open_dataset, read_video
from pixelkin.formats import video as module
from pixelkin.formats.video import open_video

CODECS = [("mp4v", ".mp4"), ("XVID", ".avi"), ("MJPG", ".avi"), ("mp4v", ".mov"), ("FFV1", ".mkv"), ("VP80", ".webm")]


@pytest.fixture
def no_memory(monkeypatch):
    """Frames are decoded anew each time they are asked for."""
    monkeypatch.setattr(module, "KEPT_BYTES", 0)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_video(tmp_path_factory.mktemp("videos") / "clip.mp4", 100)


def sequence(path: Path) -> list[np.ndarray]:
    """Every frame, one after another."""
    import cv2

    capture, frames = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), []
    while (read := capture.read())[0]:
        frames.append(read[1][..., ::-1])
    return frames


@pytest.mark.parametrize(("code", "suffix"), CODECS)
def test_frames_are_samples_of_a_clip(tmp_path, code, suffix):
    path = write_video(tmp_path / f"my.clip{suffix}", 7, code=code)
    dataset = open_dataset(path)
    assert [s.name for s in dataset][:2] == ["my.clip/000000", "my.clip/000001"]
    assert [(s.clip, s.frame, s.fps) for s in dataset] == [("my.clip", i, 20) for i in range(7)]
    assert [number_of(s.image) for s in dataset] == list(range(7))
    assert dataset[3].size == dataset[3].image.shape[:2] == (96, 128)
    assert np.abs(dataset[3].image.astype(int)[50:60, 20:30] - picture(3)[50:60, 20:30]).mean() < 12  # RGB, not BGR


@given(st.lists(st.integers(0, 99), min_size=1, max_size=5))
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_gives_the_same_pixels_as_one_after_another(no_memory, clip, numbers):
    video, frames = open_video(clip), _frames_of(clip)
    for number in numbers:
        assert np.array_equal(video.frame(number), frames[number])


_cache: dict[Path, list[np.ndarray]] = {}


def _frames_of(path: Path) -> list[np.ndarray]:
    if path not in _cache:
        _cache[path] = sequence(path)
    return _cache[path]


@pytest.mark.parametrize(
    ("suffix", "codec", "times"),
    [
        (".mp4", "libx264", "even"),
        (".mp4", "libx264", "uneven"),
        (".mkv", "libx264", "uneven"),
        (".avi", "mpeg4", "even"),
        (".mpg", "mpeg2video", "even"),
        (".ts", "libx264", "even"),
    ],
)
def test_frames_stored_out_of_order_have_their_numbers(no_memory, tmp_path, suffix, codec, times):
    """B-frames and uneven times, which OpenCV cannot write."""
    av = pytest.importorskip("av")
    from fractions import Fraction

    path = tmp_path / f"x{suffix}"
    with av.open(str(path), "w", format="mpeg" if suffix == ".mpg" else None) as file:
        stream = file.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 96, 128, "yuv420p"
        stream.codec_context.max_b_frames, stream.codec_context.gop_size = 2, 12
        base = Fraction(1, 1000) if times == "uneven" else Fraction(1, 25)
        stream.time_base = stream.codec_context.time_base = base
        time = 0
        for number in range(60):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = time, base
            time += [33, 17, 250][number % 3] if times == "uneven" else 1
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    video, frames = open_video(path), sequence(path)
    assert len(video) == 60
    for number in [59, 0, 58, 1, *np.random.default_rng(0).permutation(60)[:16].tolist()]:
        found = video.frame(number)
        assert number_of(found) == number
        assert np.array_equal(found, frames[number])


def test_a_limit_reads_no_further(clip, monkeypatch):
    assert [s.frame for s in open_dataset(clip, limit=3)] == [0, 1, 2]
    assert len(open_video(clip, limit=250)) == 100
    monkeypatch.setattr(module, "PROBED", 4)
    assert len(module._packet_times(clip, 14)) == 14


@pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (180, 2), (270, 3)])
def test_turned_video_is_upright(tmp_path, degrees, turns):
    path = rotated(write_video(tmp_path / "x.mp4", 3), degrees)
    sample = open_dataset(path)[1]
    assert sample.size == ((128, 96) if degrees % 180 else (96, 128))
    assert number_of(np.rot90(sample.image, turns)) == 1  # the matrix turns clockwise


@pytest.mark.parametrize("count", [1, 2])
def test_short_and_portrait(tmp_path, count):
    dataset = read_video(write_video(tmp_path / "x.mp4", count, size=(128, 120)))
    assert [number_of(s.image) for s in dataset] == list(range(count))
    assert dataset[0].size == (128, 120)


def test_a_gif_that_moves_is_a_clip(tmp_path):
    pictures = [Image.fromarray(picture(i)) for i in range(5)]
    pictures[0].save(tmp_path / "x.gif", save_all=True, append_images=pictures[1:], duration=40)
    dataset = open_dataset(tmp_path / "x.gif")
    assert [number_of(s.image) for s in dataset] == list(range(5))
    pictures[0].save(tmp_path / "still.gif")
    assert [s.name for s in open_dataset(tmp_path / "still.gif")] == ["still"]
    assert [s.name for s in open_dataset(tmp_path)] == ["still", "x"]  # in a folder both are pictures


@pytest.mark.parametrize("content", [b"", b"no video at all" * 100, b"\0" * 5000])
def test_what_is_no_video_is_one_line(tmp_path, content):
    (tmp_path / "x.mp4").write_bytes(content)
    with pytest.raises(SourceError, match=r"x\.mp4: not a video") as caught:
        open_dataset(tmp_path / "x.mp4")
    assert "\n" not in str(caught.value)
    with pytest.raises(SourceError, match="no such file"):
        read_video(tmp_path / "y.mp4")


def test_a_video_without_frames(tmp_path):
    path = write_video(tmp_path / "x.avi", 2, code="MJPG")
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"movi") + 4])
    with pytest.raises(SourceError, match=r"no frame in it|not a video"):
        open_dataset(path)


def test_a_file_that_was_cut_off_gives_what_is_left(tmp_path):
    path = write_video(tmp_path / "x.avi", 60, code="MJPG")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    dataset = read_video(path)
    assert 20 < len(dataset) < 40
    assert [number_of(s.image) for s in dataset] == list(range(len(dataset)))


def test_a_broken_frame_fails_alone(no_memory, tmp_path):
    path = write_video(tmp_path / "x.avi", 20, code="MJPG")
    data = path.read_bytes()
    starts = [i for i in range(len(data)) if data.startswith(b"\xff\xd8\xff", i)]
    start, end = starts[12], starts[13]
    path.write_bytes(data[: start + 2] + b"\0" * (end - start - 40) + data[end - 38 :])
    samples = list(read_video(path))
    assert len(samples) == 20
    for order in (range(20), reversed(range(20))):
        for number in order:
            if number == 12:
                with pytest.raises(ImageError, match="frame 12 cannot be decoded"):
                    _ = samples[number].image
            else:
                assert number_of(samples[number].image) == number


def test_a_folder_of_videos(tmp_path, picture):
    write_video(tmp_path / "v/b/two.mp4", 3)
    write_video(tmp_path / "v/one.mp4", 2)
    write_video(tmp_path / "v/one.avi", 1, code="MJPG")
    (tmp_path / "v/torn.mp4").write_bytes(b"torn")
    dataset = open_dataset(tmp_path / "v")
    assert [s.name for s in dataset] == [
        *(f"b/two/00000{i}" for i in range(3)),
        "one.avi/000000",
        "one.mp4/000000",
        "one.mp4/000001",
        "torn",
    ]
    assert dataset.name == "v"
    with pytest.raises(ImageError, match=r"torn\.mp4: not a video"):
        _ = dataset[-1].image
    assert [s.clip for s in open_dataset(tmp_path / "v", limit=4)] == ["b/two"] * 3 + ["one.avi"]
    picture("v/photo.png")
    assert [s.name for s in open_dataset(tmp_path / "v")][:2] == ["photo", "b/two/000000"]
    assert [(s.clip, s.frame) for s in open_dataset(tmp_path / "v", frames=True)][:2] == [("v", 0), ("b/two", 0)]


def test_labels_are_found_by_clip_and_number(tmp_path):
    path = write_video(tmp_path / "x.mp4", 4)
    for number in (0, 2):
        (tmp_path / "masks/x").mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask(number)).save(tmp_path / f"masks/x/{number:06d}.png")
    dataset = open_dataset(path, semantic=tmp_path / "masks")
    assert [s.has("semantic") for s in dataset] == [True, False, True, False]
    assert [s.has("semantic") for s in open_dataset(path, semantic=tmp_path / "masks", limit=1)] == [True]


def test_memory_is_bounded(clip, monkeypatch):
    monkeypatch.setattr(module, "KEPT_BYTES", 5 * 96 * 128 * 3)
    monkeypatch.setattr(module, "_OPENED", module._Opened())
    video = open_video(clip)
    for number in range(30):
        video.frame(number)
    assert len(module._OPENED._frames) == 5
    assert module._OPENED._bytes == sum(frame.nbytes for frame in module._OPENED._frames.values())
    monkeypatch.setattr(module, "OPEN_FILES", 2)
    for length in range(1, 6):
        open_video(clip, limit=length).frame(0)
    assert len(module._OPENED._decoders) == 2


def test_a_frame_belongs_to_who_asked(clip):
    video = open_video(clip)
    video.frame(5)[:] = 0
    assert number_of(video.frame(5)) == 5


def test_threads_and_processes_read_at_once(no_memory, clip):
    samples = list(read_video(clip, limit=12))
    found: dict[int, int] = {}

    def read(number: int) -> None:
        found[number] = number_of(samples[number].image)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: number for number in range(12)}
    copied = pickle.loads(pickle.dumps(samples[7]))
    assert number_of(copied.image) == 7
    if "fork" in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context("fork")
        queue = context.SimpleQueue()
        child = context.Process(target=lambda: queue.put(number_of(samples[9].image)))
        child.start()
        assert number_of(samples[3].image) == 3
        assert queue.get() == 9
        child.join(30)
        assert child.exitcode == 0
