from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from toy_training import Toy, example, same, settings, squared, stopping, toy, weights

from pixelkin.training import loop
from pixelkin.training.budget import Budget
from pixelkin.training.checkpoint import CheckpointError
from pixelkin.training.journal import read_log
from pixelkin.training.loop import NonFiniteLoss, train


class Boom(Exception):
    pass


def boom():
    raise Boom


def run(out, config, model=None, make=example, loss=squared, **kwargs):
    model = model or toy()
    report = train(model, make, loss, config, out=out, device="cpu", **kwargs)
    return model, report


def test_it_learns(tmp_path):
    config = settings(iterations=150, batch_size=16, checkpoint_every=60.0, log_every=10)
    model, report = run(tmp_path, config, toy(noisy=False))
    log = read_log(tmp_path / "log.jsonl")
    assert report.losses["loss"] < 0.5 * log[0]["losses"]["loss"]
    assert (report.iterations, report.examples, report.device) == (150, 2400, "cpu")
    assert report.seconds > 0
    assert not model.training


def test_log_lines(tmp_path):
    _, report = run(tmp_path, settings(schedule="cosine"))
    log = read_log(tmp_path / "log.jsonl")
    assert [line["step"] for line in log] == [5, 10, 12]
    assert set(log[0]) == {"step", "losses", "lr", "seconds", "examples_per_second"}
    assert log[-1]["losses"] == report.losses
    assert log[0]["losses"]["half"] == pytest.approx(log[0]["losses"]["loss"] / 2)
    assert log[1]["lr"] == pytest.approx(0.02 * 0.5 * (1 + math.cos(math.pi * 9 / 12)))


def test_logged_losses_are_the_means_of_the_steps(tmp_path):
    seen = []

    def watch(model, batch):
        losses = squared(model, batch)
        seen.append(losses["loss"].item())
        return losses

    run(tmp_path, settings(), loss=watch)
    means = [np.mean(seen[:5]), np.mean(seen[5:10]), np.mean(seen[10:])]
    assert [line["losses"]["loss"] for line in read_log(tmp_path / "log.jsonl")] == pytest.approx(means)


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("killed_at", [2, 4, 11, 12])
def test_resumed_is_bit_for_bit_the_same(tmp_path, ema, optimizer, killed_at):
    config = settings(ema=ema, optimizer=optimizer, warmup=3, clip_norm=1.0)
    straight, report = run(tmp_path / "a", config)
    with pytest.raises(Boom):
        run(tmp_path / "b", config, make=stopping(4 * killed_at - 1, boom))
    resumed, again = run(tmp_path / "b", config, toy(seed=5))  # other first weights: the checkpoint counts
    assert same(weights(straight), weights(resumed))
    assert again.iterations == report.iterations
    assert [line["step"] for line in read_log(tmp_path / "b" / "log.jsonl")][-2:] == [10, 12]
    assert not same(weights(straight), weights(run(tmp_path / "c", settings(seed=1))[0]))


def test_killed_before_the_first_checkpoint_begins_anew(tmp_path):
    straight, _ = run(tmp_path / "a", settings())
    with pytest.raises(Boom):
        run(tmp_path / "b", settings(), make=stopping(3, boom))
    assert same(weights(straight), weights(run(tmp_path / "b", settings())[0]))


def test_only_one_checkpoint_is_kept(tmp_path):
    with pytest.raises(Boom):
        run(tmp_path, settings(), make=stopping(30, boom))
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["step-000000007"]
    run(tmp_path, settings())
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["final"]


@pytest.mark.parametrize("where", ["example", "checkpoint"])
def test_survives_sigkill(tmp_path, where):
    config = settings(ema=0.9)
    command = [
        sys.executable,
        str(Path(__file__).parent / "toy_training.py"),
        where,
        str(tmp_path / "b"),
        config.model_dump_json(),
    ]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    left = sorted(path.name for path in (tmp_path / "b").iterdir() if path.is_dir())
    assert ("step-000000007" in left) if where == "example" else ("step-000000004" in left)
    straight, _ = run(tmp_path / "a", config)
    resumed, _ = run(tmp_path / "b", config)
    assert same(weights(straight), weights(resumed))
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["final", "log.jsonl"]


