"""Settings of AMD's second objective, which explains a given optical flow."""

from __future__ import annotations

import pydantic

from pixelkin.cues.optical_flow import Estimator
from pixelkin.cues.region_flow import RegionFlowConfig


class FlowConfig(pydantic.BaseModel):
    """How background and object are learned from optical flow (``objective=flow``)."""

    model_config = pydantic.ConfigDict(strict=True, extra="forbid", frozen=True)

    estimator: Estimator = "dis"
    """Where the flow comes from: OpenCV's DIS, or a RAFT of torchvision, whose weights it downloads once."""
    long_side: int = pydantic.Field(default=384, ge=32)
    """What the long side of a larger frame is brought to."""
    stride: int = pydantic.Field(default=8, ge=4)
    """Pixels of such a frame per cell of the division."""
    gaps: tuple[int, ...] = (1, 2)
    """So many frames apart, before and after, flow is estimated to."""
    frames: int = pydantic.Field(default=100, ge=1)
    """Of a longer clip so many frames teach, evenly spread; the others are only divided."""
    components: int = pydantic.Field(default=48, ge=1)
    """Channels that the head sees of the backbone's."""
    hidden: int = pydantic.Field(default=32, ge=1)
    """Width of the head."""
    camera_order: int = pydantic.Field(default=2, ge=0, le=2)
    """Of the background's motion: 0 a shift, 1 affine, 2 quadratic."""
    object_order: int = pydantic.Field(default=1, ge=0, le=2)
    """Of the object's."""
    noise_floor: float = pydantic.Field(default=0.1, gt=0)
    """Least noise that the flow is taken to have, in pixels of the frame as it is looked at."""
    bound: float = pydantic.Field(default=0.0, ge=0)
    """The residual that a region is forgiven at every pixel, in units of the noise."""
    spread: float = pydantic.Field(default=0.5, gt=0)
    """How far from the centre the flow alone looks for an object at first; the frame's edges are 1 away."""
    temperature: float = pydantic.Field(default=0.25, gt=0)
    """Of the mixture of both regions: the lower, the more a pixel takes the side that explains it."""
    area: float = pydantic.Field(default=0.03, ge=0)
    """What a pixel costs for being the object's, where 1 is that of one not explained at all."""
    border: float = pydantic.Field(default=0.5, ge=0)
    """What one costs besides at the frame's border."""
    batch: int = pydantic.Field(default=8, ge=1)
    """Flows of one clip a step."""
    rate: float = pydantic.Field(default=2e-2, gt=0)
    """Learning rate of the head, at its highest."""
    decay: float = pydantic.Field(default=1e-2, ge=0)
    """Its decoupled weight decay."""
    common: int = pydantic.Field(default=300, ge=0)
    """Least steps of the head for all clips, and so for stills."""
    a_clip: int = pydantic.Field(default=75, ge=0)
    """Of which so many for each clip, where they are more."""
    adapted: int = pydantic.Field(default=0, ge=0)
    """Most steps of a copy for each clip in the fit; 0: none, the common head divides all. Clips of the fit are better
    off without: alone they teach a head more of what is only their own, such as a near bush that the camera passes."""
    adapt: bool = False
    """Whether a finished model is adapted to the clips it is to label, each with a copy of the head of its own."""
    adapted_later: int = pydantic.Field(default=150, ge=1)
    """Most steps of a copy for a clip that was not in the fit."""
    look_every: int = pydantic.Field(default=20, ge=1)
    """Steps between looks at the flow of frames held out, by which the best weights are kept."""
    patience: int = pydantic.Field(default=3, ge=1)
    """After so many looks without a better one the training ends."""
    sharpen: bool = True
    """Whether the outline is drawn to the colours of the frame."""

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> FlowConfig:
        if not self.gaps or any(gap < 1 for gap in self.gaps) or len(set(self.gaps)) < len(self.gaps):
            raise ValueError("gaps are different numbers of frames, each at least 1")
        if self.stride % 4:
            raise ValueError(f"stride={self.stride}: give a multiple of 4")
        return self

    @property
    def regions(self) -> RegionFlowConfig:
        """The settings of the motions."""
        return RegionFlowConfig(
            camera_order=self.camera_order,
            object_order=self.object_order,
            noise_floor=self.noise_floor,
            bound=self.bound,
            spread=self.spread,
        )
