"""The student: what it is taught, what it is not, and that it learns, resumes and comes back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pixelkin.data import ALTERNATIVE, Dataset, Instances, Sample
from pixelkin.data.synthetic import render_scene
from pixelkin.methods.base import ConfigError, Method
from pixelkin.methods.registry import choose_method
from pixelkin.metrics import evaluate
from pixelkin.models.backbone import build_backbone
from pixelkin.students import mask_rcnn
from pixelkin.students.examples import MASK_WINDOW, LabelledImages, Padding, fit_size, unpack
from pixelkin.students.losses import Sampling, Target, assign, choose_regions, losses, proposal_losses
from pixelkin.students.mask_rcnn import MaskRCNNConfig, MaskRCNNStudent, paste_mask, survey
from pixelkin.students.network import MaskRCNN, Proposals
from pixelkin.students.pictures import flipped, load_picture, paste
from pixelkin.students.pyramid import StudentError

SMALL = {
    "short_side": "96",
    "long_side": "128",
    "channels": "64",
    "hidden": "256",
    "anchor_scale": "4",
    "epochs": "0",
    "training.warmup": "10",
    "training.ema": "0.9",
    "scale_jitter": "1,1",
}
CAT, DOG = 7, 250


def scenes() -> Dataset:
    """Two pictures with objects of classes 7 and 250, the ids a user may have, and one with nothing in it."""
    samples = []
    for seed in (3, 4):
        scene = render_scene(seed, size=(96, 128), classes=2, objects=4)
        labels = np.where(scene.instances.labels == 1, CAT, DOG)
        instances = Instances(
            scene.instances.size, scene.instances.rles, labels=labels, sources=["siseg:x"] * len(labels)
        )
        samples.append(Sample(f"scene{seed}", scene.image, instances=instances))
    empty = np.random.default_rng(0).integers(90, 130, (96, 128, 3), dtype=np.uint8)
    samples.append(Sample("empty", empty, instances=Instances.empty((96, 128))))
    return Dataset(samples, {CAT: "cat", 12: "unused", DOG: "dog"}, name="scenes")


def student(**settings: str) -> MaskRCNNStudent:
    return MaskRCNNStudent(MaskRCNNConfig.from_settings(SMALL | settings))


def boxed(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (64, 64), **columns) -> Instances:
    masks = np.zeros((len(boxes), *size), dtype=bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    return Instances.from_masks(masks, **columns)


def teacher(instances: Instances, **more) -> Sample:
    image = np.random.default_rng(1).integers(0, 255, (*instances.size, 3), dtype=np.uint8)
    return Sample("one", image, instances=instances, **more)


def examples(dataset: Dataset, **changes) -> LabelledImages:
    usual = {"mean_score": 0.0, "short_side": 64, "long_side": 96, "jitter": (1.0, 1.0), "flip": False}
    usual |= {"copy_paste": 0.0, "min_score": 0.3, "unknown": True}
    return LabelledImages(dataset, (CAT, DOG), **(usual | changes))


def target(boxes, *, classes=None, weights=None, doubtful=(), unknown=None, size=(64, 64)) -> Target:
    n = len(boxes)
    return Target(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(classes or [1] * n, dtype=torch.long),
        torch.tensor(weights or [1.0] * n),
        torch.ones(n, MASK_WINDOW, MASK_WINDOW),
        torch.tensor(doubtful, dtype=torch.float32).reshape(-1, 4),
        torch.zeros(size, dtype=torch.bool) if unknown is None else unknown,
    )


@pytest.fixture(scope="module")
def network() -> MaskRCNN:
    torch.manual_seed(0)
    return MaskRCNN(
        build_backbone(pretrained=False), 2, channels=16, hidden=16, anchor_scale=4.0, candidates=50, proposals=40
    ).train()


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[MaskRCNNStudent, Path]:
    folder = tmp_path_factory.mktemp("student")
    one = student(**{"training.iterations": "60"})
    one.fit(scenes(), out=folder / "training", seed=1)
    one.save(folder)
    return one, folder


# what is learned ---


def test_it_learns_two_scenes_with_the_users_class_ids(fitted) -> None:
    one, _ = fitted
    found = [instances for _, instances in one.label(scenes())]
    assert {i for instances in found for i in instances.labels.tolist()} <= {CAT, DOG}
    assert {source for instances in found for source in instances.sources.tolist()} == {"mask_rcnn:siseg"}
    predicted = Dataset([s.replace(instances=f) for s, f in zip(scenes(), found, strict=True)], scenes().classes)
    assert evaluate(predicted, scenes()).to_json()["AP50"] > 60
    assert one.facts["class_ids"] == [CAT, DOG]
    assert not len(found[2]) or found[2].scores.max() < 0.6  # the picture with nothing in it was learned as that


def test_it_comes_back_as_it_was(fitted) -> None:
    one, folder = fitted
    assert {"config.json", "model.safetensors", "README.md"} <= {path.name for path in folder.iterdir()}
    again = Method.load(folder, device="cpu")
    sample = scenes()[0]
    assert again.group(again.fields(sample), sample) == one.group(one.fields(sample), sample)
    card = (folder / "README.md").read_text()
    for words in ("instances by siseg", "efficientnet_lite0", "60 iterations", "7 cat", "pixelkin predict"):
        assert words in card


def test_continued_is_bit_for_bit_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"training.iterations": "4", "channels": "16", "hidden": "16", "copy_paste": "0.5"}
    straight, broken = student(**settings), student(**settings)
    straight.fit(scenes(), out=tmp_path / "a", seed=3)
    steps = 0

    def interrupted(*arguments, **keywords):
        nonlocal steps
        steps += 1
        if steps == 3:
            raise KeyboardInterrupt
        return losses(*arguments, **keywords)

    monkeypatch.setattr(mask_rcnn, "losses", interrupted)
    often = broken.config.training.model_copy(update={"checkpoint_every": 1e-9})
    broken.config = broken.config.model_copy(update={"training": often})
    with pytest.raises(KeyboardInterrupt):
        broken.fit(scenes(), out=tmp_path / "b", seed=3)
    monkeypatch.setattr(mask_rcnn, "losses", losses)
    assert list((tmp_path / "b").glob("step-*"))
    broken.config = straight.config  # how often to save changes nothing that is learned
    broken.fit(scenes(), out=tmp_path / "b", seed=3)
    for name, value in straight.state().items():
        assert torch.equal(value, broken.state()[name]), name


def test_vision_transformers_and_odd_shapes_run() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("vit_tiny_patch16_224", pretrained=False)
    one = MaskRCNN(backbone, 1, channels=16, hidden=16, anchor_scale=4.0, candidates=20, proposals=10)
    assert one.pyramid.strides == (4, 8, 16, 32, 64)
    data = Dataset([teacher(boxed((4, 4, 20, 30), labels=[CAT]))])
    packed = Padding(one.pyramid.divisor)([examples(data)(np.random.default_rng(0))])
    losses(one.train(), *unpack(packed), Sampling())["loss"].backward()
    with torch.no_grad():
        wide = one.eval().detect(torch.rand(3, 32, 320), torch.tensor([5, 320]), score=0.0, overlap=0.5, keep=5)
    assert wide.boxes[:, 3].max() <= 5


def test_half_precision_runs(tmp_path: Path) -> None:
    settings = {"training.iterations": "2", "channels": "16", "hidden": "16", "training.precision": "bf16"}
    one = student(**settings)
    one.fit(scenes(), out=tmp_path)
    assert all(torch.isfinite(value).all() for value in one.state().values())


def test_strides_that_do_not_double_are_refused() -> None:
    backbone = build_backbone(pretrained=False)
    backbone.strides = (4, 8, 32, 64, 128)
    with pytest.raises(StudentError, match="strides that double"):
        MaskRCNN(backbone, 1)


def test_the_backbones_statistics_stay(network: MaskRCNN) -> None:
    norms = [module for module in network.backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training or norm.weight.requires_grad for norm in norms)


# what is not learned ---


def test_boxes_in_the_unknown_are_neither_object_nor_background() -> None:
    unknown = torch.zeros(64, 64, dtype=torch.bool)
    unknown[:, 32:] = True
    known = target([[2, 2, 22, 22]], unknown=unknown)
    boxes = torch.tensor(
        [[2, 2, 22, 22], [40, 10, 60, 30], [22, 10, 42, 30], [21, 10, 41, 30], [12, 2, 32, 22], [2, 40, 22, 60.0]]
    )
    # a label; unknown; half unknown; a little less; beside the label; background
    assert assign(boxes, known, (0.5, 0.5), rescue=False)[1].tolist() == [1, -1, -1, 0, 0, 0]
    inside = replace_unknown(known, torch.ones(64, 64, dtype=torch.bool))
    assert assign(boxes, inside, (0.5, 0.5), rescue=False)[1].tolist() == [1, -1, -1, -1, -1, -1]


def replace_unknown(one: Target, unknown: torch.Tensor) -> Target:
    return one._replace(unknown=unknown)


def test_alternatives_are_neither() -> None:
    known = target([[0, 0, 20, 20], [20, 0, 40, 20]], doubtful=[[0, 0, 40, 20]])
    boxes = torch.tensor([[0, 0, 40, 21], [0, 0, 20, 20], [5, 5, 10, 10], [0, 40, 40, 60.0]])
    assert assign(boxes, known, (0.5, 0.6), rescue=False)[1].tolist() == [-1, 1, 0, 0]


def test_labels_without_weight_teach_nothing(network: MaskRCNN) -> None:
    """Neither where they are, nor what, nor that there is nothing: gradients do not know of them."""
    torch.manual_seed(0)
    anchors = torch.tensor([[0, 0, 16, 16], [20, 20, 40, 40], [1, 1, 15, 15], [44, 44, 60, 60.0]])
    objectness = torch.zeros(1, 4, requires_grad=True)
    deltas = torch.zeros(1, 4, 4, requires_grad=True)
    proposals = Proposals(anchors, objectness, deltas, anchors[None], torch.ones(1, 4))
    known = target([[0, 0, 16, 16], [20, 20, 40, 40]], weights=[0.0, 1.0])
    found = proposal_losses(proposals, [known], Sampling(), network.rpn_weights)
    sum(found.values()).backward()
    assert objectness.grad[0, [0, 2]].tolist() == [0, 0]
    assert (objectness.grad[0, [1, 3]] != 0).all()
    regions = choose_regions(proposals, [known], Sampling())
    assert set(map(tuple, regions.boxes[:].tolist())) == {tuple(anchors[1].tolist()), tuple(anchors[3].tolist())}
    assert set(regions.labels[regions.classes > 0].tolist()) == {1}


def test_a_loss_is_as_large_as_its_weight(network: MaskRCNN) -> None:
    anchors = torch.tensor([[0, 0, 16, 16.0]])
    values = []
    for weight in (1.0, 2.5):
        proposals = Proposals(anchors, torch.zeros(1, 1), torch.ones(1, 1, 4), anchors[None], torch.ones(1, 1))
        known = target([[1, 0, 16, 16]], weights=[weight])
        values.append(proposal_losses(proposals, [known], Sampling(), network.rpn_weights))
    for name in ("objectness", "anchor"):
        assert values[1][name] == pytest.approx(2.5 * float(values[0][name]))
        assert values[0][name] > 0


def test_the_mask_loss_does_not_look_at_unknown_pixels(network: MaskRCNN) -> None:
    from pixelkin.students.losses import _masks_in, _unknown_in

    unknown = torch.zeros(64, 64, dtype=torch.bool)
    unknown[:, 28:] = True
    known = target([[0, 0, 28, 28]], unknown=unknown)
    boxes = torch.tensor([[0, 0, 56, 28.0]])
    known_cells = 1 - _unknown_in(boxes, known)
    assert known_cells[0, :, :14].all()
    assert not known_cells[0, :, 14:].any()
    inside = _masks_in(boxes, known, torch.tensor([0]))
    assert inside[0, :, :13].min() == 1
    assert inside[0, :, 15:].max() == 0


def test_a_box_without_labels_is_background_and_pictures_without_any_teach(network: MaskRCNN) -> None:
    batch = Padding(network.pyramid.divisor)([examples(scenes()[2:])(np.random.default_rng(0))])
    found = losses(network, *unpack(batch), Sampling())
    assert found["mask"] == 0
    assert found["box"] == 0
    assert found["class"] > 0
    assert found["objectness"] > 0
    found["loss"].backward()


# from labels to targets ---


def test_what_a_picture_says_of_its_labels() -> None:
    instances = boxed(
        (0, 0, 10, 10),
        (0, 0, 20, 10),
        (30, 0, 40, 10),
        (30, 30, 50, 50),
        labels=[CAT, CAT, DOG, DOG],
        scores=[0.9, 0.4, 0.1, 0.9],
        sources=["a", f"a{ALTERNATIVE}", "a", "a"],
        crowd=[False, False, False, True],
    )
    semantic = np.zeros((64, 64), dtype=np.uint8)
    semantic[:10, :20], semantic[60:], semantic[55:58] = CAT, 255, DOG
    picture = load_picture(teacher(instances, semantic=semantic), min_score=0.3, unknown=True)
    assert [(thing.label, thing.box) for thing in picture.things] == [(CAT, (0, 0, 10, 10))]
    assert picture.doubtful.tolist() == [[0, 0, 20, 10]]
    expected = np.zeros((64, 64), dtype=bool)
    expected[:10, 30:40] = expected[30:50, 30:50] = expected[60:] = True  # low score, crowd, 255
    expected[:10, 10:20] = expected[55:58] = True  # a class that no instance claims
    assert np.array_equal(picture.unknown, expected)
    plain = load_picture(teacher(instances, semantic=semantic), min_score=0.3, unknown=False)
    assert not plain.unknown.any()
    assert not len(plain.doubtful)


def test_flipping_keeps_the_mask_under_its_pixels() -> None:
    picture = load_picture(scenes()[0], min_score=0.0, unknown=True)
    turned = flipped(picture)
    for thing, other in zip(picture.things, turned.things, strict=True):
        x0, y0, x1, y1 = thing.box
        u0, v0, u1, v1 = other.box
        colours = picture.image[y0:y1, x0:x1][thing.mask]
        assert np.array_equal(np.sort(colours, axis=0), np.sort(turned.image[v0:v1, u0:u1][other.mask], axis=0))
    again = flipped(turned)
    assert np.array_equal(again.image, picture.image)
    assert [thing.box for thing in again.things] == [thing.box for thing in picture.things]


def test_pasted_things_hide_what_is_below() -> None:
    one, other = (load_picture(scenes()[i], min_score=0.0, unknown=True) for i in (0, 1))
    one = replace(one, unknown=np.ones_like(one.unknown))
    for seed in range(5):
        made = paste(one, other, np.random.default_rng(seed))
        cover = np.zeros(one.unknown.shape, dtype=int)
        for thing in made.things:
            x0, y0, x1, y1 = thing.box
            assert thing.mask.any(axis=1).all() or thing.mask.any(axis=0).all()
            cover[y0:y1, x0:x1] += thing.mask
        assert cover.max() == 1  # nothing overlaps any more
        changed = (made.image != one.image).any(axis=2)
        assert changed.any()
        assert not made.unknown[changed].any()
        assert made.unknown.any()
    nothing = replace(other, things=())
    assert paste(one, nothing, np.random.default_rng(0)) is one


def test_examples_scale_boxes_and_weights() -> None:
    instances = boxed((10, 20, 30, 40), labels=[DOG], scores=[0.5], size=(64, 64))
    made = examples(Dataset([teacher(instances)]), mean_score=0.25, short_side=128, long_side=999)(
        np.random.default_rng(0)
    )
    assert made["boxes"].tolist() == [[20, 40, 60, 80]]
    assert made["weights"].tolist() == [2.0]
    assert made["classes"].tolist() == [2]
    assert made["image"].shape == (3, 128, 128)
    assert made["masks"].min() == 255
    areas = boxed((0, 0, 8, 8), (9, 9, 20, 20), labels=[CAT, DOG], scores=[8.0, 11.0])  # no probabilities
    assert survey(Dataset([teacher(areas)]), 0.3)["mean_score"] == 1.0
    alike = examples(Dataset([teacher(areas)]), mean_score=1.0)(np.random.default_rng(0))
    assert alike["weights"].tolist() == [1.0, 1.0]
    same = examples(Dataset([teacher(instances)]), mean_score=0.0)(np.random.default_rng(0))
    assert same["weights"].tolist() == [1.0]


def test_batches_come_apart_as_they_went_in() -> None:
    make = examples(scenes(), jitter=(0.5, 1.5))
    parts = [make(np.random.default_rng(seed)) for seed in range(4)]
    images, sizes, targets = unpack(Padding(32)(parts))
    assert images.shape[-1] % 32 == images.shape[-2] % 32 == 0
    for part, image, size, known in zip(parts, images, sizes, targets, strict=True):
        height, width = size.tolist()
        assert (image[:, :height, :width] * 255).round().to(torch.uint8).equal(part["image"])
        assert image[:, height:].sum() == image[:, :, width:].sum() == 0
        assert known.boxes.equal(part["boxes"])
        assert known.classes.equal(part["classes"])


def test_one_pixel_is_an_object_too(network: MaskRCNN) -> None:
    instances = boxed((5, 5, 6, 6), (63, 63, 64, 64), labels=[CAT, DOG])
    batch = Padding(network.pyramid.divisor)(
        [examples(Dataset([teacher(instances)]), short_side=32)(np.random.default_rng(0))]
    )
    found = losses(network, *unpack(batch), Sampling())
    assert all(torch.isfinite(value) for value in found.values())
    assert found["mask"] > 0


def test_fit_size() -> None:
    assert fit_size((375, 500), 320, 512) == (320, 427)
    assert fit_size((100, 1000), 320, 512) == (51, 512)
    assert fit_size((1, 3000), 320, 512) == (1, 512)


# predictions ---


def test_masks_are_pasted_where_their_boxes_are() -> None:
    full = np.ones((28, 28), dtype=np.float32)
    pasted = paste_mask(full, np.array([2, 3, 7, 9], dtype=np.float32), (12, 12))
    expected = np.zeros((12, 12), dtype=bool)
    expected[3:9, 2:7] = True
    assert np.array_equal(pasted, expected)
    left = full.copy()
    left[:, 14:] = 0
    assert np.array_equal(np.flatnonzero(paste_mask(left, np.array([0, 0, 10, 10.0]), (10, 12))[0]), np.arange(5))
    assert paste_mask(full, np.array([-50, -50, 100, 100.0]), (8, 9)).all()
    assert not paste_mask(full, np.array([20, 20, 30, 30.0]), (8, 9)).any()
    assert not paste_mask(full, np.array([3.1, 3.1, 3.2, 3.2]), (8, 9)).any()


def test_less_is_found_with_a_higher_score_and_fewer_detections(fitted) -> None:
    _, folder = fitted
    sample = scenes()[0]
    counts = []
    for settings in ({"score": "0.0"}, {"score": "0.5"}, {"score": "0.0", "detections": "3"}):
        one = Method.load(folder, device="cpu")
        one.config = MaskRCNNConfig.from_settings(settings, base=one.config)
        found = one.group(one.fields(sample), sample)
        counts.append(len(found))
        assert (found.scores >= float(settings["score"])).all()
    assert counts[0] > counts[1] > 0
    assert counts[2] <= 3


# calls that cannot work ---


def test_labels_of_low_scores_alone_are_refused() -> None:
    data = Dataset([teacher(boxed((1, 1, 9, 9), scores=[0.2], labels=[CAT]))], {CAT: "cat"}, name="poor")
    with pytest.raises(StudentError, match=r"poor.*at least 0.3, the best has 0.2: .*--set min_score"):
        survey(data, 0.3)
    assert survey(data, 0.1) == {
        "class_ids": [CAT],
        "mean_score": pytest.approx(0.2),
        "instances": 1,
        "teacher": "labels",
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbon": "x"}, "did you mean 'backbone'"),
        ({"long_side": "64"}, "less than short_side"),
        ({"scale_jitter": "2,1"}, "least and a greatest"),
        ({"training.schedule": "steps"}, "'step'"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MaskRCNNConfig.from_settings(settings)


def test_auto_never_chooses_a_student() -> None:
    with pytest.raises(ValueError, match="no method of this version"):
        choose_method(scenes())