def test_ctrl_c_saves_and_raises(tmp_path):
    config = settings(checkpoint_every=1e9)
    straight, _ = run(tmp_path / "a", config)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", config, make=stopping(18, lambda: os.kill(os.getpid(), signal.SIGINT)))
    assert signal.getsignal(signal.SIGINT) is handler
    assert (tmp_path / "b" / "step-000000005").is_dir()  # the step it interrupted was completed
    resumed, _ = run(tmp_path / "b", config)
    assert same(weights(straight), weights(resumed))


def test_ctrl_c_twice_stops_at_once(tmp_path):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, settings(checkpoint_every=1e9), make=stopping(18, twice))
    assert not list(tmp_path.glob("step-*"))


def test_ctrl_c_with_workers(tmp_path):
    """The workers are in the same process group; they must not die before the parent's step is done."""
    config = settings(checkpoint_every=1e9, workers=1, iterations=10_000)

    def interrupt(model, batch):
        if not list(tmp_path.glob("sent")):
            (tmp_path / "sent").touch()
            os.kill(os.getpid(), signal.SIGINT)
        return squared(model, batch)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, config, loss=interrupt)
    assert list(tmp_path.glob("step-*"))


def test_finished_returns_at_once(tmp_path):
    first, report = run(tmp_path, settings(ema=0.9))
    again, same_report = run(tmp_path, settings(ema=0.9), toy(seed=5), make=lambda rng: boom())
    assert same(weights(first), weights(again))
    assert same_report == report


def test_result_is_the_average_where_asked(tmp_path):
    """A slow reference: the same training without averaging, its weights averaged step by step."""
    seen = []

    def watch(model, batch):
        seen.append(weights(model))
        return squared(model, batch)

    plain, _ = run(tmp_path / "a", settings(), toy(noisy=False), loss=watch)
    averaged, _ = run(tmp_path / "b", settings(ema=0.5), toy(noisy=False))
    expected = seen[0]["head.weight"]
    for step, after in enumerate([*seen[1:], weights(plain)]):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * after["head.weight"]
    assert torch.allclose(averaged.head.weight, expected, atol=1e-6)
    assert not torch.equal(averaged.head.weight, plain.head.weight)


def test_callers_generators_and_switches_are_left_alone(tmp_path):
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    expected, threads = torch.get_rng_state(), torch.get_num_threads()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    run(tmp_path, settings())
    assert torch.equal(torch.get_rng_state(), expected)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_callers_generator_does_not_matter(tmp_path):
    torch.manual_seed(1)
    a, _ = run(tmp_path / "a", settings(), toy())
    torch.manual_seed(2)
    b, _ = run(tmp_path / "b", settings(), toy())
    assert same(weights(a), weights(b))


def test_workers_change_nothing(tmp_path):
    alone, _ = run(tmp_path / "a", settings())
    helped, _ = run(tmp_path / "b", settings(workers=2))
    assert same(weights(alone), weights(helped))


