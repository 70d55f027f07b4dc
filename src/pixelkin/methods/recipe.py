"""What a mode of SISeg provides: what to measure, learn, predict and group."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from pixelkin.data import Dataset, Instances, Sample
from pixelkin.methods.base import Fields

Facts = dict[str, Any]
Example = Callable[[np.random.Generator], dict[str, Tensor]]


class Recipe(Protocol):
    """One way to learn fields from semantic maps and to group them. Stateless: what it finds out goes to ``facts``."""

    def measure(self, dataset: Dataset) -> Facts:
        """What labelling and training need to know of the data, as JSON values, e.g. the usual size of an object."""

    def build(self, facts: Facts) -> nn.Module:
        """The untrained network."""

    def groups(self, model: nn.Module, facts: Facts) -> Iterable[Mapping[str, Any]]:
        """What is trained, as parameter groups of :func:`pixelkin.training.loop.train`."""

    def example(self, dataset: Dataset, facts: Facts) -> Example:
        """A maker of training examples."""

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The named losses of a batch, the total under ``loss``."""

    def finish(self, model: nn.Module, dataset: Dataset, facts: Facts) -> None:
        """What is done once after training, e.g. centring the displacement."""

    def fields(self, model: nn.Module, sample: Sample, facts: Facts) -> Fields:
        """The fields of one image; the sample has a semantic map."""

    def group(self, fields: Fields, sample: Sample, facts: Facts) -> Instances:
        """Fields to instances."""

    def pictures(self, fields: Fields, sample: Sample) -> dict[str, npt.NDArray[np.uint8]]:
        """Named (h, w, 3) uint8 RGB pictures of the fields."""
