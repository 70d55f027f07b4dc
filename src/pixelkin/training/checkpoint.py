"""Checkpoints of a training: complete or absent, and read without running any code in them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

FINAL = "final"


class CheckpointError(ValueError):
    """A checkpoint that cannot be continued from; the message is one line: what is wrong and the mend."""


@dataclass
class Checkpoint:
    """The state of a training after ``step`` steps.

    A folder ``step-N`` or, at the end, ``final`` of ``weights.safetensors``, ``ema.safetensors`` and ``state.pt`` (the
    rest; only ever read with ``weights_only=True``).

    Attributes:
        step: steps done.
        seconds: time they took, over all its runs.
        settings: what was asked for: a checkpoint is only continued with the same.
        losses: means over the last logged steps.
        weights: the model's state.
        ema: its moving average.
        optimizer: the optimiser's state.
        scaler: the gradient scaler's state.
        finished: whether the training is complete; the weights then are its result and nothing else is kept.
    """

    step: int
    seconds: float
    settings: dict[str, Any]
    losses: dict[str, float]
    weights: dict[str, Tensor]
    ema: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    finished: bool = False

    def save(self, folder: Path) -> None:
        """Write beside, rename, and then remove the older ones: whenever this is killed, a complete one is there."""
        target = folder / (FINAL if self.finished else f"step-{self.step:09d}")
        if target.exists():
            return
        _remove(folder.glob(".writing-*"))
        writing = folder / f".writing-{os.getpid()}"
        writing.mkdir(parents=True)
        _save_tensors(self.weights, writing / "weights.safetensors")
        if self.ema:
            _save_tensors(self.ema, writing / "ema.safetensors")
        facts = {"step": self.step, "seconds": self.seconds, "settings": self.settings, "losses": self.losses}
        state = {"facts": json.dumps(facts), "optimizer": self.optimizer, "scaler": self.scaler}
        torch.save(state, writing / "state.pt")
        for file in writing.iterdir():
            _flush(file)
        os.replace(writing, target)
        _remove(other for other in _complete(folder) if other != target)

    @classmethod
    def latest(cls, folder: Path) -> Checkpoint | None:
        """The furthest checkpoint in a folder, or None.

        Raises:
            CheckpointError: it cannot be read.
        """
        found = _complete(folder)
        if not found:
            return None
        path = found[-1]
        try:
            state = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
            ema = path / "ema.safetensors"
            return cls(
                **json.loads(state["facts"]),
                weights=load_file(path / "weights.safetensors"),
                ema=load_file(ema) if ema.exists() else {},
                optimizer=state["optimizer"],
                scaler=state["scaler"],
                finished=path.name == FINAL,
            )
        except Exception as error:  # a boundary: on a broken or hostile file the unpickler raises whatever it likes
            said = (str(error).splitlines() or [type(error).__name__])[0][:120]
            raise CheckpointError(f"{path} cannot be read ({said}): remove that folder to go on without it") from error

    def check_settings(self, settings: Mapping[str, Any], folder: Path) -> None:
        """Raises CheckpointError naming the settings that differ from those it was made with."""
        keys = [*settings, *(key for key in self.settings if key not in settings)]
        changed = [
            f"{key} was {self.settings.get(key)}, now {settings.get(key)}"
            for key in keys
            if self.settings.get(key) != settings.get(key)
        ]
        if changed:
            raise CheckpointError(
                f"{folder} holds a training with other settings ({'; '.join(changed)}):"
                " call with the same, give another folder, or remove this one to start anew"
            )


def _complete(folder: Path) -> list[Path]:
    """Complete checkpoints, the furthest last."""
    final = folder / FINAL
    return [*sorted(folder.glob("step-*")), *([final] if final.exists() else [])]


def _save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    # Cloned one by one: safetensors refuses tensors that share memory, as tied weights do.
    save_file({name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}, path)


def _flush(path: Path) -> None:
    """Onto the disk, so that the rename below never outlives the content in a power cut."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _remove(folders: Any) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
