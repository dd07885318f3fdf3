"""Which samples make up batch n: a pure function of (seed, n), so a run resumes exactly and never repeats itself."""

from __future__ import annotations

from functools import lru_cache

import torch


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """The generator, on the CPU, that everything random about the order of an epoch is drawn from."""
    return torch.Generator().manual_seed(seed * 1_000_003 + epoch)


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, count: int) -> list[int]:
    order: list[int] = torch.randperm(count, generator=epoch_generator(seed, epoch)).tolist()
    return order


def batch_indices(step: int, batch: int, count: int, seed: int) -> list[int]:
    """The sample numbers of batch `step`: each epoch is a fresh permutation of range(count), walked without gaps."""
    first = step * batch
    return [_permutation(seed, n // count, count)[n % count] for n in range(first, first + batch)]
