"""How well a flow explains the second of two frames by the first: the only cue of learning from raw video.

The objective of AMD (Liu, Wu, Yu, Lin, The Emergence of Objectness, NeurIPS 2021), whose released code is followed
where the paper is silent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pixelkin.warping import arrivals, warp

C1, C2 = 0.01**2, 0.03**2
"""The constants of SSIM for values in 0..1."""


@dataclass(frozen=True)
class PhotometricConfig:
    """Settings of :func:`photometric_loss`; the defaults are the published ones.

    Attributes:
        scales: weights of the scales, finest first.
        l1: weight of the absolute difference.
        ssim: weight of the structural one.
        window: side of the square that SSIM looks at, in pixels.
        occlusion: whether pixels that the other frame does not show are left out.
        least_arrival: pixels on which less than this lands are such.
        least_shown: a frame of which a smaller share is shown is taken whole. With 0 a flow that leads everything out
            of the frame costs nothing.
    """

    scales: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 0.0)
    l1: float = 0.15
    ssim: float = 0.85
    window: int = 3
    occlusion: bool = True
    least_arrival: float = 0.2
    least_shown: float = 0.0


PUBLISHED = PhotometricConfig()


def photometric_loss(
    first: Tensor,
    second: Tensor,
    forward: Sequence[Tensor],
    backward: Sequence[Tensor],
    config: PhotometricConfig = PUBLISHED,
) -> Tensor:
    """The error of each frame made from the other, summed over the scales, the mean of both directions at each.

    Args:
        first: (B, 3, H, W) in 0..1.
        second: likewise, another frame of the same clip.
        forward: flows on the grid of the first frame that lead into the second, finest first, at least one for each
            scale of a weight that is not 0; each (B, 2, h, w), (dy, dx) in pixels of its own grid.
        backward: the same on the grid of the second frame into the first.
        config: the settings.

    Returns:
        A scalar, 0 where every frame is made without error.

    Raises:
        ValueError: fewer flows than scales.
    """
    used = [(scale, weight) for scale, weight in enumerate(config.scales) if weight]
    if not used or used[-1][0] >= min(len(forward), len(backward)):
        raise ValueError(f"{len(forward)} flows for the scales {config.scales}: give one flow a scale")
    # Which pixels the other frame shows is settled once, where the flow is finest, and teaches nothing itself.
    seen_first, seen_second = (_seen(flow[0], config) for flow in (backward, forward))
    total = first.new_zeros(())
    for scale, weight in used:
        size = forward[scale].shape[-2:]
        a, b = (nn.functional.interpolate(image, size, mode="area") for image in (first, second))
        seen_a, seen_b = (nn.functional.interpolate(seen, size, mode="nearest") for seen in (seen_first, seen_second))
        there = reconstruction_error(a, warp(b, forward[scale]), seen_a, config)
        back = reconstruction_error(b, warp(a, backward[scale]), seen_b, config)
        total = total + weight * (there + back) / 2
    return total


def _seen(flow: Tensor, config: PhotometricConfig) -> Tensor:
    """(B, 1, H, W) 0 or 1: which pixels count of the frame that a flow leads into."""
    whole = torch.ones_like(flow[:, :1])
    if not config.occlusion:
        return whole
    seen = visible(flow, config.least_arrival)
    return torch.where(seen.mean(dim=(1, 2, 3), keepdim=True) < config.least_shown, whole, seen)


def reconstruction_error(image: Tensor, made: Tensor, seen: Tensor, config: PhotometricConfig = PUBLISHED) -> Tensor:
    """Weighted L1 and SSIM error of a made image over what is seen, divided by the share that is seen.

    Args:
        image: (B, C, H, W) in 0..1.
        made: likewise.
        seen: (B, 1, H, W), 0 or 1.
        config: the settings.

    Returns:
        A scalar; 0 where nothing is seen.
    """
    absolute = ((image - made).abs() * seen).mean()
    structural = ssim_distance(made * seen, image * seen, config.window).mean()
    return (config.l1 * absolute + config.ssim * structural) / seen.mean().clamp(min=1e-6)


def ssim_distance(a: Tensor, b: Tensor, window: int = 3) -> Tensor:
    """(1 - SSIM) / 2 of two images in 0..1, channel by channel, with a square window of even weights.

    Args:
        a: (B, C, H, W).
        b: likewise.
        window: side of the square in pixels.

    Returns:
        (B, C, H - window + 1, W - window + 1) in 0..1, 0 where both are the same.
    """

    def mean(values: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(values, window, stride=1)

    mean_a, mean_b = mean(a), mean(b)
    variance_a, variance_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    above = (2 * mean_a * mean_b + C1) * (2 * covariance + C2)
    below = (mean_a**2 + mean_b**2 + C1) * (variance_a + variance_b + C2)
    return ((1 - above / below) / 2).clamp(0, 1)


@torch.no_grad()
def visible(flow: Tensor, least: float = 0.2) -> Tensor:
    """Which pixels of a frame the other frame shows too, as its flow says. No gradient.

    Args:
        flow: (B, 2, H, W), (dy, dx) in pixels, on the grid of the *other* frame, leading into this one.
        least: a pixel on which less lands is not shown.

    Returns:
        (B, 1, H, W), 0 or 1.
    """
    return (arrivals(flow) >= least).to(flow)
