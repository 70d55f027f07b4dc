"""AMD from clips to instances: pairs, a small run from end to end, the chosen region, and odd inputs."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from small_amd import SMALL, made

from pixelkin.data import Dataset, ImageError, Sample
from pixelkin.data.synthetic.clip import clip_dataset
from pixelkin.formats import open_dataset
from pixelkin.methods.amd_config import PUBLISHED, AMDConfig
from pixelkin.methods.amd_examples import FramePair, PairExamples, frame_pairs
from pixelkin.methods.amd_regions import PairLoss, build_network
from pixelkin.methods.base import ConfigError, Field, Fields, Method
from pixelkin.training.budget import Budget


def clips(count=2, frames=3, **options):
    lazy = clip_dataset(count, 0, frames=frames, labels=(), preset="easy", **{"size": (64, 80), **options})
    return Dataset([sample.replace(image=sample.image) for sample in lazy], name="clips")


def still(name, frame=None, *, clip="x", size=(8, 8)):
    return Sample(name, np.zeros((*size, 3), np.uint8), clip=clip if frame is not None else None, frame=frame)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A method fitted on two clips, and these."""
    dataset, method = clips(), made()
    method.fit(dataset, out=tmp_path_factory.mktemp("fit"), device="cpu")
    return method, dataset


def described(found):
    return found.labels.tolist(), found.scores.tolist(), [mask.tobytes() for mask in found.masks()]


def test_pairs_are_neighbours_of_one_clip_and_one_size():
    dataset = Dataset(
        [
            *(still(f"x/{i}", i) for i in (0, 1, 2)),
            *(still(f"y/{i}", i, clip="y") for i in (0, 2, 3)),  # the second frame is broken
            still("z/0", 0, clip="z"),
            still("alone"),
            still("v/0", 0, clip="v"),
            still("v/1", 1, clip="v", size=(9, 8)),
        ]
    )
    near, far = frame_pairs(dataset), frame_pairs(dataset, 2)
    assert near == {"x": [FramePair(0, 1), FramePair(1, 2)], "y": [FramePair(4, 5)]}
    assert set(far["x"]) == {*near["x"], FramePair(0, 2)}
    assert set(far["y"]) == {*near["y"], FramePair(3, 4)}


def test_both_frames_of_an_example_are_cut_alike():
    rows, columns = np.indices((40, 60), np.uint8)
    image = np.stack([rows, columns, 0 * rows], axis=-1) * 4
    dataset = Dataset([Sample(f"x/{i}", image, clip="x", frame=i) for i in range(4)])
    config = AMDConfig.from_settings({"crop": "32", "short_edge": "40"})
    corners = set()
    for seed in range(8):
        pair = PairExamples(config, dataset)(np.random.default_rng(seed))["pair"]
        assert pair.shape == (2, 3, 32, 32)
        assert torch.equal(pair[0], pair[1])
        assert (pair[0, 0, 1:].int() >= pair[0, 0, :-1].int()).all()  # rows down, columns right
        assert (pair[0, 1, :, 1:].int() >= pair[0, 1, :, :-1].int()).all()
        corners.add(tuple(pair[0, :2, 0, 0].tolist()))
    assert len(corners) > 4


@pytest.mark.parametrize("size", [(40, 90), (90, 40), (32, 32), (700, 500)])
def test_examples_of_any_shape(size):
    dataset = Dataset([still(f"x/{i}", i, size=size) for i in range(2)])
    example = PairExamples(made().config, dataset)(np.random.default_rng(0))
    assert example["pair"].shape == (2, 3, 64, 64)


def test_what_cannot_be_learned_from_says_so(tmp_path):
    with pytest.raises(ValueError, match="give video frames"):
        made().fit(Dataset([still("a")]), out=tmp_path, device="cpu")
    with pytest.raises(ValueError, match="clips of several frames"):
        made().fit(Dataset([still("x/0", 0)]), out=tmp_path, device="cpu")


