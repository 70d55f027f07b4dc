"""IRNet from tags to instances: grouping of exact fields, a small run from end to end, kills, and odd inputs."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from pixelkin.data import Dataset, ImageError, Sample
from pixelkin.data.sample import read_label_image
from pixelkin.data.synthetic import scene_dataset
from pixelkin.methods import class_labels, regions, siseg_pairs, tag_classifier
from pixelkin.methods.base import Field, Fields, Method
from pixelkin.methods.irnet import IRNet
from pixelkin.methods.irnet_config import IRNetConfig
from pixelkin.methods.tag_classifier import weights_digest
from pixelkin.training.budget import Budget

SMALL = {
    "classifier.crop": "64",
    "classifier.long_side": "64,80",
    "classifier.scales": "1",
    "classifier.flip": "false",
    "classifier.epochs": "0",
    "epochs": "0",
    "rounds": "0",
    "maps.crop": "64",
    "maps.long_side": "64,80",
    "maps.scales": "1",
    "maps.flip": "false",
    "maps.epochs": "0",
    "maps.training.iterations": "2",
    "maps.training.batch_size": "2",
    "maps.training.checkpoint_every": "1e-9",
    "classifier.training.iterations": "3",
    "classifier.training.batch_size": "2",
    "classifier.training.checkpoint_every": "1e-9",
    "pairs.width": "32",
    "pairs.crop": "64",
    "pairs.offsets": "12",
    "pairs.training.iterations": "3",
    "pairs.training.batch_size": "2",
    "pairs.training.checkpoint_every": "1e-9",
}


def made(**settings):
    return IRNet(IRNetConfig.from_settings(SMALL | {key: str(value) for key, value in settings.items()}))


def scenes(count=3, **options):
    lazy = scene_dataset(count, 0, labels=("tags", "instances"), **{"size": (72, 88), "classes": 3, **options})
    return Dataset([s.replace(image=s.image, instances=s.instances) for s in lazy], lazy.classes, name="scenes")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A method fitted on three scenes, and these."""
    dataset, method = scenes(), made()
    method.fit(dataset, out=tmp_path_factory.mktemp("fit"), device="cpu")
    return method, dataset


@pytest.fixture(scope="module")
def rounded(tmp_path_factory):
    """The same with two rounds of class maps, and the folder of its fit."""
    dataset, method, out = scenes(), made(rounds=2), tmp_path_factory.mktemp("rounds")
    method.fit(dataset, out=out, device="cpu")
    return method, dataset, out


def described(found):
    return found.labels.tolist(), found.scores.tolist(), [mask.tobytes() for mask in found.masks()]


def two_squares(*, stride=4.0, class_ids=(3,), strengths=(1.0,), apart=0):
    """Fields of two touching squares of side 12 on a 24 x 40 grid: exact displacement and outline, perhaps a wall."""
    cam = np.zeros((24, 40), np.float32)
    field = np.zeros((2, 24, 40), np.float32)
    outline = np.zeros((24, 40), np.float32)
    outline[5:19, 7:33] = 1
    outline[6:18, 8:32] = 0
    for left in (8, 20):
        yy, xx = np.indices((12, 12), np.float32)
        field[:, 6:18, left : left + 12] = 5.5 - yy, 5.5 - xx
        cam[6:18, left : left + 12] = 0.5 + 0.5 * (np.hypot(yy - 5.5, xx - 5.5) < 4)
    outline[6:18, 19:21] = apart
    maps = {f"cam/{i}": Field(cam * s, stride) for i, s in zip(class_ids, strengths, strict=True)}
    maps |= {"displacement": Field(field, stride), "boundary": Field(outline, stride)}
    size = round(24 * stride), round(40 * stride)
    return Fields(size, maps), Sample("a", np.zeros((*size, 3), np.uint8), tags=tuple(class_ids))


def grouped(fields, sample, **settings):
    return made(**settings).group(fields, sample)


