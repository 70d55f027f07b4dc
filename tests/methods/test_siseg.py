from __future__ import annotations

import json
import os
import signal

import cv2
import numpy as np
import pytest
import torch

from pixelkin.cues.crowding import FieldCrowder
from pixelkin.data import Dataset, ImageError, Instances, Sample
from pixelkin.data.synthetic import scene_dataset
from pixelkin.grouping.components import connected_components
from pixelkin.methods import siseg_crowding
from pixelkin.methods.base import Field, Fields, Method
from pixelkin.methods.registry import get_method
from pixelkin.methods.siseg import SISeg, SISegConfig
from pixelkin.methods.siseg_crowding import CrowdingConfig, CrowdingRecipe
from pixelkin.training.config import TrainingConfig


def refuse():
    raise AssertionError("an instance label was read")


def training(iterations, batch=4, **changes):
    return TrainingConfig(
        iterations=iterations, batch_size=batch, learning_rate=4e-3, warmup=5, clip_norm=5.0, log_every=5, **changes
    )


def config_of(iterations=2, batch=2, **changes):
    made = CrowdingConfig(window=64, diameter=14.0, training=training(iterations, batch), **changes)
    return SISegConfig(crowding=made)


def nuclei(count, seed, **options):
    scenes = scene_dataset(count, seed, preset="nuclei", size=(96, 112), scale=(0.07, 0.1), objects=16, **options)
    return Dataset(  # rendered once
        [s.replace(image=s.image, semantic=s.semantic, instances=s.instances) for s in scenes], scenes.classes, name="n"
    )


def blind(dataset):
    """Without a look at the instances."""
    return dataset.map(lambda sample: sample.replace(instances=refuse))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    method = SISeg(config_of(50, 6, kind="scene"))
    method.fit(blind(nuclei(6, 0, touching=0.4)), out=tmp_path_factory.mktemp("fit"), device="cpu")
    return method


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """Methods of two steps, one a kind: what they say is arbitrary, which is good for testing what must always hold."""
    scenes = scene_dataset(3, 5, size=(96, 112), objects=6, touching=0.7)
    made = {}
    for kind in ("scene", "piece"):
        made[kind] = SISeg(config_of(kind=kind, cut=0.3))
        made[kind].fit(blind(scenes), out=tmp_path_factory.mktemp(kind), device="cpu")
    return made


def label(method, sample):
    return method.group(method.fields(sample), sample)


def picture(semantic, name="a", seed=0):
    semantic = np.asarray(semantic, np.uint8)
    image = np.random.default_rng(seed).integers(0, 256, (*semantic.shape, 3)).astype(np.uint8)
    return Sample(name, image, semantic=semantic)


def recall(found, truth):
    """Mean over the true objects of their best intersection over union."""
    a, b = found.masks().reshape(len(found), -1).astype(float), truth.masks().reshape(len(truth), -1).astype(float)
    both = b @ a.T
    union = a.sum(1)[None] + b.sum(1)[:, None] - both
    return float((both / union).max(axis=1).mean()) if len(found) else 0.0


def assert_sound(instances, semantic):
    """What must hold of every labelling, however little the network knows."""
    assert instances.size == semantic.shape
    claimed = np.zeros(semantic.shape, int)
    for i in range(len(instances)):
        mask = instances.mask(i)
        parts = cv2.connectedComponents((semantic == instances.labels[i]).astype(np.uint8))[1]
        assert mask.any()
        assert (semantic[mask] == instances.labels[i]).all()
        assert instances.labels[i] not in (0, 255)
        assert 0 < instances.scores[i] < 1
        assert (instances.scores[i] < 0.5) == instances.alternative[i]
        if not instances.alternative[i]:
            assert parts[mask].min() == parts[mask].max() > 0  # of one component
            claimed += mask
    assert claimed.max(initial=0) <= 1


def test_it_beats_connected_components_on_unseen_scenes(fitted):
    ours, theirs = [], []
    for sample in nuclei(4, 99, touching=0.9):
        found = label(fitted, sample)
        ours.append(recall(found[found.scores >= 0.5], sample.instances))
        theirs.append(recall(connected_components(sample.semantic), sample.instances))
    assert np.mean(ours) > np.mean(theirs) + 0.2, (ours, theirs)


