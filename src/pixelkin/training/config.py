"""The settings of a training."""

from __future__ import annotations

import math
from typing import Literal

import pydantic


class TrainingConfig(pydantic.BaseModel):
    """How a model is trained; an unknown key or a value of the wrong type is an error.

    Attributes:
        iterations: optimiser steps; a :class:`~pixelkin.training.budget.Budget` given to the loop goes before it.
        batch_size: examples a step, over all processes together.
        optimizer: ``adamw`` or ``sgd``.
        learning_rate: of a parameter group of scale 1, at its highest.
        weight_decay: decoupled for adamw, L2 for sgd.
        momentum: of sgd.
        schedule: ``poly``: (1 - progress) ** poly_power; ``cosine``: half a cosine to zero; ``step``: a tenth from 2/3
            of the training on and a hundredth from 8/9 on, as detectors are trained; ``constant``.
        poly_power: see ``schedule``.
        warmup: steps over which the learning rate grows linearly to its scheduled value.
        ema: decay of the exponential moving average of the weights, which then are the result; 0: none. Early on the
            decay is lower, (1 + step) / (10 + step), so that the first weights are soon forgotten.
        precision: ``bf16`` or ``fp16`` compute in that type where safe (autocast), with float32 weights.
        workers: processes that make examples beside the training; 0: none. The result is the same.
        clip_norm: gradients are scaled down to this norm over all parameters; 0: never.
        checkpoint_every: seconds between checkpoints.
        log_every: steps between lines of the log.
        seed: of the examples and of the model's own randomness (dropout), not of its first weights.
    """

    model_config = pydantic.ConfigDict(strict=True, extra="forbid", frozen=True)

    iterations: int = pydantic.Field(default=2000, ge=1)
    batch_size: int = pydantic.Field(default=8, ge=1)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = pydantic.Field(default=1e-3, gt=0)
    weight_decay: float = pydantic.Field(default=1e-4, ge=0)
    momentum: float = pydantic.Field(default=0.9, ge=0, lt=1)
    schedule: Literal["poly", "cosine", "step", "constant"] = "poly"
    poly_power: float = pydantic.Field(default=0.9, gt=0)
    warmup: int = pydantic.Field(default=0, ge=0)
    ema: float = pydantic.Field(default=0.0, ge=0, lt=1)
    precision: Literal["no", "bf16", "fp16"] = "no"
    workers: int = pydantic.Field(default=0, ge=0)
    clip_norm: float = pydantic.Field(default=0.0, ge=0)
    checkpoint_every: float = pydantic.Field(default=60.0, gt=0)
    log_every: int = pydantic.Field(default=50, ge=1)
    seed: int = pydantic.Field(default=0, ge=0)

    def lasting(self, epochs: float, images: int) -> TrainingConfig:
        """The same for so many passes over the images, but with no fewer steps than ``iterations``."""
        return self.model_copy(
            update={"iterations": max(self.iterations, math.ceil(epochs * images / self.batch_size))}
        )


WITHOUT_EFFECT = frozenset({"workers", "checkpoint_every", "log_every"})
"""Settings that do not change what is learned: a training may be continued with others."""
