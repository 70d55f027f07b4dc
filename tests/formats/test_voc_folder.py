from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_up import instances, save
from PIL import Image

from pixelkin.data import Dataset, ImageError, Instances, Sample
from pixelkin.data.sample import Boxes
from pixelkin.formats import SourceError, open_dataset, read_voc, write_voc
from pixelkin.formats.palette import voc_palette
from pixelkin.formats.voc_xml import VocAnnotation, VocObject, read_xml, write_xml

CLASSES = {1: "a", 2: "b", 3: "c"}
names = st.text("abc äß<>&\"'", min_size=1).map(str.strip).filter(bool)
corners = st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(51, 99), st.integers(51, 99))
objects = st.builds(
    VocObject,
    name=names,
    box=st.none() | corners.map(lambda box: tuple(float(v) for v in box)),
    pose=st.sampled_from(["Left", "Unspecified"]),
    truncated=st.booleans(),
    difficult=st.booleans(),
    occluded=st.booleans(),
)
annotations = st.builds(
    VocAnnotation,
    filename=names,
    size=st.none() | st.tuples(st.integers(1, 999), st.integers(1, 999)),
    segmented=st.booleans(),
    objects=st.lists(objects, max_size=4).map(tuple),
)


@given(annotations)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_xml_round_trip_is_exact(tmp_path, annotation):
    write_xml(tmp_path / "a.xml", annotation)
    assert read_xml(tmp_path / "a.xml") == annotation


def test_boxes_count_from_one_and_include_their_last_pixel(tmp_path):
    (tmp_path / "a.xml").write_text(
        "<annotation><object><name>dog</name><difficult>1</difficult><part><name>head</name></part>"
        "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>10.5</xmax><ymax>20</ymax></bndbox></object></annotation>"
    )
    (item,) = read_xml(tmp_path / "a.xml").objects
    assert item == VocObject("dog", (0, 1, 10.5, 20), difficult=True)


@pytest.mark.parametrize(
    "text",
    [
        "<annotation>",
        "",
        '<!DOCTYPE a [<!ENTITY x "y">]><annotation/>',
        "<annotation><object/></annotation>",
        "<annotation><object><name>a</name><bndbox><xmin>9</xmin></bndbox></object></annotation>",
        "<annotation><object><name>a</name><bndbox><xmin>9</xmin><ymin>1</ymin>"
        "<xmax>1</xmax><ymax>2</ymax></bndbox></object></annotation>",
    ],
)
def test_bad_xml_is_refused(tmp_path, text):
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(SourceError, match=r"a\.xml"):
        read_xml(tmp_path / "a.xml")


def test_palette_is_the_well_known_one():
    colors = voc_palette()
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
    assert {i: tuple(colors[i].tolist()) for i in known} == known
    assert tuple(colors[255].tolist()) == (224, 224, 192)
    assert len(np.unique(colors, axis=0)) == 256


@given(instances(overlaps=False, crowds=False))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_round_trip_is_exact_without_overlaps(tmp_path, found):
    found = found[found.areas > 0]
    void = np.zeros(found.size, bool)
    void[0, 0] = True
    image = np.full((*found.size, 3), 7, np.uint8)
    report = write_voc(tmp_path, [Sample("a", image, instances=found, ignore=void)], CLASSES)
    (sample,) = read_voc(tmp_path)
    read = sample.instances
    order = np.argsort(found.ids)
    inside = found.masks().any(axis=0) if len(found) else np.zeros(found.size, bool)
    assert report.lossless
    assert read is not None
    assert read.ids.tolist() == found.ids[order].tolist()
    assert read.labels.tolist() == found.labels[order].tolist()
    assert list(read.rles) == [found.rles[i] for i in order]
    np.testing.assert_array_equal(sample.ignore, void & ~inside)
    assert sample.semantic is not None
    for i in range(len(found)):
        assert (sample.semantic[found.mask(i)] == found.labels[i]).all()
    assert sample.tags == tuple(sorted(set(found.labels.tolist())))
    assert sample.boxes is not None
    np.testing.assert_array_equal(sample.boxes.xyxy, found.boxes)


