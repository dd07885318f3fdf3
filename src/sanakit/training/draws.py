"""The chance in a training step: a time and noise for every sample, the same wherever that sample is computed.

Each sample has a generator of its own, seeded by (seed of the run, step, place in the global batch); so one process,
two, and accumulated micro-batches draw the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sanakit.training.chance import drawn

DrawTimes = Callable[[int, torch.Generator], Tensor]
"""(n, generator) -> n times in 0..1."""


def sample_seed(seed: int, step: int, place: int) -> int:
    """The seed of the sample at a place of the global batch of a step; 63 bits."""
    return drawn(seed, step, place) >> 1


def draw(seeds: Sequence[int], shape: tuple[int, ...], times: DrawTimes) -> tuple[Tensor, Tensor]:
    """One time and noise per seed: [B] and [B, *shape], float32 on the CPU."""
    t, noise = [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        t.append(times(1, generator))
        noise.append(torch.randn(shape, generator=generator))
    return torch.cat(t), torch.stack(noise)
