"""What an error at time t counts for: the weights of arXiv 2403.03206, by the names of the field.

none         1                              SANA: the density of times alone says what matters
sigma_sqrt   t^-2                           as diffusers has it, whatever its name says; infinite at t = 0
cosmap       2 / (pi (1 - 2t + 2t^2))       the cosine schedule's, between 2/pi at the ends and 4/pi in the middle
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from sanakit.base.errors import ConfigError

WeightingName = Literal["none", "sigma_sqrt", "cosmap"]
"""The rows of the table above."""


def time_weights(name: WeightingName, t: Tensor) -> Tensor:
    """Weights [B] float32 of samples at noise levels t [B] in 0..1. Raises ConfigError for other names."""
    t = t.float()
    if name == "none":
        return torch.ones_like(t)
    if name == "sigma_sqrt":
        return t**-2.0
    if name == "cosmap":
        return 2 / (math.pi * (1 - 2 * t + 2 * t * t))
    raise ConfigError(f"loss: the weighting {name!r} is unknown; take none, sigma_sqrt or cosmap.")


def loss_by_time(t: Tensor, losses: Tensor, buckets: int = 10) -> Tensor:
    """Mean loss in equal parts of 0..1: t [n] and losses [n] -> [buckets] float32; NaN where no time fell.

    With fixed noise and even times the curve is comparable from one validation to the next; the mean over all times is
    mostly noise of the times. Several processes gather t and losses first.
    """
    part = (t.float() * buckets).long().clamp(0, buckets - 1)
    zeros = torch.zeros(buckets, device=losses.device)
    counts = zeros.index_add(0, part, torch.ones_like(losses, dtype=torch.float32))
    return zeros.index_add(0, part, losses.float()) / counts
