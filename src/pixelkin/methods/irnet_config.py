"""Settings of IRNet."""

from __future__ import annotations

from typing import Literal

import pydantic

from pixelkin.grouping.seed_walk import Normalisation
from pixelkin.methods.base import MethodConfig
from pixelkin.methods.class_labels import ClassMapConfig
from pixelkin.methods.regions import RegionConfig
from pixelkin.methods.siseg_pairs import PairConfig
from pixelkin.methods.tag_classifier import ClassifierConfig
from pixelkin.training.config import TrainingConfig


class IRNetConfig(MethodConfig):
    """Settings of :class:`~pixelkin.methods.irnet.IRNet`; what differs from the paper says so."""

    backbone: str = "efficientnet_lite0"
    """Any backbone that ``pixelkin backbones`` or timm knows; ResNet-50 as published."""
    side: int = pydantic.Field(default=640, ge=64)
    """Long side that larger images are shrunk to, in fitting and in labelling; the masks keep the image's size. The
    networks learn objects as large as in the shrunk crops of their training."""
    classifier: ClassifierConfig = ClassifierConfig()
    regions: RegionConfig = RegionConfig()
    pairs: PairConfig = PairConfig(
        background=0.25,
        beta=20.0,
        centring="image",
        offsets=32,
        displacement_rate=4.0,
        training=TrainingConfig(iterations=60, batch_size=8, learning_rate=3e-3, warmup=20),
    )
    """Boundary, displacement, walk; ``background`` is the value that an object must beat, ``min_area`` in pixels."""
    epochs: float = pydantic.Field(default=2.0, ge=0)
    """Passes over the images to learn boundary and displacement; published: 3. There are at least
    ``pairs.training.iterations`` steps. More is not better: after 300 steps instead of 100 on 250 photos the boundary
    followed the outlines of the activation instead of those of the objects (see docs/results.md)."""
    rounds: int = pydantic.Field(default=2, ge=0)
    """Times that a network of class maps learns from the labels so far, the first time from those of the walked
    activation, and makes the next; published: 0."""
    maps: ClassMapConfig = ClassMapConfig()
    """That network."""
    predict_tags: bool = False
    """Let the classifier say what is in images without tags."""
    tag_threshold: float = pydantic.Field(default=0.5, gt=0, lt=1)
    """Least probability of a predicted tag."""
    use_displacement: bool = True
    """Off: the pieces of a class are its instances (the paper's ablation)."""
    background: Literal["walked", "constant"] = "walked"
    """What an object must beat: ``constant`` is the value ``pairs.background`` everywhere, as published; ``walked``
    lets the background walk as a class does, from seeds where no class activates."""
    background_power: float = pydantic.Field(default=6.0, gt=0)
    """The background's seeds are 1 - the largest activation, to this power."""
    class_first: bool = True
    """Decide the class of a pixel before its instance; off: both at once, as published."""
    normalisation: Normalisation = "class"
    """What is divided by its largest value after the walk: ``image`` all classes and instances together, as published;
    ``class`` each class, which its tag says is somewhere; ``region`` each instance; ``none`` nothing."""
    score: Literal["margin", "peak"] = "margin"
    """``peak``: largest walked value of an instance, as published; ``margin``: square root of how far its values are
    above those of the next class on average, lower for small ones."""
    doubt: float = pydantic.Field(default=0.0, ge=0, lt=1)
    """Pixels whose strongest value is less than this above the next are unknown in the semantic map."""
