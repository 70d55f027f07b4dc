"""Fitting AMD to optical flow: clips prepared once, one head for all of them, and a copy for each."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from pixelkin.cues.optical_flow import flow_estimator, resized_flow
from pixelkin.data import Dataset
from pixelkin.methods.amd_config import AMDConfig
from pixelkin.methods.amd_flow import HeadReport, build_flow_network, fit_head
from pixelkin.methods.amd_flow_clips import ClipPlan, FlowClip, learn_components, looked_at, plan_clips, prepare_clip
from pixelkin.methods.amd_flow_config import FlowConfig
from pixelkin.models.flow_regions import FlowRegions
from pixelkin.training.budget import Budget
from pixelkin.training.progress import track

PREPARING, COMMON = 0.5, 0.35
"""Shares of a time budget: preparing clips has so much of the whole, the common head so much of what is then left, or
all of it where no copies follow."""

PREPARED = "clips"


class FlowFit(NamedTuple):
    """A fitted network and what the fit found out, as JSON values."""

    network: FlowRegions
    facts: dict[str, Any]


def fit_flow(
    config: AMDConfig, frames: Dataset, *, out: Path, budget: Budget | None, device: str, seed: int
) -> FlowFit:
    """Fit the common head to all clips, then, where the settings say so, a copy to each.

    What takes long, flow and features, is kept in ``out`` and not computed again when the fit was interrupted.

    Args:
        config: the settings.
        frames: of clips.
        out: folder.
        budget: of time for all of it, or of steps for each head.
        device: ``cpu`` or ``cuda``.
        seed: of the first weights and the order of the examples.

    Raises:
        ValueError: no clip has two frames of one size.
    """
    started = time.monotonic()
    settings = config.flow
    plans = _plans(frames, settings)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_flow_network(config.backbone_name, settings, pretrained=config.from_weights).to(device).eval()
    learn_components(network, frames, plans, settings)
    seconds = None if budget is None else budget.seconds
    clips = _prepared(network, frames, plans, config, out, None if seconds is None else started + PREPARING * seconds)
    left = None if seconds is None else max(seconds - (time.monotonic() - started), 0.05 * seconds)
    steps = max(settings.common, settings.a_clip * len(clips)) if settings.common else 0
    steps = steps if budget is None or budget.iterations is None else budget.iterations
    common = HeadReport(0, 0, 1.0, 0.0)
    if steps:
        share = None if left is None else left * (COMMON if settings.adapted else 1.0)
        common = fit_head(network.head, list(clips.values()), settings, steps=steps, seed=seed, seconds=share)
    heads = _adapted(network, clips, settings, budget, started, seed, steps=settings.adapted)
    facts = {
        "clips": len(clips),
        "pairs": sum(len(clip.flow) for clip in clips.values()),
        "region": 1,
        "cost": round(common.cost, 4),
        "heads": heads,
        "training": {
            "iterations": common.steps + sum(head["steps"] for head in heads.values()),
            "seconds": round(time.monotonic() - started, 1),
        },
    }
    return FlowFit(network, facts)


def adapt_flow(
    network: FlowRegions, config: AMDConfig, frames: Dataset, *, out: Path, budget: Budget | None, seed: int
) -> dict[str, dict[str, Any]]:
    """A head for each clip of ``frames``, from a fresh copy of the common one; the common one stays as it is.

    Raises:
        ValueError: no clip has two frames of one size.
    """
    started = time.monotonic()
    seconds = None if budget is None else budget.seconds
    until = None if seconds is None else started + PREPARING * seconds
    clips = _prepared(network, frames, _plans(frames, config.flow), config, out, until)
    return _adapted(network, clips, config.flow, budget, started, seed, steps=config.flow.adapted_later)


def given_flow(
    image: npt.NDArray[np.uint8], following: npt.NDArray[np.uint8], config: FlowConfig, device: str
) -> npt.NDArray[np.float32]:
    """The flow between two frames at the size they are looked at: (2, h, w), (dy, dx) in pixels of that."""
    small = looked_at(image, config)
    size = small.shape[0], small.shape[1]
    flow = flow_estimator(config.estimator, device=device)(small, looked_at(following, config))
    return flow if config.sharpen else resized_flow(flow, (size[0] // config.stride, size[1] // config.stride))


def _plans(frames: Dataset, config: FlowConfig) -> list[ClipPlan]:
    plans = plan_clips(frames, config)
    if not plans:
        raise ValueError(
            "no clip has two frames of one size in a row, and amd learns from motion: give clips of several frames"
        )
    return plans


def _prepared(
    network: FlowRegions,
    frames: Dataset,
    plans: list[ClipPlan],
    config: AMDConfig,
    out: Path,
    until: float | None,
) -> dict[str, FlowClip]:
    """Clips by their names, as many as there is time for, and at least one."""
    settings = config.flow
    flow_of = flow_estimator(settings.estimator, device=str(network.mean.device))
    cache = out / PREPARED / _key(network, settings)
    clips: dict[str, FlowClip] = {}
    for plan in track(plans, "flow"):
        if clips and until is not None and time.monotonic() > until:
            break
        clips[plan.name] = prepare_clip(network, frames, plan, settings, flow_of, cache)
    return clips


def _adapted(
    network: FlowRegions,
    clips: Mapping[str, FlowClip],
    config: FlowConfig,
    budget: Budget | None,
    started: float,
    seed: int,
    *,
    steps: int,
) -> dict[str, dict[str, Any]]:
    if steps and budget is not None and budget.iterations is not None:
        steps = budget.iterations
    heads: dict[str, dict[str, Any]] = {}
    if not steps:
        return heads
    for number, (name, clip) in enumerate(clips.items()):
        share = None
        if budget is not None and budget.seconds is not None:
            left = budget.seconds - (time.monotonic() - started)
            if left <= 0 and heads:
                break
            share = max(left, 0.01 * budget.seconds) / (len(clips) - number)
        key = str(len(network.clips))
        report = fit_head(network.add_clip(key), [clip], config, steps=steps, seed=seed, seconds=share)
        heads[name] = {"key": key, "steps": report.steps, "best": report.best, "cost": round(report.cost, 4)}
    return heads


def _key(network: FlowRegions, config: FlowConfig) -> str:
    """Differs where what is prepared would: of the settings those that it depends on, and the components."""
    told = config.model_dump(include={"estimator", "long_side", "stride", "components"})
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    digest.update(network.projection.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
