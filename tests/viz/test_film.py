from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from moving_squares import mask, number_of, picture
from pixelkin.data import ALTERNATIVE, Instances
from pixelkin.formats.video import open_video
from pixelkin.viz.film import Frame, write_film


def frame(number: int, size: tuple[int, int] = (96, 128)) -> Frame:
    return picture(number, size), Instances.from_masks(mask(number, size)[None], tracks=[5])


def test_frames_come_in_order_with_their_masks(tmp_path: Path) -> None:
    assert write_film(tmp_path / "deep/x.mp4", (frame(i) for i in range(6)), fps=12.5) == 6
    film = open_video(tmp_path / "deep/x.mp4")
    assert [number_of(film.frame(i)) for i in range(6)] == list(range(6))
    assert film.fps == 12.5
    plain = picture(2).astype(int)
    changed = np.abs(film.frame(2) - plain).max(axis=2) > 60
    inside = mask(2).astype(bool)
    assert changed[inside].mean() > 0.3
    assert changed[~inside].mean() < 0.1


def test_no_instances_and_alternatives_leave_the_picture(tmp_path: Path) -> None:
    image, instances = frame(3)
    assert instances is not None
    doubt = Instances(instances.size, instances.rles, sources=["x" + ALTERNATIVE])
    for name, made in (("none", None), ("empty", Instances.empty(instances.size)), ("doubt", doubt)):
        write_film(tmp_path / f"{name}.mp4", [(image, made)])
    shown = [open_video(tmp_path / f"{name}.mp4").frame(0) for name in ("none", "empty", "doubt")]
    assert np.array_equal(shown[0], shown[1])
    assert np.array_equal(shown[0], shown[2])


@pytest.mark.parametrize(
    ("size", "film"), [((161, 121), (160, 120)), ((112, 4000), (54, 1920)), ((113, 113), (112, 112)), ((1, 1), (2, 2))]
)
def test_sizes_become_even_and_bounded(tmp_path: Path, size: tuple[int, int], film: tuple[int, int]) -> None:
    image = np.full((*size, 3), 200, dtype=np.uint8)
    write_film(tmp_path / "x.mp4", [(image, None)])
    shown = open_video(tmp_path / "x.mp4").frame(0)
    assert shown.shape[:2] == film
    assert shown.min() > 180  # no black rim


def test_another_shape_is_fitted_in(tmp_path: Path) -> None:
    tall = np.full((128, 96, 3), 200, dtype=np.uint8)
    write_film(tmp_path / "x.mp4", [frame(0), (tall, None)])
    shown = open_video(tmp_path / "x.mp4").frame(1)
    assert shown.shape == (96, 128, 3)
    assert shown[:, 34:94].min() > 150
    assert shown[:, :20].max() < 40


def test_nothing_is_left_of_what_broke_off(tmp_path: Path) -> None:
    write_film(tmp_path / "x.mp4", [frame(0), frame(1)])
    before = (tmp_path / "x.mp4").read_bytes()

    def broken() -> Iterator[Frame]:
        yield frame(2)
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write_film(tmp_path / "x.mp4", broken())
    assert (tmp_path / "x.mp4").read_bytes() == before
    assert write_film(tmp_path / "y.mp4", []) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["x.mp4"]


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        write_film(tmp_path / "file/x.mp4", [frame(0)])


def test_memory_does_not_grow_with_the_clip(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        write_film(tmp_path / "x.mp4", (frame(i) for i in range(count)))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(2)  # fonts and imports
    assert peak(60) < peak(6) + 100_000
