"""A small training that exercises what resuming can break: dropout, batch normalisation, a frozen part."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

from pixelkin.training import checkpoint
from pixelkin.training.config import TrainingConfig
from pixelkin.training.loop import train


class Toy(nn.Module):
    def __init__(self, noisy=True):
        super().__init__()
        self.frozen = nn.Linear(4, 8).requires_grad_(False)
        self.norm = nn.BatchNorm1d(8) if noisy else nn.Identity()
        self.drop = nn.Dropout(0.3 if noisy else 0.0)
        self.head = nn.Linear(8, 1)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        return self.head(self.drop(self.norm(self.frozen(x).relu())))


def toy(seed=0, noisy=True):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Toy(noisy)


def example(rng):
    x = rng.normal(size=4).astype("float32")
    return {"x": torch.from_numpy(x), "y": torch.tensor([x[0] + x[2]])}


def squared(model, batch):
    error = (model(batch["x"]) - batch["y"]).square().mean()
    return {"loss": error, "half": error / 2}


def stopping(examples, how):
    """The example function, which at its n-th call does something else."""
    calls = 0

    def make(rng):
        nonlocal calls
        calls += 1
        if calls == examples:
            how()
        return example(rng)

    return make


def settings(**changes):
    base = {"iterations": 12, "batch_size": 4, "learning_rate": 0.02, "checkpoint_every": 1e-9, "log_every": 5}
    return TrainingConfig(**{**base, **changes})


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def killed_in_example(out, config):
    train(toy(), stopping(29, die), squared, config, out=out, device="cpu")


def killed_in_checkpoint(out, config):
    """Dies when the state of the fifth checkpoint is half written."""
    saves, save = 0, torch.save

    def half(state, path):
        nonlocal saves
        saves += 1
        save(state, path)
        if saves == 5:
            Path(path).write_bytes(Path(path).read_bytes()[:100])
            die()

    checkpoint.torch.save = half
    train(toy(), example, squared, config, out=out, device="cpu")


if __name__ == "__main__":
    {"example": killed_in_example, "checkpoint": killed_in_checkpoint}[sys.argv[1]](
        Path(sys.argv[2]), TrainingConfig.model_validate_json(sys.argv[3])
    )
