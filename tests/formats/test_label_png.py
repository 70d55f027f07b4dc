from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from made_up import instances, save
from PIL import Image

from pixelkin.data import Dataset, ImageError, Instances, Sample
from pixelkin.formats import SourceError, read_label_maps, read_semantic_maps, write_label_png, write_label_pngs
from pixelkin.formats.label_png import paint


@given(instances(overlaps=False, crowds=False))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip_is_exact_without_overlaps(tmp_path, found):
    found = found[found.areas > 0]
    loss = write_label_png(tmp_path / "maps" / "a.png", found)
    (sample,) = read_label_maps(tmp_path / "maps")
    read = sample.instances
    order = np.argsort(found.ids)
    assert not loss
    assert read is not None
    assert sample.size == found.size
    assert read.ids.tolist() == found.ids[order].tolist()
    assert list(read.rles) == [found.rles[i] for i in order]


@given(instances())
def test_losses_are_counted(found):
    painted = paint(found, largest=254, crowd=255)
    lost = 0
    for i in range(len(found)):
        kept = np.zeros(found.size, bool) if found.crowd[i] else painted.owner == i
        assert not (kept & ~found.mask(i)).any()
        lost += int((found.mask(i) & ~kept).sum())
    assert painted.loss.area_changed == lost
    assert painted.loss.area_before == int(found.areas.sum())
    assert painted.loss.dropped == sum(
        bool(found.crowd[i]) or not (painted.owner == i).any() for i in range(len(found))
    )


def test_higher_scores_and_of_equal_ones_smaller_masks_are_on_top():
    big, small = np.ones((4, 4), bool), np.zeros((4, 4), bool)
    small[1, 1] = True
    equal = paint(Instances.from_masks(np.stack([small, big])), largest=9)
    assert equal.ids[1, 1] == 1
    scored = paint(Instances.from_masks(np.stack([small, big]), scores=[0.1, 0.9]), largest=9)
    assert (scored.ids == 2).all()
    assert scored.loss.dropped == 1


def test_ids_a_format_cannot_hold_are_numbered_anew():
    masks = np.eye(3, dtype=bool)[:, None, :]
    for ids in ([7, 7, 8], [0, 1, 2], [1, 2, 300]):
        assert paint(Instances.from_masks(masks, ids=ids), largest=254).ids.tolist() == [[1, 2, 3]]
    assert paint(Instances.from_masks(masks, ids=[9, 3, 254]), largest=254).ids.tolist() == [[9, 3, 254]]


def test_sixteen_bits(tmp_path):
    ids = np.arange(70 * 1000).reshape(70, 1000)
    with pytest.raises(ImageError, match=r"0\.\.65535"):
        write_label_png(tmp_path / "a.png", ids)
    write_label_png(tmp_path / "a.png", ids % 60000)
    assert Image.open(tmp_path / "a.png").mode.startswith("I")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), ids % 60000)


def test_255_is_an_instance_like_any_other(tmp_path):
    save(tmp_path / "m/a.png", np.array([[0, 255, 3]], dtype=np.uint8))
    (sample,) = read_label_maps(tmp_path / "m")
    assert sample.instances is not None
    assert sample.instances.ids.tolist() == [3, 255]


def test_classes(tmp_path):
    save(tmp_path / "m/a.png", np.array([[1, 1, 1, 2, 0]], dtype=np.uint16))
    assert read_label_maps(tmp_path / "m").classes == {1: "object"}
    only = read_label_maps(tmp_path / "m", classes={9: "nucleus"})
    assert only[0].instances is not None
    assert only[0].instances.labels.tolist() == [9, 9]
    with pytest.raises(SourceError, match="semantic masks or one class"):
        read_label_maps(tmp_path / "m", classes={9: "nucleus", 10: "cell"})
    save(tmp_path / "s/a.png", np.array([[4, 4, 255, 6, 0]], dtype=np.uint8))
    beneath = read_label_maps(tmp_path / "m", semantic=tmp_path / "s")
    assert beneath.classes == {4: "class 4", 6: "class 6"}
    assert beneath[0].instances is not None
    assert beneath[0].instances.labels.tolist() == [4, 6]


def test_no_class_beneath_is_an_error_of_the_sample(tmp_path):
    save(tmp_path / "m/a.png", np.array([[1, 0]], dtype=np.uint8))
    save(tmp_path / "s/a.png", np.array([[255, 1]], dtype=np.uint8))
    (sample,) = read_label_maps(tmp_path / "m", semantic=tmp_path / "s")
    with pytest.raises(ImageError, match="no class lies under instance 1"):
        _ = sample.instances


def test_label_maps_have_no_image_and_broken_ones_fail_alone(tmp_path):
    save(tmp_path / "m/a.png", np.array([[1, 0]], dtype=np.uint8))
    (tmp_path / "m/b.png").write_bytes(b"no image")
    good, broken = read_label_maps(tmp_path / "m")
    assert good.size == (1, 2)
    with pytest.raises(ImageError, match="without its image"):
        _ = good.image
    with pytest.raises(ImageError, match=r"b\.png"):
        _ = broken.instances


@pytest.mark.parametrize("read", [read_label_maps, read_semantic_maps])
def test_missing_and_empty_folders(tmp_path, read):
    with pytest.raises(SourceError, match="no such folder"):
        read(tmp_path / "none")
    with pytest.raises(SourceError, match=r"no (label maps|masks) in it"):
        read(tmp_path)


def test_semantic_maps(tmp_path):
    save(tmp_path / "a.png", np.array([[0, 3, 255]], dtype=np.uint8))
    np.save(tmp_path / "b.npy", np.array([[5, 0, 0]]))
    dataset = read_semantic_maps(tmp_path)
    assert dataset.classes == {3: "class 3", 5: "class 5"}
    assert [np.asarray(sample.semantic).tolist() for sample in dataset] == [[[0, 3, 255]], [[5, 0, 0]]]


def test_writing_many_reports_failures(tmp_path):
    def fail() -> Instances:
        raise ImageError("x: broken")

    samples = [
        Sample("sub/a", None, size=(1, 2), instances=Instances.from_masks(np.ones((1, 1, 2), bool))),
        Sample("b", None, size=(1, 2), instances=fail),
        Sample("c", None, size=(1, 2)),
    ]
    report = write_label_pngs(tmp_path, Dataset(samples), {4: "cell"})
    assert (report.images, report.instances, report.losses) == (1, 1, [])
    assert report.failed == [("b", "x: broken")]
    assert not report.lossless
    assert (tmp_path / "classes.txt").read_text() == "4 cell\n"
    assert [sample.name for sample in read_label_maps(tmp_path)] == ["sub/a"]
