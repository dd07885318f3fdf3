"""The rectified-flow loss as pure functions: squared error of the velocity, and its weight at each time.

The target is noise - data (arXiv 2210.02747; SANA, arXiv 2410.10629, section 2.5). The weights are those of arXiv
2403.03206, by the names of the field:

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


def velocity(predicted: Tensor, target: Tensor, weights: Tensor | None = None) -> dict[str, Tensor]:
    """Mean squared error of predicted [B, C, h, w] against target (noise - data) [B, C, h, w].

    weights [B] multiply the error of each sample (`time_weights`); they are not normalised to sum to one.
    """
    if weights is None:
        return {"loss": (predicted.float() - target.float()).square().mean()}
    return {"loss": (weights.float() * sample_errors(predicted, target)).mean()}


def sample_errors(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of every sample, [B] float32."""
    return (predicted.float() - target.float()).square().flatten(1).mean(1)


def time_weights(name: WeightingName, t: Tensor) -> Tensor:
    """Weights [B] float32 of samples at noise levels t [B] in 0..1. Raises ConfigError for other names."""
    t = t.float()
    if name == "none":
        return torch.ones_like(t)
    if name == "sigma_sqrt":
        return t**-2.0
    if name == "cosmap":
        return 2 / (math.pi * (1 - 2 * t + 2 * t * t))
    raise ConfigError(f"loss: the weighting {name!r} is unknown; take none, sigma_sqrt or cosmap")


def loss_by_time(t: Tensor, losses: Tensor, buckets: int = 10) -> Tensor:
    """Mean loss in equal parts of 0..1: t [n] and losses [n] -> [buckets] float32; NaN for parts without a time.

    With fixed noise and even times the curve is comparable from one validation to the next; the mean over all times is
    mostly noise of the times. Several processes gather t and losses first.
    """
    part = (t.float() * buckets).long().clamp(0, buckets - 1)
    zeros = torch.zeros(buckets, device=losses.device)
    counts = zeros.index_add(0, part, torch.ones_like(losses, dtype=torch.float32))
    return zeros.index_add(0, part, losses.float()) / counts
