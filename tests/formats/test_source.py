from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from made_up import save
from PIL import Image

from pixelkin.data import ImageError, Point
from pixelkin.formats import SourceError, open_dataset

BLANK = np.zeros((12, 16), np.uint8)


def half(value: int, dtype: type = np.uint8) -> np.ndarray:
    mask = np.zeros((12, 16), dtype)
    mask[:, 8:] = value
    return mask


@pytest.fixture
def images(tmp_path, picture):
    for name in ("a.jpg", "b.png", "sub/c.jpg"):
        picture(f"images/{name}")
    return tmp_path / "images"


def test_a_folder_of_images(images):
    (images / "Thumbs.db").write_bytes(b"x")
    (images / "broken.jpg").write_bytes(b"no image")
    (images / "b.png").rename(images / "b.jpg")  # wrongly named
    dataset = open_dataset(images)
    assert [sample.name for sample in dataset] == ["a", "b", "broken", "sub/c"]
    assert dataset.classes == {}
    assert dataset[1].image.shape == (12, 16, 3)
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        _ = dataset[2].image


def test_one_image_and_limit(images):
    assert [sample.name for sample in open_dataset(images / "a.jpg")] == ["a"]
    assert [sample.name for sample in open_dataset(images, limit=2)] == ["a", "b"]
    with pytest.raises(SourceError, match="at least 1"):
        open_dataset(images, limit=0)


def test_semantic_masks(images, tmp_path):
    save(tmp_path / "masks/a.png", half(7))
    save(tmp_path / "masks/c.png", half(255) + half(9)[:, ::-1])
    (tmp_path / "masks/b.png").write_bytes(b"broken")
    dataset = open_dataset(images, semantic=tmp_path / "masks")
    a, b, c = dataset
    assert dataset.classes == {7: "class 7", 9: "class 9"}
    np.testing.assert_array_equal(a.semantic, half(7))
    assert c.semantic is not None
    assert set(np.unique(c.semantic)) == {9, 255}
    with pytest.raises(ImageError, match=r"b\.png"):
        _ = b.semantic


def test_a_sample_without_its_mask_has_none(images, tmp_path):
    save(tmp_path / "masks/a.png", half(1))
    dataset = open_dataset(images, semantic=tmp_path / "masks")
    assert [sample.has("semantic") for sample in dataset] == [True, False, False]


def test_masks_below_the_images_are_no_images(images):
    save(images / "masks/a.png", half(1))
    dataset = open_dataset(images, semantic=images / "masks")
    assert [sample.name for sample in dataset] == ["a", "b", "sub/c"]
    assert dataset[0].has("semantic")


@pytest.mark.parametrize("place", ["masks/classes.txt", "classes.txt", "images/classes.txt"])
def test_class_lists_are_found(images, tmp_path, place):
    save(tmp_path / "masks/a.png", half(1))
    (tmp_path / place).write_text("1 nucleus\n2 cell\n")
    assert open_dataset(images, semantic=tmp_path / "masks").classes == {1: "nucleus", 2: "cell"}


def test_a_class_that_is_not_listed_is_an_error_of_the_sample(images, tmp_path):
    save(tmp_path / "masks/a.png", half(3))
    save(tmp_path / "masks/b.png", half(1))
    (tmp_path / "own.txt").write_text("1 nucleus\n")
    a, b, _ = open_dataset(images, semantic=tmp_path / "masks", classes=tmp_path / "own.txt")
    with pytest.raises(ImageError, match="holds class 3, which is not in the class list"):
        _ = a.semantic
    np.testing.assert_array_equal(b.semantic, half(1))


def test_masks_of_another_size_or_in_colour_fail_alone(images, tmp_path):
    save(tmp_path / "masks/a.png", half(1)[:5])
    save(tmp_path / "masks/b.png", np.zeros((12, 16, 3), np.uint8))
    save(tmp_path / "masks/c.png", half(1))
    a, b, c = open_dataset(images, semantic=tmp_path / "masks")
    with pytest.raises(ImageError, match="semantic mask is"):
        _ = a.semantic
    with pytest.raises(ImageError, match="one channel"):
        _ = b.semantic
    assert c.semantic is not None


def test_masks_of_one_bit_16_bits_and_palettes(images, tmp_path):
    (tmp_path / "masks").mkdir()
    Image.fromarray(half(1).astype(bool)).save(tmp_path / "masks/a.png")
    save(tmp_path / "masks/b.png", half(1, np.uint16))
    palette = Image.fromarray(half(2))
    palette.putpalette([9] * 768)
    palette.save(tmp_path / "masks/c.png")
    a, b, c = open_dataset(images, semantic=tmp_path / "masks")
    np.testing.assert_array_equal(a.semantic, half(1))
    np.testing.assert_array_equal(b.semantic, half(1))
    np.testing.assert_array_equal(c.semantic, half(2))


def test_masks_of_0_and_255_alone_are_explained(images, tmp_path):
    save(tmp_path / "masks/a.png", half(255))
    with pytest.raises(SourceError, match=r"only 0 .* and 255"):
        open_dataset(images, semantic=tmp_path / "masks")


