"""What the second objective of AMD learns from: for some frames of each clip what the backbone sees, and their flow."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pixelkin.cues.optical_flow import FlowOf, resized_flow
from pixelkin.cues.region_flow import CameraFit, RegionFlowConfig, camera_fit, first_guess
from pixelkin.data import Dataset
from pixelkin.methods.amd_examples import resized
from pixelkin.methods.amd_flow_config import FlowConfig
from pixelkin.models.flow_regions import FlowRegions
from pixelkin.models.multi_scale import to_device

BASIS_FRAMES = 64
"""Frames whose principal components are taken."""

HELD_OUT = 5
"""Every so manieth frame of a clip does not teach but tells when to stop."""


class Step(NamedTuple):
    """From one frame of a clip to another of the same size, by their numbers in the dataset."""

    anchor: int
    other: int


class FlowClip(NamedTuple):
    """One clip, ready to be learned from.

    Attributes:
        components: (frames, C, h, w) what the head sees of each frame.
        anchor: (flows,) number of the frame that each flow starts from.
        flow: (flows, 2, h, w), (dy, dx) in pixels of the frame as it is looked at.
        camera: of each flow.
        guess: (flows, h, w), see :func:`first_guess`.
        held_out: (flows,) whether it does not teach.
    """

    components: Tensor
    anchor: Tensor
    flow: Tensor
    camera: CameraFit
    guess: Tensor
    held_out: Tensor


@dataclass
class ClipPlan:
    """The frames of one clip that are looked at, and the flows between them and their neighbours."""

    name: str
    frames: list[int]
    steps: list[Step]

    def digest(self, dataset: Dataset) -> str:
        """Differs where the frames or the flows do."""
        names = [[dataset[step.anchor].name, dataset[step.other].name] for step in self.steps]
        return hashlib.sha256(json.dumps([self.name, names]).encode()).hexdigest()[:16]


def plan_clips(dataset: Dataset, config: FlowConfig) -> list[ClipPlan]:
    """The clips that have any flow. Frames that are missing leave a hole; sizes are compared, not changed."""
    clips: dict[str, dict[int, int]] = {}
    for index, sample in enumerate(dataset):
        if sample.clip is not None and sample.frame is not None:
            clips.setdefault(sample.clip, {})[sample.frame] = index
    plans = []
    for name, frames in clips.items():
        numbers = sorted(frames)
        picked = np.unique(np.linspace(0, len(numbers) - 1, min(config.frames, len(numbers))).round().astype(int))
        steps = [
            Step(frames[number], frames[number + apart])
            for number in (numbers[i] for i in picked)
            for gap in config.gaps
            for apart in (gap, -gap)
            if number + apart in frames and dataset[frames[number]].size == dataset[frames[number + apart]].size
        ]
        sizes = {dataset[step.anchor].size for step in steps}
        if steps:  # of frames of several sizes those of the most usual one teach
            usual = max(sorted(sizes), key=lambda size: sum(dataset[step.anchor].size == size for step in steps))
            steps = [step for step in steps if dataset[step.anchor].size == usual]
            plans.append(ClipPlan(name, sorted({step.anchor for step in steps}), steps))
    return plans


def working_size(size: tuple[int, int], config: FlowConfig) -> tuple[int, int]:
    """The (height, width) at which a frame is looked at: no larger than it is, sides multiples of the stride."""
    scale = min(1.0, config.long_side / max(size))
    height, width = (max(2, round(side * scale / config.stride)) * config.stride for side in size)
    return height, width


def looked_at(image: npt.NDArray[np.uint8], config: FlowConfig) -> npt.NDArray[np.uint8]:
    """A frame at its working size."""
    return resized(image, working_size((image.shape[0], image.shape[1]), config))


def learn_components(network: FlowRegions, dataset: Dataset, plans: Sequence[ClipPlan], config: FlowConfig) -> None:
    """Set the components of the network from frames all over the clips."""
    frames = [index for plan in plans for index in plan.frames]
    picked = np.unique(np.linspace(0, len(frames) - 1, min(BASIS_FRAMES, len(frames))).round().astype(int))

    def maps() -> Iterator[Tensor]:
        for i in picked:
            yield network.maps(to_device(looked_at(dataset[frames[i]].image, config), network.mean))

    network.set_components(maps())


def prepare_clip(
    network: FlowRegions, dataset: Dataset, plan: ClipPlan, config: FlowConfig, flow_of: FlowOf, cache: Path
) -> FlowClip:
    """What a clip teaches; from the cache where it was prepared before, one file of half precision a clip.

    Args:
        network: with its components set.
        dataset: the frames.
        plan: which of them.
        config: the settings.
        flow_of: estimates flow.
        cache: folder for the files, of this network and these settings alone.
    """
    file = cache / f"{plan.digest(dataset)}.npz"
    if file.is_file():
        with np.load(file) as saved:
            arrays = {key: saved[key] for key in ("components", "anchor", "flow")}
    else:
        arrays = _look(network, dataset, plan, config, flow_of)
        cache.mkdir(parents=True, exist_ok=True)
        beside = file.with_suffix(".part")
        with beside.open("wb") as out:
            np.savez(out, **arrays)  # type: ignore[arg-type]
        os.replace(beside, file)
    device = network.mean.device
    made = {key: torch.from_numpy(value).to(device) for key, value in arrays.items()}
    return ready(made["components"].float(), made["anchor"], made["flow"].float(), config.regions)


def ready(components: Tensor, anchor: Tensor, flow: Tensor, config: RegionFlowConfig) -> FlowClip:
    """A clip with the camera's motion and the first guess of every flow; see :class:`FlowClip`."""
    camera = camera_fit(flow, config)
    held = anchor % HELD_OUT == HELD_OUT // 2
    if len(components) < HELD_OUT:  # too few frames to do without any
        held = torch.zeros_like(held)
    return FlowClip(components, anchor, flow, camera, first_guess(flow, camera, config), held)


def _look(
    network: FlowRegions, dataset: Dataset, plan: ClipPlan, config: FlowConfig, flow_of: FlowOf
) -> dict[str, npt.NDArray[np.generic]]:
    number = {index: i for i, index in enumerate(plan.frames)}
    near: dict[int, npt.NDArray[np.uint8]] = {}
    components, anchors, flows = [], [], []
    steps = iter([*plan.steps, None])
    step = next(steps)
    for index in plan.frames:
        while step is not None and step.anchor == index:
            for each in step:
                if each not in near:
                    near[each] = looked_at(dataset[each].image, config)
            flow = flow_of(near[index], near[step.other])
            cells = flow.shape[1] // config.stride, flow.shape[2] // config.stride
            flows.append((resized_flow(flow, cells) * config.stride).astype(np.float16))
            anchors.append(number[index])
            step = next(steps)
        pixels = to_device(near[index], network.mean)
        components.append(network.components(network.maps(pixels))[0].half().cpu().numpy())
        while len(near) > 4 * max(config.gaps) + 2:  # the oldest are behind
            near.pop(next(iter(near)))
    return {"components": np.stack(components), "anchor": np.array(anchors), "flow": np.stack(flows)}
