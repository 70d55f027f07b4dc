"""Settings of BESTIE."""

from __future__ import annotations

from typing import Literal

import pydantic

from pixelkin.methods.base import MethodConfig
from pixelkin.methods.irnet_config import IRNetConfig
from pixelkin.methods.windows import LongSide, Scales
from pixelkin.training.config import TrainingConfig

Refining = Literal["online", "teacher", "false"]


class PeakConfig(MethodConfig):
    """Settings of the peak classifier, which makes points of tags."""

    alpha: float = pydantic.Field(default=0.7, ge=0, le=1)
    """Share of a channel's largest value from which peak attention lets pass; tune it by eye on other data than VOC."""
    layers: int = pydantic.Field(default=0, ge=0)
    """Convolutions with peak attention; published: 3. With none, classes that ImageNet knows start from its rows."""
    output_stride: int | None = 16
    """Of the backbone's last map; published: 8. None: its own."""
    imagenet_seed: bool = True
    """Start the classes that ImageNet knows by name from its rows, where there are no layers."""
    head_rate: float = pydantic.Field(default=10.0, gt=0)
    """Learning rate of the head over the backbone's."""
    crop: int = pydantic.Field(default=256, ge=32, multiple_of=32)
    """Side of a training crop; published: 321."""
    long_side: LongSide = (256, 448)
    """Least and greatest random length of a training image's long side; published: 384 on both sides."""
    epochs: float = pydantic.Field(default=3.0, ge=0)
    """Passes over the images, at least ``training.iterations`` steps; published: 15."""
    training: TrainingConfig = TrainingConfig(iterations=100, batch_size=16, learning_rate=3e-4, warmup=10)
    side: int = pydantic.Field(default=320, ge=32)
    """Images are shown as squares of about this side to find their peaks, as published."""
    flip: bool = True
    """Whether the mirror image is looked at too."""
    smoothing: int = pydantic.Field(default=3, ge=1)
    """Side of the mean filter before peaks are sought, odd, in pixels."""
    kernel: int = pydantic.Field(default=15, ge=3)
    """Side of the window in which a peak is the largest, odd, in pixels."""
    top: int = pydantic.Field(default=25, ge=1)
    """At most so many peaks a class."""
    threshold: float = pydantic.Field(default=0.7, ge=0, lt=1)
    """Confidence above which a peak counts as an object."""
    max_pixels: int = pydantic.Field(default=1_000_000, ge=1024)
    """Peaks of larger images are sought on a coarser grid."""

    @pydantic.field_validator("smoothing", "kernel")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("give an odd number of pixels")
        return value


class CenterConfig(MethodConfig):
    """Settings of the network of centres and offsets, and of what it is taught. Lengths are in image pixels."""

    widths: tuple[int, ...] = (96, 64, 48)
    """Channels of the decoder, from coarse to fine."""
    head_width: int = pydantic.Field(default=128, ge=8)
    """Channels inside a head; published: 256."""
    reach: float = pydantic.Field(default=32.0, gt=0)
    """Pixels that an output of 1 stands for in the offset head; published: 1. More makes short trainings reach far."""
    output_stride: int | None = None
    """Of the backbone's coarsest map; none: its own."""
    imagenet_seed: bool = True
    """Semantics start from what the backbone's ImageNet head knows of the classes by name; published: no."""
    head_rate: float = pydantic.Field(default=30.0, gt=0)
    """Learning rate of decoder and heads over the backbone's; published: 1."""
    crop: int = pydantic.Field(default=256, ge=32, multiple_of=32)
    """Side of a training crop; published: 416."""
    long_side: LongSide = (256, 448)
    """Least and greatest random length of a training image's long side; published: 314 to 584."""
    jitter: float = pydantic.Field(default=0.3, ge=0, lt=1)
    """Most that brightness, contrast and saturation change in a training image; the teacher sees it unchanged."""
    transfer: Literal["image", "crop"] = "image"
    """Where a component must hold one point: in the whole image, or in the crop, as published, where points that were
    cut off cost certificates and make wrong ones."""
    divide: bool = True
    """Components with several points of the user's are divided by paths from them, and teach as certified ones do;
    published: they teach nothing."""
    min_area: int = pydantic.Field(default=50, ge=0)
    """Smaller components teach no instance."""
    sigma: float = pydantic.Field(default=6.0, gt=0)
    """Of the Gaussian at a centre."""
    relative_sigma: float | None = pydantic.Field(default=0.15, gt=0)
    """Sigma over the square root of an instance's area, within a third and four times of ``sigma``; published: none.
    On photos nothing is learned of spots of 6 pixels in 200 steps, while of such the error falls by a third."""
    center: Literal["centroid", "point"] = "centroid"
    """Where the centre of a certified instance is: the middle of its mask, as published, or its point."""
    disc: float = pydantic.Field(default=8.0, ge=0)
    """Points that certify nothing still teach the centre heat within so many pixels; published: 0."""
    hardest: float = pydantic.Field(default=1.0, gt=0, le=1)
    """Share of the pixels, the hardest, that the semantic loss is the mean of; published: 0.2, with which a new network
    has learned nothing after 200 steps."""
    semantic_weight: float = pydantic.Field(default=1.0, ge=0)
    center_weight: float = pydantic.Field(default=3.0, ge=0)
    offset_weight: float = pydantic.Field(default=0.05, ge=0)
    """Of the three losses; published: 1, 200 and 0.01, with which the centres drown the rest in short trainings."""
    crowding: float = pydantic.Field(default=0.0, ge=0, le=1)
    """Share of the examples in which a certified object of another image is pressed against one of its class."""
    refine_threshold: float = pydantic.Field(default=0.3, ge=0)
    """Least heat of a centre that self-refinement believes."""
    most: int = pydantic.Field(default=5, ge=1)
    """A component that self-refinement divides into more teaches nothing."""
    teacher_decay: float = pydantic.Field(default=0.99, ge=0, lt=1)
    """Weight of the past in a step of the teacher, reached gradually."""
    epochs: float = pydantic.Field(default=10.0, ge=0)
    """Passes over the images, at least ``training.iterations`` steps; published: 76."""
    training: TrainingConfig = TrainingConfig(
        iterations=400, batch_size=4, learning_rate=1e-4, warmup=40, clip_norm=10.0
    )
    """Published: 50,000 steps of 16, adam, 5e-5."""


