"""Dataset: an ordered, lazy collection of samples with its classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import overload

from pixelkin.data.sample import Sample


class Dataset(Sequence[Sample]):
    """An ordered collection of samples and the classes their labels speak of.

    Samples load nothing until asked. Mixed supervision is normal: each sample carries the labels it has.

    Args:
        samples: the samples, names unique.
        classes: class id to name, the user's own ids, in ascending order of the ids whatever order is given.
        name: what to call the set in reports.

    Raises:
        ValueError: two samples of one name, or class id 0 (background) or 255 (unknown) given a name.
    """

    def __init__(self, samples: Sequence[Sample], classes: Mapping[int, str] | None = None, *, name: str = "") -> None:
        self._samples = list(samples)
        self.classes: dict[int, str] = {int(i): str(n) for i, n in sorted((classes or {}).items())}
        self.name = name
        for reserved, meaning in ((0, "background"), (255, "unknown")):
            if reserved in self.classes:
                raise ValueError(
                    f"class id {reserved} means {meaning} and cannot be {self.classes[reserved]!r}: renumber it"
                )
        seen: set[str] = set()
        for sample in self._samples:
            if sample.name in seen:
                raise ValueError(f"two images are called {sample.name!r}: rename one")
            seen.add(sample.name)

    def __len__(self) -> int:
        return len(self._samples)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Dataset: ...
    def __getitem__(self, index: int | slice) -> Sample | Dataset:
        if isinstance(index, slice):
            return Dataset(self._samples[index], self.classes, name=self.name)
        return self._samples[index]

    def __iter__(self) -> Iterator[Sample]:
        return iter(self._samples)

    def filter(self, keep: Callable[[Sample], bool]) -> Dataset:
        """The samples for which ``keep`` is true."""
        return Dataset([sample for sample in self._samples if keep(sample)], self.classes, name=self.name)

    def map(self, change: Callable[[Sample], Sample]) -> Dataset:
        """Every sample changed; use :meth:`Sample.replace` with functions to stay lazy."""
        return Dataset([change(sample) for sample in self._samples], self.classes, name=self.name)

    def with_label(self, label: str) -> Dataset:
        """The samples that came with a kind of label, e.g. ``"semantic"``."""
        return self.filter(lambda sample: sample.has(label))

    def clips(self) -> dict[str, list[Sample]]:
        """The frames of every clip, in the order of their numbers."""
        found: dict[str, list[Sample]] = {}
        for sample in self._samples:
            if sample.clip is not None:
                found.setdefault(sample.clip, []).append(sample)
        return {clip: sorted(frames, key=lambda frame: frame.frame or 0) for clip, frames in found.items()}

    def __repr__(self) -> str:
        return f"Dataset({len(self)} images, {len(self.classes)} classes{f', {self.name!r}' if self.name else ''})"