def test_probabilities(images, tmp_path):
    (tmp_path / "masks").mkdir()
    values = np.full((3, 12, 16), 0.2, np.float16)
    values[2, :, 8:] = 0.6
    values[0, :, :8] = 0.6
    np.save(tmp_path / "masks/a.npy", values)
    np.save(tmp_path / "masks/b.npy", values)
    save(tmp_path / "masks/b.png", half(4))
    np.save(tmp_path / "masks/c.npy", values * 9)
    a, b, c = open_dataset(images, semantic=tmp_path / "masks", classes={4: "x", 6: "y"})
    assert a.probabilities is not None
    assert a.probabilities.dtype == np.float32
    np.testing.assert_array_equal(a.semantic, half(6))
    np.testing.assert_array_equal(b.semantic, half(4))  # the mask beside it counts
    assert b.has("probabilities")
    with pytest.raises(ImageError, match="softmax"):
        _ = c.probabilities
    dataset = open_dataset(images, semantic=tmp_path / "masks")
    assert set(dataset.classes) == {1, 2, 4}
    with pytest.raises(ImageError, match=r"float \(4, H, W\)"):
        _ = dataset[0].semantic


@pytest.mark.parametrize("flag", ["semantic", "depth"])
def test_folders_of_labels_that_cannot_be_meant(images, tmp_path, flag):
    with pytest.raises(SourceError, match="no such folder"):
        open_dataset(images, **{flag: tmp_path / "none"})
    with pytest.raises(SourceError, match="one folder cannot be told apart"):
        open_dataset(images, **{flag: images})
    with pytest.raises(SourceError, match="must be a folder"):
        open_dataset(images, **{flag: images / "a.jpg"})
    save(tmp_path / "masks/other.png", half(1))
    with pytest.raises(SourceError, match=r"named? (like|of)|has the name of an image \(say a\.png\)") as caught:
        open_dataset(images, **{flag: tmp_path / "masks"})
    assert "\n" not in str(caught.value)


def test_sources_that_cannot_be_meant(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.mp4").touch()
    (tmp_path / "a.docx").touch()
    for name, message in [
        ("none", "no such file"),
        ("empty", "no images"),
        ("a.mp4", "not a video that can be read"),
        ("a.docx", "is no source"),
    ]:
        with pytest.raises(SourceError, match=message) as caught:
            open_dataset(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_depth(images, tmp_path):
    save(tmp_path / "depth/a.png", half(1500, np.uint16))
    (tmp_path / "depth").mkdir(exist_ok=True)
    np.save(tmp_path / "depth/b.npy", half(2, np.float64))
    save(tmp_path / "depth/c.png", half(200))
    a, b, c = open_dataset(images, depth=tmp_path / "depth")
    np.testing.assert_allclose(a.depth, half(1, np.float32) * 1.5)
    np.testing.assert_array_equal(b.depth, half(2, np.float32))
    assert b.depth is not None
    assert b.depth.dtype == np.float32
    with pytest.raises(ImageError, match="8-bit depth"):
        _ = c.depth


def test_tags(images, tmp_path):
    (tmp_path / "tags.csv").write_text("image,classes\na.jpg,dog;cat\nsub/c,cat\n")
    dataset = open_dataset(images, tags=tmp_path / "tags.csv")
    assert dataset.classes == {1: "cat", 2: "dog"}
    assert [sample.tags for sample in dataset] == [(1, 2), None, (1,)]
    (tmp_path / "tags.csv").write_text("b.png,\na,20;7\n")
    dataset = open_dataset(images, tags=tmp_path / "tags.csv")
    assert dataset.classes == {7: "class 7", 20: "class 20"}
    assert [sample.tags for sample in dataset] == [(7, 20), (), None]
    limited = open_dataset(images, tags=tmp_path / "tags.csv", limit=1)
    assert [sample.tags for sample in limited] == [(7, 20)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no tags"),
        ("a.jpg,bird\n", "line 1: class 'bird' is not in the class list"),
        ("a.jpg,cat\na.jpg,cat\n", "line 2: 'a.jpg' is there twice"),
        ("z.jpg,cat\n", "line 1: no image 'z.jpg'"),
        ("a.jpg,cat,dog\n", "line 1: 3 columns"),
        ("a.jpg\n", "line 1: 1 columns"),
    ],
)
def test_bad_tags(images, tmp_path, text, message):
    (tmp_path / "tags.csv").write_text(text)
    with pytest.raises(SourceError, match=message) as caught:
        open_dataset(images, tags=tmp_path / "tags.csv", classes={1: "cat", 2: "dog"})
    assert "\n" not in str(caught.value)


def test_tags_from_xml(images):
    text = "<annotation><object><name>{}</name></object></annotation>"
    (images / "a.xml").write_text(text.format("zebra"))
    (images.parent / "Annotations").mkdir()
    (images.parent / "Annotations/c.xml").write_text(text.format("ant"))
    dataset = open_dataset(images, tags="xml")
    assert dataset.classes == {1: "ant", 2: "zebra"}
    assert [sample.tags for sample in dataset] == [(2,), None, (1,)]
    with pytest.raises(SourceError, match="'zebra'"):
        open_dataset(images, tags="xml", classes={1: "ant"})


def test_no_xml(images):
    with pytest.raises(SourceError, match="no VOC XML"):
        open_dataset(images, tags="xml")


def points(path, *entries: tuple) -> dict:
    path.write_text(json.dumps([dict(zip(("image", "x", "y", "label"), entry, strict=False)) for entry in entries]))
    return {"points": path}


def test_points(images, tmp_path):
    flags = points(tmp_path / "p.json", ("a.jpg", 3, 4.5, "cat"), ("a.jpg", 9, 1, 8), ("sub/c.jpg", 0, 0, "cat"))
    dataset = open_dataset(images, **flags, classes={5: "cat", 8: "dog"})
    assert [sample.points for sample in dataset] == [(Point(3, 4.5, 5), Point(9, 1, 8)), None, (Point(0, 0, 5),)]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (("a.jpg", 3, 4, "bird"), "point 2: class 'bird'"),
        (("z.jpg", 3, 4, "cat"), "point 2: no image 'z.jpg'"),
        (("a.jpg", 1, 1, "cat"), "point 2: the same point"),
        (("a.jpg", 16, 4, "cat"), "point 2: x 16, y 4 is outside the image of 16x12"),
        (("a.jpg", -1, 4, "cat"), "outside"),
        (("a.jpg", "3", 4, "cat"), "outside"),
        (("a.jpg", float("nan"), 4, "cat"), "outside"),
        (("a.jpg", 3, 4), "point 2: image, x, y or label is missing"),
    ],
)
def test_bad_points(images, tmp_path, entry, message):
    flags = points(tmp_path / "p.json", ("a.jpg", 1, 1, "cat"), entry)
    with pytest.raises(SourceError, match=message) as caught:
        open_dataset(images, **flags, classes={1: "cat"})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{}", "[]", "[1]", "nonsense"])