class BESTIEConfig(MethodConfig):
    """Settings of :class:`~pixelkin.methods.bestie.BESTIE`; what differs from the paper says so."""

    backbone: str = "efficientnet_lite0"
    """Any backbone that ``pixelkin backbones`` or timm knows, for every network; HRNet-W48 as published."""
    peaks: PeakConfig = PeakConfig()
    """What makes points of tags."""
    irnet: IRNetConfig = IRNetConfig()
    """What makes semantic maps where none are given; its backbone is the one above."""
    fields: CenterConfig = CenterConfig()
    guidance: bool = True
    """Instance-aware guidance: what is not certified teaches nothing. Off, for comparison: it is background."""
    refinement: Refining = "online"
    """Second labels of every step, made by the network itself, as published (``online``), or by the running average of
    its weights, which sees the image without jitter (``teacher``); ``false``: none."""
    kernel: int = pydantic.Field(default=41, ge=3)
    """Width of the window in which a centre has the largest heat of its component, in pixels."""
    relative_kernel: float | None = pydantic.Field(default=0.25, gt=0)
    """The window reaches so many times the square root of the component's area to each side, at most twice as far as
    ``kernel`` would; published: none, with which small objects close together are one."""
    shown: Literal["training", "image"] = "training"
    """The size at which the network sees an image to be labelled: as large as the mean image of its training, whatever
    the camera; or as it is."""
    scales: Scales = (1.0,)
    """Of that, for the fields."""
    flip: bool = True
    """Whether the mirror image is looked at too, for twice the time."""
    threshold: float = pydantic.Field(default=0.15, ge=0)
    """Least heat of a centre in labelling, just above the mean heat of an object, which a network says that knows
    nothing else; published: 0.1, of narrower spots."""
    prominence: float = pydantic.Field(default=0.2, ge=0, lt=1)
    """Of two centres in a component, the lower one counts only where the heat between them falls by this share of it;
    published: 0, with which a network that has learned little divides at random."""
    min_area: int = pydantic.Field(default=16, ge=0)
    """Smaller components are left out, in pixels, unless a point lies in them; published: 50."""
    leftover: Literal["whole", "drop"] = "whole"
    """A component without any centre is one instance, or none."""
    mend: bool = True
    """A component without a point of its class, but with points of others, takes theirs; published: off."""
    division: Literal["paths", "votes"] = "paths"
    """How given points divide: each pixel goes to the point of the shortest path, which shuns edges of the image and
    jumps of the offsets; or to that nearest to where its offset leads, as published."""
    edge_cost: float = pydantic.Field(default=30.0, ge=0)
    """Pixels that a path walks around to save crossing the strongest edge."""
    vote_cost: float = pydantic.Field(default=1.0, ge=0)
    """Pixels that a path walks around to save a jump of the offsets by one."""
    snap: float = pydantic.Field(default=0.05, ge=0)
    """A point beside its object, as the middle of a box may be, belongs to the nearest component of its class within
    this share of the image's long side."""
    scope: Literal["component", "class"] = "component"
    """With ``votes``: what given points divide, the component they lie in, or all of their class, as published."""
    score: Literal["size", "heat"] = "size"
    """``heat``: of an instance, the heat at its centre, 1 at points, times the mean probability of its class, as
    published; ``size``: lower for small ones, which are wrong more often, and without the probability where the map
    was given."""
    background_weight: float = pydantic.Field(default=1.0, gt=0)
    """The background's predicted probability times this competes with those of the classes."""
    max_pixels: int = pydantic.Field(default=4_000_000, ge=1024)
    """Larger images, at any scale, are shrunk to this for the fields; the masks keep the image's size."""
