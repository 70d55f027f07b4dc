"""How well a division of a frame into background and object explains the optical flow it was given.

What successors of AMD have in common: Guess What Moves (Choudhury, Karazija, Laina, Vedaldi, Rupprecht, BMVC 2022) and
the expectation maximisation of Meunier, Badoual and Bouthemy (TPAMI 2023) give each region one affine or quadratic
motion in closed form; RCF (Lian, Wu, Yu, CVPR 2023) forgives each region a bounded residual. What is our own: the error
of a pixel counts as the share of it that either region would have, so that slow frames teach as much as fast ones; and
the object's motion is first sought in the flow alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class RegionFlowConfig:
    """Settings of :func:`explain` and what it needs.

    Attributes:
        camera_order: of the background's motion: 0 a shift, 1 affine, 2 quadratic, which a turning camera is nearly.
        object_order: of the object's.
        noise_floor: least noise that a flow is taken to have, pixels of the grid's frame.
        bound: the residual that a region is forgiven at every pixel, in units of the noise.
        tolerance: errors of so many times the noise decide half as much as larger ones.
        give: how far the parts of an object may move differently and still be sought as one: as a share of the square
            of how differently from the background it moves.
        spread: of the object that is sought in the flow alone, around the frame's centre, where the frame's edges are 1
            away.
        ridge: of the closed form, as a share of a region's weight.
    """

    camera_order: int = 2
    object_order: int = 1
    noise_floor: float = 0.1
    bound: float = 0.0
    tolerance: float = 2.0
    give: float = 0.1
    spread: float = 0.5
    ridge: float = 1e-4


DEFAULT = RegionFlowConfig()

ANCHOR = 0.05
"""What pixels that follow the camera weigh at least in the background's motion, whosever they are said to be: otherwise
background and object could change their roles."""


class CameraFit(NamedTuple):
    """The motion that most of a frame follows, robustly.

    Attributes:
        motion: (B, terms, 2), see :func:`fit_motion`.
        error: (B, h, w), how far each pixel's flow is from it.
        noise: (B,), the median of it.
        weight: (B, h, w), 1 for pixels that follow it, near 0 for those that do not.
    """

    motion: Tensor
    error: Tensor
    noise: Tensor
    weight: Tensor


class Explained(NamedTuple):
    """What a division makes of a flow.

    Attributes:
        cost: (B,), the share of the flow that is not explained, 0 to 1.
        flow: (B, 2, h, w), as both regions' motions have it.
        background: (B, h, w), squared error were all background.
        object: (B, h, w), squared error were all object.
    """

    cost: Tensor
    flow: Tensor
    background: Tensor
    object: Tensor


def motion_basis(size: tuple[int, int], order: int, *, like: Tensor | None = None) -> Tensor:
    """The terms of a motion that is a polynomial of the place.

    Args:
        size: (h, w) of the grid.
        order: 0 to 2.
        like: a tensor of the type and device wanted.

    Returns:
        (1, 3 or 6, h, w): 1, y, x, y², yx, x², where y and x are -1 and 1 at the centres of the outermost cells.

    Raises:
        ValueError: another order.
    """
    if order not in (0, 1, 2):
        raise ValueError(f"a motion of order {order}: give 0 (shift), 1 (affine) or 2 (quadratic)")
    line = [torch.linspace(-1, 1, n) if n > 1 else torch.zeros(1) for n in size]
    if like is not None:
        line = [each.to(like) for each in line]
    y, x = torch.meshgrid(*line, indexing="ij")
    terms = [torch.ones_like(y), y, x, y * y, y * x, x * x]
    return torch.stack(terms[: (1, 3, 6)[order]])


def fit_motion(flow: Tensor, weight: Tensor, basis: Tensor, *, ridge: float = 1e-4) -> Tensor:
    """The motion nearest to a flow in the least squares, in closed form; differentiable in both.

    Args:
        flow: (B, 2, h, w).
        weight: (B, h, w) of each pixel, at least 0.
        basis: (terms, h, w) of :func:`motion_basis`.
        ridge: keeps the terms small where pixels are few or in a row, as a share of their weight.

    Returns:
        (B, terms, 2), zero where nothing has weight.
    """
    terms = basis.flatten(1)
    weighted = terms * weight.flatten(1)[:, None]
    # Sums of many pixels: in single precision a quadratic would lose half of its digits in the solution.
    normal = (weighted @ terms.T).double()
    right = (weighted @ flow.flatten(2).transpose(1, 2)).double()
    amount = weight.flatten(1).sum(dim=1).double()[:, None, None]
    eye = torch.eye(len(terms), dtype=torch.float64, device=flow.device)
    motion: Tensor = torch.linalg.solve(normal + (ridge * amount + 1e-8) * eye, right)
    return motion.to(flow.dtype)


def motion_flow(motion: Tensor, basis: Tensor) -> Tensor:
    """(B, terms, 2) motions to their (B, 2, h, w) flow."""
    return torch.einsum("bpc,phw->bchw", motion, basis)


@torch.no_grad()
def camera_fit(flow: Tensor, config: RegionFlowConfig = DEFAULT, *, rounds: int = 10) -> CameraFit:
    """The motion of the camera: what most of a frame follows, whatever the rest does. No labels, no regions.

    Iterated least squares; pixels off by more than the usual count less and less (Geman and McClure's function).
    """
    basis = motion_basis((flow.shape[-2], flow.shape[-1]), config.camera_order, like=flow)
    weight = torch.ones_like(flow[:, 0])
    for _ in range(max(rounds, 1)):
        motion = fit_motion(flow, weight, basis, ridge=config.ridge)
        error = (flow - motion_flow(motion, basis)).square().sum(dim=1).sqrt()
        noise = error.flatten(1).median(dim=1).values.clamp(min=config.noise_floor)
        weight = (1 + (error / (1.5 * noise[:, None, None])).square()) ** -2
    return CameraFit(motion, error, noise, weight)


@torch.no_grad()
def first_guess(flow: Tensor, camera: CameraFit, config: RegionFlowConfig = DEFAULT, *, rounds: int = 6) -> Tensor:
    """Where the flow alone would look for an object: what leaves the camera's motion, moves as one, and is not far out.

    Returns:
        (B, h, w) weights in 0..1.
    """
    height, width = flow.shape[-2:]
    basis = motion_basis((height, width), config.object_order, like=flow)
    place = motion_basis((height, width), 1, like=flow)[1:]
    central = torch.exp(-place.square().sum(dim=0) / (2 * config.spread**2))
    usual = camera.noise[:, None, None]
    leaves = camera.error.square() / (camera.error.square() + (3 * usual).square()) * central
    together = torch.ones_like(leaves)
    for _ in range(max(rounds, 1)):
        motion = fit_motion(flow, leaves * together, basis, ridge=config.ridge)
        error = (flow - motion_flow(motion, basis)).square().sum(dim=1).sqrt()
        mean = (error * leaves).sum(dim=(1, 2)) / leaves.sum(dim=(1, 2)).clamp(min=1e-9)
        scale = torch.maximum(0.7 * mean, 2 * camera.noise)[:, None, None]
        together = (1 + (error / scale).square()) ** -2
    return leaves * together


def explain(
    flow: Tensor,
    share: Tensor,
    camera: CameraFit,
    config: RegionFlowConfig = DEFAULT,
    *,
    guess: Tensor | None = None,
    trust: float = 1.0,
) -> Explained:
    """The flow that a division into background and object gives, and what of the given one it leaves unexplained.

    Each region has one motion beside the camera's, fitted to its pixels in closed form, through which the gradient
    passes. With e the
    squared error that a pixel would have in a region, beyond the bounded residual, its cost there is e over the sum of
    both and of the noise, which teaches nothing itself. So 0.5 is what a pixel costs that neither explains, wherever it
    is counted, and a pixel that one region explains and the other does not costs 0 there and 1 here, however slow.

    Args:
        flow: (B, 2, h, w), given.
        share: (B, h, w), how far each pixel is the object's, 0 to 1.
        camera: of the same flow; its weights keep what the background's motion must not follow out of it.
        config: the settings.
        guess: (B, h, w), where the object's motion is looked for as long as the division is not to be trusted.
        trust: 0: the object's motion comes from the guess; 1: from the division.
    """
    size = (flow.shape[-2], flow.shape[-1])
    still, moved = (motion_basis(size, order, like=flow) for order in (config.camera_order, config.object_order))
    common = motion_flow(camera.motion, still)
    noise = camera.noise[:, None, None]
    tolerance = (config.tolerance * noise).square()

    def error(weight: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
        # Apart from the camera's motion: a region of few pixels is drawn to that and not to rest.
        made = common + motion_flow(fit_motion(flow - common, weight, basis, ridge=config.ridge), basis)
        squared = (flow - made).square().sum(dim=1)
        if not config.bound:
            return made, squared
        return made, ((squared + 1e-12).sqrt() - config.bound * noise).clamp(min=0).square()

    behind, e0 = error((1 - (1 - ANCHOR) * share) * camera.weight, still)
    look = share if guess is None else (1 - trust) * guess + trust * share
    _, first = error(look, moved)
    with torch.no_grad():
        area = look.sum(dim=(1, 2)).clamp(min=1e-9)
        differs = (e0 * look).sum(dim=(1, 2)) / area
        robust = (1 + first / (tolerance + config.give * differs[:, None, None])) ** -2
    before, e1 = error(look * robust, moved)
    total = (e0 + e1).detach() + tolerance
    cost = ((1 - share) * e0 + share * e1) / total
    made = (1 - share)[:, None] * behind + share[:, None] * before
    return Explained(cost.mean(dim=(1, 2)), made, e0, e1)
