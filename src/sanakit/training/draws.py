"""The time and the noise of every sample of a training step, each from a generator seeded for that sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

DrawTimes = Callable[[int, torch.Generator], Tensor]
"""(n, generator) -> n times in 0..1."""


def draw(seeds: Sequence[int], shape: tuple[int, ...], times: DrawTimes) -> tuple[Tensor, Tensor]:
    """One time and noise per seed: [B] and [B, *shape], float32 on the CPU."""
    t, noise = [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        t.append(times(1, generator))
        noise.append(torch.randn(shape, generator=generator))
    return torch.cat(t), torch.stack(noise)