def test_settings_that_do_not_fit_are_refused():
    for settings in (
        {"crop": "400"},
        {"motion_size": "100,128"},
        {"region": "5"},
        {"levels": "4"},
        {"jitter": "1,0.5"},
    ):
        with pytest.raises(ConfigError):
            AMDConfig.from_settings(settings)
    assert PUBLISHED.photometric.l1 == pytest.approx(0.15)
    assert PUBLISHED.photometric.scales == (1, 1, 1, 1, 0)


def test_a_fit_chooses_a_region_and_labels_every_frame(fitted):
    method, dataset = fitted
    assert 0 <= method.region < 5
    assert method.facts["clips"] == 2
    assert method.facts["pairs"] == 4
    assert method.trained_on["labels"] == {"clip": 6}
    for sample, found in method.label(dataset):
        assert found.size == sample.size
        assert ((found.scores > 0) & (found.scores <= 1)).all()
        assert set(found.labels) <= {1}


def test_a_saved_model_says_the_same(fitted, tmp_path):
    method, dataset = fitted
    method.save(tmp_path)
    loaded = Method.load(tmp_path, device="cpu")
    assert loaded.facts == method.facts
    assert loaded.classes == {1: "object"}
    for sample in dataset:
        assert np.array_equal(loaded.fields(sample)["regions"], method.fields(sample)["regions"])
        assert described(loaded.group(loaded.fields(sample), sample)) == described(
            method.group(method.fields(sample), sample)
        )
    assert "of the frames agree" in (tmp_path / "README.md").read_text()


def test_the_same_seed_gives_the_same_and_a_stopped_fit_goes_on(fitted, tmp_path, monkeypatch):
    method, dataset = fitted
    again, calls = made(), []
    whole = PairExamples.__call__

    def stops(self, rng):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return whole(self, rng)

    monkeypatch.setattr(PairExamples, "__call__", stops)
    with pytest.raises(KeyboardInterrupt):
        again.fit(dataset, out=tmp_path, device="cpu")
    again.fit(dataset, out=tmp_path, device="cpu")
    assert again.facts["region"] == method.facts["region"]
    for name, tensor in method.state().items():
        assert torch.equal(tensor, again.state()[name]), name
    assert len(calls) < 5 + 6


def test_no_label_is_looked_at(fitted, tmp_path):
    method, dataset = fitted

    def forbidden():
        raise AssertionError("a label was read")

    closed = dataset.map(lambda sample: sample.replace(instances=forbidden, semantic=forbidden))
    other = made()
    other.fit(closed, out=tmp_path, device="cpu")
    for name, tensor in method.state().items():
        assert torch.equal(tensor, other.state()[name]), name


@pytest.mark.parametrize("size", [(70, 100), (100, 70), (16, 16)])
def test_fields_cover_images_of_any_shape(fitted, size):
    method, _ = fitted
    pixels = np.random.default_rng(0).integers(0, 255, (2, *size, 3), dtype=np.uint8)
    sample, following = (Sample(f"x/{i}", pixels[i], clip="x", frame=i) for i in range(2))
    fields = method.fields(sample, following)
    shares, flow = fields["regions"], fields["flow"]
    assert np.allclose(shares.sum(axis=0), 1, atol=1e-5)
    assert flow.shape == (2, *shares.shape[1:])
    assert fields.stride("regions") ** 2 * shares[0].size == pytest.approx(size[0] * size[1])
    assert set(method.pictures(fields, sample)) == {"regions", f"region {method.region}", "segment flow"}
    assert "flow" not in method.fields(sample)
    assert method.group(fields, sample).size == size


def drawn():
    """Shares of a region 2 in two blocks, one of them tiny, and of a ground 0."""
    shares = np.zeros((5, 20, 30), np.float32)
    shares[2, 4:12, 4:12] = shares[2, 15, 24:27] = 0.8
    shares[1] = 0.2 * (shares[2] > 0)
    shares[0] = 1 - shares.sum(axis=0)
    return Fields((80, 120), {"regions": Field(shares, 4)}), Sample("a", np.zeros((80, 120, 3), np.uint8))