def test_labels_are_sound(fitted, untrained):
    for sample in nuclei(2, 31, touching=0.9):
        semantic = sample.semantic.copy()
        semantic[:, 40:44] = 255
        found = label(fitted, sample.replace(semantic=semantic))
        assert_sound(found, semantic)
        assert (found.scores >= 0.5).sum() > 5
    for method in untrained.values():
        for sample in scene_dataset(2, 41, size=(90, 121), touching=0.9, labels=("semantic",)):
            semantic = sample.semantic.copy()
            semantic[30:33] = 255
            found = label(method, sample.replace(semantic=semantic))
            assert_sound(found, semantic)
            kept = found[found.scores >= 0.5]
            whole = connected_components(semantic, min_area=200)
            covered = kept.masks().any(axis=0)
            assert covered[whole.masks().any(axis=0)].mean() > 0.85  # all but crumbs, of which such fields make many


def test_without_alternatives_only_the_division_is_left(fitted):
    sample = nuclei(1, 31, touching=0.9)[0]
    everything = label(fitted, sample)
    bare = SISeg(config_of(kind="scene", alternatives=False))
    bare.model, bare.facts = fitted.model, fitted.facts
    found, standing = label(bare, sample), everything[everything.scores >= 0.5]
    assert np.array_equal(found.masks(), standing.masks())
    assert np.array_equal(found.scores, standing.scores)
    assert len(everything) > len(found)


@pytest.mark.parametrize("kind", ["scene", "piece"])
@pytest.mark.parametrize(
    "semantic",
    [
        np.zeros((40, 50)),
        np.full((40, 50), 255),
        np.ones((5, 7)),
        np.ones((1, 1)),
        np.ones((2, 90)),
        np.eye(40),
        np.pad(np.ones((1, 1)), 20),  # one pixel
        np.pad(np.ones((12, 12)), ((0, 28), (38, 0))),  # in a corner
        np.full((40, 50), 77),  # a class nobody named, from border to border
        np.indices((40, 50)).sum(axis=0) % 2 * 9,  # a chequerboard
        np.indices((40, 50)).sum(axis=0) % 4,
    ],
    ids=["empty", "unknown", "tiny", "pixel", "strip", "diagonal", "speck", "corner", "full", "chequers", "stripes"],
)
def test_odd_semantic_maps(untrained, kind, semantic):
    method, sample = untrained[kind], picture(semantic)
    fields = method.fields(sample)
    found = method.group(fields, sample)
    assert_sound(found, sample.semantic)
    assert (found.areas >= 16).all()
    assert bool(len(found)) >= bool(len(connected_components(sample.semantic)))
    for shown in method.pictures(fields, sample).values():
        assert shown.dtype == np.uint8
        assert shown.ndim == 3


