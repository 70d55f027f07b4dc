"""How long a training may take: in time or in iterations."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Budget:
    """A limit on one training: ``seconds`` of wall-clock time or a number of ``iterations``, one of the two.

    Raises:
        ValueError: none or both given, or a limit that is not positive.
    """

    seconds: float | None = None
    iterations: int | None = None

    def __post_init__(self) -> None:
        given = [limit for limit in (self.seconds, self.iterations) if limit is not None]
        if len(given) != 1 or not given[0] > 0:
            raise ValueError(
                f"a budget is either seconds or iterations, above 0: got {self.seconds}, {self.iterations}"
            )

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read ``"90s"``, ``"5m"``, ``"1.5h"`` or ``"2000it"``.

        Raises:
            ValueError: anything else.
        """
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|h|it)\s*", text)
        if match is None or not float(match[1]) > 0 or (match[2] == "it" and "." in match[1]):
            raise ValueError(f"budget {text!r} is not understood: write a time (90s, 5m, 1h) or iterations (2000it)")
        if match[2] == "it":
            return cls(iterations=int(match[1]))
        return cls(seconds=float(match[1]) * _UNITS[match[2]])

    def __str__(self) -> str:
        """As :meth:`parse` reads it."""
        return f"{self.iterations}it" if self.iterations is not None else f"{self.seconds:.15g}s"


class Stages:
    """A time budget over several stages: each gets its share of what is left when it begins.

    So a stage that takes longer than its share, or less, is felt by all that follow. A number of iterations is for each
    stage.

    Args:
        budget: for all stages; None: no limit.
        shares: weight of each stage, in order.
    """

    LEAST = 0.05
    """Of the whole, for a stage that begins when all is spent."""

    def __init__(self, budget: Budget | None, shares: Mapping[str, float]) -> None:
        self.budget, self.ahead, self.started = budget, dict(shares), time.monotonic()

    def begin(self, stage: str) -> Budget | None:
        """The budget of the stage that begins now; those before it are over."""
        while next(iter(self.ahead)) != stage:
            self.ahead.pop(next(iter(self.ahead)))
        share = self.ahead[stage] / sum(self.ahead.values())
        if self.budget is None or self.budget.seconds is None:
            return self.budget
        left = self.budget.seconds - (time.monotonic() - self.started)
        return Budget(seconds=max(left * share, self.budget.seconds * self.LEAST))
