from __future__ import annotations

import json
import pickle

import numpy as np
import pydantic
import pytest
import torch

from pixelkin.cues.relations import BACKGROUND, EXCLUDED, FOREGROUND, NEGATIVE, pair_labels
from pixelkin.data import Dataset, ImageError, Sample
from pixelkin.data.synthetic import scene_dataset
from pixelkin.methods.base import Field, Fields
from pixelkin.methods.siseg_pairs import PairConfig, PairRecipe
from pixelkin.models.pair_fields import PairOutput
from pixelkin.training.config import TrainingConfig
from pixelkin.training.loop import train

SMALL = PairConfig(
    crop=96,
    width=32,
    offsets=30,
    scale_jitter=(0.8, 1.2),
    training=TrainingConfig(iterations=25, batch_size=2, learning_rate=3e-3, log_every=1),
)


def recipe(mode="paper", **changes):
    return PairRecipe(SMALL.model_copy(update=changes), mode, "efficientnet_lite0", pretrained=False)


def built(maker, dataset):
    facts = json.loads(json.dumps(maker.measure(dataset)))  # as a saved model has them
    torch.manual_seed(0)
    return maker.build(facts).eval(), facts


def sample_of(semantic, name="a", **labels):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (*semantic.shape, 3)).astype(np.uint8)
    return Sample(name, image, size=semantic.shape, semantic=semantic, **labels)


def discs(centres, radius, size, value=1):
    yy, xx = np.indices(size)
    out = np.zeros(size, np.uint8)
    for y, x in centres:
        out[(yy - y) ** 2 + (xx - x) ** 2 <= radius**2] = value
    return out


@pytest.mark.parametrize("mode", ["paper", "components"])
def test_end_to_end_on_touching_objects(mode, tmp_path):
    scenes = scene_dataset(4, 0, size=(96, 112), objects=5, classes=2, touching=1.0)
    dataset = Dataset(  # rendered once
        [s.replace(image=s.image, semantic=s.semantic, instances=s.instances) for s in scenes], scenes.classes
    )
    maker = PairRecipe(SMALL, mode, "efficientnet_lite0")
    model, facts = built(maker, dataset)
    example = maker.example(dataset, facts)
    fixed = [example(np.random.default_rng((9, k))) for k in range(6)]
    batch = {key: torch.stack([e[key] for e in fixed]) for key in fixed[0]}

    def losses():
        torch.manual_seed(0)
        with torch.no_grad():
            return {name: value.item() for name, value in maker.loss(model, batch).items()}

    before = losses()
    report = train(
        model, example, maker.loss, SMALL.training, out=tmp_path, device="cpu", groups=maker.groups(model, facts)
    )
    after = losses()
    assert report.iterations == 25
    assert after["loss"] < 0.95 * before["loss"]
    assert after["centre"] < before["centre"]
    assert after["together"] + after["apart"] < before["together"] + before["apart"]
    maker.finish(model, dataset, facts)
    for sample in dataset:
        fields = maker.fields(model, sample, facts)
        found = maker.group(fields, sample, facts)
        assert np.array_equal(found.label_map() > 0, sample.semantic > 0)
        assert set(found.sources) == {f"siseg/{mode}:semantic"}
        assert ((found.scores > 0) & (found.scores <= 1)).all()
        for i in range(len(found)):
            assert (sample.semantic[found.mask(i)] == found.labels[i]).all()
        pictures = maker.pictures(fields, sample)
        assert set(pictures) == {"displacement", "boundary"}
        assert all(picture.shape == (*fields["boundary"].shape, 3) for picture in pictures.values())


