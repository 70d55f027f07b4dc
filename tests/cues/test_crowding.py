from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage

from pixelkin.cues import crowding
from pixelkin.cues.crowding import (
    MANY,
    ONE,
    UNKNOWN_OBJECT,
    UNSURE,
    FieldCrowder,
    NoMaterialError,
    PieceCrowder,
    as_example,
    mask_channels,
)
from pixelkin.cues.pieces import Picture, PictureStore
from pixelkin.cues.suspects import object_statistics
from pixelkin.data.components import class_components
from pixelkin.data.synthetic import scene_dataset


def refuse():
    raise AssertionError("an instance label was read")


def no_zoom(labels, classes):
    return 1.0


def store_of(dataset):
    statistics = object_statistics(class_components(sample.semantic) for sample in dataset)
    return PictureStore(dataset, no_zoom, statistics)


@pytest.fixture(scope="module")
def nuclei():
    scenes = scene_dataset(3, 1, preset="nuclei", size=(150, 170), scale=(0.06, 0.09), touching=0.3)
    return store_of(scenes.map(lambda sample: sample.replace(instances=refuse)))


@pytest.fixture(scope="module")
def things():
    scenes = scene_dataset(4, 2, size=(140, 160), touching=0.5)
    return store_of(scenes.map(lambda sample: sample.replace(instances=refuse)))


class Pictures:
    """Pictures as a store gives them."""

    def __init__(self, *pictures):
        self.pictures = pictures

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, i):
        return self.pictures[i]


def painted(labels, classes=None, doubtful=()):
    """A picture with a plain colour for each component: red where doubtful, green where not, blue outside."""
    count = int(labels.max())
    doubt = np.isin(np.arange(count), [number - 1 for number in doubtful])
    colours = np.concatenate([[(0, 0, 200)], np.where(doubt[:, None], (200, 0, 0), (0, 200, 0))]).astype(np.uint8)
    classes = np.ones(count, np.int64) if classes is None else np.array(classes)
    return Picture(colours[labels], labels.astype(np.int32), classes, doubt, 1.0)


