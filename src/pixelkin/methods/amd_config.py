"""Settings of AMD."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from pixelkin.cues.photometric import PhotometricConfig
from pixelkin.cues.region_choice import Criterion
from pixelkin.methods.amd_flow_config import FlowConfig
from pixelkin.methods.base import MethodConfig
from pixelkin.models.amd_motion import MaskOf
from pixelkin.models.zoo import DEFAULT_BACKBONE
from pixelkin.training.config import TrainingConfig


def _divisible(value: tuple[int, int]) -> tuple[int, int]:
    if any(side < 64 or side % 64 for side in value):
        raise ValueError("both sides are multiples of 64")
    return value


AUTO = "auto"
SMALLEST_RESNET = "test_resnet"


class ClipConfig(MethodConfig):
    """How the published objective goes on with each clip: a copy of both pathways learns from it alone."""

    adapted: int = pydantic.Field(default=0, ge=0)
    """Most steps of a copy for each clip of the fit; 0: none, the common pathway divides all."""
    adapt: bool = False
    """Whether a finished model is adapted to the clips it is to label, each with a copy of its own."""
    adapted_later: int = pydantic.Field(default=100, ge=1)
    """Most steps of a copy for a clip that was not in the fit; published: 100."""
    rate: float = pydantic.Field(default=1e-3, gt=0)
    """Learning rate; published: not said, 1e-4 in training."""
    look_every: int = pydantic.Field(default=20, ge=1)
    """Steps between looks at pairs of frames held out, by which the best weights are kept."""
    patience: int = pydantic.Field(default=3, ge=1)
    """After so many looks without better ones it ends."""


class AMDConfig(MethodConfig):
    """Settings of :class:`~pixelkin.methods.amd.AMD`; what differs from the paper says so.

    By default regions explain optical flow, as in the successors. The sizes are those of a few minutes on a CPU;
    :data:`PUBLISHED` has the published objective with its own.
    """

    objective: Literal["photometric", "flow"] = "flow"
    """What the regions must explain: the other frame, as published, or the optical flow given between them, as in the
    successors; the settings of the latter are those of ``flow``, and of the others here it uses the backbone and those
    of the objects."""
    flow: FlowConfig = FlowConfig()
    """Settings of ``objective=flow``."""
    backbone: str = AUTO
    """Of the appearance pathway: any that ``pixelkin backbones`` or timm knows; a ResNet-50 as published. ``auto``:
    timm's smallest ResNet, and for ``objective=flow`` the default backbone with its weights."""
    pretrained: bool | None = None
    """Whether the backbone starts from its weights; none: not, as published, but for ``objective=flow``."""
    regions: int = pydantic.Field(default=5, ge=2)
    """Into how many a frame is divided; below 4, training was reported as unstable."""
    head_channels: int = pydantic.Field(default=64, ge=1)
    """Width of the head of the appearance pathway; published: 256."""
    motion_size: Annotated[tuple[int, int], pydantic.AfterValidator(_divisible)] = (128, 128)
    """(height, width) that frames have in the motion pathway and the loss; published: 384, 640."""
    levels: int = pydantic.Field(default=5, ge=2, le=6)
    """Of the motion pathway's pyramid; published: 6, whose coarsest cell is 64 pixels wide, half of a small frame."""
    mask_of: MaskOf = "target"
    """Whose regions move on a frame's grid: its own, or, as published, those of the frame that is sampled."""
    normalised: bool = True
    """Whether the motion pathway compares features by their correlation, from layers that keep what they are given
    in scale; published: neither, and tens of thousands of steps."""
    occlusion: bool = True
    """Whether what the other frame does not show is left out of the loss."""
    least_shown: float = pydantic.Field(default=0.5, ge=0, lt=1)
    """A frame of which less than this share is shown by the other one is taken whole, or a flow that leads out of the
    frame everywhere would cost nothing; published: 0."""
    ssim: float = pydantic.Field(default=0.85, ge=0, le=1)
    """Weight of the structural error; the absolute one has the rest."""
    scales: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 0.0)
    """Weights of the loss at each scale, finest first."""
    gap: int = pydantic.Field(default=1, ge=1)
    """The frames of a pair are at most so far apart, at random; published: 1."""
    short_edge: int = pydantic.Field(default=136, ge=32)
    """What the short edge of a frame is brought to; published: 400."""
    jitter: tuple[float, float] = (0.96, 1.0)
    """Least and greatest random factor of it in training; in use it is their mean."""
    crop: int = pydantic.Field(default=128, ge=32)
    """Side of the square that training sees of a pair; published: 384."""
    training: TrainingConfig = TrainingConfig(iterations=300, batch_size=4, learning_rate=1e-3, weight_decay=1e-6)
    """Published: 100,000 steps of 16 pairs, adam, 1e-4."""
    clip: ClipConfig = ClipConfig()
    """Settings of the adaptation to single clips; ``objective=flow`` has its own in ``flow``."""
    region: int | None = pydantic.Field(default=None, ge=0)
    """The region that is the object, from 0; none: what the fit chose."""
    choose_by: Criterion = "both"
    """What the fit goes by: how near to the centre a region is, how well the features set it apart, or both."""
    choose_on: int = pydantic.Field(default=32, ge=1)
    """How many frames it looks at."""
    threshold: float | None = pydantic.Field(default=None, gt=0, lt=1)
    """Least share of the object's region; none: more than every other region. The released code has 0.5."""
    min_area: float = pydantic.Field(default=0.001, ge=0, le=1)
    """Smaller components of the object are dropped; as a share of the image."""

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> AMDConfig:
        if not 0 < self.jitter[0] <= self.jitter[1]:
            raise ValueError("jitter is the least and the greatest factor, above 0")
        if round(self.short_edge * self.jitter[0]) < self.crop:
            raise ValueError(f"crop={self.crop} does not fit into the short edge: lower it or raise short_edge")
        if not any(self.scales) or any(self.scales[self.levels - 1 :]):
            raise ValueError(f"scales={self.scales}: give weights to the first {self.levels - 1} alone, one a level")
        regions = 2 if self.objective == "flow" else self.regions
        if self.region is not None and self.region >= regions:
            raise ValueError(f"region={self.region}, but they are 0 to {regions - 1}")
        return self

    @property
    def backbone_name(self) -> str:
        """The backbone, ``auto`` resolved."""
        if self.backbone != AUTO:
            return self.backbone
        return DEFAULT_BACKBONE if self.objective == "flow" else SMALLEST_RESNET

    @property
    def adapts(self) -> bool:
        """See :class:`MethodConfig`."""
        return self.flow.adapt if self.objective == "flow" else self.clip.adapt

    @property
    def from_weights(self) -> bool:
        """Whether the backbone starts from its weights."""
        return self.objective == "flow" if self.pretrained is None else self.pretrained

    @property
    def photometric(self) -> PhotometricConfig:
        """The settings of the loss."""
        return PhotometricConfig(
            self.scales, l1=1 - self.ssim, ssim=self.ssim, occlusion=self.occlusion, least_shown=self.least_shown
        )


PUBLISHED = AMDConfig(
    objective="photometric",
    backbone="resnet50",
    head_channels=256,
    motion_size=(384, 640),
    levels=6,
    mask_of="source",
    normalised=False,
    least_shown=0.0,
    short_edge=400,
    crop=384,
    training=TrainingConfig(iterations=100_000, batch_size=16, learning_rate=1e-4, weight_decay=1e-6),
)
"""As published, on eight large GPUs; but for the optimiser, whose weight decay is decoupled here."""
