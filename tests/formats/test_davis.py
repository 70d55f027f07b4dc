from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from made_up import instances, save
from PIL import Image

from pixelkin.data import ALTERNATIVE, ImageError, Instances, Sample
from pixelkin.formats import (
    SourceError,
    open_dataset,
    read_davis,
    read_davis_masks,
    read_frames,
    read_split_file,
    write_davis,
)


def ids_of(sample: Sample) -> list[int]:
    assert sample.instances is not None
    return sample.instances.ids.tolist()


@pytest.fixture
def davis(tmp_path, picture):
    for clip in ("bear", "cat"):
        for frame in range(3):
            picture(f"DAVIS/JPEGImages/480p/{clip}/{frame:05d}.jpg", size=(2, 4))
            picture(f"DAVIS/JPEGImages/1080p/{clip}/{frame:05d}.jpg", size=(4, 8))
    masks = tmp_path / "DAVIS/Annotations/480p"
    save(masks / "bear/00000.png", np.array([[0, 255, 255, 0]] * 2, dtype=np.uint8))
    save(masks / "bear/00001.png", np.array([[0, 0, 0, 0]] * 2, dtype=np.uint8))
    save(masks / "cat/00000.png", np.array([[1, 2, 255, 0]] * 2, dtype=np.uint8))
    save(masks / "cat/00001.png", np.array([[0, 0, 255, 0]] * 2, dtype=np.uint8))
    return tmp_path / "DAVIS"


def test_reading(davis):
    dataset = open_dataset(davis)
    assert [(s.name, s.clip, s.frame) for s in dataset][:4] == [
        ("bear/00000", "bear", 0),
        ("bear/00001", "bear", 1),
        ("bear/00002", "bear", 2),
        ("cat/00000", "cat", 0),
    ]
    assert dataset[0].image.shape == (2, 4, 3)
    assert ids_of(dataset[0]) == [1]
    assert ids_of(dataset[1]) == []
    assert not dataset[2].has("instances")
    assert ids_of(dataset[3]) == [1, 2]
    assert ids_of(dataset[4]) == []  # 255 alone is void in a clip that has ids
    assert not np.asarray(dataset[0].ignore).any()
    assert np.asarray(dataset[4].ignore)[0].tolist() == [False, False, True, False]


@pytest.mark.parametrize("below", ["", "Annotations", "Annotations/480p"])
def test_masks_alone(davis, below):
    dataset = read_davis_masks(davis / below)
    assert [s.name for s in dataset] == ["bear/00000", "bear/00001", "cat/00000", "cat/00001"]
    assert ids_of(dataset[2]) == [1, 2]
    assert dataset[0].size == (2, 4)
    with pytest.raises(ImageError, match="without its frame"):
        _ = dataset[0].image


def test_one_clips_masks(davis):
    dataset = read_davis_masks(davis / "Annotations/480p/cat")
    assert [(s.name, s.clip) for s in dataset] == [("00000", "cat"), ("00001", "cat")]
    assert ids_of(dataset[0]) == [1, 2]


@given(instances(overlaps=False, crowds=False))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip_is_exact_without_overlaps(tmp_path, found):
    found = found[found.areas > 0]
    report = write_davis(tmp_path / "masks", [Sample("x/7", None, size=found.size, instances=found, clip="x", frame=0)])
    (sample,) = read_davis_masks(tmp_path / "masks")
    order = np.argsort(found.ids)
    assert report.lossless
    assert sample.name == "x/7"
    assert ids_of(sample) == found.ids[order].tolist()
    assert sample.instances is not None
    assert list(sample.instances.rles) == [found.rles[i] for i in order]


def test_overlaps_are_reported(tmp_path):
    found = Instances.from_masks(np.ones((2, 3, 3), bool), scores=[0.2, 0.9])
    report = write_davis(tmp_path, [Sample("x/7", None, size=(3, 3), instances=found, clip="x")])
    assert report.losses[0].area_changed == 9
    assert report.losses[0].dropped == 1


def test_folders_of_frames_are_clips_in_natural_order(tmp_path, picture):
    for frame in (1, 2, 10):
        picture(f"v/one/f{frame}.png")
    picture("v/lone.png")
    dataset = read_frames(tmp_path / "v")
    assert [(s.name, s.clip, s.frame) for s in dataset] == [
        ("lone", "v", 0),
        ("one/f1", "one", 0),
        ("one/f2", "one", 1),
        ("one/f10", "one", 2),
    ]
    assert [s.clip for s in open_dataset(tmp_path / "v", frames=True)] == ["v", "one", "one", "one"]
    assert open_dataset(tmp_path / "v")[0].clip is None


def test_no_frames(tmp_path):
    (tmp_path / "JPEGImages/480p").mkdir(parents=True)
    with pytest.raises(SourceError, match="no images"):
        read_davis(tmp_path)


def test_split_file(tmp_path, picture):
    for frame in range(3):
        picture(f"data/clips/a/{frame}.jpg")
    path = tmp_path / "data/splits/train.txt"
    path.parent.mkdir()
    path.write_text("clips/a/ 0.jpg 2.jpg\n\nclips/a 1.jpg\n")
    dataset = open_dataset(path)
    assert [(s.name, s.clip, s.frame) for s in dataset] == [
        ("clips/a/0", "clips/a", 0),
        ("clips/a/2", "clips/a", 1),
        ("clips/a/1", "clips/a", 2),
    ]
    assert dataset[1].image.shape == (12, 16, 3)
    assert len(read_split_file(path, tmp_path / "data")) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no clips"),
        ("clips/a\n", "line 1: no frames"),
        ("clips/b 1.jpg\n", "no folder"),
        ("../x 1.jpg\n", "leads out"),
        ("clips/a ../../x.jpg\n", "leads out"),
        ("clips/a 1.jpg 1.jpg\n", "twice"),
    ],
)
def test_bad_split_files(tmp_path, text, message):
    (tmp_path / "clips/a").mkdir(parents=True)
    (tmp_path / "s.txt").write_text(text)
    with pytest.raises(SourceError, match=message):
        read_split_file(tmp_path / "s.txt")


def test_pieces_of_one_track_share_its_number(tmp_path):
    halves = np.zeros((2, 2, 6), bool)
    halves[0, :, :2], halves[1, :, 4:] = True, True
    for track, mode in ((9, "P"), (300, "I;16")):
        found = Instances.from_masks(halves, tracks=[track, track])
        report = write_davis(tmp_path / mode[0], [Sample("x/7", None, size=(2, 6), instances=found, clip="x")])
        assert report.lossless
        with Image.open(tmp_path / mode[0] / "x/7.png") as png:
            assert png.mode == mode
            assert np.array(png)[0].tolist() == [track, track, 0, 0, track, track]
        (read,) = read_davis_masks(tmp_path / mode[0])
        assert read.instances is not None
        assert read.instances.tracks.tolist() == [track]


def test_alternatives_are_left_out_of_frames(tmp_path):
    found = Instances.from_masks(np.ones((2, 3, 3), bool), scores=[0.2, 0.9], sources=["a", "b" + ALTERNATIVE])
    write_davis(tmp_path, [Sample("x/7", None, size=(3, 3), instances=found, clip="x")])
    with Image.open(tmp_path / "x/7.png") as png:
        assert set(np.unique(np.array(png))) == {1}
