"""Training examples in a fixed order, made here or in worker processes."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

Example = Callable[[np.random.Generator], dict[str, Tensor]]
"""Makes one training example from a generator, its only source of chance."""

Collate = Callable[[Sequence[dict[str, Tensor]]], dict[str, Tensor]]
"""Makes a batch of the examples of a step."""


class _Examples(Dataset[dict[str, Tensor]]):
    """Example number k is a function of the seed and k alone, so order, resume and sharding need no further state."""

    def __init__(self, example: Example, seed: int) -> None:
        self.example = example
        self.seed = seed

    def __getitem__(self, k: int) -> dict[str, Tensor]:
        return self.example(np.random.default_rng((self.seed, k)))


class _Shares(Sampler[list[int]]):
    """The numbers of the examples of each step, from step ``first`` on: this process's share of each batch. Endless."""

    def __init__(self, batch_size: int, first: int, rank: int, size: int) -> None:
        self.batch_size = batch_size
        self.first = first
        self.share = batch_size // size
        self.rank = rank

    def __iter__(self) -> Iterator[list[int]]:
        for step in itertools.count(self.first):
            start = step * self.batch_size + self.rank * self.share
            yield list(range(start, start + self.share))


def collate(examples: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Stack examples into a batch, key by key.

    Raises:
        ValueError: examples of different keys or shapes.
    """
    batch = {}
    for key in examples[0]:
        if any(example.keys() != examples[0].keys() for example in examples):
            raise ValueError("examples have different keys: give every example all of them")
        values = [torch.as_tensor(example[key]) for example in examples]
        shapes = sorted({tuple(value.shape) for value in values})
        if len(shapes) > 1:
            raise ValueError(f"examples differ in the shape of {key!r}, {shapes}: crop or pad them to one size")
        batch[key] = torch.stack(values)
    return batch


def batches(
    example: Example,
    *,
    seed: int,
    batch_size: int,
    first: int = 0,
    rank: int = 0,
    size: int = 1,
    workers: int = 0,
    pin: bool = False,
    collate: Collate = collate,
) -> Iterator[dict[str, Tensor]]:
    """The batches of the steps from ``first`` on, without end.

    Args:
        example: makes one example. With workers on a system that does not fork it must be picklable.
        seed: of all examples.
        batch_size: over all processes; a multiple of ``size``.
        first: number of the first step.
        rank: of this process.
        size: number of processes.
        workers: processes to make examples in; the order is the same.
        pin: whether to place batches in page-locked memory, from which copies to a GPU are faster.
        collate: makes a batch of examples; stacks them by default.
    """
    loader = DataLoader(
        _Examples(example, seed),
        batch_sampler=_Shares(batch_size, first, rank, size),
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin,
        worker_init_fn=_leave_interrupts_to_the_parent,
    )
    return iter(loader)


def _leave_interrupts_to_the_parent(worker: int) -> None:
    """Ctrl-C reaches the whole process group, but the parent still needs its workers to end its step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
