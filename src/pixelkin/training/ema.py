"""The exponential moving average of a model's weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Ema:
    """A running average of a model's trainable weights and running statistics.

    Args:
        model: averaged from its present weights on.
        decay: weight of the past in each update, reached gradually: min(decay, (1 + step) / (10 + step)).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: value.clone() for name, value in _averaged(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after step number ``step`` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in _averaged(model).items():
            self.weights[name].lerp_(value, 1.0 - decay)

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Continue from an average kept earlier. Raises KeyError when it is of another model."""
        for name, value in self.weights.items():
            value.copy_(weights[name])

    @torch.no_grad()
    def apply(self, model: nn.Module) -> None:
        """Give the model the averaged weights."""
        for name, value in _averaged(model).items():
            value.copy_(self.weights[name])


def _averaged(model: nn.Module) -> dict[str, Tensor]:
    """What changes in training and can be averaged, by name; the model's own tensors."""
    fixed = {name for name, parameter in model.named_parameters(remove_duplicate=False) if not parameter.requires_grad}
    return {
        name: value
        for name, value in model.state_dict().items()
        if torch.is_floating_point(value) and name not in fixed
    }
