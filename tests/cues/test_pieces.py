from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pixelkin.cues.pieces import (
    NEAR,
    Picture,
    PictureStore,
    around,
    cut_out,
    find_pieces,
    load_picture,
    resize,
    stretch_contrast,
    touching,
    window,
)
from pixelkin.cues.suspects import object_statistics
from pixelkin.data import Dataset, ImageError, Sample
from pixelkin.data.components import class_components

BOXES = st.tuples(*[st.integers(-12, 12)] * 2, *[st.integers(1, 12)] * 2).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


def discs(centres, radius, size=(60, 80), value=1):
    rows, columns = np.indices(size)
    out = np.zeros(size, np.uint8)
    for y, x in centres:
        out[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = value
    return out


def sample_of(semantic, name="a", **labels):
    image = np.random.default_rng(0).integers(0, 255, (*semantic.shape, 3)).astype(np.uint8)
    return Sample(name, image, semantic=semantic, **labels)


def habits_of(*semantics):
    return object_statistics(class_components(semantic) for semantic in semantics)


def no_zoom(labels, classes):
    return 1.0


def refuse():
    raise AssertionError("an instance label was read")


def test_contrast_fills_the_range_and_a_flat_image_stays_flat():
    dim = np.random.default_rng(0).integers(10, 41, (50, 60, 3)).astype(np.uint8)
    bright = stretch_contrast(dim)
    assert bright.dtype == np.uint8
    assert (bright.min(), bright.max()) == (0, 255)
    order = np.argsort(dim.ravel(), kind="stable")
    assert (np.diff(bright.ravel()[order].astype(int)) >= 0).all()
    assert not stretch_contrast(np.full((5, 7, 3), 90, np.uint8)).any()


@given(hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)), BOXES)
def test_cut_out_is_a_crop_of_the_padded_array(array, box):
    padded = np.pad(array, 40)
    y0, x0, y1, x1 = box
    assert (cut_out(array, box) == padded[y0 + 40 : y1 + 40, x0 + 40 : x1 + 40]).all()
    deep = np.repeat(array[..., None], 3, axis=2)
    assert (cut_out(deep, box) == cut_out(array, box)[..., None]).all()


@given(
    hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 2**30)),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
def test_ids_are_never_mixed(array, size):
    out = resize(array, size, exact=True)
    assert out.shape == size
    assert out.dtype == np.int32
    assert set(np.unique(out)) <= set(np.unique(array))
    assert (resize(array, array.shape, exact=True) == array).all()


def test_shrinking_averages():
    image = np.zeros((4, 4, 3), np.uint8)
    image[::2, ::2] = 200
    assert (resize(image, (2, 2)) == 50).all()


def test_a_picture_has_its_components_and_reads_no_instance():
    semantic = discs([(15, 15), (40, 50)], 8)
    semantic[50:, :10] = 7
    semantic[0, 79] = 255
    picture = load_picture(sample_of(semantic, instances=refuse), no_zoom, habits_of(semantic))
    assert picture.zoom == 1
    assert picture.image.shape == (60, 80, 3)
    assert sorted(picture.classes) == [1, 1, 7]
    assert ((picture.labels > 0) == (semantic % 255 > 0)).all()
    assert not picture.doubtful.any()


def test_a_zoom_is_asked_about_the_components():
    asked = []

    def zoom(labels, classes):
        asked.append((labels.shape, list(classes)))
        return 0.5

    semantic = discs([(15, 15)], 8)
    semantic[50, 51] = 2  # one pixel, which this zoom loses
    picture = load_picture(sample_of(semantic), zoom, habits_of(semantic))
    assert asked == [((60, 80), [1, 2])]
    assert picture.image.shape == (30, 40, 3)
    assert picture.labels.shape == (30, 40)
    assert len(picture.classes) == 2
    assert [piece.number for piece in find_pieces(picture, 0, 1)] in ([1], [1, 2])


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (1, 300)])
@pytest.mark.parametrize("factor", [0.25, 1.0, 4.0])
def test_tiny_pictures(size, factor):
    semantic = np.ones(size, np.uint8)
    picture = load_picture(sample_of(semantic), lambda labels, classes: factor, {})
    assert picture.labels.shape == picture.image.shape[:2]
    assert min(picture.labels.shape) >= 1
    assert touching(picture) == set()
    assert [piece.solitary for piece in find_pieces(picture, 0, 1)] == [False]  # cut by the image


