"""BESTIE from points and tags: exact fields, small runs from end to end, kills, and what teaches nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixelkin.cues.transfer import center_targets
from pixelkin.data import Dataset, ImageError, Point, Sample
from pixelkin.data.synthetic import scene_dataset
from pixelkin.methods import bestie_training, irnet
from pixelkin.methods.base import Field, Fields, Method
from pixelkin.methods.bestie import BESTIE
from pixelkin.methods.bestie_config import BESTIEConfig
from pixelkin.methods.bestie_examples import CenterExamples, collate, targets_of
from pixelkin.methods.bestie_training import CenterLoss, Taught
from pixelkin.methods.bestie_views import known_map, view_of
from pixelkin.methods.tag_classifier import weights_digest
from pixelkin.methods.windows import Window
from pixelkin.models.center_fields import CenterOutput
from pixelkin.training.budget import Budget

STEPS = {"iterations": "2", "batch_size": "2", "checkpoint_every": "1e-9"}
SMALL = {
    "fields.crop": "64",
    "fields.long_side": "64,96",
    "fields.widths": "16",
    "fields.head_width": "16",
    "fields.epochs": "0",
    "peaks.crop": "64",
    "peaks.long_side": "64,80",
    "peaks.side": "64",
    "peaks.epochs": "0",
    "irnet.rounds": "0",
    "irnet.epochs": "0",
    "irnet.classifier.crop": "64",
    "irnet.classifier.long_side": "64,80",
    "irnet.classifier.scales": "1",
    "irnet.classifier.epochs": "0",
    "irnet.pairs.width": "32",
    "irnet.pairs.crop": "64",
    "irnet.pairs.offsets": "12",
    "flip": "false",
    **{
        f"{part}.training.{key}": value
        for part in ("fields", "peaks", "irnet.classifier", "irnet.pairs")
        for key, value in STEPS.items()
    },
}
IDENTITY = Window((64, 64), (slice(0, 64), slice(0, 64)), (slice(0, 64), slice(0, 64)), 64, False)


def config(**settings):
    return BESTIEConfig.from_settings(SMALL | {key: str(value) for key, value in settings.items()})


def made(**settings):
    return BESTIE(config(**settings))


def scenes(*labels, count=3):
    lazy = scene_dataset(count, 0, labels=labels, size=(72, 88), classes=3)
    held = [s.replace(image=s.image, **({"semantic": s.semantic} if "semantic" in labels else {})) for s in lazy]
    return Dataset(held, lazy.classes, name="scenes")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A method fitted on the points and maps of three scenes, and these."""
    dataset, method = scenes("points", "semantic"), made()
    method.fit(dataset, out=tmp_path_factory.mktemp("fit"), device="cpu")
    return method, dataset


@pytest.fixture(scope="module")
def chained(tmp_path_factory):
    """A method fitted on the tags of three scenes alone, and these."""
    dataset, method = scenes("tags"), made()
    method.fit(dataset, out=tmp_path_factory.mktemp("chain"), device="cpu")
    return method, dataset


def described(found):
    return found.labels.tolist(), found.scores.tolist(), [mask.tobytes() for mask in found.masks()]


def two_squares(class_id=3, *, points=None):
    """Exact fields of two touching squares of side 40 in an image of 101 x 99."""
    truth = np.zeros((101, 99), np.int32)
    truth[20:60, 9:49], truth[20:60, 49:89] = 1, 2
    exact = center_targets(truth, [class_id, class_id])
    semantic = np.where(truth > 0, class_id, 0)
    maps = {
        "semantic": Field(semantic),
        "offset": Field(exact.offset / 4, 4),
        f"center/{class_id}": Field(exact.heat[0], 4),
        f"class/{class_id}": Field(np.full(exact.heat[0].shape, 0.5, np.float32), 4),
    }
    sample = Sample("a", np.zeros((101, 99, 3), np.uint8), semantic=semantic, points=points)
    return Fields((101, 99), maps), sample, truth