@pytest.mark.parametrize("stride", [2.0, 4.0, 7.3])
def test_exact_fields_give_both_objects(stride):
    fields, sample = two_squares(stride=stride)
    found = grouped(fields, sample)
    assert found.labels.tolist() == [3, 3]
    assert found.sources.tolist() == ["irnet:tags"] * 2
    assert ((found.scores > 0) & (found.scores <= 1)).all()
    assert found.size == sample.size
    for i, left in enumerate(np.argsort(found.boxes[:, 0])):
        truth = np.zeros(sample.size, bool)
        edges = [round(v * stride) for v in (6, 18, 8 + 12 * i, 20 + 12 * i)]
        truth[edges[0] : edges[1], edges[2] : edges[3]] = True
        mask = found.mask(int(left))
        assert (mask & truth).sum() / (mask | truth).sum() > 0.75


def test_without_displacement_touching_objects_are_one_and_a_boundary_parts_them():
    assert len(grouped(*two_squares(), use_displacement="false")) == 1
    assert len(grouped(*two_squares(apart=1.0), use_displacement="false")) == 2


def test_small_instances_are_dropped_by_area_alone():
    fields, sample = two_squares()
    areas = sorted(grouped(fields, sample).areas.tolist())
    assert len(grouped(fields, sample, **{"pairs.min_area": areas[0]})) == 2
    assert len(grouped(fields, sample, **{"pairs.min_area": areas[0] + 1})) == sum(a > areas[0] for a in areas)
    assert len(grouped(fields, sample, **{"pairs.min_area": areas[1] + 1})) == 0


def test_the_published_normalisation_loses_a_weak_class_and_ours_keeps_it():
    fields, sample = two_squares(class_ids=(3, 8), strengths=(1.0, 0.1))
    other = fields["cam/8"].copy()
    other[:, :20], fields["cam/3"][:, 20:] = 0, 0
    fields = Fields(fields.size, {**fields.maps, "cam/8": Field(other, 4.0)})
    assert set(grouped(fields, sample, normalisation="image").labels) == {3}
    for normalisation in ("class", "region"):
        assert set(grouped(fields, sample, normalisation=normalisation).labels) == {3, 8}


def test_the_published_score_is_the_peak():
    fields, sample = two_squares()
    peaks = grouped(fields, sample, score="peak", normalisation="image").scores
    assert peaks.max() == pytest.approx(1, abs=0.02)
    assert (grouped(fields, sample).scores < peaks).all()


def test_nothing_wins_nothing_found():
    fields, sample = two_squares(strengths=(0.0,))
    assert len(grouped(fields, sample)) == 0
    assert not made().semantic(sample, fields).any()
    empty = Fields(sample.size)
    assert len(made().group(empty, sample)) == 0
    assert made().semantic(sample, empty).shape == sample.size
    assert made().pictures(empty, sample) == {}


def test_the_semantic_map_is_of_whole_classes_with_doubt_unknown():
    fields, sample = two_squares()
    sure = made().semantic(sample, fields)
    assert set(np.unique(sure)) == {0, 3}
    assert (sure[30:66, 40:120] == 3).all()
    doubtful = made(doubt=0.2).semantic(sample, fields)
    assert set(np.unique(doubtful)) == {0, 3, 255}
    assert np.array_equal(doubtful[doubtful != 255], sure[doubtful != 255])
    assert doubtful[48, 56] == 3
    assert doubtful[0, 0] == 0


@pytest.mark.parametrize(("class_id", "dtype"), [(254, np.uint8), (256, np.int32), (1000, np.int32)])
def test_class_ids_survive(class_id, dtype):
    fields, sample = two_squares(class_ids=(class_id,))
    found = made().semantic(sample, fields)
    assert found.dtype == dtype
    assert set(np.unique(found)) == {0, class_id}
    assert set(grouped(fields, sample).labels) == {class_id}