@pytest.mark.parametrize("kind", ["scene", "piece"])
def test_an_image_without_a_semantic_map(untrained, kind):
    sample = Sample("bare", np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(ImageError, match="bare: no semantic mask"):
        untrained[kind].fields(sample)
    with pytest.raises(ImageError, match="bare: no semantic mask"):
        untrained[kind].group(Fields((20, 30)), sample)
    (_, error), (_, fine) = untrained[kind].label(Dataset([sample, picture(np.ones((30, 30)), "b")]))
    assert isinstance(error, ImageError)
    assert isinstance(fine, Instances)


def test_what_shrinking_loses_is_one_instance(untrained, monkeypatch):
    monkeypatch.setattr(siseg_crowding, "LONGEST", 30)
    semantic = np.zeros((80, 120), np.uint8)
    semantic[10:60, 10:60] = 1
    semantic[71, 20:60] = 2  # a line between the pixels that are looked at
    sample = picture(semantic)
    fields = untrained["piece"].fields(sample)
    assert "boundary/2" not in fields
    found = untrained["piece"].group(fields, sample)
    assert_sound(found, semantic)
    lines = found[found.labels == 2]
    assert len(lines) == 1
    assert np.array_equal(lines.mask(0), semantic == 2)


def test_a_perfect_field_is_read_where_it_lies():
    """Two squares that touch, with fields finer and coarser than the image, shifted, as windows are."""
    semantic = np.zeros((60, 90), np.uint8)
    semantic[20:44, 18:66] = 5
    truth = np.where(semantic > 0, 1 + (np.indices(semantic.shape)[1] >= 42), 0)
    recipe = CrowdingRecipe(CrowdingConfig(cut=0.4), "efficientnet_lite0", pretrained=False)
    for stride, origin in ((1.0, (0.0, 0.0)), (0.5, (10.0, 10.0)), (2.0, (-6.0, -10.0)), (1.7, (3.3, 2.9))):
        cells = [int(np.ceil((side - start) / stride)) for side, start in zip(semantic.shape, origin, strict=True)]
        y, x = (origin[axis] + (np.indices(cells)[axis] + 0.5) * stride for axis in (0, 1))
        arrow = np.stack([32 - y, np.where(x < 42, 30, 54) - x]) / stride
        ridge = (abs(x - 42) <= stride).astype(float)
        maps = {"displacement/1": Field(arrow, stride, origin), "boundary/1": Field(ridge, stride, origin)}
        found = recipe.group(Fields(semantic.shape, maps), picture(semantic), {"kind": "piece"})
        kept = found[found.scores >= 0.5]
        assert len(kept) == 2
        assert_sound(found, semantic)
        labels = kept.label_map()
        left, right = labels[32, 25], labels[32, 60]
        assert ((labels == left) == (truth == 1)).mean() > 0.99
        assert ((labels == right) == (truth == 2)).mean() > 0.99
        whole = found[found.scores < 0.5]
        assert any(np.array_equal(whole.mask(i), semantic > 0) for i in range(len(whole)))


def test_an_instance_is_as_sure_as_its_class(fitted):
    sample = nuclei(1, 31, touching=0.9)[0]
    plain = label(fitted, sample)
    maps = np.full((2, *sample.size), 0.25, np.float32)
    doubted = label(fitted, sample.replace(probabilities=maps))
    assert np.array_equal(doubted.masks(), plain.masks())
    sure = plain.scores - 0.5 * (plain.scores >= 0.5)
    np.testing.assert_allclose(doubted.scores - 0.5 * (plain.scores >= 0.5), 0.25 * sure, atol=1e-6)
    with pytest.raises(ImageError, match="4 probability maps for 1 classes"):
        label(fitted, sample.replace(probabilities=np.zeros((4, *sample.size), np.float32)))
    unnamed = sample.replace(semantic=sample.semantic * 9, probabilities=maps)
    assert np.array_equal(label(fitted, unnamed).labels, plain.labels * 9)


def test_an_object_in_pieces_is_an_alternative():
    semantic = np.zeros((60, 90), np.uint8)
    semantic[20:40, 10:30] = semantic[20:40, 36:56] = 4  # something stands before the middle
    semantic[20:40, 31:35] = 7
    recipe = CrowdingRecipe(CrowdingConfig(), "efficientnet_lite0", pretrained=False)
    whole = {"displacement": -np.indices(semantic.shape), "boundary": np.zeros(semantic.shape)}  # all to one point
    still = {f"{name}/{i}": Field(array.astype(np.float32)) for i in (1, 2, 3) for name, array in whole.items()}
    found = recipe.group(Fields(semantic.shape, still), picture(semantic), {"kind": "piece"})
    assert_sound(found, semantic)
    assert sum(~found.alternative) == 3
    assert [i for i in range(len(found)) if np.array_equal(found.mask(i), semantic == 4)] == [len(found) - 1]
    bare = CrowdingRecipe(CrowdingConfig(gap=0.0), "efficientnet_lite0", pretrained=False)
    assert len(bare.group(Fields(semantic.shape, still), picture(semantic), {"kind": "piece"})) == len(found) - 1


def test_codes_are_those_of_masks():
    rng = np.random.default_rng(0)
    for share in (0.02, 0.5, 0.98, 1.0):
        mask = rng.random((13, 17)) < share
        mask[5, 5] = True
        rows, columns = np.nonzero(mask)
        order = rng.permutation(len(rows))
        code = siseg_crowding._encode(rows[order], columns[order], mask.shape)
        assert Instances(mask.shape, [code]) == Instances.from_masks(mask[None])


@pytest.mark.parametrize("kind", ["scene", "piece"])
def test_saved_and_loaded_it_labels_the_same(untrained, kind, tmp_path):
    method = untrained[kind]
    method.save(tmp_path)
    other = Method.load(tmp_path, device="cpu")
    assert isinstance(other, SISeg)
    assert other.config == method.config
    assert other.facts == json.loads(json.dumps(method.facts))
    assert all(torch.equal(value, other.state()[name]) for name, value in method.state().items())
    for sample in scene_dataset(2, 55, size=(80, 100), touching=0.9, labels=("semantic",)):
        assert label(other, sample) == label(method, sample)
    card = (tmp_path / "README.md").read_text()
    assert "- **Mode**: crowding" in card
    assert "2 iterations" in card
    assert "Backbone licence" in card


def test_settings_of_a_loaded_model_may_be_changed(fitted, tmp_path):
    fitted.save(tmp_path)
    sample = nuclei(1, 31, touching=0.9)[0]
    counts = []
    for cut in (0.02, 0.99):
        method = Method.load(tmp_path, device="cpu")
        method.config = SISegConfig.from_settings({"crowding.cut": str(cut)}, base=method.config)
        counts.append((label(method, sample).scores >= 0.5).sum())
    assert counts[0] > counts[1]
    method.config = SISegConfig.from_settings({"mode": "paper"}, base=method.config)
    with pytest.raises(ValueError, match="fitted with mode=crowding: leave mode out"):
        method.fields(sample)


def test_unfitted():
    with pytest.raises(RuntimeError, match="call fit or load first"):
        SISeg().fields(picture(np.ones((5, 7))))


def state_after(tmp_path, name, *, seed=0, **changes):
    method = SISeg(config_of(5, kind="scene", **changes))
    method.fit(blind(nuclei(2, 3, touching=0.2)), out=tmp_path / name, device="cpu", seed=seed)
    return method


def equal(a, b):
    return all(torch.equal(value, b.state()[name]) for name, value in a.state().items())


def test_the_same_seed_the_same_weights_also_when_interrupted(tmp_path, monkeypatch):
    first = state_after(tmp_path, "a")
    torch.manual_seed(99)
    assert equal(first, state_after(tmp_path, "b"))
    assert not equal(first, state_after(tmp_path, "c", seed=1))
    make, made = FieldCrowder.__call__, []

    def interrupted(self, rng):
        made.append(1)
        if len(made) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return make(self, rng)

    monkeypatch.setattr(FieldCrowder, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        state_after(tmp_path, "d")
    assert 4 < len(made) < 10
    monkeypatch.undo()
    assert equal(first, state_after(tmp_path, "d"))


@pytest.mark.parametrize("mode", ["crowding", "components"])
def test_settings_without_effect_may_be_changed_before_going_on(mode, tmp_path):
    def fit(**changes):
        settings = {"crowding.window": "64", "crowding.diameter": "14", "pairs.crop": "64", "pairs.width": "32"}
        settings |= {
            f"{part}.training.{key}": "2" for part in ("crowding", "pairs") for key in ("iterations", "batch_size")
        }
        method = SISeg(SISegConfig.from_settings(settings | {"mode": mode} | changes))
        method.fit(blind(nuclei(2, 3, touching=0.2)), out=tmp_path, device="cpu")
        return method

    used, other = ("crowding", "pairs") if mode == "crowding" else ("pairs", "crowding")
    first = fit()
    assert equal(first, fit(**{f"{used}.training.workers": "1", f"{used}.training.checkpoint_every": "9"}))
    for key, value in ((f"{used}.training.learning_rate", "1e-5"), (f"{other}.training.ema", "0.9")):
        with pytest.raises(ValueError, match="other settings"):  # the loop never looks at those of the other mode
            fit(**{key: value})


def test_images_that_cannot_be_read_are_left_out(tmp_path):
    def broken():
        raise ImageError("broken image: replace it")

    good = blind(nuclei(2, 3, touching=0.2))
    size = (96, 112)
    bad = [
        Sample("no image", broken, size=size, semantic=np.ones(size, np.uint8)),
        Sample("no mask", np.zeros((*size, 3), np.uint8), semantic=broken),
        Sample("other size", np.zeros((*size, 3), np.uint8), semantic=np.ones((5, 7), np.uint8)),
        Sample("unlabelled", broken, size=size),
    ]
    method = SISeg(config_of(kind="scene"))
    method.fit(Dataset([bad[0], good[0], *bad[1:], good[1]]), out=tmp_path, device="cpu")
    assert method.facts["unreadable"] == ["no image", "no mask", "other size"]
    with pytest.raises(ValueError, match=r"no object of 16 pixels \(3 images cannot be read\)"):
        SISeg(config_of()).fit(Dataset(bad), out=tmp_path / "b", device="cpu")


def test_nothing_to_learn_from(tmp_path):
    with pytest.raises(ValueError, match="semantic masks"):
        SISeg().fit(Dataset([Sample("a", np.zeros((5, 7, 3), np.uint8))]), out=tmp_path, device="cpu")
    for semantic in (np.zeros((50, 60)), np.full((50, 60), 255), np.pad(np.ones((2, 2)), 20)):
        with pytest.raises(ValueError, match="no object of 16 pixels: give masks with class ids over 0"):
            SISeg(config_of()).fit(Dataset([picture(semantic)]), out=tmp_path, device="cpu")
    cut = Dataset([picture(np.pad(np.ones((20, 20)), ((0, 30), (0, 30))))])  # nothing whole
    with pytest.raises(ValueError, match=r"stands alone.*--set crowding.kind=piece, or --set mode=components"):
        SISeg(config_of(kind="scene")).fit(cut, out=tmp_path, device="cpu")
    small = Dataset([picture(np.pad(np.ones((8, 8)), 20))])
    with pytest.raises(ValueError, match=r"200 pixels.*--set crowding.kind=scene, or --set mode=components"):
        SISeg(config_of(kind="piece")).fit(small, out=tmp_path, device="cpu")


def test_one_image_of_a_class_without_a_name(tmp_path):
    scene = nuclei(1, 3, touching=0.2)[0]
    sample = scene.replace(semantic=scene.semantic * 200, instances=refuse)
    method = SISeg(config_of())
    method.fit(Dataset([sample]), out=tmp_path, device="cpu")
    assert method.facts["kind"] == "scene"  # nuclei are convex and even in size
    assert method.classes == {}
    assert set(label(method, sample).labels) == {200}


@pytest.mark.parametrize(("sides", "kind"), [((8, 14, 22, 32, 40, 48), "piece"), ((18, 20, 22, 20, 19, 21), "scene")])
def test_objects_of_many_sizes_are_taken_one_by_one(sides, kind):
    semantic = np.zeros((120, 180))
    for k, side in enumerate(sides):
        y, x = 60 * (k // 3) + 4, 60 * (k % 3) + 4
        semantic[y : y + side, x : x + side] = 3
    recipe = CrowdingRecipe(CrowdingConfig(), "efficientnet_lite0")
    assert recipe.measure(Dataset([picture(semantic)]))["kind"] == kind


@pytest.mark.parametrize("mode", ["crowding", "components", "paper"])
def test_every_mode_is_a_method(mode, tmp_path):
    settings = {"mode": mode, "crowding.window": "64", "pairs.crop": "64", "pairs.width": "32", "pairs.offsets": "20"}
    settings |= {
        f"{part}.training.{key}": "2" for part in ("crowding", "pairs") for key in ("iterations", "batch_size")
    }
    kind = get_method("siseg")
    method = kind(kind.config_class.from_settings(settings))
    scenes = blind(nuclei(2, 3))
    method.fit(scenes, out=tmp_path / "training", device="cpu")
    method.save(tmp_path)
    loaded = Method.load(tmp_path, device="cpu")
    assert loaded.facts["mode"] == mode
    for (sample, found), (_, again) in zip(method.label(scenes), loaded.label(scenes), strict=True):
        assert isinstance(found, Instances), found
        assert found == again
        assert len(found) > 0
        for i in range(len(found)):
            assert (sample.semantic[found.mask(i)] == found.labels[i]).all()


def test_a_window_must_fit_the_network():
    with pytest.raises(ValueError, match="multiple of 32"):
        SISegConfig.from_settings({"crowding.window": "100"})