@pytest.mark.parametrize("scale", [1.0, 0.75, 1.7])
def test_exact_fields_give_the_objects_back(scale):
    yy, xx = np.indices((150, 203))
    centres = [(30 + 44 * row, 30 + 44 * column + 9 * row) for row in range(3) for column in range(4)]
    distances = np.stack([np.hypot(yy - y, xx - x) for y, x in centres])
    truth = np.where(distances.min(axis=0) <= 26, distances.argmin(axis=0) + 1, 0)  # all in one component
    stride = 4 / scale
    h, w = (-(-round(side * scale) // 4) for side in truth.shape)
    ys, xs = (((np.arange(n) + 0.5) * stride).astype(int).clip(max=side - 1) for n, side in ((h, 150), (w, 203)))
    cells = truth[np.ix_(ys, xs)]
    field = np.zeros((2, h, w), np.float32)
    boundary = np.zeros((h, w), np.float32)
    for i in range(1, len(centres) + 1):
        at = np.argwhere(cells == i)
        field[:, cells == i] = (at.mean(axis=0) - at).T
    boundary[:, 1:][cells[:, 1:] != cells[:, :-1]] = 0.9
    boundary[1:][cells[1:] != cells[:-1]] = 0.9
    maps = {"displacement": Field(field, stride), "boundary": Field(boundary, stride)}
    sample = sample_of((truth > 0).astype(np.uint8))
    found = recipe().group(Fields(truth.shape, maps), sample, {"classes": [1]})
    assert len(found) == len(centres)
    masks, true = found.masks(), truth == np.arange(1, len(centres) + 1)[:, None, None]
    iou = (masks[:, None] & true).sum((2, 3)) / (masks[:, None] | true).sum((2, 3))
    assert iou.max(axis=0).min() > 0.8


def test_crops_keep_image_and_labels_together():
    semantic = np.zeros((90, 120), np.uint8)
    semantic[:, 60:], semantic[45:, :60], semantic[45:, 90:] = 1, 2, 3
    colours = np.array([[40, 40, 40], [240, 40, 40], [40, 240, 40], [40, 40, 240]], np.uint8)
    sample = Sample("a", colours[semantic], semantic=semantic)
    dataset = Dataset([sample], {1: "a", 2: "b", 3: "c"})
    for mode in ("paper", "components"):
        maker = recipe(mode, scale_jitter=(0.5, 1.5))
        example = maker.example(dataset, maker.measure(dataset))
        seen = set()
        for k in range(25):
            made = example(np.random.default_rng(k))
            labels = made["labels"].numpy()
            middles = made["image"].numpy()[:, 2::4, 2::4]
            shown = np.abs(middles.transpose(1, 2, 0)[..., None, :].astype(int) - colours).sum(-1).argmin(-1)
            known = labels != 255
            edge = np.zeros_like(known)  # resizing blurs the colours across an edge of classes
            for axis in (0, 1):
                for shift in (-1, 1):
                    edge |= labels != np.roll(labels, shift, axis)
            assert np.array_equal(labels[known & ~edge], shown[known & ~edge])
            assert known.any()
            seen |= set(np.unique(labels[known]).tolist())
        assert seen == {0, 1, 2, 3}


def test_examples_are_a_function_of_their_generator_and_travel():
    dataset = Dataset([sample_of(discs([(20, 20), (40, 60)], 8, (70, 90)))], {1: "a"})
    maker = recipe("components")
    example = maker.example(dataset, maker.measure(dataset))
    first, second = example(np.random.default_rng(5)), example(np.random.default_rng(5))
    third = pickle.loads(pickle.dumps(example))(np.random.default_rng(5))
    for other in (second, third):
        assert all(torch.equal(first[key], other[key]) for key in first)


def test_unknown_pixels_teach_nothing():
    maker = recipe(offsets=0, radius=4)
    labels = torch.ones(1, 16, 20, dtype=torch.int64)
    labels[:, :8, :6] = 0
    labels[:, :, 12:] = 255  # no path between two known pixels leads through here
    field = torch.randn(1, 2, 16, 20, requires_grad=True)
    logits = torch.randn(1, 1, 16, 20, requires_grad=True)
    maker.loss(lambda image: PairOutput(field, logits), {"image": torch.zeros(1, 3, 64, 80), "labels": labels})[
        "loss"
    ].backward()
    for gradient in (field.grad, logits.grad):
        assert not gradient[..., 12:].any()
        assert (gradient[..., :12] != 0).float().mean() > 0.5


def test_an_image_of_nothing_but_unknown_teaches_nothing():
    maker = recipe()
    field = torch.randn(1, 2, 24, 24, requires_grad=True)
    logits = torch.randn(1, 1, 24, 24, requires_grad=True)
    batch = {"image": torch.zeros(1, 3, 96, 96), "labels": torch.full((1, 24, 24), 255)}
    loss = maker.loss(lambda image: PairOutput(field, logits), batch)["loss"]
    loss.backward()
    assert loss == 0
    assert not field.grad.any()
    assert not logits.grad.any()


def test_unit_weights_double_the_loss_and_sgd_gets_its_published_rates():
    batch = {"image": torch.zeros(1, 3, 96, 96), "labels": torch.randint(0, 3, (1, 24, 24))}
    output = PairOutput(torch.randn(1, 2, 24, 24), torch.randn(1, 1, 24, 24))
    once, twice = (recipe(offsets=0, weighting=w).loss(lambda image: output, batch)["loss"] for w in ("irnet", "siseg"))
    assert torch.allclose(2 * once, twice)
    dataset = Dataset([sample_of(np.ones((32, 32), np.uint8))], {1: "a"})
    sgd = SMALL.training.model_copy(update={"optimizer": "sgd"})
    for changes, scale in (({}, 1.0), ({"training": sgd}, 10.0), ({"displacement_rate": 3.0}, 3.0)):
        maker = recipe(**changes)
        model, facts = built(maker, dataset)
        boundary, displacement = maker.groups(model, facts)
        assert displacement["lr_scale"] == scale
        assert boundary.get("lr_scale", 1.0) == 1.0
        trained = {id(p) for group in (boundary, displacement) for p in group["params"]}
        assert trained == {id(p) for p in model.parameters() if p.requires_grad}


@pytest.mark.parametrize(("centring", "count"), [("image", 1), ("image", 3), ("object", 3)])
def test_the_mean_displacement_is_zero_afterwards(centring, count):
    maker = recipe(centring=centring)
    maps = [discs([(12 + 9 * k, 20)], 9, (40 + 13 * k, 50)) for k in range(count)]
    maps[0][:, 40:] = 255
    dataset = Dataset([sample_of(m, str(k)) for k, m in enumerate(maps)], {1: "a"})
    model, facts = built(maker, dataset)
    model.displacement.centre(torch.tensor([7.0, 7.0]))  # what was there before does not matter
    maker.finish(model, dataset, facts)
    kept = []
    for sample in dataset:
        field = maker.fields(model, sample, facts)["displacement"]
        h, w = field.shape[1:]
        ys, xs = np.minimum(np.arange(h) * 4 + 2, sample.size[0] - 1), np.minimum(np.arange(w) * 4 + 2, 49)
        labels = sample.semantic[np.ix_(ys, xs)]
        kept.append(field[:, (labels != 255) & ((labels == 1) | (centring == "image"))])
    assert np.abs(np.concatenate(kept, axis=1).mean(axis=1)).max() < 1e-4
    assert model.displacement.mean.abs().max() > 1e-3


def test_centring_takes_at_most_so_many_images():
    maker = recipe(centring_images=2)
    good, broken = sample_of(np.ones((16, 16), np.uint8), "a"), Sample("b", lambda: 1 / 0, semantic=np.ones((16, 16)))
    dataset = Dataset([good, broken, good.replace(name="c"), broken.replace(name="d")], {1: "a"})
    model, facts = built(maker, dataset)
    maker.finish(model, dataset, facts)  # looks at a and c: b and d would raise
    assert model.displacement.mean.isfinite().all()


@pytest.mark.parametrize("size", [(8, 8), (1, 40), (61, 5), (50, 70)])
@pytest.mark.parametrize("mode", ["paper", "components"])
def test_any_image_size(mode, size):
    semantic = np.ones(size, np.uint8)
    semantic[:, : size[1] // 2] = 7
    dataset = Dataset([sample_of(semantic)], {1: "a", 7: "b"})
    maker = recipe(mode, min_area=0)
    model, facts = built(maker, dataset)
    maker.finish(model, dataset, facts)
    example = maker.example(dataset, facts)(np.random.default_rng(0))
    assert example["image"].shape == (3, 96, 96)
    found = maker.group(maker.fields(model, dataset[0], facts), dataset[0], facts)
    assert np.array_equal(found.semantic_map(), semantic)


def test_large_images_are_shrunk_for_the_fields_only():
    semantic = discs([(60, 60), (60, 140)], 30, (120, 200))
    maker = recipe(max_pixels=4096)
    dataset = Dataset([sample_of(semantic)], {1: "a"})
    model, facts = built(maker, dataset)
    fields = maker.fields(model, dataset[0], facts)
    assert np.prod(fields["boundary"].shape) <= 1.2 * 4096 / 16
    found = maker.group(fields, dataset[0], facts)
    assert found.size == (120, 200)
    assert np.array_equal(found.label_map() > 0, semantic > 0)


def test_no_class_and_no_semantic_map():
    maker = recipe("components")
    empty = sample_of(np.zeros((30, 30), np.uint8))
    dataset = Dataset([empty], {1: "a"})
    model, facts = built(maker, dataset)
    assert len(maker.group(maker.fields(model, empty, facts), empty, facts)) == 0
    maker.finish(model, dataset, facts)
    bare = empty.replace(semantic=None)
    with pytest.raises(ImageError, match="no semantic mask"):
        maker.group(maker.fields(model, empty, facts), bare, facts)
    with pytest.raises(ValueError, match="give semantic masks"):
        maker.example(Dataset([bare], {1: "a"}), facts)


def test_many_classes_and_unknown_pixels():
    semantic = np.arange(1, 13, dtype=np.uint8).reshape(3, 4).repeat(16, 0).repeat(16, 1)
    semantic[20:30, 20:30] = 255
    dataset = Dataset([sample_of(semantic)], {i: str(i) for i in range(1, 13)})
    maker = recipe()
    model, facts = built(maker, dataset)
    found = maker.group(maker.fields(model, dataset[0], facts), dataset[0], facts)
    assert set(found.labels) == set(range(1, 13))
    assert np.array_equal(found.label_map() > 0, semantic != 255)


def test_probabilities_grade_the_scores():
    semantic = discs([(20, 20)], 12, (40, 100), 4) + discs([(20, 70)], 12, (40, 100), 9)
    maps = np.zeros((3, 40, 100), np.float32)
    maps[1][semantic == 4], maps[2][semantic == 9] = 0.9, 0.3
    sample = sample_of(semantic, probabilities=maps)
    dataset = Dataset([sample], {4: "a", 9: "b"})
    maker = recipe()
    model, facts = built(maker, dataset)
    fields = maker.fields(model, sample, facts)
    flat = Fields(fields.size, {**fields.maps, "boundary": Field(fields["boundary"] * 0, 4)})
    with_maps, without = maker.group(flat, sample, facts), maker.group(flat, sample.replace(probabilities=None), facts)
    assert with_maps.labels.tolist() == without.labels.tolist()
    ratio = np.where(with_maps.labels == 4, 0.9, 0.3)
    assert with_maps.scores == pytest.approx(without.scores * ratio, rel=0.02)
    with pytest.raises(ImageError, match="background first"):
        maker.group(flat, sample.replace(probabilities=maps[:2]), facts)


def test_components_mode_leaves_doubtful_components_unknown_and_parts_others():
    lone = [(20, 20 + 30 * k) for k in range(6)]
    semantic = discs([*lone, (60, 20), (60, 34), (60, 60), (60, 84)], 10, (90, 190))
    dataset = Dataset([sample_of(semantic)], {1: "a"})
    maker = recipe("components", scale_jitter=(1.0, 1.0), crop=192)
    facts = maker.measure(dataset)
    example = maker.example(dataset, facts)
    assert maker.scale(dataset[0], facts) == pytest.approx(40 / discs([(20, 20)], 10, (40, 40)).sum() ** 0.5)
    doubtful, taught = set(), set()
    for k in range(8):
        made = example(np.random.default_rng(k))
        labels, parts = made["labels"], made["components"]
        assert (parts[labels == 0] == 0).all()
        assert (parts[labels == 1] != 0).all()
        doubtful |= {int(i) for i in parts.unique() if i < 0}
        pair = parts[None] * (parts < 0)  # the doubtful component alone
        codes = pair_labels((pair < 0).long(), maker.geometry, components=pair)
        assert FOREGROUND not in codes
        taught |= set(pair_labels(labels[None], maker.geometry, components=parts[None]).unique().tolist())
    assert len(doubtful) == 1
    assert taught == {EXCLUDED, NEGATIVE, BACKGROUND, FOREGROUND}


def test_objects_are_scaled_to_the_radius_within_bounds():
    for radius, side in ((3, 60), (10, 90), (40, 130)):
        semantic = discs([(side // 2, side // 2)], radius, (side, side))
        dataset = Dataset([sample_of(semantic)], {1: "a"})
        maker = recipe("components")
        scale = maker.scale(dataset[0], maker.measure(dataset))
        assert scale == pytest.approx(np.clip(40 / (semantic.sum() ** 0.5), 0.25, 4), rel=1e-3)
        assert recipe("paper").scale(dataset[0], {}) == 1


def test_the_config_is_strict_and_survives_json():
    config = PairConfig(offsets=3, scale_jitter=(1.0, 2.0))
    assert PairConfig.model_validate_json(config.model_dump_json()) == config
    for wrong in ({"radios": 3}, {"radius": "10"}, {"scale_jitter": (2.0, 1.0)}, {"crop": 33}):
        with pytest.raises(pydantic.ValidationError):
            PairConfig(**wrong)