def test_pictures_of_every_class_and_field():
    fields, sample = two_squares(class_ids=(3, 8, 11), strengths=(1.0, 0.5, 0.2))
    method = made()
    method.classes = {3: "cat", 8: "dog"}
    pictures = method.pictures(fields, sample)
    assert list(pictures) == ["activation: cat", "activation: dog", "activation: 11", "boundary", "displacement"]
    assert all(picture.shape == (24, 40, 3) for picture in pictures.values())


def test_labels_are_of_the_tags_and_come_again_after_loading(fitted, tmp_path):
    method, dataset = fitted
    method.save(tmp_path)
    loaded = Method.load(tmp_path, device="cpu")
    assert isinstance(loaded, IRNet)
    assert "Training of the classifier" in (tmp_path / "README.md").read_text()
    for sample in dataset:
        fields, again = method.fields(sample), loaded.fields(sample)
        assert set(fields.maps) == {*(f"cam/{tag}" for tag in sample.tags), "boundary", "displacement"}
        assert len({field.array.shape[-2:] for field in fields.maps.values()}) == 1
        found = method.group(fields, sample)
        assert set(found.labels) <= set(sample.tags)
        assert described(found) == described(loaded.group(again, sample))
        semantic = method.semantic(sample, fields)
        assert set(np.unique(semantic)) <= {0, *sample.tags}
        assert np.array_equal(semantic, loaded.semantic(sample, again))


def test_class_maps_take_the_place_of_the_activation(rounded, tmp_path):
    method, dataset, _ = rounded
    method.save(tmp_path)
    loaded = Method.load(tmp_path, device="cpu")
    assert isinstance(loaded, IRNet)
    assert "Training of the class maps, round 2" in (tmp_path / "README.md").read_text()
    for sample in dataset:
        fields = method.fields(sample)
        assert {f"class/{i}" for i in (0, *sample.tags)} <= set(fields.maps)
        assert np.allclose(sum(fields[f"class/{i}"] for i in (0, *sample.tags)), 1, atol=1e-5)
        again = loaded._evidence(sample)
        assert not any(name.startswith("cam/") for name in again.maps)
        assert np.array_equal(method.semantic(sample, fields), loaded.semantic(sample, again))
        assert described(method.group(fields, sample)) == described(loaded.group(again, sample))
        shown = list(method.pictures(fields, sample))
        assert len([name for name in shown if name.startswith("probability: ")]) == len(sample.tags)


def test_probabilities_are_believed_as_they_are_and_left_aside_without_rounds():
    fields, sample = two_squares()
    odds = np.zeros((24, 40), np.float32)
    odds[6:18, 8:20] = 0.9
    odds[6:18, 20:32] = 0.2
    maps = {**fields.maps, "class/3": Field(odds, 4.0), "class/0": Field(1 - odds, 4.0)}
    maps["boundary"] = Field(np.where(fields["boundary"] > 0, np.float32(1), np.float32(0)), 4.0)
    maps["boundary"].array[6:18, 19:21] = 1
    both = Fields(fields.size, maps)
    assert len(grouped(both, sample, rounds=0)) == 2  # by the activation
    assert len(grouped(both, sample, rounds=1, normalisation="image", **{"maps.background_weight": 1})) == 1
    for weight, count in ((1.0, 1), (0.1, 2)):
        found = grouped(both, sample, rounds=1, **{"maps.background_weight": weight})
        assert len(found) == count
    assert grouped(both, sample, rounds=1).boxes[0].tolist()[:2] == pytest.approx([32, 24], abs=4)


def test_only_the_sure_labels_of_a_round_teach_the_next(rounded, tmp_path):
    _, dataset, out = rounded
    unknown = {
        number: np.mean([(read_label_image(out / f"labels-{number}" / f"{s.name}.png") == 255).mean() for s in dataset])
        for number in (1, 2)
    }
    assert unknown[1] == 0
    assert 0 < unknown[2] < 1


