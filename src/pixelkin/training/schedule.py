"""The learning rate over a training."""

from __future__ import annotations

import math

from pixelkin.training.config import TrainingConfig

STEPS = (2 / 3, 8 / 9)
"""Progress at which the ``step`` schedule goes down to a tenth."""


def learning_rate_factor(config: TrainingConfig, step: int, progress: float) -> float:
    """What the learning rate is multiplied by in a step.

    Args:
        config: its ``schedule``, ``poly_power`` and ``warmup`` count.
        step: steps done before this one.
        progress: share of the training that is done, 0 to 1: of the iterations, or of the time when time is the budget.
    """
    warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    left = min(1.0, max(0.0, 1.0 - progress))
    if config.schedule == "poly":
        return float(warm * left**config.poly_power)
    if config.schedule == "cosine":
        return warm * 0.5 * (1.0 + math.cos(math.pi * (1.0 - left)))
    if config.schedule == "step":
        return float(warm * 0.1 ** sum(progress >= step for step in STEPS))
    return warm
