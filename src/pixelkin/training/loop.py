"""The one training loop."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pixelkin.training.budget import Budget
from pixelkin.training.checkpoint import Checkpoint, CheckpointError
from pixelkin.training.config import WITHOUT_EFFECT, TrainingConfig
from pixelkin.training.ema import Ema
from pixelkin.training.examples import Collate, Example, batches, collate
from pixelkin.training.interrupt import Interrupt
from pixelkin.training.journal import Journal
from pixelkin.training.optimizer import GROUP_SETTINGS, build_optimizer
from pixelkin.training.reproducible import reproducible, step_seed
from pixelkin.training.schedule import learning_rate_factor
from pixelkin.training.team import Team

Loss = Callable[[nn.Module, dict[str, Tensor]], Mapping[str, Tensor]]
"""From the model and a batch on its device to named scalars; ``"loss"`` is the one that is minimised."""

LOG = "log.jsonl"


class NonFiniteLoss(RuntimeError):
    """The loss became infinite or not a number."""


@dataclass(frozen=True)
class TrainingReport:
    """What a training did, over all its runs.

    Attributes:
        iterations: optimiser steps.
        seconds: of wall-clock time.
        examples: seen, with repetition.
        losses: named means over the last logged steps.
        device: it ended on.
    """

    iterations: int
    seconds: float
    examples: int
    losses: dict[str, float]
    device: str


def train(
    model: nn.Module,
    example: Example,
    loss: Loss,
    config: TrainingConfig,
    *,
    out: Path,
    budget: Budget | None = None,
    device: str | torch.device = "auto",
    groups: Iterable[Mapping[str, Any]] | None = None,
    identity: Mapping[str, Any] | None = None,
    most_steps: int | None = None,
    collate: Collate = collate,
) -> TrainingReport:
    """Train a model, or go on with the training that was begun in ``out``.

    The k-th example is ``example(np.random.default_rng((seed, k)))``, and torch's generators are seeded anew for each
    step, so a training that was killed and continued has the same weights, bit for bit, as one that was not; the
    caller's generators are left as they were. Started by ``accelerate launch`` the processes share each batch, so a
    training is the same whatever their number (for losses that are means over examples; running statistics of
    normalisation layers are the main process's). The processes must see the same ``out``.

    Afterwards ``model`` holds the result (the averaged weights where ``config.ema`` is set), is on the device and in
    eval mode. A training that was finished before only loads it.

    Args:
        model: trained in place. Its first weights are the caller's; with several processes, the main process's.
        example: makes one training example.
        loss: the named losses of a batch.
        config: the settings.
        out: folder for checkpoints and the log (``log.jsonl``: step, losses, lr, seconds, examples_per_second).
        budget: goes before ``config.iterations``. With a time budget the learning rate follows the time that passed,
            over all runs, and training stops in time.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        groups: what is trained, as ``{"params": ..., "lr_scale": 10.0}`` and, if wanted, settings of the optimiser
            (``weight_decay``); default all parameters that require a gradient. What is in no group stays as it is.
        identity: what else the result depends on, as JSON values: the method's settings, the data set's name and size.
            A training is only continued with the same, as with the same ``config``.
        collate: makes a batch of the examples of a step, for examples of unequal shapes. Default: stacks them.

        most_steps: where a time budget would allow more, the training ends after so many steps all the same.

    Raises:
        NonFiniteLoss: the loss became infinite or not a number; the message names the step.
        CheckpointError: ``out`` holds a training with other settings or of another model, or cannot be read.
        ValueError: a call that cannot work: device, batch size, nothing to train, a loss without ``"loss"``.
        KeyboardInterrupt: Ctrl-C, after the step was completed and saved.
    """
    team = Team(device)
    if config.batch_size % team.size:
        raise ValueError(f"batch_size {config.batch_size} cannot be shared by {team.size} processes: give a multiple")
    if config.precision == "fp16" and team.device.type == "cpu":
        raise ValueError("precision fp16 needs a GPU: use bf16 or no")
    if budget is not None and budget.iterations is not None:
        config, budget = config.model_copy(update={"iterations": budget.iterations}), None
    out.mkdir(parents=True, exist_ok=True)
    seconds = None if budget is None else budget.seconds
    training = _Training(model.to(team.device), loss, config, out, seconds, most_steps, team, groups, identity or {})
    with reproducible(team.device):
        if not training.restore():
            training.run(example, collate)
    model.eval()
    return training.report()


class _Training:
    """The state of one training and what is done to it."""

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        config: TrainingConfig,
        out: Path,
        seconds: float | None,
        most_steps: int | None,
        team: Team,
        groups: Iterable[Mapping[str, Any]] | None,
        identity: Mapping[str, Any],
    ) -> None:
        self.model, self.loss, self.config, self.out, self.limit, self.team = model, loss, config, out, seconds, team
        self.identity = identity
        self.most_steps = most_steps if seconds is not None else None
        # Looking at a loss halts a GPU: alone, it is done only when logging or saving.
        self.looks_every_step = team.size > 1 or team.device.type == "cpu"
        self.optimizer = build_optimizer(model, config, groups)
        self.parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self.scaler = torch.amp.GradScaler(team.device.type, enabled=config.precision == "fp16")
        self.ema = Ema(model, config.ema) if config.ema else None
        self.step = 0
        self.elapsed = 0.0
        self.losses: dict[str, float] = {}
        self.rate = 0.0
        self.logged = 0.0  # elapsed at the last line of the log
        self.unread: list[
            tuple[int, dict[str, Tensor]]
        ] = []  # number and losses of the steps since then, on the device

    @property
    def settings(self) -> dict[str, Any]:
        """What a checkpoint must agree with, as JSON keeps it."""
        settings = self.config.model_dump(exclude={*WITHOUT_EFFECT, "iterations"})
        limit = {"seconds": self.limit} if self.limit is not None else {"iterations": self.config.iterations}
        if self.most_steps is not None:
            limit["most_steps"] = self.most_steps
        groups: list[dict[str, Any]] = []
        for group in self.optimizer.param_groups:
            kept: dict[str, Any] = {key: group[key] for key in GROUP_SETTINGS if key in group}
            groups.append({"parameters": sum(p.numel() for p in group["params"]), **kept})
        return dict(json.loads(json.dumps({**limit, **settings, "groups": groups, **self.identity})))

    @property
    def progress(self) -> float:
        """The share that is done, 0 to 1."""
        if self.limit is None:
            return self.step / self.config.iterations
        return max(self.elapsed / self.limit, self.step / self.most_steps if self.most_steps else 0.0)

    def restore(self) -> bool:
        """Load the last checkpoint, or share the main process's first weights; whether nothing is left to do."""
        self.team.wait()
        last = Checkpoint.latest(self.out)
        self.team.wait()  # nobody writes before everybody has read
        if last is not None:
            last.check_settings(self.settings, self.out)
            try:
                self.model.load_state_dict(last.weights)
                if not last.finished:
                    self.optimizer.load_state_dict(last.optimizer)
                    self.scaler.load_state_dict(last.scaler)
                    if self.ema is not None:
                        self.ema.load(last.ema)
            except (RuntimeError, ValueError, KeyError) as error:
                said = " ".join(str(error).split())[:200]
                raise CheckpointError(f"{self.out} holds a training of another model: remove it ({said})") from error
            self.step, self.elapsed, self.losses = last.step, last.seconds, last.losses
            self.logged = self.elapsed
            return last.finished
        self.team.share(self.model.state_dict().values())
        if self.ema is not None:
            self.team.share(self.ema.weights.values())
        return False

    def run(self, example: Example, collate: Collate) -> None:
        """The remaining steps."""
        config, team = self.config, self.team
        supply = batches(
            example,
            seed=config.seed,
            batch_size=config.batch_size,
            first=self.step,
            rank=team.rank,
            size=team.size,
            workers=config.workers,
            pin=team.device.type == "cuda",
            collate=collate,
        )
        self.model.train()
        before, begun = self.elapsed, time.monotonic()
        saved = last = begun
        usual = 0.0  # seconds of a step, so that the last one ends within the budget
        with Interrupt() as interrupt, Journal(self.out / LOG if team.main else None, self.step) as journal:
            while True:
                # Exchanged: all processes must stop at the same step, and the time sets their learning rate.
                stop, over, self.elapsed = team.maximum(interrupt.asked, self.is_over(usual), self.elapsed)
                if stop or over:
                    break
                self.advance(next(supply))
                now = time.monotonic()
                usual = now - last if not usual else 0.8 * usual + 0.2 * (now - last)
                self.elapsed, last = before + now - begun, now
                journal.advance(self.progress)
                if self.step % config.log_every == 0:
                    self.log(journal)
                if team.main and now - saved > config.checkpoint_every:
                    self.save()
                    saved = time.monotonic()
            self.log(journal)
            self.finish() if not stop else self.save()
        if stop:
            raise KeyboardInterrupt

    def is_over(self, usual: float) -> bool:
        """Whether another step, of the usual seconds, is more than was asked for; one step is always made."""
        if self.limit is None:
            return self.step >= self.config.iterations
        enough = self.most_steps is not None and self.step >= self.most_steps
        return enough or (self.step > 0 and self.elapsed + usual > self.limit)

    def advance(self, batch: Mapping[str, Tensor]) -> None:
        """One step."""
        config, team = self.config, self.team
        torch.manual_seed(step_seed(config.seed, self.step, team.rank))
        on_device = {key: value.to(team.device, non_blocking=True) for key, value in batch.items()}
        self.rate = config.learning_rate * learning_rate_factor(config, self.step, self.progress)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * group["lr_scale"]
        dtype = torch.float16 if config.precision == "fp16" else torch.bfloat16
        with torch.autocast(team.device.type, dtype, enabled=config.precision != "no"):
            losses = dict(self.loss(self.model, on_device))
        if "loss" not in losses or any(value.numel() != 1 for value in losses.values()):
            raise ValueError('the loss function must give named scalars, the one to minimise as "loss"')
        losses = {name: value.float().reshape(()) for name, value in losses.items()}
        self.unread.append((self.step + 1, {name: value.detach() for name, value in losses.items()}))
        if self.looks_every_step:
            self.check_finite(self.unread[-1:])
        self.model.zero_grad(set_to_none=True)
        self.scaler.scale(losses["loss"]).backward()  # type: ignore[no-untyped-call]
        team.average_gradients(self.parameters)
        if config.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.parameters, config.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update(self.model, self.step)
        self.step += 1

    def check_finite(self, unread: Sequence[tuple[int, Mapping[str, Tensor]]]) -> None:
        """Look at the losses of some steps, in all processes."""
        bad = ~torch.isfinite(torch.stack([losses["loss"] for _, losses in unread])).cpu()
        if self.team.maximum(bool(bad.any())) == [0]:
            return
        step, losses = unread[int(bad.int().argmax())]  # of equal values argmax gives the first
        said = ", ".join(f"{name} {value.item():g}" for name, value in losses.items())
        raise NonFiniteLoss(
            f"the loss is not finite at step {step} ({said}), examples {(step - 1) * self.config.batch_size} to"
            f" {step * self.config.batch_size - 1}: lower learning_rate ({self.config.learning_rate:g}) or set"
            f" clip_norm; the last checkpoint in {self.out} is from before"
        )

    def log(self, journal: Journal) -> None:
        """Write the means since the last line."""
        if not self.unread:
            return
        self.check_finite(self.unread)
        names = list(self.unread[-1][1])
        columns = [torch.stack([losses[name] for _, losses in self.unread if name in losses]).mean() for name in names]
        self.losses = dict(zip(names, self.team.mean(torch.stack(columns)).tolist(), strict=True))
        speed = len(self.unread) * self.config.batch_size / max(self.elapsed - self.logged, 1e-9)
        journal.write(
            step=self.step, losses=self.losses, lr=self.rate, seconds=self.elapsed, examples_per_second=round(speed, 3)
        )
        self.unread, self.logged = [], self.elapsed

    def save(self) -> None:
        """Write a checkpoint, in the main process."""
        if not self.team.main:
            return
        if self.unread and not self.looks_every_step:
            self.check_finite(self.unread)
        state = self.checkpoint()
        state.optimizer, state.scaler = self.optimizer.state_dict(), self.scaler.state_dict()
        state.ema = self.ema.weights if self.ema is not None else {}
        state.save(self.out)

    def finish(self) -> None:
        """Give the model its final weights and keep them."""
        if self.ema is not None:
            self.ema.apply(self.model)
        self.team.share(self.model.state_dict().values())  # the running statistics differ
        if self.team.main:
            state = self.checkpoint()
            state.finished = True
            state.save(self.out)
        self.model.zero_grad(set_to_none=True)
        self.team.wait()

    def checkpoint(self) -> Checkpoint:
        """The part of the state that every checkpoint has."""
        return Checkpoint(self.step, self.elapsed, self.settings, self.losses, self.model.state_dict())

    def report(self) -> TrainingReport:
        """What was done so far."""
        examples = self.step * self.config.batch_size
        return TrainingReport(self.step, self.elapsed, examples, dict(self.losses), str(self.team.device))