def test_the_same_seed_gives_the_same_weights_and_another_others(fitted, tmp_path):
    method, dataset = fitted
    for seed, same in ((0, True), (1, False)):
        other = made()
        other.fit(dataset, out=tmp_path / str(seed), device="cpu", seed=seed)
        assert (weights_digest(other.classifier) == weights_digest(method.classifier)) is same
        assert (weights_digest(other.relations) == weights_digest(method.relations)) is same


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (tag_classifier, "tag_loss"),
        (regions, "regions_of"),
        (siseg_pairs, "affinity_loss"),
        (class_labels, "map_loss"),
    ],
    ids=["classifier", "regions", "relations", "class maps"],
)
def test_killed_in_any_stage_it_ends_as_if_it_had_not_been(rounded, tmp_path, monkeypatch, module, name):
    method, dataset, _ = rounded
    real, calls = getattr(module, name), []

    def killed(*args, **kwargs):
        calls.append(name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(module, name, killed)
    with pytest.raises(KeyboardInterrupt):
        made(rounds=2).fit(dataset, out=tmp_path, device="cpu")
    with pytest.raises(ValueError, match="learning_rate was"):
        made(rounds=2, **{"classifier.training.learning_rate": 1e-5}).fit(dataset, out=tmp_path, device="cpu")
    rest = made(
        rounds=2, **{"classifier.training.log_every": 2, "pairs.training.checkpoint_every": 9.0}
    )  # what changes nothing
    rest.fit(dataset, out=tmp_path, device="cpu")
    assert len(calls) < 6  # it went on, it did not begin anew
    assert weights_digest(rest.classifier) == weights_digest(method.classifier)
    assert weights_digest(rest.relations) == weights_digest(method.relations)
    assert weights_digest(rest.maps) == weights_digest(method.maps)


def test_one_image_one_class_without_class_list_and_a_budget(tmp_path):
    sample = scenes(1)[0].replace(tags=(400,))
    method = made()
    method.fit(Dataset([sample]), out=tmp_path, budget=Budget.parse("1it"), device="cpu")
    assert method.facts["classes"] == [400]
    assert method.facts["training"]["relations"]["iterations"] == 1
    assert set(method.group(method.fields(sample), sample).labels) <= {400}


def test_what_cannot_be_learned_from_is_said_before_training(tmp_path):
    sample = scenes(1)[0]
    for tags, message in ((None, "--tags FILE"), ((), "no image has a tag"), ((70000,), "renumber")):
        with pytest.raises(ValueError, match=message):
            made().fit(Dataset([sample.replace(tags=tags)]), out=tmp_path, device="cpu")
    assert not (tmp_path / "regions").exists()


def test_images_without_tags_or_with_strange_ones(fitted):
    method, dataset = fitted
    bare = dataset[0].replace(tags=None)
    with pytest.raises(ImageError, match="predict_tags"):
        method.fields(bare)
    with pytest.raises(ImageError, match="never learned class 77"):
        method.fields(bare.replace(tags=(1, 77)))
    empty = bare.replace(tags=())
    assert len(method.group(method.fields(empty), empty)) == 0
    with pytest.raises(RuntimeError, match="fit or load first"):
        made().fields(dataset[0])


def test_predicted_tags(fitted, monkeypatch):
    method, dataset = fitted
    bare = dataset[0].replace(tags=None)
    assert method.reads == ("tags",)
    before = method.config
    monkeypatch.setattr(method, "config", before.model_copy(update={"predict_tags": True}))
    assert method.reads == ()
    probable = {1: 0.2, 2: 0.9, 3: 0.6}
    monkeypatch.setattr(
        tag_classifier, "tag_probabilities", lambda *_, **__: np.array([probable[i] for i in method.facts["classes"]])
    )
    assert method.present(bare) == [2, 3]
    assert method.present(bare.replace(tags=(1,))) == [1]
    found = method.group(method.fields(bare), bare)
    assert set(found.sources) <= {"irnet:predicted tags"}
    monkeypatch.setattr(method, "config", method.config.model_copy(update={"tag_threshold": 0.95}))
    assert len(method.group(method.fields(bare), bare)) == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 60), (61, 5), (530, 30)])
