"""The published objective of AMD on one clip alone: a copy of both pathways goes on learning from its frames."""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pixelkin.data import Dataset
from pixelkin.methods.amd_config import AMDConfig
from pixelkin.methods.amd_examples import FramePair, PairExamples
from pixelkin.methods.amd_regions import PairLoss
from pixelkin.models.amd import AMDNetwork
from pixelkin.training.budget import Budget, Stages

HELD_OUT = 5
"""Every so manieth pair of a clip does not teach but tells when to stop."""

JUDGED = 16
"""Pairs held out that a look goes by."""


@dataclass(frozen=True)
class ClipReport:
    """How a copy of the pathways fared on its clip.

    Attributes:
        key: of its appearance pathway, see :meth:`AMDNetwork.add_clip`.
        steps: made.
        best: step whose weights were kept; 0: none was better than those it began with.
        cost: the objective on pairs held out, with these.
    """

    key: str
    steps: int
    best: int
    cost: float


def adapt_clips(
    network: AMDNetwork,
    frames: Dataset,
    config: AMDConfig,
    *,
    steps: int,
    out: Path,
    budget: Budget | None = None,
    seed: int = 0,
) -> dict[str, dict[str, str | int | float]]:
    """Give the network an appearance pathway for each clip, each from a fresh copy of the common one.

    What was adapted is kept in ``out`` and not done again when the work was interrupted.

    Args:
        network: what all begin with; only ``clips`` is added to.
        frames: of clips.
        config: the settings.
        steps: most of them a clip.
        out: folder.
        budget: of time for all clips, or of steps for each.
        seed: of the order of the examples.

    Returns:
        The reports by clip, as JSON values.

    Raises:
        ValueError: no clip has two frames that make a pair.
    """
    examples = PairExamples(config, frames)
    steps = steps if budget is None or budget.iterations is None else budget.iterations
    stages = Stages(budget, dict.fromkeys(examples.clips, 1.0))
    begun = _digest(network, config, steps, seed)
    out.mkdir(parents=True, exist_ok=True)
    reports = {}
    for name, pairs in examples.clips.items():
        key, limit = str(len(network.clips)), stages.begin(name)
        told = [[frames[index].name for index in pair] for pair in pairs]
        file = out / f"{begun}-{hashlib.sha256(json.dumps([key, told]).encode()).hexdigest()[:16]}.pt"
        if file.is_file():
            report, weights = torch.load(file, map_location="cpu", weights_only=True)
            network.add_clip(key).load_state_dict(weights)
        else:
            own = copy.deepcopy(network.without_clips())
            report = asdict(_adapt(own, examples, pairs, config, key=key, steps=steps, limit=limit, seed=seed))
            network.add_clip(key).load_state_dict(own.appearance.state_dict())
            partial = file.with_suffix(".partial")
            torch.save((report, network.clips[key].state_dict()), partial)
            partial.replace(file)
        reports[name] = report
    network.eval()
    return reports


def _adapt(
    network: AMDNetwork,
    examples: PairExamples,
    pairs: Sequence[FramePair],
    config: AMDConfig,
    *,
    key: str,
    steps: int,
    limit: Budget | None,
    seed: int,
) -> ClipReport:
    """Train in place on one clip; the weights that cost least on pairs held out are kept, and no label is asked."""
    started = time.monotonic()
    judging = [pair for number, pair in enumerate(pairs) if number % HELD_OUT == HELD_OUT // 2]
    teaching = [pair for pair in pairs if pair not in judging] or list(pairs)
    judging = judging or teaching
    picked = np.unique(np.linspace(0, len(judging) - 1, JUDGED).round().astype(int)).tolist()
    fixed = [examples.cut([judging[k]], np.random.default_rng((seed, k))) for k in picked]
    settings, batch, loss = config.clip, config.training.batch_size, PairLoss(config)
    optimizer = torch.optim.AdamW(network.parameters(), settings.rate, weight_decay=config.training.weight_decay)
    best = 0, _cost(network, fixed, loss, batch), copy.deepcopy(network.state_dict())
    made = 0
    for made in range(1, steps + 1):
        network.train()
        drawn = [examples.cut(teaching, np.random.default_rng((seed, made, k))) for k in range(batch)]
        optimizer.zero_grad()
        loss(network, _batch(drawn, network))["loss"].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        late = limit is not None and limit.seconds is not None and time.monotonic() - started > limit.seconds
        if made % settings.look_every == 0 or made == steps or late:
            cost = _cost(network, fixed, loss, batch)
            if cost < best[1]:
                best = made, cost, copy.deepcopy(network.state_dict())
            if late or made - best[0] >= settings.patience * settings.look_every:
                break
    network.load_state_dict(best[2])
    return ClipReport(key, made, best[0], round(best[1], 4))


@torch.no_grad()
def _cost(network: AMDNetwork, fixed: Sequence[dict[str, Tensor]], loss: PairLoss, batch: int) -> float:
    """The objective of the same examples each time, as the network is in use."""
    network.eval()
    costs = [float(loss(network, _batch(part, network))["loss"]) * len(part) for part in _parts(fixed, batch)]
    return sum(costs) / len(fixed)


def _parts(values: Sequence[dict[str, Tensor]], size: int) -> Iterator[Sequence[dict[str, Tensor]]]:
    return (values[start : start + size] for start in range(0, len(values), size))


def _batch(drawn: Sequence[dict[str, Tensor]], network: nn.Module) -> dict[str, Tensor]:
    device = next(network.parameters()).device
    return {"pair": torch.stack([each["pair"] for each in drawn]).to(device)}


def _digest(network: AMDNetwork, config: AMDConfig, steps: int, seed: int) -> str:
    """Differs where the weights to begin with or the settings do."""
    told = hashlib.sha256(json.dumps([config.model_dump(mode="json", exclude={"flow"}), steps, seed]).encode())
    for tensor in network.without_clips().state_dict().values():
        told.update(tensor.cpu().contiguous().numpy().tobytes())
    return told.hexdigest()[:16]
