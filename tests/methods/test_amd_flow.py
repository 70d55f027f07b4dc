"""objective=flow: plans, what is prepared once, heads that learn, a whole fit, and that no label is looked at."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixelkin.cues.region_flow import RegionFlowConfig, motion_basis, motion_flow
from pixelkin.data import Dataset, Sample
from pixelkin.data.synthetic.clip import clip_dataset
from pixelkin.methods.amd import AMD
from pixelkin.methods.amd_config import AMDConfig
from pixelkin.methods.amd_flow import divide, fit_head, flow_cost, sharpened
from pixelkin.methods.amd_flow_clips import plan_clips, ready, working_size
from pixelkin.methods.amd_flow_config import FlowConfig
from pixelkin.methods.base import ConfigError, Method
from pixelkin.models.flow_regions import FlowRegions, share_of
from pixelkin.training.budget import Budget

SMALL = {
    "objective": "flow",
    "backbone": "test_resnet",
    "pretrained": "false",
    "flow.long_side": "64",
    "flow.components": "8",
    "flow.hidden": "8",
    "flow.common": "12",
    "flow.a_clip": "4",
    "flow.adapted": "12",
    "flow.look_every": "6",
}


def made(**settings):
    return AMD(AMDConfig.from_settings(SMALL | {key: str(value) for key, value in settings.items()}))


def clips(count=2, frames=4, size=(48, 64)):
    lazy = clip_dataset(count, 0, frames=frames, labels=(), preset="easy", size=size)
    return Dataset([sample.replace(image=sample.image) for sample in lazy], name="clips")


def still(clip, frame, size=(32, 48)):
    return Sample(f"{clip}/{frame}", np.zeros((*size, 3), np.uint8), clip=clip, frame=frame)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A method fitted on two clips, these, and where."""
    dataset, method, out = clips(), made(), tmp_path_factory.mktemp("fit")
    method.fit(dataset, out=out, device="cpu")
    return method, dataset, out


