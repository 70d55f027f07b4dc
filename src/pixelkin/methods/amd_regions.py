"""What AMD's network says of frames: regions, the motion between two, and which region is the object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pixelkin.cues.photometric import photometric_loss
from pixelkin.cues.region_choice import RegionChoice, choose_region, region_scores
from pixelkin.data import Dataset, ImageError, Instances, Sample
from pixelkin.data.components import class_components
from pixelkin.methods.amd_config import AMDConfig
from pixelkin.methods.amd_examples import resized
from pixelkin.models.amd import AMDNetwork, PairOutput
from pixelkin.models.amd_appearance import AppearancePathway, soft_regions
from pixelkin.models.amd_motion import WIDTHS, MotionPathway, compose
from pixelkin.models.multi_scale import to_device

Array = npt.NDArray[np.float32]


def build_network(config: AMDConfig, *, pretrained: bool) -> AMDNetwork:
    """The untrained network; random weights come from torch's global generator."""
    appearance = AppearancePathway(
        config.backbone_name,
        regions=config.regions,
        head_channels=config.head_channels,
        pretrained=pretrained,
        own_dilations=config.from_weights,
    )
    motion = MotionPathway(WIDTHS[: config.levels], mask_of=config.mask_of, normalised=config.normalised)
    return AMDNetwork(appearance, motion, config.motion_size)


class PairLoss:
    """The objective of a batch of :class:`~pixelkin.methods.amd_examples.PairExamples`."""

    def __init__(self, config: AMDConfig) -> None:
        self.settings = config.photometric

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``loss``, and for the log ``entropy``, of the regions in nats."""
        out = cast("PairOutput", model(batch["pair"].float() / 255))
        first, second = out.frames.unbind(dim=1)
        shares = out.regions.detach()
        return {
            "loss": photometric_loss(first, second, out.flow.forward.flows, out.flow.backward.flows, self.settings),
            "entropy": -(shares * shares.clamp(min=1e-9).log()).sum(dim=2).mean(),
        }


@torch.inference_mode()
def look(
    network: AMDNetwork, image: npt.NDArray[np.uint8], config: AMDConfig, *, clip: str | None = None
) -> tuple[Array, Array]:
    """Regions and features of a whole image, on one grid that covers it.

    Args:
        network: in eval mode.
        image: (H, W, 3) uint8 RGB.
        config: how large it is looked at.
        clip: key of the clip whose appearance pathway looks; None, the common one.

    Returns:
        (regions, h, w) shares and (C, h, w) features.
    """
    logits, features = network.of_clip(clip).eval().look(_pixels(network, image, config))
    return soft_regions(logits)[0].cpu().numpy(), features[0].cpu().numpy()


@torch.inference_mode()
def segment_flow(
    network: AMDNetwork, image: npt.NDArray[np.uint8], following: npt.NDArray[np.uint8], config: AMDConfig
) -> Array:
    """The segment flow from an image to the next one of its clip, (2, h, w), (dy, dx) in cells of the regions' grid."""
    pair = torch.cat([_pixels(network, each, config) for each in (image, following)])
    out: PairOutput = network.eval()(pair[None])
    shares = out.regions[:, 0]
    ratio = [cells / side for cells, side in zip(shares.shape[-2:], config.motion_size, strict=True)]
    vectors = out.flow.forward.vectors * torch.tensor(ratio, device=shares.device)
    return np.asarray(compose(vectors, shares)[0].cpu().numpy(), np.float32)


def _pixels(network: AMDNetwork, image: npt.NDArray[np.uint8], config: AMDConfig) -> Tensor:
    """(1, 3, h, w) in 0..1: sides are multiples of the stride, so that the cells cover the image exactly."""
    step = network.appearance.stride
    scale = config.short_edge * sum(config.jitter) / 2 / min(image.shape[:2])
    height, width = (max(1, round(side * scale / step)) * step for side in image.shape[:2])
    return to_device(resized(image, (height, width)), next(network.parameters()))


def choose(network: AMDNetwork, dataset: Dataset, config: AMDConfig) -> RegionChoice:
    """Which region is the object, as frames from all over the dataset say. See :func:`choose_region`."""
    picked = np.unique(np.linspace(0, len(dataset) - 1, min(config.choose_on, len(dataset))).round().astype(int))
    frames = [region_scores(*look(network, dataset[int(index)].image, config)) for index in picked]
    return choose_region(frames, by=config.choose_by)


def objects_of(shares: Array, sample: Sample, region: int, config: AMDConfig, *, label: int = 1) -> Instances:
    """Connected components of the object's region; the score is the mean share of the region in it.

    Args:
        shares: (regions, h, w) on a grid that covers the image.
        sample: the image.
        region: the object's.
        config: threshold and least area.
        label: class id of every object.

    Raises:
        ImageError: a region that is not there.
    """
    if not 0 <= region < len(shares):
        raise ImageError(f"{sample.name}: region {region} of {len(shares)}: set region to 0 to {len(shares) - 1}")
    height, width = sample.size
    full = np.stack([cv2.resize(each, (width, height), interpolation=cv2.INTER_LINEAR) for each in shares])
    inside = full.argmax(axis=0) == region if config.threshold is None else full[region] >= config.threshold
    parts = class_components(inside.astype(np.uint8)).labels
    area = np.bincount(parts.ravel())
    kept = np.flatnonzero(area >= max(1.0, config.min_area * height * width))
    kept = kept[kept > 0]
    renumber = np.zeros(len(area), np.int32)
    renumber[kept] = np.arange(1, len(kept) + 1)
    score = np.bincount(parts.ravel(), full[region].ravel()) / np.maximum(area, 1)
    return Instances.from_label_map(
        renumber[parts], labels=[label] * len(kept), scores=score[kept], sources=["amd:clip"] * len(kept)
    )