def disc(labels, number, y, x, radius):
    rows, columns = np.indices(labels.shape)
    labels[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = number


def examples(crowder, count):
    return [crowder(np.random.default_rng((7, k))) for k in range(count)]


def meetings(objects):
    """Pairs of ids in 8-neighbouring cells."""
    pairs = set()
    for dy, dx in ((0, 1), (1, 0), (1, 1)):
        a, b = objects[: objects.shape[0] - dy, : objects.shape[1] - dx], objects[dy:, dx:]
        differ = (a != b) & (a != 0) & (b != 0)
        pairs |= {tuple(sorted(pair)) for pair in zip(a[differ].tolist(), b[differ].tolist(), strict=True)}
    return pairs


def assert_promised(example, side):
    assert {key: tuple(value.shape) for key, value in example.items()} == {
        "image": (3, side, side),
        "mask": (2, side, side),
        "objects": (side // 2, side // 2),
        "crowd": (),
    }
    image, mask, objects = example["image"], example["mask"], example["objects"]
    assert image.dtype == mask.dtype == example["crowd"].dtype == torch.float32
    assert objects.dtype == torch.int64
    assert 0 <= image.min() <= image.max() <= 1
    assert set(mask[0].unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(mask[1] > 0, mask[0] > 0)
    assert torch.equal(mask[0, ::2, ::2] > 0, objects != 0)
    assert objects.min() >= UNKNOWN_OBJECT


@pytest.mark.parametrize("side", [64, 128])
def test_crowded_scenes(nuclei, side):
    crowder = FieldCrowder(nuclei, diameter=20.0, side=side)
    made = examples(crowder, 25)
    for example in made:
        assert_promised(example, side)
        assert example["crowd"] == UNSURE
    crowded = sum(any(a > 0 for a, _ in meetings(example["objects"].numpy())) for example in made)
    assert crowded >= 12  # most hold objects that touch and are told apart


@pytest.mark.parametrize("side", [64, 128])
def test_pieces(things, side):
    crowder = PieceCrowder(things, side=side)
    made = examples(crowder, 30)
    for example in made:
        assert_promised(example, side)
        assert example["crowd"] in (ONE, MANY)
        ids = set(example["objects"].unique().tolist()) - {0}
        assert ids  # the component is in its window
        if example["crowd"] == ONE:
            assert len(ids) == 1
        assert ndimage.label(example["mask"][0].numpy(), np.ones((3, 3)))[1] >= 1
    many = [example for example in made if example["crowd"] == MANY]
    assert 8 <= len(many) < 30
    seen = [meetings(example["objects"].numpy()) for example in many]
    assert sum(bool(pairs) for pairs in seen) > 0.7 * len(many)


@pytest.mark.parametrize(
    "maker", [lambda s: FieldCrowder(s, diameter=20.0, side=64), lambda s: PieceCrowder(s, side=64)]
)
def test_an_example_depends_on_its_generator_alone(nuclei, maker):
    first, second = maker(nuclei), maker(nuclei)
    for k in (3, 1, 2):
        a = first(np.random.default_rng(k))
    again = [second(np.random.default_rng(k)) for k in (2, 3)]
    assert all(torch.equal(a[key], again[0][key]) for key in a)
    assert not torch.equal(again[0]["image"], again[1]["image"])


def test_crowders_go_to_worker_processes():
    scenes = scene_dataset(2, 1, preset="nuclei", size=(120, 120), scale=(0.08, 0.1), labels=("semantic",))
    crowder = FieldCrowder(store_of(scenes), diameter=20.0, side=64)
    copy = pickle.loads(pickle.dumps(crowder))
    a, b = crowder(np.random.default_rng(0)), copy(np.random.default_rng(0))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_doubtful_components_are_unknown_until_something_known_covers_them(monkeypatch):
    monkeypatch.setattr(crowding, "_age", lambda image, rng: image)
    labels = np.zeros((150, 150), np.int32)
    for number, (y, x) in enumerate([(20, 20), (20, 70), (75, 110), (120, 30)], start=1):
        disc(labels, number, y, x, 11)
    disc(labels, 5, 75, 45, 11)
    disc(labels, 5, 75, 64, 11)
    store = Pictures(painted(labels, doubtful=(5,)))
    plain = FieldCrowder(store, diameter=20.0, side=64, most=1)  # nothing is added
    unknown = 0
    for example in examples(plain, 15):
        assert_coloured(example)
        unknown += int((example["objects"] == UNKNOWN_OBJECT).any())
    assert unknown >= 4
    crowded = FieldCrowder(store, diameter=20.0, side=64)
    met = set().union(*(meetings(example["objects"].numpy()) for example in examples(crowded, 15)))
    assert any(a == UNKNOWN_OBJECT for a, _ in met)  # things are pressed against it, too
    for example in examples(crowded, 15):
        assert_coloured(example)


def assert_coloured(example):
    """Unknown is red and known green, but for the rims, which the zoom blurs, and for light that adds up."""
    red, green, _ = example["image"][:, ::2, ::2].numpy()
    objects = example["objects"].numpy()
    for mask, right in ((objects == UNKNOWN_OBJECT, red > green), (objects > 0, green > 0.7 * red)):
        heart = cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8))
        assert right[heart > 0].all()


def test_a_crop_without_background_is_still_an_object():
    labels = np.zeros((200, 400), np.int32)
    labels[:, :320] = 1
    disc(labels, 2, 100, 360, 12)
    crowder = FieldCrowder(Pictures(painted(labels)), diameter=21.0, side=64, most=1)
    full = [e for e in examples(crowder, 40) if (e["mask"][0] == 1).all()]
    assert full
    for example in full:
        assert example["objects"].unique().tolist() == [1]


def test_no_donor_is_doubtful_cut_off_or_of_another_size():
    labels = np.zeros((100, 200), np.int32)
    for number, (y, x, radius) in enumerate([(50, 30, 11), (50, 90, 11), (50, 150, 22), (5, 60, 11), (90, 10, 3)], 1):
        disc(labels, number, y, x, radius)
    crowder = FieldCrowder(Pictures(painted(labels, doubtful=(2,))), diameter=20.0, side=64)
    assert [piece.number for piece in crowder.donors[0]] == [1]


def test_nothing_to_press_together():
    labels = np.zeros((60, 60), np.int32)
    with pytest.raises(NoMaterialError, match="stands alone"):
        FieldCrowder(Pictures(painted(labels)), diameter=20.0)
    disc(labels, 1, 30, 30, 11)
    for store in (Pictures(painted(labels, doubtful=(1,))), Pictures()):
        with pytest.raises(NoMaterialError, match="stands alone"):
            FieldCrowder(store, diameter=20.0)
        with pytest.raises(NoMaterialError, match="looks like one object"):
            PieceCrowder(store)
    with pytest.raises(NoMaterialError, match="500 pixels"):
        PieceCrowder(Pictures(painted(labels)), smallest=500)


def test_a_single_object_is_enough():
    labels = np.zeros((60, 60), np.int32)
    disc(labels, 1, 30, 30, 11)
    for crowder in (
        FieldCrowder(Pictures(painted(labels)), diameter=20.0, side=64),
        PieceCrowder(Pictures(painted(labels)), side=64),
    ):
        for example in examples(crowder, 8):
            assert_promised(example, 64)


def test_alone_shows_one_object():
    labels = np.zeros((120, 120), np.int32)
    disc(labels, 1, 40, 40, 18)
    disc(labels, 2, 80, 80, 18)
    crowder = PieceCrowder(Pictures(painted(labels)), side=64, alone=1.0)
    for example in examples(crowder, 10):
        assert example["crowd"] == ONE
        assert set(example["objects"].unique().tolist()) == {0, 1}


def test_contacts_are_of_two_classes():
    labels = np.zeros((120, 160), np.int32)
    labels[20:60, 20:60] = 1
    labels[20:60, 60:100] = 2  # touches 1, of another class
    labels[60:100, 20:57] = 3  # touches 1, of its class
    labels[20:60, 110:150] = 4
    store = Pictures(painted(labels, classes=(1, 2, 1, 2)))
    crowder = PieceCrowder(store, side=64, alone=0.0, contacts=1.0)
    assert [(a.number, b.number) for a, b in crowder.pairs] == [(1, 2)]
    for example in examples(crowder, 10):
        assert example["crowd"] == MANY
        assert set(example["objects"].unique().tolist()) == {0, 1, 2}
        assert (1, 2) in meetings(example["objects"].numpy())


def test_crowded_pieces_hang_together():
    labels = np.zeros((200, 300), np.int32)
    for number, (y, x) in enumerate([(60, 60), (60, 160), (140, 100), (140, 240)], start=1):
        disc(labels, number, y, x, 20)
    crowder = PieceCrowder(Pictures(painted(labels)), side=96, alone=0.0, contacts=0.0)
    for example in examples(crowder, 12):
        parts, count = ndimage.label(example["mask"][0].numpy(), np.ones((3, 3)))
        largest = np.bincount(parts.ravel())[1:].max()
        assert largest >= 0.97 * (parts > 0).sum(), count  # shrinking may tear a few pixels off


def test_examples_are_what_the_network_takes():
    objects = np.zeros((8, 6), int)
    objects[2:5, 1:4] = 3
    objects[6:, 4:] = UNKNOWN_OBJECT
    image = np.full((8, 6, 3), (300.0, 51.0, -4.0))
    example = as_example(image, objects, 2.0, MANY)
    assert example["image"][:, 0, 0].tolist() == pytest.approx([1.0, 0.2, 0.0])
    assert example["objects"].tolist() == objects[::2, ::2].tolist()
    assert torch.equal(example["mask"][0] > 0, torch.from_numpy(objects != 0))
    assert example["crowd"] == 1


@pytest.mark.parametrize("unit", [1.0, 4.0])
def test_mask_channels_hold_the_distance_to_the_outside(unit):
    mask = np.zeros((40, 50), bool)
    mask[:30, 10:] = True  # touches the border, beyond which is outside
    flat, distance = mask_channels(mask, unit)
    assert np.array_equal(flat, mask)
    exact = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1] / unit
    np.testing.assert_allclose(distance, exact, rtol=0.06)
    assert mask_channels(np.ones((1, 1), bool), unit).shape == (2, 1, 1)
