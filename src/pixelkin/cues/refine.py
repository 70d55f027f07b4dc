"""Labels moved to the colour edges of their image: by local colour affinity, or by a dense CRF.

Both are called ``refine(labels, image, classes)``, with one labelling or several of one image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

DILATIONS = (1, 2, 4, 8, 12, 24)
"""Steps to the eight neighbours that a pixel looks at, in pixels."""

COLOUR_WIDTH = 0.3
"""Neighbours differ where their colours do by this share of the spread around them, and lie far likewise."""

POSITION_SHARE = 0.01
"""Weight of the nearness of neighbours over that of their colours."""

CERTAINTY = 0.7
"""How far the CRF trusts a label, as published. The local affinity needs none: averaging keeps whatever it is."""


def pixel_affinity(
    labels: npt.NDArray[Any],
    image: npt.NDArray[np.uint8],
    classes: int,
    *,
    iterations: int = 20,
    dilations: Sequence[int] = DILATIONS,
    max_pixels: int = 50_000,
) -> npt.NDArray[np.int64]:
    """Refine labels by repeated averaging over neighbours of like colour.

    A pixel looks at its eight neighbours at each of several distances. Their weights are the softmax of minus the
    squared colour difference, in units of the spread of the colours there, so that a faint edge in a smooth region
    counts as much as a strong one in a busy region (pixel-adaptive refinement: Araslanov and Roth, CVPR 2020, arXiv
    2005.08104; with the position term: Ru et al., CVPR 2022, arXiv 2203.02664). Beyond the image its edge goes on.

    Args:
        labels: (H, W) or (N, H, W), 0..classes - 1.
        image: (H, W, 3) RGB.
        classes: labels there are, the background included.
        iterations: how often; each reaches as far as the largest dilation.
        dilations: distances of the neighbours, in pixels.
        max_pixels: larger images are refined at this size, and the shares of the labels are interpolated. Labels from
            class activation are off by far more than the pixels this costs; a pixel then reaches further and the time
            is the same for all images.

    Returns:
        Refined labels of the same shape.

    Raises:
        ValueError: labels of another size than the image, or not in 0..classes - 1.
    """
    stack = _stack(labels, image, classes)
    _, height, width = stack.shape
    chosen = torch.from_numpy(stack)
    scale = math.sqrt(max_pixels / max(height * width, 1))
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float() / 255
    small = (max(1, int(height * scale)), max(1, int(width * scale))) if scale < 1 else (height, width)
    if scale < 1:
        pixels = nn.functional.interpolate(pixels[None], small, mode="bilinear", antialias=True)[0]
        chosen = nn.functional.interpolate(chosen[:, None].float(), small, mode="nearest-exact")[:, 0].long()
    present = [label for label in range(1, classes) if bool((chosen == label).any())]
    if not present or not iterations:
        return stack.reshape(labels.shape)
    weights = _weights(pixels, dilations)
    # The background is what the others leave, as the weights of a pixel sum to 1.
    shares = torch.stack([chosen == label for label in present], dim=1).flatten(0, 1).float()
    for _ in range(iterations):
        shares = _average(shares, weights, dilations)
    shares = shares.reshape(len(stack), len(present), *small)
    if scale < 1:
        shares = nn.functional.interpolate(shares, (height, width), mode="bilinear")
    best = torch.cat([1 - shares.sum(1, keepdim=True), shares], dim=1).argmax(1)
    return np.asarray(np.array([0, *present], dtype=np.int64)[best.numpy()].reshape(labels.shape))


def dense_crf(labels: npt.NDArray[Any], image: npt.NDArray[np.uint8], classes: int) -> npt.NDArray[np.int64]:
    """Refine labels with a fully connected CRF, with IRNet's parameters (arXiv 1904.05044, its code).

    Args:
        labels: (H, W) or (N, H, W), 0..classes - 1.
        image: (H, W, 3) RGB.
        classes: labels there are, the background included.

    Returns:
        Refined labels of the same shape.

    Raises:
        ImportError: pydensecrf is not installed; one line with the mend.
        ValueError: labels of another size than the image, or not in 0..classes - 1.
    """
    try:
        from pydensecrf.densecrf import DenseCRF2D
        from pydensecrf.utils import unary_from_labels
    except ImportError as error:
        raise ImportError(
            "the dense CRF needs pydensecrf: pip install 'pixelkin[crf]', or use the local affinity"
        ) from error
    stack = _stack(labels, image, classes)
    out = np.zeros_like(stack)
    if classes > 1:
        colours = np.array(image, dtype=np.uint8, order="C")
        for one, refined in zip(stack, out, strict=True):
            crf = DenseCRF2D(image.shape[1], image.shape[0], classes)
            crf.setUnaryEnergy(unary_from_labels(one, classes, gt_prob=CERTAINTY, zero_unsure=False))
            crf.addPairwiseGaussian(sxy=3, compat=3)
            crf.addPairwiseBilateral(sxy=50, srgb=5, rgbim=colours, compat=10)
            refined[:] = np.argmax(crf.inference(10), axis=0).reshape(one.shape)
    return np.asarray(out.reshape(labels.shape))


def _stack(labels: npt.NDArray[Any], image: npt.NDArray[np.uint8], classes: int) -> npt.NDArray[np.int64]:
    """(N, H, W) labels, checked."""
    if labels.ndim not in (2, 3) or labels.shape[-2:] != image.shape[:2]:
        raise ValueError(f"labels are {labels.shape}, the image {image.shape[:2]}: give both the same size")
    stack = np.ascontiguousarray(labels, dtype=np.int64).reshape(-1, *image.shape[:2])
    if stack.size and not 0 <= stack.min() <= stack.max() < classes:
        raise ValueError(f"labels are {stack.min()}..{stack.max()}, not 0..{classes - 1}: number them so")
    return stack


def _neighbours(padded: Tensor, dilations: Sequence[int]) -> Iterator[tuple[float, Tensor]]:
    """Distance and shifted view of each neighbour, of maps that were padded by the largest dilation."""
    reach = max(dilations)
    height, width = padded.shape[-2] - 2 * reach, padded.shape[-1] - 2 * reach
    for d in dilations:
        for dy in (-d, 0, d):
            for dx in (-d, 0, d):
                if dy or dx:
                    rows, columns = slice(reach + dy, reach + dy + height), slice(reach + dx, reach + dx + width)
                    yield math.hypot(dy, dx), padded[..., rows, columns]


def _pad(maps: Tensor, dilations: Sequence[int]) -> Tensor:
    return nn.functional.pad(maps[None], [max(dilations)] * 4, mode="replicate")[0]


def _weights(pixels: Tensor, dilations: Sequence[int]) -> Tensor:
    """(neighbours, H, W) weights that sum to 1, of a (3, H, W) image in 0..1."""
    padded = _pad(pixels, dilations)
    total, squares = torch.zeros_like(pixels), torch.zeros_like(pixels)
    distances = []
    for distance, shifted in _neighbours(padded, dilations):
        total += shifted
        squares.addcmul_(shifted, shifted)
        distances.append(distance)
    count = len(distances)
    variance = (squares / count - (total / count) ** 2).clamp_(min=1e-8)
    inverse = 1 / (variance.sqrt() * COLOUR_WIDTH * math.sqrt(3))  # the root of 3: a mean over the colours
    weights = torch.zeros(count, *pixels.shape[1:])
    for colour, plane, width in zip(pixels, padded, inverse, strict=True):  # one by one: flat loops are much faster
        for weight, (_, shifted) in zip(weights, _neighbours(plane, dilations), strict=True):
            difference = (shifted - colour).mul_(width)
            weight.addcmul_(difference, difference, value=-1)
    weights = torch.softmax(weights, dim=0)
    far = torch.tensor(distances)
    near = torch.softmax(-((far / far.std().clamp(min=1e-8) / COLOUR_WIDTH) ** 2), dim=0)
    return weights.add_(near[:, None, None], alpha=POSITION_SHARE).div_(1 + POSITION_SHARE)


def _average(shares: Tensor, weights: Tensor, dilations: Sequence[int]) -> Tensor:
    """Each pixel's (C, H, W) shares as the weighted mean of its neighbours'."""
    out = torch.zeros_like(shares)
    for share, plane in zip(out, _pad(shares, dilations), strict=True):  # one by one: flat loops are much faster
        for weight, (_, shifted) in zip(weights, _neighbours(plane, dilations), strict=True):
            share.addcmul_(weight, shifted)
    return out