def test_no_semantic_map_is_an_image_error():
    with pytest.raises(ImageError, match="lonely: no semantic mask"):
        load_picture(Sample("lonely", np.zeros((5, 7, 3), np.uint8)), no_zoom, {})


def test_the_store_keeps_the_latest_pictures_within_its_limit():
    loaded = []

    def image_of(i):
        def image():
            loaded.append(i)
            return np.zeros((60, 80, 3), np.uint8)

        return image

    semantic = discs([(20, 20)], 6)
    samples = [Sample(str(i), image_of(i), size=(60, 80), semantic=semantic) for i in range(3)]
    store = PictureStore(Dataset(samples), no_zoom, habits_of(semantic), limit=2 * (60 * 80 * 7) + 1)
    assert len(store) == 3
    for i in (0, 1, 0, 2, 0, 1):  # 2 drives out 1, which was used longest ago
        assert store[i].image.shape == (60, 80, 3)
    assert loaded == [0, 1, 2, 1]
    tight = PictureStore(Dataset(samples), no_zoom, habits_of(semantic), limit=1)
    assert tight[0] is tight[0]  # one picture is kept, however large


def test_pieces_say_which_objects_are_alone():
    semantic = discs([(12, 12), (12, 40), (40, 12), (40, 40), (40, 66), (59, 79)], 7)
    semantic |= discs([(40, 50)], 7)  # grows together with two of the others
    semantic[2, 70] = 1
    store = PictureStore(Dataset([sample_of(semantic)]), no_zoom, habits_of(semantic))
    found = find_pieces(store[0], 5, 16)
    assert {piece.picture for piece in found} == {5}
    assert {piece.class_id for piece in found} == {1}
    alone = {piece.box for piece in found if piece.solitary}
    assert alone == {(5, 5, 20, 20), (5, 33, 20, 48), (33, 5, 48, 20)} | {(33, 59, 48, 74)} & alone
    assert {piece.box for piece in found} - alone >= {(52, 72, 60, 80), (33, 33, 48, 58)}
    for piece in found:
        y0, x0, y1, x1 = piece.box
        assert piece.area == (store[0].labels[y0:y1, x0:x1] == piece.number).sum() >= 16
    assert len(find_pieces(store[0], 5, 1)) == len(found) + 1


@given(hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.integers(0, 3)))
def test_touching_is_within_reach_along_an_axis(labels):
    image = np.zeros((*labels.shape, 3), np.uint8)
    picture = Picture(image, labels, np.ones(3, np.int64), np.zeros(3, bool), 1.0)
    expected = set()
    for y, x in np.ndindex(labels.shape):
        for step in range(1, NEAR + 1):
            for v, u in ((y + step, x), (y, x + step)):
                if v < labels.shape[0] and u < labels.shape[1] and 0 < labels[y, x] != labels[v, u] > 0:
                    expected.add(tuple(sorted((int(labels[y, x]), int(labels[v, u])))))
    assert touching(picture) == expected


@given(st.lists(BOXES, min_size=1, max_size=4))
def test_around_is_the_tight_box(boxes):
    y0, x0, y1, x1 = around(boxes)
    assert (y0, x0) == (min(b[0] for b in boxes), min(b[1] for b in boxes))
    assert (y1, x1) == (max(b[2] for b in boxes), max(b[3] for b in boxes))


@given(BOXES, st.floats(0, 1))
def test_a_window_is_a_square_around_its_box(box, margin):
    y0, x0, y1, x1 = window(box, margin)
    side = y1 - y0
    assert side == x1 - x0
    assert side == max(round(max(box[2] - box[0], box[3] - box[1]) * (1 + 2 * margin)), 8)
    assert abs((y0 + y1) - (box[0] + box[2])) <= 1
    assert abs((x0 + x1) - (box[1] + box[3])) <= 1
    assert y0 <= box[0]
    assert x0 <= box[1]
    assert y1 >= box[2]
    assert x1 >= box[3]
