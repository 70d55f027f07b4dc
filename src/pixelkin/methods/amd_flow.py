"""AMD's second objective: a division of single frames that explains the optical flow between them."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pixelkin.cues.region_flow import CameraFit, explain
from pixelkin.methods.amd_flow_clips import FlowClip, looked_at
from pixelkin.methods.amd_flow_config import FlowConfig
from pixelkin.models.flow_regions import FlowRegions, share_of
from pixelkin.models.multi_scale import to_device

JUDGED = 64
"""Flows held out that a look goes by, of all clips together, but at least one of each."""

WARMUP = 10
"""Steps over which the learning rate grows."""

GUESSING, TRUSTING = 0.3, 0.6
"""Up to the first share of its steps a head learns where flow alone sees an object, from the second on it says itself.
"""


@dataclass(frozen=True)
class HeadReport:
    """How a head was fitted.

    Attributes:
        steps: made.
        best: step whose weights were kept.
        cost: what they leave unexplained of the flow of frames held out, 0 to 1, with the price of area and border.
        seconds: of wall-clock time.
    """

    steps: int
    best: int
    cost: float
    seconds: float


def build_flow_network(backbone: str, config: FlowConfig, *, pretrained: bool) -> FlowRegions:
    """The network with an untrained head; random weights come from torch's global generator."""
    return FlowRegions(
        backbone,
        components=config.components,
        hidden=config.hidden,
        stride=config.stride,
        pretrained=pretrained,
    )


def flow_cost(head: nn.Module, clip: FlowClip, flows: Tensor, config: FlowConfig, *, trust: float) -> Tensor:
    """What a head leaves unexplained of some flows of a clip: a scalar that is differentiable in its weights.

    Both regions are the parts of a mixture: where the head is unsure of a pixel that one of them explains, it learns
    more than a linear cost would teach it, and small objects are not lost to the background.

    Args:
        head: components to logits.
        clip: its cues.
        flows: numbers of the flows.
        config: the settings.
        trust: see :func:`pixelkin.cues.region_flow.explain`.
    """
    share = share_of(head, clip.components[clip.anchor[flows]])
    camera = CameraFit(*(part[flows] for part in clip.camera))
    made = explain(clip.flow[flows], share, camera, config.regions, guess=clip.guess[flows], trust=trust)
    tolerance = (config.regions.tolerance * camera.noise[:, None, None]).square()
    total = (made.background + made.object).detach() + tolerance
    cold = 1 / config.temperature
    mixture = (1 - share) * torch.exp(-cold * made.background / total) + share * torch.exp(-cold * made.object / total)
    cost = -config.temperature * mixture.clamp(min=1e-9).log()
    ring = torch.ones_like(share[0])
    ring[1:-1, 1:-1] = 0
    return (cost + config.area * share + config.border * share * ring).mean()