@pytest.mark.parametrize("class_id", [3, 256, 1000])
def test_exact_fields_give_both_objects(class_id):
    fields, sample, truth = two_squares(class_id)
    found = made(kernel=21, score="heat").group(fields, sample)
    assert found.labels.tolist() == [class_id] * 2
    assert found.scores == pytest.approx(0.46, abs=0.04)  # probability times heat, which is 1 between cells
    assert found.sources.tolist() == ["bestie:semantic"] * 2
    for i in (1, 2):
        best = max((m & (truth == i)).sum() / (m | (truth == i)).sum() for m in found.masks())
        assert best > 0.9


def test_given_points_are_the_centres():
    fields, sample, truth = two_squares(points=(Point(28.5, 39.5, 3), Point(68.5, 39.5, 3)))
    cold = Fields(fields.size, {**fields.maps, "center/3": Field(np.zeros_like(fields["center/3"]), 4)})
    found = made(score="heat").group(cold, sample)
    assert found.sources.tolist() == ["bestie:points"] * 2
    assert found.scores == pytest.approx(0.5)
    assert sum((m & (truth == i)).sum() for i, m in zip((1, 2), found.masks(), strict=True)) > 0.95 * (truth > 0).sum()
    assert len(made().group(cold, sample.replace(points=(Point(28.5, 39.5, 3),)))) == 1


def test_a_component_without_a_centre_is_one_instance_or_none():
    fields, sample, _ = two_squares()
    cold = {**fields.maps, "center/3": Field(np.zeros_like(fields["center/3"]), 4)}
    cold["offset"] = Field(np.full_like(fields["offset"], 9), 4)
    assert len(made().group(Fields(fields.size, cold), sample)) == 1
    assert len(made(leftover="drop").group(Fields(fields.size, cold), sample)) == 0


def test_points_and_given_maps_end_to_end_and_after_loading(fitted, tmp_path):
    method, dataset = fitted
    method.save(tmp_path)
    loaded = Method.load(tmp_path, device="cpu")
    assert isinstance(loaded, BESTIE)
    card = (tmp_path / "README.md").read_text()
    assert "given for 3 of 3 images" in card
    assert method.facts["cues"] == "points"
    for sample in dataset:
        fields, again = method.fields(sample), loaded.fields(sample)
        found = method.group(fields, sample)
        assert described(found) == described(loaded.group(again, sample))
        assert np.array_equal(found.masks().any(axis=0), sample.semantic > 0)
        assert set(found.sources) == {"bestie:points"}
        assert method.semantic(sample, fields) is None
        pictures = method.pictures(fields, sample)
        assert len([name for name in pictures if name.startswith("centres: ")]) == len(set(found.labels))
        assert "offsets" in pictures


def test_tags_alone_make_peaks_and_maps(chained, tmp_path):
    method, dataset = chained
    method.save(tmp_path)
    assert "made by irnet from the tags of 3 images" in (tmp_path / "README.md").read_text()
    assert "made by irnet" in method.trained_on["semantic maps"]
    assert {"irnet, classifier", "irnet, relations", "peaks", "fields"} == set(method.facts["training"])
    loaded = Method.load(tmp_path, device="cpu")
    for sample in dataset:
        fields = method.fields(sample)
        found, semantic = method.group(fields, sample), method.semantic(sample, fields)
        assert described(found) == described(loaded.group(loaded.fields(sample), sample))
        assert set(np.unique(semantic)) <= {0, *sample.tags}
        assert set(found.sources) <= {"bestie:tags"}
        assert "classes" in method.pictures(fields, sample)