def test_any_image_size(fitted, size):
    method, _ = fitted
    image = np.full((*size, 3), 90, np.uint8)
    sample = Sample("a", image, tags=(1, 3))
    fields = method.fields(sample)
    assert fields["cam/1"].shape == fields["boundary"].shape == (-(-size[0] // 4), -(-size[1] // 4))
    assert method.group(fields, sample).size == size
    assert method.semantic(sample, fields).shape == size


@pytest.mark.parametrize("changes", [{"max_pixels": 4096}, {"max_pixels": 5000, "min_area": 0}])
def test_large_images_are_shrunk_for_the_fields_only(fitted, monkeypatch, changes):
    method, _ = fitted
    config = method.config.model_copy(update={"pairs": method.config.pairs.model_copy(update=changes)})
    monkeypatch.setattr(method, "config", config)
    sample = Sample("a", np.random.default_rng(0).integers(0, 255, (131, 207, 3)).astype(np.uint8), tags=(1, 2))
    fields = method.fields(sample)
    assert fields["cam/1"].shape == fields["boundary"].shape
    assert np.prod(fields["boundary"].shape) <= 1.2 * changes["max_pixels"] / 16
    assert method.group(fields, sample).size == (131, 207)
    assert method.semantic(sample, fields).shape == (131, 207)


@pytest.mark.parametrize("size", [(300, 200), (1, 333), (257, 3)])
def test_photos_of_any_camera_are_seen_alike(fitted, monkeypatch, size):
    method, _ = fitted
    monkeypatch.setattr(method, "config", method.config.model_copy(update={"side": 100}))
    image = np.random.default_rng(0).integers(0, 255, (*size, 3)).astype(np.uint8)
    small = cv2.resize(image, [max(1, round(n * 100 / max(size))) for n in size[::-1]], interpolation=cv2.INTER_AREA)
    large, seen = (method.fields(Sample("a", each, tags=(1, 2))) for each in (image, small))
    assert large.size == size
    assert large.stride("boundary") == pytest.approx(4 * max(size) / 100)
    assert all(np.array_equal(large[name], seen[name]) for name in seen.maps)
    sample = Sample("a", image, tags=(1, 2))
    assert method.group(large, sample).size == method.semantic(sample, large).shape == size
    method.pictures(large, sample)


@pytest.mark.parametrize("stride", [2, 8])
def test_fields_of_another_stride(stride):
    torch.manual_seed(0)
    method = made(**{"pairs.stride": stride})
    method.facts = {"classes": [1, 3]}
    method.classifier = tag_classifier.build_classifier(
        method.config.classifier, [1, 3], "efficientnet_lite0", pretrained=False
    )
    method.relations = method._recipe().build(method.facts)
    sample = Sample("a", np.zeros((50, 70, 3), np.uint8), tags=(3,))
    fields = method.fields(sample)
    assert fields["cam/3"].shape == (-(-50 // stride), -(-70 // stride))
    assert method.group(fields, sample).size == (50, 70)


def test_the_label_generator_goes_on_after_a_bad_image(fitted):
    method, dataset = fitted
    bad = Sample("bad", lambda: 1 / 0, tags=(1,))
    out = list(method.label(Dataset([dataset[0], bad, dataset[1].replace(tags=(99,)), dataset[2]])))
    assert [isinstance(found, Exception) for _, found in out] == [False, True, True, False]


def test_regions_are_made_anew_for_another_grid_of_the_activation(tmp_path, monkeypatch):
    told = []

    def stop(*_, identity, **__):
        told.append(identity)
        raise KeyboardInterrupt

    monkeypatch.setattr("pixelkin.methods.irnet.with_regions", stop)
    for k, stride in enumerate((16, 16, "none")):
        with pytest.raises(KeyboardInterrupt):
            made(**{"classifier.output_stride": stride}).fit(scenes(), out=tmp_path / str(k), device="cpu")
    assert told[0] == told[1]
    assert told[0]["classifier"] == told[2]["classifier"]  # the weights are the same
    assert told[0] != told[2]