def test_what_is_no_list_of_points(images, tmp_path, text):
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(SourceError, match=r"p\.json"):
        open_dataset(images, points=tmp_path / "p.json")


def test_flags_replace_what_the_source_has(tmp_path, picture):
    picture("val/a.jpg")
    (tmp_path / "instances_val.json").write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "a.jpg", "width": 16, "height": 12}],
                "categories": [{"id": 44, "name": "bottle"}],
                "annotations": [
                    {
                        "id": 1,
                        "image_id": 1,
                        "category_id": 44,
                        "segmentation": [[0, 0, 9, 0, 9, 9]],
                        "bbox": [0, 0, 9, 9],
                    }
                ],
            }
        )
    )
    save(tmp_path / "masks/a.png", half(44))
    (tmp_path / "tags.csv").write_text("a.jpg,\n")
    dataset = open_dataset(tmp_path / "instances_val.json", semantic=tmp_path / "masks", tags=tmp_path / "tags.csv")
    assert dataset.classes == {44: "bottle"}
    assert dataset[0].tags == ()
    assert dataset[0].has("instances")
    np.testing.assert_array_equal(dataset[0].semantic, half(44))


def test_samples_can_be_sent_to_other_processes(images, tmp_path):
    save(tmp_path / "masks/a.png", half(1))
    dataset = open_dataset(images, semantic=tmp_path / "masks")
    copy = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(copy[0].semantic, half(1))


def test_images_and_labels_in_one_tree_are_explained(tmp_path, picture):
    picture("data/images/a.png")
    save(tmp_path / "data/labels/a.png", half(1))
    save(tmp_path / "data/masks/a.png", half(1))
    with pytest.raises(SourceError, match=r"images/a, labels/a.*the folder of the images alone"):
        open_dataset(tmp_path / "data", semantic=tmp_path / "data/masks")


def test_points_stay_on_a_pixel(images, tmp_path):
    flags = points(tmp_path / "p.json", ("a.jpg", 15.9, 11.5, "cat"), ("b.png", -0.5, 0, "cat"))
    dataset = open_dataset(images, **flags)
    assert [sample.points for sample in dataset[:2]] == [(Point(15, 11, 1),), (Point(0, 0, 1),)]


def test_arrays_are_not_trusted(images, tmp_path):
    (tmp_path / "masks").mkdir()
    np.save(tmp_path / "masks/a.npy", half(-1, np.int16))
    np.save(tmp_path / "masks/b.npy", np.array([{"code": 1}], dtype=object), allow_pickle=True)
    with (tmp_path / "masks/c.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (2000, 9000, 9000)}
        )
    for sample in open_dataset(images, semantic=tmp_path / "masks", classes={1: "x"}):
        with pytest.raises(ImageError, match=r"\.npy"):
            _ = sample.semantic


def test_an_odd_csv_is_one_line(images, tmp_path):
    (tmp_path / "tags.csv").write_text("a.jpg," + "x" * 200_000 + "\n")
    with pytest.raises(SourceError, match=r"not CSV") as caught:
        open_dataset(images, tags=tmp_path / "tags.csv")
    assert "\n" not in str(caught.value)