def test_crowds_become_void_and_are_reported(tmp_path):
    masks = np.zeros((2, 4, 6), bool)
    masks[0, :, :4] = True
    masks[1, :, 3:] = True
    found = Instances.from_masks(masks, labels=[1, 2], crowd=[True, False])
    report = write_voc(tmp_path, [Sample("a", np.zeros((4, 6, 3), np.uint8), instances=found)], CLASSES)
    assert np.asarray(Image.open(tmp_path / "SegmentationObject/a.png"))[0].tolist() == [255, 255, 255, 2, 2, 2]
    assert np.asarray(Image.open(tmp_path / "SegmentationClass/a.png"))[0].tolist() == [255, 255, 255, 2, 2, 2]
    assert report.losses[0].dropped == 1
    assert (tmp_path / "ImageSets/Segmentation/trainval.txt").read_text() == "a\n"


def test_more_than_the_format_holds_is_reported(tmp_path):
    found = Instances.from_label_map(np.arange(1, 301).reshape(10, 30))
    report = write_voc(tmp_path, [Sample("a", np.zeros((10, 30, 3), np.uint8), instances=found)], CLASSES)
    assert "300 instances" in report.failed[0][1]
    with pytest.raises(SourceError, match="class id 300"):
        write_voc(tmp_path, [], {300: "x"})


def devkit(folder, picture, **files: np.ndarray):
    picture(f"{folder}/JPEGImages/1.jpg", size=(2, 4))
    picture(f"{folder}/JPEGImages/2.jpg", size=(2, 4))


XML = (
    "<annotation><object><name>{}</name>"
    "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></object></annotation>"
)


def test_reading(tmp_path, picture):
    devkit("voc", picture)
    voc = tmp_path / "voc"
    save(voc / "SegmentationObject/2.png", np.array([[1, 1, 2, 255], [1, 1, 0, 255]], dtype=np.uint8))
    save(voc / "SegmentationClass/2.png", np.array([[15, 15, 3, 255], [15, 255, 0, 255]], dtype=np.uint8))
    (voc / "Annotations").mkdir()
    (voc / "Annotations/1.xml").write_text(XML.format("dog"))
    (voc / "Annotations/2.xml").write_text("broken")
    with pytest.warns(UserWarning, match=r"2\.xml"):
        one, two = open_dataset(voc)
    assert one.tags == (12,)
    assert isinstance(one.boxes, Boxes)
    assert not one.has("instances")
    assert two.tags is None
    assert two.instances is not None
    assert two.instances.labels.tolist() == [15, 3]
    assert np.asarray(two.ignore).tolist() == [[False, False, False, True]] * 2
    assert np.asarray(two.semantic).tolist() == [[15, 15, 3, 255], [15, 255, 0, 255]]


def test_own_classes(tmp_path, picture):
    devkit("voc", picture)
    (tmp_path / "voc/Annotations").mkdir()
    (tmp_path / "voc/Annotations/1.xml").write_text(XML.format("nucleus"))
    with pytest.raises(SourceError, match="'nucleus' is not in the class list"):
        read_voc(tmp_path / "voc")
    assert read_voc(tmp_path / "voc", classes={5: "nucleus"})[0].tags == (5,)
    (tmp_path / "voc/classes.txt").write_text("8 nucleus\n")
    assert read_voc(tmp_path / "voc")[0].tags == (8,)


def test_image_sets(tmp_path, picture):
    devkit("VOC2012", picture)
    voc = tmp_path / "VOC2012"
    (voc / "SegmentationClass").mkdir()
    path = voc / "ImageSets/Main/train.txt"
    path.parent.mkdir(parents=True)
    path.write_text("2\n")
    assert [sample.name for sample in open_dataset(path)] == ["2"]
    path.write_text("1 -1\n2  1\n")
    assert [sample.name for sample in open_dataset(path)] == ["2"]
    path.write_text("3\n")
    with pytest.raises(SourceError, match="line 1"):
        open_dataset(path)
    assert len(open_dataset(tmp_path)) == 2  # the folder above holds one devkit
    devkit("VOC2007", picture)
    with pytest.raises(SourceError, match="VOC2007, VOC2012"):
        open_dataset(tmp_path)


def test_a_class_that_nobody_listed_is_an_error_of_the_sample(tmp_path, picture):
    devkit("voc", picture)
    save(tmp_path / "voc/SegmentationClass/1.png", np.full((2, 4), 33, np.uint8))
    with pytest.raises(ImageError, match="class 33"):
        _ = read_voc(tmp_path / "voc")[0].semantic


def test_tags_alone_survive(tmp_path):
    write_voc(tmp_path, Dataset([Sample("a", np.zeros((2, 2, 3), np.uint8), tags=(1, 3))], CLASSES), CLASSES)
    (sample,) = read_voc(tmp_path)
    assert sample.tags == (1, 3)
    assert sample.boxes is None