def test_frozen_and_ungrouped_parts_stay(tmp_path):
    before = weights(toy())
    model = toy()
    run(tmp_path, settings(weight_decay=0.1), model, groups=[{"params": model.head.parameters()}])
    after = weights(model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    statistics = {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    assert changed == {"head.weight", "head.bias"} | statistics


def test_groups_scale_the_learning_rate(tmp_path):
    """One plain SGD step moves a group of scale 10 ten times as far."""
    config = settings(iterations=1, optimizer="sgd", momentum=0.0, weight_decay=0.0)
    steps = []
    for scale in (1.0, 10.0):
        model = toy(noisy=False)
        before = model.head.weight.detach().clone()
        run(tmp_path / str(scale), config, model, groups=[{"params": [model.head.weight], "lr_scale": scale}])
        steps.append(model.head.weight.detach() - before)
    assert torch.allclose(steps[1], 10 * steps[0], rtol=1e-4)


def test_one_sgd_step_by_hand(tmp_path):
    config = settings(iterations=1, optimizer="sgd", momentum=0.0, weight_decay=0.0, schedule="constant")
    model, reference = toy(noisy=False), toy(noisy=False)
    run(tmp_path, config, model)
    batch = [example(np.random.default_rng((0, k))) for k in range(4)]
    squared(reference, {key: torch.stack([e[key] for e in batch]) for key in ("x", "y")})["loss"].backward()
    expected = reference.head.weight - 0.02 * reference.head.weight.grad
    assert torch.allclose(model.head.weight, expected, atol=1e-7)


def test_clipping_limits_the_step(tmp_path):
    config = settings(iterations=1, optimizer="sgd", momentum=0.0, weight_decay=0.0, learning_rate=1.0, clip_norm=1e-3)
    model = toy(noisy=False)
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    run(tmp_path, config, model)
    moved = torch.cat([p.detach().flatten() for p in model.parameters()]) - before
    assert float(moved.norm()) == pytest.approx(1e-3, rel=1e-2)


def test_bf16_trains_with_float32_weights(tmp_path):
    types = []

    def watch(model, batch):
        types.append(model(batch["x"]).dtype)
        return squared(model, batch)

    model, _ = run(tmp_path, settings(precision="bf16"), loss=watch)
    assert set(types) == {torch.bfloat16}
    assert model.head.weight.dtype == torch.float32


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_loss_that_is_not_finite_stops_and_names_the_step(tmp_path, bad):
    steps = 0

    def spoil(model, batch):
        nonlocal steps
        steps += 1
        return {"loss": squared(model, batch)["loss"] * (bad if steps == 7 else 1)}

    with pytest.raises(NonFiniteLoss, match=r"step 7 .*examples 24 to 27.*lower learning_rate"):
        run(tmp_path, settings(), loss=spoil)
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-000000006"]
    straight, _ = run(tmp_path / "straight", settings())
    mended, _ = run(tmp_path, settings())
    assert same(weights(straight), weights(mended))


@pytest.mark.parametrize("checkpoint_every", [1e-9, 1e9])
def test_looking_less_often_names_the_same_step_and_saves_nothing_bad(tmp_path, monkeypatch, checkpoint_every):
    """As on one GPU, where the loss is only read at a log line or a checkpoint."""
    steps = 0

    def spoil(model, batch):
        nonlocal steps
        steps += 1
        return {"loss": squared(model, batch)["loss"] * (float("nan") if steps == 7 else 1)}

    class Lazy(loop._Training):
        looks_every_step = property(lambda self: False, lambda self, value: None)

    monkeypatch.setattr(loop, "_Training", Lazy)
    with pytest.raises(NonFiniteLoss, match="step 7 "):
        run(tmp_path, settings(checkpoint_every=checkpoint_every), loss=spoil)
    assert steps == (7 if checkpoint_every < 1 else 10)
    assert [path.name for path in tmp_path.glob("step-*")] == (["step-000000006"] if checkpoint_every < 1 else [])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_resumed_is_the_same_on_a_gpu(tmp_path, precision):
    class Upsampled(Toy):
        """Bilinear upsampling adds up its gradients in any order unless told otherwise."""

        def forward(self, x):
            image = nn.functional.interpolate(
                x.repeat(1, 64).view(-1, 1, 16, 16) * self.head.weight.mean(), scale_factor=3
            )
            smooth = nn.functional.interpolate(image, scale_factor=2.5, mode="bilinear")
            return super().forward(x) + smooth.mean(dim=(2, 3))

    def fresh():
        torch.manual_seed(0)
        return Upsampled()

    config = settings(precision=precision, ema=0.9, workers=1)
    straight, resumed = fresh(), fresh()
    report = train(straight, example, squared, config, out=tmp_path / "a", device="cuda")
    with pytest.raises(Boom):
        train(
            fresh(),
            stopping(30, boom),
            squared,
            settings(precision=precision, ema=0.9),
            out=tmp_path / "b",
            device="cuda",
        )
    train(resumed, example, squared, config, out=tmp_path / "b", device="cuda")
    assert report.device == "cuda:0"
    assert same(weights(straight), weights(resumed))


def test_other_settings_are_refused_by_name(tmp_path):
    with pytest.raises(Boom):
        run(tmp_path, settings(), make=stopping(30, boom))
    with pytest.raises(CheckpointError, match=r"learning_rate was 0.02, now 0.5.*remove") as caught:
        run(tmp_path, settings(learning_rate=0.5))
    assert "batch_size" not in str(caught.value)
    with pytest.raises(CheckpointError, match="iterations was 12, now 20"):
        run(tmp_path, settings(), budget=Budget(iterations=20))
    with pytest.raises(CheckpointError, match="seconds"):
        run(tmp_path, settings(), budget=Budget(seconds=20))
    model = toy()
    with pytest.raises(CheckpointError, match="groups"):
        run(tmp_path, settings(), model, groups=[{"params": model.head.parameters(), "lr_scale": 2.0}])
    with pytest.raises(CheckpointError, match="mode was None, now paper"):
        run(tmp_path, settings(), identity={"mode": "paper"})
    run(tmp_path, settings(workers=1, log_every=3, checkpoint_every=5.0))  # these do not matter


def test_another_model_is_refused(tmp_path):
    with pytest.raises(Boom):
        run(tmp_path, settings(), make=stopping(30, boom))
    other = Toy()
    other.unused = nn.Linear(1, 3)  # as many values, so that only the shapes tell
    with pytest.raises(CheckpointError, match=r"another model.*unused\.weight") as caught:
        run(tmp_path, settings(), other)
    assert "\n" not in str(caught.value)


class Clock:
    """Time that passes only when an example is made."""

    def __init__(self, monkeypatch, seconds):
        self.now, self.seconds = 100.0, seconds
        monkeypatch.setattr(loop.time, "monotonic", lambda: self.now)

    def example(self, rng):
        self.now += self.seconds
        return example(rng)


def test_time_budget_stops_in_time_and_sets_the_schedule(tmp_path, monkeypatch):
    clock = Clock(monkeypatch, 0.25)  # a step of 4 examples takes a second
    config = settings(iterations=3, schedule="poly", poly_power=1.0, log_every=1)
    _, report = run(tmp_path, config, make=clock.example, budget=Budget(seconds=10.5))
    assert report.iterations == 10
    assert report.seconds == pytest.approx(10.0)
    rates = [line["lr"] for line in read_log(tmp_path / "log.jsonl")]
    assert rates == pytest.approx([0.02 * (1 - step / 10.5) for step in range(10)])


def test_time_budget_counts_all_runs(tmp_path, monkeypatch):
    clock = Clock(monkeypatch, 0.25)
    budget = Budget(seconds=10.5)

    def die_late(rng):
        if clock.now >= 106:
            boom()
        return clock.example(rng)

    with pytest.raises(Boom):
        run(tmp_path, settings(), make=die_late, budget=budget)
    clock.now = 1000.0
    _, report = run(tmp_path, settings(), make=clock.example, budget=budget)
    assert report.iterations == 10
    assert report.seconds == pytest.approx(10.0)


def test_a_tiny_time_budget_still_makes_a_step(tmp_path, monkeypatch):
    clock = Clock(monkeypatch, 0.25)
    assert run(tmp_path, settings(), make=clock.example, budget=Budget(seconds=0.1))[1].iterations == 1


def test_iteration_budget_goes_before_the_setting(tmp_path):
    a, report = run(tmp_path / "a", settings(iterations=100), budget=Budget(iterations=7))
    b, _ = run(tmp_path / "b", settings(iterations=7))
    assert report.iterations == 7
    assert same(weights(a), weights(b))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"model": toy().requires_grad_(False)}, "nothing to train"),
        ({"loss": lambda model, batch: {"total": model(batch["x"]).mean()}}, '"loss"'),
        ({"loss": lambda model, batch: {"loss": model(batch["x"])}}, "scalars"),
        ({"groups": [{"params": [], "lr": 1.0}]}, "a parameter group has params and any of lr_scale"),
        ({"groups": [{"params": nn.Linear(1, 1).parameters()}]}, "not the model's"),
        ({"config": settings(precision="fp16")}, "fp16 needs a GPU"),
    ],
)
def test_calls_that_cannot_work(tmp_path, kwargs, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **{"config": settings(), **kwargs})


def test_no_line_on_a_quiet_stderr(tmp_path, capfd):
    run(tmp_path, settings())
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_state_holds_no_code(tmp_path):
    with pytest.raises(Boom):
        run(tmp_path, settings(), make=stopping(30, boom))
    state = torch.load(tmp_path / "step-000000007" / "state.pt", weights_only=True)
    assert json.loads(state["facts"])["step"] == 7
