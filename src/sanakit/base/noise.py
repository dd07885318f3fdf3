"""Seeds to noise: one generator per sample, so a picture does not depend on its batch or its device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sanakit.base.errors import RequestError

__all__ = ["MAX_SEED", "seeded_noise"]

MAX_SEED = 2**63 - 1
"""Largest seed that is accepted; picture k of a count uses seed + k."""


def seeded_noise(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Standard normal noise [B, *shape], float32 on the CPU.

    Row k is `torch.randn((1, *shape))` of a CPU generator seeded with seeds[k], which is what a seed
    means in diffusers too. Raises RequestError for no seeds or a seed outside 0..MAX_SEED.
    """
    if not seeds:
        raise RequestError("noise needs at least one seed")
    for seed in seeds:
        if not 0 <= seed <= MAX_SEED:
            raise RequestError(f"the seed {seed} is outside 0..{MAX_SEED}")
    rows = [
        torch.randn(
            (1, *shape), generator=torch.Generator("cpu").manual_seed(seed), dtype=torch.float32, device="cpu"
        )
        for seed in seeds
    ]
    return torch.cat(rows)
