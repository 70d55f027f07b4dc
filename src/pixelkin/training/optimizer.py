"""The optimiser of a training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from pixelkin.training.config import TrainingConfig

GROUP_SETTINGS = ("lr_scale", "weight_decay", "momentum", "betas", "eps")
"""What a parameter group may set for itself."""


def build_optimizer(
    model: nn.Module, config: TrainingConfig, groups: Iterable[Mapping[str, Any]] | None
) -> torch.optim.Optimizer:
    """The optimiser over the parameters that require a gradient; each group has its ``lr_scale``.

    Args:
        model: trained whole where no groups are given.
        config: the settings.
        groups: ``{"params": ..., "lr_scale": ...}``, see :func:`~pixelkin.training.loop.train`.

    Raises:
        ValueError: a group with other keys or with parameters that are not the model's, or nothing to train.
    """
    own = {id(parameter) for parameter in model.parameters()}
    settled: list[dict[str, Any]] = []
    for group in groups if groups is not None else [{"params": model.parameters()}]:
        if "params" not in group or not set(group) <= {"params", *GROUP_SETTINGS}:
            known = f"params and any of {', '.join(GROUP_SETTINGS)}"
            raise ValueError(f"a parameter group has {known}; this one has {', '.join(group)}")
        parameters = list(group["params"])
        if any(id(parameter) not in own for parameter in parameters):
            raise ValueError(
                "a group has parameters that are not the model's: make them part of it, so that they are saved"
            )
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        if trained:
            settled.append({"lr_scale": 1.0, **group, "params": trained})
    if not settled:
        raise ValueError("nothing to train: no parameter of the model requires a gradient")
    if config.optimizer == "sgd":
        return torch.optim.SGD(settled, config.learning_rate, config.momentum, weight_decay=config.weight_decay)
    return torch.optim.AdamW(settled, config.learning_rate, weight_decay=config.weight_decay)