def killing(monkeypatch, module, name):
    real, calls = getattr(module, name), []

    def killed(*args, **kwargs):
        calls.append(name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(module, name, killed)
    return calls


@pytest.mark.parametrize("stage", ["irnet", "maps", "peak classifier", "peaks", "fields"])
def test_killed_in_any_stage_it_ends_as_if_it_had_not_been(chained, tmp_path, monkeypatch, stage):
    from pixelkin.methods import bestie_peaks, siseg_pairs

    method, dataset = chained
    module, name = {
        "irnet": (siseg_pairs, "affinity_loss"),
        "maps": (irnet, "class_labels_of"),
        "peak classifier": (bestie_peaks, "tags_loss"),
        "peaks": (bestie_peaks, "find_peaks"),
        "fields": (bestie_training, "bestie_loss"),
    }[stage]
    killing(monkeypatch, module, name)
    with pytest.raises(KeyboardInterrupt):
        made().fit(dataset, out=tmp_path, device="cpu")
    rest = made()
    rest.fit(dataset, out=tmp_path, device="cpu")
    assert weights_digest(rest.model) == weights_digest(method.model)


def test_killed_with_a_teacher(tmp_path, monkeypatch):
    dataset, whole, rest = scenes("points", "semantic"), made(refinement="teacher"), made(refinement="teacher")
    whole.fit(dataset, out=tmp_path / "whole", device="cpu")
    killing(monkeypatch, bestie_training, "bestie_loss")
    with pytest.raises(KeyboardInterrupt):
        rest.fit(dataset, out=tmp_path / "rest", device="cpu")
    rest.fit(dataset, out=tmp_path / "rest", device="cpu")
    assert weights_digest(rest.model) == weights_digest(whole.model)
    with pytest.raises(ValueError, match="refinement"):
        made(refinement="online").fit(dataset, out=tmp_path / "rest", device="cpu")


def test_the_teacher_is_the_running_average():
    student = torch.nn.Linear(2, 1)
    taught = Taught(student, 0.5)
    first = student.weight.detach().clone()
    with torch.no_grad():
        student.weight += 1
    taught.follow()  # past counts (1 + 0) / (10 + 0)
    assert torch.allclose(taught.teacher.weight, first + 0.9)
    assert not taught.train().teacher.training
    assert not any(parameter.requires_grad for parameter in taught.teacher.parameters())


def crop_of(points, **settings):
    """A view of two squares of class 7 far apart, with these points."""
    semantic = np.zeros((64, 64), np.uint8)
    semantic[4:24, 4:24] = semantic[36:60, 36:60] = 7
    sample = Sample("a", np.zeros((64, 64, 3), np.uint8), semantic=semantic, points=points)
    return sample, view_of(sample, IDENTITY, [7], config(**settings).fields)


class Stub(torch.nn.Module):
    """Free outputs instead of a network."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.center = torch.nn.Parameter(torch.rand(1, 1, 16, 16))
        self.offset = torch.nn.Parameter(torch.randn(1, 2, 16, 16))
        self.semantic = torch.nn.Parameter(torch.randn(1, 2, 16, 16))

    def forward(self, image, keep):
        return CenterOutput(self.semantic, self.center[:, : keep.shape[1]], self.offset)


def gradients(sample, *, classes=(7,), cold=False, **settings):
    chosen = config(**{"fields.jitter": 0, "refinement": "false", **settings})
    example = {"image": np.zeros((3, 64, 64), np.uint8)}
    example |= targets_of(view_of(sample, IDENTITY, list(classes), chosen.fields), chosen.fields, exact=True)
    example["rows"] = np.zeros(len(example["ids"]), np.int64)
    stub = Stub()
    if cold:
        stub.center.data.zero_()
    batch = collate([{key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in example.items()}])
    CenterLoss(chosen, list(classes), exact=True)(Taught(stub), batch)["loss"].backward()
    return stub.center.grad[0], stub.offset.grad[0]


def test_an_object_without_a_point_teaches_nothing():
    sample, _ = crop_of((Point(14, 14, 7),))
    center, offset = gradients(sample)
    known = np.zeros((16, 16), bool)
    known[1:6, 1:6] = True
    for grad in (center, offset):
        assert (grad[:, known].abs().sum(0) > 0).all()
        assert not grad[:, ~known].any()
    center, offset = gradients(sample, guidance="false")
    assert (center[:, ~known] != 0).all()
    assert (offset[:, ~known] != 0).all()


def test_a_crowded_component_teaches_its_centres_and_nothing_else():
    sample, _ = crop_of((Point(44, 48, 7), Point(54, 48, 7)))
    center, offset = gradients(sample, **{"fields.disc": 5})
    assert not offset.any()
    yy, xx = np.indices((16, 16)) * 4 + 1.5
    near = np.minimum(np.hypot(yy - 48, xx - 44), np.hypot(yy - 48, xx - 54)) <= 5
    assert np.array_equal(center[0].numpy() != 0, near)
    assert not gradients(sample, **{"fields.disc": 0})[0].any()


def test_refinement_divides_a_crowded_component_at_its_points():
    sample, _ = crop_of((Point(44, 48, 7), Point(54, 48, 7)))
    _, offset = gradients(sample, cold=True, refinement="online")
    taught = (offset != 0).any(0).numpy()
    assert taught[9:15, 9:15].all()
    assert not taught[:8].any()


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_crop_keeps_the_certificates_of_its_image(mirrored):
    sample, _ = crop_of((Point(54, 54, 7), Point(6, 6, 7), Point(20, 20, 7)))
    cut = Window((64, 64), (slice(0, 50), slice(10, 50)), (slice(14, 64), slice(0, 40)), 64, mirrored)
    image, crop = (view_of(sample, cut, [7], config(**{"fields.transfer": t}).fields) for t in ("image", "crop"))
    flip = -1 if mirrored else 1
    seen = image.labels[:, ::flip]
    assert (seen[50:64, 26:40] == 1).all()  # its point lies beyond the crop
    assert (seen > 0).sum() == 14 * 14
    # One of the two points of the other square is cut off: in the image it is crowded, in the crop it seems certified.
    assert (crop.labels[:, ::flip][18:38, 0:14] == 1).all()
    assert not (crop.labels[:, ::flip][50:, 26:] > 0).any()
    assert not len(image.crowded)
    assert not image.components[:, ::flip][18:38, 0:14].any()  # not to be divided at half of its points
    expected = 63 - 10 if mirrored else 10
    assert image.spare.tolist() == [[34, expected]]
    assert (image.semantic[:14] == 255).all()


def test_examples_name_only_the_classes_that_are_there():
    semantic = np.zeros((60, 70), np.int32)
    semantic[5:25, 5:25], semantic[30:55, 40:65] = 900, 17
    image = np.zeros((60, 70, 3), np.uint8)
    two = Sample("a", image, semantic=semantic, points=(Point(10, 10, 900),))
    none = Sample("b", image, semantic=np.zeros((60, 70), np.uint8), points=())
    classes = [*range(1, 255), 300, 900]
    settings = config(**{"fields.long_side": "64,64"}).fields
    parts = [CenterExamples(settings, Dataset([s]), classes, exact=True)(np.random.default_rng(0)) for s in (two, none)]
    assert [part["ids"].tolist() for part in parts] == [[17, 900], []]
    batch = collate(parts)
    assert batch["ids"].tolist() == [[17, 900], [0, 0]]
    assert batch["rows"].tolist() == [[16, 255], [0, 0]]
    assert batch["heat"].shape == (2, 2, 16, 16)
    assert not batch["heat"][0, 0].any()
    assert batch["heat"][0, 1].max() > 0.9
    torch.manual_seed(0)
    model = bestie_training.build_fields(config(), dict.fromkeys(classes, "thing"), pretrained=False)
    losses = CenterLoss(config(), classes, exact=True)(Taught(model), batch)
    assert all(torch.isfinite(value) for value in losses.values())
    empty = CenterLoss(config(), classes, exact=True)(Taught(model), collate([parts[1]]))
    assert empty["center"] == empty["offset"] == 0
    empty["loss"].backward()


def test_tags_rule_out_classes_of_the_map():
    semantic = np.zeros((40, 40), np.uint8)
    semantic[:20], semantic[20:] = 1, 2
    sample = Sample("a", np.zeros((40, 40, 3), np.uint8), semantic=semantic, tags=(2,))
    known = known_map(sample, [1, 2])
    assert set(known[:20].ravel()) == {255}
    assert set(known[20:].ravel()) == {2}
    ignore = np.ones((40, 40), bool)
    assert (known_map(sample.replace(ignore=ignore), [1, 2]) == 255).all()


def test_what_cannot_be_learned_from_is_said_before_training(tmp_path):
    sample = scenes("semantic", count=1)[0]
    for changes, message in (
        ({}, "points .--points FILE. or image tags"),
        ({"points": ()}, "no image has a point or a tag"),
        ({"points": (Point(200, 3, 1),)}, "outside the image of 88x72 pixels"),
        ({"points": (Point(float("nan"), 3, 1),)}, "outside the image"),
        ({"points": (Point(2, 3, 255),)}, "names no object"),
        ({"tags": (70000,)}, "renumber"),
    ):
        with pytest.raises(ValueError, match=message):
            made().fit(Dataset([sample.replace(**changes)]), out=tmp_path, device="cpu")
    assert not list(tmp_path.iterdir())


def test_images_of_other_kinds(fitted):
    method, dataset = fitted
    bare = dataset[0].replace(points=None, semantic=None)
    fields = method.fields(bare)
    assert set(method.group(fields, bare).sources) <= {"bestie:predicted classes"}
    assert method.semantic(bare, fields).shape == bare.size
    for changes in ({"tags": (77,)}, {"points": (Point(1, 1, 77),)}, {"semantic": np.full(bare.size, 77)}):
        with pytest.raises(ImageError, match="never learned class 77"):
            method.fields(bare.replace(**changes))
    for empty in (bare.replace(tags=()), bare.replace(semantic=np.zeros(bare.size, np.uint8))):
        assert len(method.group(method.fields(empty), empty)) == 0
        assert "offsets" not in method.pictures(method.fields(empty), empty)
    with pytest.raises(RuntimeError, match="fit or load first"):
        made().fields(bare)


@pytest.mark.parametrize("size", [(1, 1), (1, 60), (61, 5), (131, 207)])
@pytest.mark.parametrize("mapped", [True, False])
def test_any_image_size(fitted, monkeypatch, size, mapped):
    method, _ = fitted
    monkeypatch.setattr(method, "config", method.config.model_copy(update={"max_pixels": 4096, "scales": (1.0, 0.5)}))
    semantic = np.full(size, 2, np.uint8) if mapped else None
    sample = Sample("a", np.full((*size, 3), 90, np.uint8), tags=(1, 2), semantic=semantic)
    fields = method.fields(sample)
    assert fields["offset"].shape[1:] == (-(-size[0] // 4), -(-size[1] // 4))
    assert method.group(fields, sample).size == size
    method.pictures(fields, sample)


def test_one_image_a_budget_and_a_high_class_id(tmp_path):
    one = scenes("points", "semantic", count=1)[0]
    semantic = np.where(one.semantic > 0, 400, 0)
    sample = one.replace(points=tuple(Point(x, y, 400) for x, y, _ in one.points), semantic=semantic)
    method = made()
    method.fit(Dataset([sample]), out=tmp_path, budget=Budget.parse("1it"), device="cpu")
    assert method.facts["classes"] == [400]
    assert method.facts["training"]["fields"]["iterations"] == 1
    assert set(method.group(method.fields(sample), sample).labels) == {400}