def fit_head(
    head: nn.Module,
    clips: Sequence[FlowClip],
    config: FlowConfig,
    *,
    steps: int,
    seed: int,
    seconds: float | None = None,
) -> HeadReport:
    """Train a head on one clip or on several, each step on flows of one; the weights that explain best are kept.

    Best is what costs least on the flow of frames that did not teach: no label is asked. Clips too short to hold frames
    out are judged on those that teach.

    Args:
        head: trained in place.
        clips: at least one.
        config: the settings.
        steps: at most.
        seed: of the order of the flows.
        seconds: at most; one step is always made.
    """
    started = time.monotonic()
    rng = np.random.default_rng(seed)
    teaching = [torch.nonzero(~clip.held_out)[:, 0] for clip in clips]
    judging = [torch.nonzero(clip.held_out | ~clip.held_out.any())[:, 0] for clip in clips]
    judging = [flows[:: max(1, len(flows) * len(clips) // JUDGED)] for flows in judging]
    optimizer = torch.optim.AdamW(head.parameters(), lr=config.rate, weight_decay=config.decay)
    best, kept, best_step, worse, made = float("inf"), copy.deepcopy(head.state_dict()), 0, 0, 0
    for step in range(steps):
        done = step / steps
        if seconds is not None and step:
            spent = time.monotonic() - started
            done = max(done, spent / seconds)
            if spent + spent / step > seconds:
                break
        for group in optimizer.param_groups:
            group["lr"] = config.rate * min(1.0, (step + 1) / WARMUP) * (1 - done) ** 0.9
        which = int(rng.integers(len(clips)))
        flows = teaching[which][torch.from_numpy(rng.integers(len(teaching[which]), size=config.batch))]
        trust = min(1.0, max(0.0, (done - GUESSING) / (TRUSTING - GUESSING)))
        optimizer.zero_grad()
        flow_cost(head, clips[which], flows, config, trust=trust).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        made = step + 1
        if made % config.look_every == 0 or made == steps:
            cost = judged(head, clips, judging, config)
            if cost < best:
                best, kept, best_step, worse = cost, copy.deepcopy(head.state_dict()), made, 0
            elif done >= TRUSTING:
                worse += 1
                if worse >= config.patience:
                    break
    if best_step == 0:
        best, kept, best_step = judged(head, clips, judging, config), head.state_dict(), made
    head.load_state_dict(kept)
    return HeadReport(made, best_step, best, time.monotonic() - started)


@torch.no_grad()
def judged(head: nn.Module, clips: Sequence[FlowClip], flows: Sequence[Tensor], config: FlowConfig) -> float:
    """The mean over clips of what the head's own division costs."""
    costs = [float(flow_cost(head, clip, some, config, trust=1.0)) for clip, some in zip(clips, flows, strict=True)]
    return float(np.mean(costs))


@torch.inference_mode()
def divide(
    network: FlowRegions, image: npt.NDArray[np.uint8], config: FlowConfig, *, clip: str | None = None
) -> npt.NDArray[np.float32]:
    """(2, h, w) shares of background and object; sharpened, on the frame's working size, otherwise on its cells.

    Args:
        network: fitted.
        image: (H, W, 3) uint8 RGB.
        config: the settings.
        clip: key of the head to use; None, the common one.
    """
    small = looked_at(image, config)
    share = cast("Tensor", network.eval()(to_device(small, network.mean), clip))[0].cpu().numpy()
    if config.sharpen:
        share = sharpened(share, small)
    return np.stack([1 - share, share]).astype(np.float32)


SURE = 0.95
"""Of a share over this, or under the rest, the colours are not asked."""

OWN_WEIGHT = 0.5
"""How much a sharpened share keeps of the one it was made from."""


def sharpened(share: npt.NDArray[np.floating], image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Draw the outline of a share to the colours of its frame.

    By graph cut between two mixtures of colours (GrabCut, Rother, Kolmogorov, Blake, SIGGRAPH 2004), begun from the
    share and free only where it is unsure.

    Args:
        share: (h, w) in 0..1, on any grid over the frame.
        image: (H, W, 3) uint8 RGB.

    Returns:
        (H, W) in 0..1; the share itself, enlarged, where there is not enough of both sides to learn colours from.
    """
    height, width = image.shape[:2]
    smooth = cv2.resize(np.asarray(share, np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    state = np.where(smooth > 0.5, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    state[smooth > SURE], state[smooth < 1 - SURE] = cv2.GC_FGD, cv2.GC_BGD
    inside = np.count_nonzero(smooth > 0.5)
    if min(inside, smooth.size - inside) < 32:
        return np.asarray(smooth, np.float32)
    cv2.setRNGSeed(0)  # the mixtures begin from k-means, which draws
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(np.ascontiguousarray(image[..., ::-1]), state, None, *models, 2, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
    cut = (state == cv2.GC_FGD) | (state == cv2.GC_PR_FGD)
    # In 0.5..1 where the cut says object and below elsewhere, so that the score still tells how sure the share was.
    kept = OWN_WEIGHT * smooth + (1 - OWN_WEIGHT) * cut
    return np.asarray(np.where(cut, np.maximum(kept, 0.5 + 1e-3), np.minimum(kept, 0.5 - 1e-3)), np.float32)
