"""Both pathways of AMD together: a pair of frames to regions of each and the segment flow between them."""

from __future__ import annotations

import copy
from typing import NamedTuple, cast

from torch import Tensor, nn

from pixelkin.models.amd_appearance import AppearancePathway, soft_regions
from pixelkin.models.amd_motion import MotionPathway, PairFlow


class PairOutput(NamedTuple):
    """What two frames give.

    Attributes:
        regions: (B, 2, regions, h, w) shares of the first and the second frame.
        flow: the segment flow between the frames as the motion pathway sees them.
        frames: (B, 2, 3, H, W) in 0..1, these frames.
    """

    regions: Tensor
    flow: PairFlow
    frames: Tensor


class AMDNetwork(nn.Module):
    """The appearance pathway, alone in use, and the motion pathway that teaches it.

    Args:
        appearance: one frame to regions.
        motion: two frames and regions to flow.
        motion_size: (height, width) that frames are brought to for the motion pathway, whatever their shape.

    Raises:
        ValueError: a size that does not suit the motion pathway.
    """

    def __init__(self, appearance: AppearancePathway, motion: MotionPathway, motion_size: tuple[int, int]) -> None:
        super().__init__()
        if any(side <= 0 or side % motion.multiple for side in motion_size):
            raise ValueError(f"motion_size {motion_size}: make both sides multiples of {motion.multiple}")
        self.appearance, self.motion, self.motion_size = appearance, motion, motion_size
        self.clips = nn.ModuleDict()

    def add_clip(self, key: str) -> AppearancePathway:
        """A fresh copy of the appearance pathway for one clip; the common one stays as it is."""
        self.clips[key] = copy.deepcopy(self.appearance)
        return self.of_clip(key)

    def of_clip(self, key: str | None) -> AppearancePathway:
        """The appearance pathway of a clip, or the common one for None."""
        return self.appearance if key is None else cast("AppearancePathway", self.clips[key])

    def without_clips(self) -> AMDNetwork:
        """Both common pathways alone, the same weights."""
        return AMDNetwork(self.appearance, self.motion, self.motion_size)

    def forward(self, pair: Tensor) -> PairOutput:
        """(B, 2, 3, H, W) RGB in 0..1; both frames of all pairs go through the appearance pathway as one batch."""
        batch = len(pair)
        flat = pair.flatten(0, 1)
        regions = soft_regions(self.appearance(flat))
        regions = regions.reshape(batch, 2, *regions.shape[1:])
        small = nn.functional.interpolate(flat, self.motion_size, mode="bilinear", align_corners=True)
        frames = small.reshape(batch, 2, *small.shape[1:])
        flow = self.motion(frames[:, 0], frames[:, 1], regions[:, 0], regions[:, 1])
        return PairOutput(regions, flow, frames)