def drawn_clip(frames=12, size=(12, 16), seed=0):
    """A box of its own colour and its own motion, before a ground of another; and where it is."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.zeros(frames, *size, dtype=torch.bool)
    basis = motion_basis(size, 1)
    flows = []
    for t in range(frames):
        truth[t, 3:8, 2 + t % 8 : 7 + t % 8] = True
        camera = motion_flow(torch.randn(1, 3, 2, generator=generator), basis)[0]
        own = torch.randn(2, generator=generator).sign() * 3
        flows.append(camera + truth[t] * own[:, None, None])
    components = torch.stack([truth.float(), 1 - truth.float(), torch.rand(frames, *size, generator=generator)], dim=1)
    return ready(components, torch.arange(frames), torch.stack(flows), RegionFlowConfig()), truth


def head(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 1, 1))


def overlap(found, truth):
    return float((found & truth).sum() / (found | truth).sum())


def test_a_plan_has_the_neighbours_of_frames_spread_over_the_clip():
    dataset = Dataset(
        [
            *(still("x", i) for i in range(9)),
            *(still("y", i) for i in (0, 2, 3)),
            still("z", 0),
            *(still("v", i, (32, 48) if i < 3 else (40, 40)) for i in range(5)),
        ]
    )
    plans = {plan.name: plan for plan in plan_clips(dataset, FlowConfig(gaps=(1, 2), frames=5))}
    assert set(plans) == {"x", "y", "v"}
    assert plans["x"].frames == [0, 2, 4, 6, 8]
    assert [tuple(step) for step in plans["x"].steps[:6]] == [(0, 1), (0, 2), (2, 3), (2, 1), (2, 4), (2, 0)]
    assert [tuple(step) for step in plans["y"].steps] == [(9, 10), (10, 11), (10, 9), (11, 10)]
    assert {dataset[step.anchor].size for step in plans["v"].steps} == {(32, 48)}
    assert plans["x"].digest(dataset) != plans["y"].digest(dataset)


@pytest.mark.parametrize("size", [(480, 854), (854, 480), (20, 30), (3, 500)])
def test_frames_are_looked_at_in_whole_cells_and_never_enlarged_much(size):
    config = FlowConfig()
    found = working_size(size, config)
    assert all(side % config.stride == 0 for side in found)
    assert max(found) <= config.long_side
    assert all(got <= max(side + config.stride, 2 * config.stride) for got, side in zip(found, size, strict=True))


def test_a_head_learns_what_moves_by_itself_and_finds_it_where_it_did_not_learn():
    clip, _ = drawn_clip()
    net = head()
    report = fit_head(net, [clip], FlowConfig(batch=4), steps=200, seed=0)
    other, there = drawn_clip(seed=5)
    assert overlap(share_of(net, other.components) > 0.5, there) > 0.95
    assert 0 < report.best <= report.steps <= 200
    assert clip.held_out.sum() == 2
    found = flow_cost(net, other, torch.arange(12), FlowConfig(), trust=1.0)
    torch.manual_seed(1)
    assert found < flow_cost(head(7), other, torch.arange(12), FlowConfig(), trust=1.0)


def test_the_kept_weights_are_the_best_looked_at():
    clip, _ = drawn_clip()
    config = FlowConfig(batch=4, look_every=10)
    net = head()
    report = fit_head(net, [clip], config, steps=60, seed=0)
    held = torch.nonzero(clip.held_out)[:, 0]
    with torch.no_grad():
        assert float(flow_cost(net, clip, held, config, trust=1.0)) == pytest.approx(report.cost, rel=1e-5)


def test_a_clip_at_rest_has_no_object():
    rest = ready(torch.rand(6, 3, 8, 8), torch.arange(6), torch.zeros(6, 2, 8, 8), RegionFlowConfig())
    net = head()
    fit_head(net, [rest], FlowConfig(batch=4), steps=40, seed=0)
    share = share_of(net, rest.components)
    assert share.isfinite().all()
    assert share.mean() < 0.2


def test_components_are_whitened_and_the_same_for_a_batch_as_for_one():
    torch.manual_seed(0)
    network = FlowRegions("test_resnet", components=8, pretrained=False)
    images = torch.rand(3, 3, 64, 64)
    maps = network.maps(images)
    network.set_components(iter(maps.split(1)))
    found = network.components(maps)
    cells = found.transpose(0, 1).flatten(1)
    assert cells.mean(dim=1).abs().max() < 1e-3
    covariance = cells @ cells.T / cells.shape[1]
    assert (covariance - covariance.diagonal().diag()).abs().max() < 1e-2
    assert torch.allclose(network.components(maps[1:2]), found[1:2], atol=1e-5)
    with pytest.raises(ValueError, match="at least one"):
        network.set_components(iter(()))


def test_a_fit_divides_every_frame_with_its_clips_own_head(fitted):
    method, dataset, _ = fitted
    assert method.region == 1
    assert method.facts["clips"] == 2
    assert set(method.facts["heads"]) == {"clip_0000", "clip_0001"}
    for sample, found in method.label(dataset):
        assert found.size == sample.size
        assert set(found.labels) <= {1}
    sample = dataset[0]
    own = divide(method.network, sample.image, method.config.flow, clip="0")
    assert np.array_equal(method.fields(sample)["regions"], own)
    unknown = sample.replace(clip=None, frame=None)
    common = divide(method.network, sample.image, method.config.flow)
    assert np.array_equal(method.fields(unknown)["regions"], common)


def test_fields_are_shares_over_the_whole_frame(fitted):
    method, dataset, _ = fitted
    fields = method.fields(dataset[0], dataset[1])
    shares = fields["regions"]
    assert np.allclose(shares.sum(axis=0), 1, atol=1e-5)
    assert fields.stride("regions") ** 2 * shares[0].size == pytest.approx(48 * 64)
    assert fields["flow"].shape == (2, *shares.shape[1:])
    assert "flow" in method.pictures(fields, dataset[0])


def test_a_saved_model_says_the_same(fitted, tmp_path):
    method, dataset, _ = fitted
    method.save(tmp_path)
    loaded = Method.load(tmp_path, device="cpu")
    for sample in dataset:
        assert np.array_equal(loaded.fields(sample)["regions"], method.fields(sample)["regions"])
    assert "2 for a clip each" in (tmp_path / "README.md").read_text()


def test_the_same_seed_gives_the_same_and_what_was_prepared_is_not_computed_again(fitted, monkeypatch):
    method, dataset, out = fitted
    monkeypatch.setattr("pixelkin.methods.amd_flow_fit.flow_estimator", lambda *_, **__: None)  # would fail if used
    again = made()
    again.fit(dataset, out=out, device="cpu")
    for name, tensor in method.state().items():
        assert torch.equal(tensor, again.state()[name]), name


def test_no_label_is_looked_at(fitted, tmp_path):
    method, dataset, _ = fitted

    def forbidden():
        raise AssertionError("a label was read")

    other = made()
    closed = dataset.map(lambda sample: sample.replace(instances=forbidden, semantic=forbidden))
    other.fit(closed, out=tmp_path, device="cpu")
    for name, tensor in method.state().items():
        assert torch.equal(tensor, other.state()[name]), name


def test_new_clips_get_heads_and_the_common_one_stays(fitted, tmp_path):
    method, dataset, _ = fitted
    method.save(tmp_path / "model")
    loaded = Method.load(tmp_path / "model", device="cpu")
    before = {name: tensor.clone() for name, tensor in loaded.state().items()}
    new = Dataset([sample.replace(clip=f"new_{sample.clip}") for sample in dataset])
    loaded.adapt(new, out=tmp_path / "adapted", budget=Budget(iterations=8))
    assert set(loaded.facts["heads"]) == {*method.facts["heads"], "new_clip_0000", "new_clip_0001"}
    for name, tensor in before.items():
        assert torch.equal(loaded.state()[name], tensor), name
    assert len({head["key"] for head in loaded.facts["heads"].values()}) == 4


def test_without_adaptation_there_is_one_head_and_a_budget_of_time_is_kept(tmp_path):
    method = made(**{"flow.adapted": 0, "flow.sharpen": "false"})
    method.fit(clips(1), out=tmp_path, budget=Budget(seconds=20), device="cpu")
    assert method.facts["heads"] == {}
    assert method.fields(clips(1)[0])["regions"].shape == (2, 6, 8)


@pytest.mark.parametrize("size", [(64, 40), (16, 16), (33, 47)])
def test_frames_of_any_shape(tmp_path, size):
    method = made(**{"flow.common": 2, "flow.adapted": 2})
    dataset = clips(1, 3, size=size)
    method.fit(dataset, out=tmp_path, device="cpu")
    assert method.fields(dataset[0])["regions"].shape[0] == 2
    assert method.group(method.fields(dataset[0]), dataset[0]).size == size


def test_what_cannot_be_learned_from_says_so(tmp_path):
    with pytest.raises(ValueError, match="clips of several frames"):
        made().fit(Dataset([still("x", 0)]), out=tmp_path, device="cpu")
    with pytest.raises(RuntimeError, match="fit or load"):
        made().adapt(clips(1), out=tmp_path)
    for settings in ({"flow.gaps": "1,1"}, {"flow.gaps": ""}, {"flow.stride": "6"}, {"region": "2"}):
        with pytest.raises(ConfigError):
            AMDConfig.from_settings(SMALL | settings)


def test_the_backbone_of_an_objective_is_saved_by_its_name():
    flow, frames = (AMD(AMDConfig(objective=objective)).config for objective in ("flow", "photometric"))
    assert (flow.backbone, flow.pretrained) == ("efficientnet_lite0", True)
    assert (frames.backbone, frames.pretrained) == ("test_resnet", False)


def test_an_outline_goes_to_the_colours():
    rng = np.random.default_rng(0)
    truth = np.zeros((48, 64), bool)
    truth[12:36, 20:44] = True
    image = np.where(truth[..., None], (200, 60, 40), (40, 90, 160)) + rng.normal(0, 8, (48, 64, 3))
    pixels = image.clip(0, 255).astype(np.uint8)
    coarse = np.zeros((6, 8), np.float32)
    coarse[1:5, 2:6] = 0.8  # a cell too much on two sides
    found = sharpened(coarse, pixels)
    assert overlap(torch.from_numpy(found > 0.5), torch.from_numpy(truth)) > 0.97
    assert ((found >= 0) & (found <= 1)).all()
    assert np.array_equal(found, sharpened(coarse, pixels))
    nothing = sharpened(np.full((6, 8), 0.1, np.float32), pixels)
    assert np.allclose(nothing, 0.1)
