"""What is only likely one object teaches nothing where it is; pressed, only what a network takes for one.

Two parked cars side by side are one piece to every cue, always. A network that is taught so learns it, even from one
such pair in forty, as no pressed object looks quite like them. So pairs that are only likely one object are left out,
and what is one is learned from what moved and from whole objects that are pressed elsewhere. A quarter of those are
several too, until the network, having learned that much, tells them from the others. Our own design.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pixelkin.cues.pair_targets import LIKELY, UNKNOWN
from pixelkin.grouping.gasp import gasp
from pixelkin.methods.oal_frames import Frame, Kept, Source, on_middles
from pixelkin.training.budget import Budget
from pixelkin.training.config import TrainingConfig
from pixelkin.training.examples import Example

if TYPE_CHECKING:
    from pixelkin.models.affinity import AffinityFields

ONE = 0.8
"""A whole object is one if the network gives so much of it to one segment."""


SHARES = (0.6, 0.4)
"""Of the training: before the network judges, and after."""

SLOWER = 0.6
"""Learning rate of the second stage over that of the first."""


@dataclass(frozen=True)
class Stage:
    """One of the trainings that follow each other: its examples, made when it begins, and its share of the whole."""

    example: Callable[[], Example]
    training: TrainingConfig
    share: float = 1.0
    folder: str = "."

    def budget(self, whole: Budget | None) -> Budget | None:
        """Its part of a budget; always the same, so that an interrupted fit goes on."""
        if whole is None:
            return None
        if whole.iterations is not None:
            return Budget(iterations=max(round(whole.iterations * self.share), 1))
        return Budget(seconds=(whole.seconds or 0.0) * self.share)


def stages_of_belief(
    source: Source, model: AffinityFields, examples: Callable[[Source], Example], training: TrainingConfig
) -> list[Stage]:
    """Twice the same: with all that may be whole objects, then with those that the network finds one by then."""

    def judged() -> Example:
        frames = SureFrames(source, copy.deepcopy(model))
        if training.workers:  # which are other processes, and those must not use the network
            for i in frames.informative():
                frames.whole_of(i)
        return examples(frames)

    iterations = [max(round(training.iterations * share), 1) for share in SHARES]
    later = {"iterations": iterations[1], "learning_rate": training.learning_rate * SLOWER}
    return [
        Stage(
            lambda: examples(SureFrames(source)),
            training.model_copy(update={"iterations": iterations[0]}),
            SHARES[0],
            "first",
        ),
        Stage(judged, training.model_copy(update=later), SHARES[1], "second"),
    ]


class SureFrames:
    """The frames of a source without the pairs that are only likely one object.

    With a judge, average linkage of its affinities says which whole objects are one; others are pressed no more.

    Args:
        source: the frames.
        judge: a network in eval mode.
        limit: bytes of frames kept.
    """

    def __init__(self, source: Source, judge: AffinityFields | None = None, *, limit: int = 1 << 30) -> None:
        self.source, self.judge = source, judge
        self._whole: dict[int, tuple[int, ...]] = {}
        self._kept = Kept(self._make, limit)

    def __getitem__(self, i: int) -> Frame:
        return self._kept(i)

    def informative(self) -> list[int]:
        """As the source."""
        return self.source.informative()

    def whole_of(self, i: int) -> tuple[int, ...]:
        """The numbers of the whole objects of a frame that are one, as the judge says; asked once."""
        from pixelkin.models.affinity import predict_tiled

        if i not in self._whole:
            frame = self.source[i]
            self._whole[i] = frame.whole
            if self.judge is not None and frame.whole:
                affinity, foreground = predict_tiled(self.judge, frame.image, flips=False)
                segments = gasp(affinity, self.judge.offsets, foreground > 0.5)
                self._whole[i] = still_one(frame.whole, on_middles(frame.objects), segments)
        return self._whole[i]

    def _make(self, i: int) -> Frame:
        frame, whole = self.source[i], self.whole_of(i)
        codes = np.where(frame.codes == LIKELY, UNKNOWN, frame.codes).astype(np.uint8)
        return frame._replace(codes=codes, whole=whole, sure=tuple(k for k in frame.sure if k in whole))


def still_one(
    numbers: tuple[int, ...], objects: npt.NDArray[np.integer[Any]], segments: npt.NDArray[np.integer[Any]]
) -> tuple[int, ...]:
    """Those of the numbers in (h, w) objects that lie in one of the (h, w) segments (0 none) by a share of ONE."""
    kept = []
    for number in numbers:
        counts = np.bincount(segments[objects == number], minlength=2)
        if counts.sum() and counts[1:].max() >= ONE * counts.sum():
            kept.append(number)
    return tuple(kept)