def test_components_of_the_region_are_the_instances():
    fields, sample = drawn()
    found = made(region=2).group(fields, sample)
    assert len(found) == 2
    big = found[int(found.areas.argmax())]
    truth = np.zeros((80, 120), bool)
    truth[16:48, 16:48] = True
    assert (big.mask(0) & truth).sum() / (big.mask(0) | truth).sum() > 0.9
    assert 0.7 < float(big.scores[0]) <= 0.8
    assert big.sources.tolist() == ["amd:clip"]
    assert len(made(region=2, min_area=0.01).group(fields, sample)) == 1
    assert len(made(region=3).group(fields, sample)) == 0
    assert made(region=2, threshold=0.79).group(fields, sample).areas.sum() < found.areas.sum()


def test_the_users_region_goes_before_the_chosen_one(fitted):
    method, _ = fitted
    other = made(region=(method.facts["region"] + 1) % 5)
    other.network, other.facts = method.network, method.facts
    assert other.region == other.config.region
    fields, sample = drawn()
    other.config = AMDConfig.from_settings({"objective": "photometric", "regions": "9", "region": "8"})
    with pytest.raises(ImageError, match="region 8 of 5"):
        other.group(fields, sample)


def test_without_a_model_it_says_so():
    with pytest.raises(RuntimeError, match="fit or load"):
        made().fields(still("a"))
    with pytest.raises(RuntimeError, match="fit or load"):
        _ = made().region


def test_a_static_clip_costs_nothing_at_rest_and_does_no_harm(tmp_path):
    image = clips(1, 1)[0].image
    dataset = Dataset([Sample(f"x/{i}", image, clip="x", frame=i) for i in range(3)])
    method = made()
    method.fit(dataset, out=tmp_path, budget=Budget(iterations=2), device="cpu")
    assert all(torch.isfinite(tensor).all() for tensor in method.state().values())
    assert next(iter(method.label(dataset)))[1].size == image.shape[:2]


def test_a_network_goes_on_as_it_was_trained_whatever_its_weights_began_with():
    sizes = []
    for pretrained in ("true", "false"):
        config = AMDConfig.from_settings(SMALL | {"pretrained": pretrained})
        body = build_network(config, pretrained=False).appearance.backbone.body
        sizes.append([m.dilation for m in body.modules() if isinstance(m, torch.nn.Conv2d)])
    assert sizes[0] != sizes[1]  # restored models must look as far as they did


def test_a_step_lowers_the_loss_of_its_pair():
    torch.manual_seed(0)
    config = made().config
    network = build_network(config, pretrained=False).train()
    dataset = clips()
    batch = {"pair": PairExamples(config, dataset)(np.random.default_rng(0))["pair"][None].repeat(2, 1, 1, 1, 1)}
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        found = PairLoss(config)(network, batch)
        found["loss"].backward()
        optimizer.step()
        losses.append(float(found["loss"].detach()))
    assert min(losses[6:]) < losses[0]
    assert 0 < float(found["entropy"]) <= np.log(5) + 1e-6


def test_a_folder_of_frames_is_a_clip_for_this_method(tmp_path):
    from pixelkin.api import fit

    (tmp_path / "frames" / "one").mkdir(parents=True)
    for number, sample in enumerate(clips(1)):
        cv2.imwrite(str(tmp_path / "frames" / "one" / f"{number:03d}.png"), sample.image[..., ::-1])
    assert open_dataset(tmp_path / "frames")[0].clip is None
    done = fit(tmp_path / "frames", out=tmp_path / "model", method="amd", device="cpu", settings=SMALL, budget="2it")
    assert done.images == 3
    assert Method.load(tmp_path / "model").facts["clips"] == 1
