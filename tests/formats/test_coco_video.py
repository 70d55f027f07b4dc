from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_up import instances

from pixelkin.data import Dataset, Instances, Sample
from pixelkin.formats import SourceError, convert, read_coco
from pixelkin.formats.coco_video import number_clips, video_records

clips = st.dictionaries(
    st.sampled_from(["a", "deep/b", "c.d", "π"]), st.lists(instances(), min_size=1, max_size=3), min_size=1
)


def frames(content: dict[str, list[Instances]], fps: float | None = None) -> Dataset:
    samples = [
        Sample(f"{clip}/{i:04d}", None, size=found.size, instances=found, clip=clip, frame=i, fps=fps)
        for clip, items in content.items()
        for i, found in enumerate(items)
    ]
    return Dataset(samples, {1: "x", 2: "y", 3: "z"})


@given(clips, st.sampled_from([None, 25.0, 29.97]))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_clips_frames_and_tracks_come_back(tmp_path, content, fps):
    from pixelkin.formats.convert import _write_coco

    dataset = frames(content, fps)
    _write_coco(tmp_path / "x.json", dataset)
    read = read_coco(tmp_path / "x.json")
    for before, after in zip(dataset, read, strict=True):
        assert (after.name, after.clip, after.frame, after.fps) == (before.name, before.clip, before.frame, before.fps)
        assert after.instances == before.instances


def test_records():
    size = (2, 3)
    dataset = frames({"b": [Instances.empty(size)] * 2, "a": [Instances.empty(size)]}, 12.0)
    assert number_clips(dataset) == {"b": 1, "a": 2}
    assert video_records(dataset) == [
        {"id": 1, "name": "b", "length": 2, "fps": 12.0},
        {"id": 2, "name": "a", "length": 1, "fps": 12.0},
    ]
    photos = Dataset([Sample("photo", None, size=size)])
    assert number_clips(photos) == {}
    assert video_records(photos) == []


def write(path, images, videos=None):
    content = {"images": [{"width": 4, "height": 4, **image} for image in images], "annotations": []}
    content |= {"categories": [{"id": 1, "name": "x"}]} | ({"videos": videos} if videos else {})
    path.write_text(json.dumps(content))
    return path


def test_files_of_other_makers(tmp_path):
    images = [
        {"id": 1, "file_name": "one/b.jpg", "video_id": 5},
        {"id": 2, "file_name": "one/a.jpg", "video_id": 5},
        {"id": 3, "file_name": "x.jpg", "video_id": 9, "frame_id": 30},
        {"id": 4, "file_name": "two/c.jpg", "video_id": "v", "frame_id": 2},
        {"id": 5, "file_name": "photo.jpg"},
    ]
    dataset = read_coco(write(tmp_path / "x.json", images, [{"id": "v", "name": "train/v", "fps": "fast"}]))
    assert [(s.clip, s.frame, s.fps) for s in dataset] == [
        ("one", 0, None),
        ("one", 1, None),
        ("9", 30, None),
        ("train/v", 2, None),
        (None, None, None),
    ]


@pytest.mark.parametrize("name", ["../up", "/root", "a/../../b", "C:\\x", 7])
def test_a_video_whose_name_leads_out_is_refused(tmp_path, name):
    image = {"id": 1, "file_name": "a.jpg", "video_id": 1}
    with pytest.raises(SourceError, match=r"video 1: .*(leads out|no file name)"):
        read_coco(write(tmp_path / "x.json", [image], [{"id": 1, "name": name}]))


@pytest.mark.parametrize("number", [-1, "3", 1.5])
def test_frames_are_numbered_from_zero(tmp_path, number):
    image = {"id": 1, "file_name": "a.jpg", "video_id": 1, "frame_id": number}
    with pytest.raises(SourceError, match="frame_id"):
        read_coco(write(tmp_path / "x.json", [image]))


def test_tracks_that_are_none(tmp_path):
    rle = {"size": [2, 2], "counts": [0, 4]}
    from pixelkin.formats import instances_from_annotations

    records = [{"id": 40 + i, "category_id": 1, "segmentation": rle} for i in range(5)]
    for record, track in zip(records, [3, -1, "x", None, 2**70], strict=True):
        record["track_id"] = track
    found = instances_from_annotations(records, (2, 2))
    assert found.tracks.tolist() == [3, 0, 0, 0, 0]
    assert found.ids.tolist() == [3, 41, 42, 43, 44]


def test_still_images_get_no_tracks_by_conversion(tmp_path, picture):
    picture("masks/a.png", (Instances.from_masks([[[1, 0], [0, 0]]]).label_map() * 5).astype("uint8"))
    convert(tmp_path / "masks", tmp_path / "x.json")
    record = json.loads((tmp_path / "x.json").read_text())["annotations"][0]
    assert "track_id" not in record
    assert record["instance_id"] == 5
