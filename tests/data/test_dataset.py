from __future__ import annotations

import numpy as np
import pytest

from pixelkin.data import Dataset, Sample


def make(n=4):
    image = np.zeros((2, 3, 3), np.uint8)
    samples = [Sample(f"s{i}", image, tags=(i,) if i % 2 else None) for i in range(n)]
    return Dataset(samples, {7: "cat", 3: "dog"}, name="pets")


def test_order_names_and_slices():
    dataset = make()
    assert len(dataset) == 4
    assert [sample.name for sample in dataset] == ["s0", "s1", "s2", "s3"]
    assert dataset[-1].name == "s3"
    assert dataset[np.int64(2)].name == "s2"
    part = dataset[1:3]
    assert isinstance(part, Dataset)
    assert [sample.name for sample in part] == ["s1", "s2"]
    assert part.classes == dataset.classes
    assert part.name == "pets"
    with pytest.raises(IndexError):
        dataset[4]


def test_classes_keep_their_ids_in_ascending_order():
    assert list(make().classes.items()) == [(3, "dog"), (7, "cat")]
    assert Dataset([]).classes == {}


@pytest.mark.parametrize("reserved", [0, 255])
def test_reserved_ids_are_refused(reserved):
    with pytest.raises(ValueError, match="renumber"):
        Dataset([], {reserved: "void"})


def test_two_images_of_one_name_are_refused():
    sample = make()[0]
    with pytest.raises(ValueError, match="s0"):
        Dataset([sample, sample])


def test_filter_map_and_with_label_stay_lazy():
    def load():
        raise AssertionError("loaded")

    dataset = Dataset([Sample("a", load, semantic=load), Sample("b", load)], {1: "thing"}, name="set")
    assert [sample.name for sample in dataset.with_label("semantic")] == ["a"]
    assert [sample.name for sample in dataset.filter(lambda sample: sample.name == "b")] == ["b"]
    renamed = dataset.map(lambda sample: sample.replace(name=sample.name + "!"))
    assert [sample.name for sample in renamed] == ["a!", "b!"]
    assert renamed.classes == {1: "thing"}
    assert [sample.name for sample in dataset] == ["a", "b"]
    assert "2 images" in repr(dataset)


def test_clips_hold_their_frames_in_order():
    image = np.zeros((2, 2, 3), np.uint8)
    frames = [("b/1", "b", 1), ("a/0", "a", 0), ("photo", None, None), ("b/0", "b", 0)]
    dataset = Dataset([Sample(name, image, clip=clip, frame=number) for name, clip, number in frames])
    found = {clip: [sample.name for sample in samples] for clip, samples in dataset.clips().items()}
    assert found == {"b": ["b/0", "b/1"], "a": ["a/0"]}
