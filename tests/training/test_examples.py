from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from pixelkin.training.examples import batches, collate


def number(rng):
    return {"n": torch.tensor(rng.integers(1 << 40))}


def numbers(count, **kwargs):
    return [batch["n"].tolist() for batch in itertools.islice(batches(number, seed=3, **kwargs), count)]


def flat(lists):
    return list(itertools.chain.from_iterable(lists))


def test_example_k_is_a_function_of_seed_and_k():
    expected = [int(np.random.default_rng((3, k)).integers(1 << 40)) for k in range(12)]
    assert flat(numbers(3, batch_size=4)) == expected
    assert flat(numbers(2, batch_size=4, first=1)) == expected[4:]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_keep_the_order(workers):
    assert numbers(6, batch_size=2, workers=workers) == numbers(6, batch_size=2)


@pytest.mark.parametrize("size", [2, 3])
def test_the_processes_shares_make_the_batch(size):
    shares = [numbers(3, batch_size=6, rank=rank, size=size) for rank in range(size)]
    assert [flat(parts) for parts in zip(*shares, strict=True)] == numbers(3, batch_size=6)


def test_collate_names_what_differs():
    with pytest.raises(ValueError, match=r"shape of 'x', \[\(2,\), \(3,\)\]"):
        collate([{"x": torch.zeros(2)}, {"x": torch.zeros(3)}])
    with pytest.raises(ValueError, match="different keys"):
        collate([{"x": torch.zeros(2)}, {"y": torch.zeros(2)}])


def test_batches_are_made_as_the_caller_says():
    def longest(examples):
        size = max(len(example["x"]) for example in examples)
        return {"x": torch.stack([torch.nn.functional.pad(e["x"], (0, size - len(e["x"]))) for e in examples])}

    supply = batches(lambda rng: {"x": torch.ones(int(rng.integers(1, 5)))}, seed=0, batch_size=6, collate=longest)
    batch = next(supply)["x"]
    assert batch.shape[0] == 6
    assert set(batch.sum(dim=1).tolist()) <= {1.0, 2.0, 3.0, 4.0}
    assert len(set(batch.sum(dim=1).tolist())) > 1
