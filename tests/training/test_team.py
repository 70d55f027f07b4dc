"""Two real processes, started as a user would."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy_training import example, settings, squared, toy, weights

from pixelkin.training.loop import train
from pixelkin.training.team import Team, resolve_device

SCRIPT = """
import atexit
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import torch
from torch import distributed
from toy_training import example, same, settings, squared, stopping, toy, weights
from pixelkin.training.loop import NonFiniteLoss, train
from pixelkin.training.team import Team

out = Path(sys.argv[1])
@atexit.register  # before the team is there, so called after all that it registers
def at_exit():
    (out / f"left-{team.rank}.txt").write_text(str(distributed.is_initialized()))
team = Team("cpu")

def run(name, make=example, loss=squared, noisy=False, **changes):
    model = toy(seed=team.rank, noisy=noisy)  # other first weights: the main process's count
    report = train(model, make, loss, settings(**changes), out=out / name, device="cpu")
    torch.save(weights(model), out / f"{name}-{team.rank}.pt")
    return report

report = run("plain", momentum=0.5, optimizer="sgd")
assert report.examples == 48, report
run("noisy", noisy=True, ema=0.9)

class Boom(Exception): pass
def boom(): raise Boom
try:
    run("noisy_resumed", make=stopping(11, boom), noisy=True, ema=0.9)
except Boom:
    team.wait()
run("noisy_resumed", noisy=True, ema=0.9)

def spoil(model, batch):  # in one process only
    return {"loss": squared(model, batch)["loss"] * (float("nan") if team.rank == 1 else 1)}
try:
    run("spoiled", loss=spoil)
except NonFiniteLoss as error:
    (out / f"spoiled-{team.rank}.txt").write_text(str(error))
try:
    run("odd", batch_size=3)
except ValueError as error:
    assert "2 processes" in str(error), error
    (out / f"odd-{team.rank}.txt").touch()
"""


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    out = tmp_path_factory.mktemp("team")
    script = out / "script.py"
    script.write_text(SCRIPT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", str(port)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, str(script), str(out), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def load(out, name):
    return [torch.load(out / f"{name}-{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("name", ["plain", "noisy", "noisy_resumed"])
def test_weights_are_equal_in_all_processes(launched, name):
    first, second = load(launched, name)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_two_processes_are_one_on_the_whole_batch(launched, tmp_path):
    model = toy(seed=0, noisy=False)
    before = weights(model)
    train(model, example, squared, settings(momentum=0.5, optimizer="sgd"), out=tmp_path, device="cpu")
    alone, together = weights(model), load(launched, "plain")[0]
    assert all(torch.allclose(alone[key], together[key], atol=1e-6) for key in alone)
    assert not torch.allclose(before["head.weight"], together["head.weight"], atol=1e-2)


def test_resumed_in_two_processes(launched):
    straight, resumed = load(launched, "noisy")[0], load(launched, "noisy_resumed")[0]
    assert all(torch.equal(straight[key], resumed[key]) for key in straight)


def test_only_the_main_process_writes(launched):
    assert sorted(path.name for path in (launched / "plain").iterdir()) == ["final", "log.jsonl"]
    assert len((launched / "plain" / "log.jsonl").read_text().splitlines()) == 3


def test_all_stop_when_one_has_a_bad_loss(launched):
    assert all("step 1 " in (launched / f"spoiled-{rank}.txt").read_text() for rank in (0, 1))


def test_a_batch_that_cannot_be_shared_is_refused(launched):
    assert all((launched / f"odd-{rank}.txt").exists() for rank in (0, 1))


def test_the_group_is_left_before_the_interpreter_ends(launched):
    assert [(launched / f"left-{rank}.txt").read_text() for rank in (0, 1)] == ["False", "False"]


def test_alone_nothing_is_exchanged():
    team = Team("cpu")
    parameter = torch.nn.Parameter(torch.ones(2))
    team.average_gradients([parameter])
    assert parameter.grad is None
    assert (team.rank, team.size, team.main, team.maximum(1, 0)) == (0, 1, True, [1, 0])


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "mps", "cuda"])
def test_a_device_that_is_not_here(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"device .*(choose|use --device)"):
        resolve_device(name)
    assert resolve_device("auto") == torch.device("cpu")
