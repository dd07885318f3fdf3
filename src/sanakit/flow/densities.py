"""The times that training draws: densities of times u in (0, 1) before the shift (arXiv 2403.03206, section 3.1).

    logit_normal   u = sigmoid(N(mean, std))                        SANA: mean 0, std 1
    uniform        u = U
    mode           u = 1 - U - s (cos^2(pi U / 2) - 1 + U)           s > 0 favours the middle, s < 0 the ends

All are the draws of diffusers' `compute_density_for_timestep_sampling`, from the same generator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import torch
from torch import Tensor

from sanakit.base.bounds import Bounds
from sanakit.base.errors import ConfigError
from sanakit.flow.times import ShiftedTimes

__all__ = ["DensityName", "TimeDensity", "draw_times", "even_times"]

DensityName = Literal["logit_normal", "uniform", "mode"]
"""The densities of the table above."""

_MODE_LOW, _MODE_HIGH = -1.0, 2 / (math.pi - 2)


@dataclass(frozen=True, kw_only=True)
class TimeDensity:
    """A density and its numbers. Raises ConfigError if they give times outside of [0, 1].

    Attributes:
        name: which density.
        mean, std: mean and standard deviation of logit_normal.
        scale: s of mode, -1 to 2 / (pi - 2) = 1.75, where u runs down as U runs up.
    """

    name: DensityName = "logit_normal"
    mean: Annotated[float, Bounds(least=-100, most=100)] = 0.0
    std: Annotated[float, Bounds(above=0, most=100)] = 1.0
    scale: Annotated[float, Bounds(least=_MODE_LOW, most=_MODE_HIGH)] = 1.29

    def __post_init__(self) -> None:
        if self.name not in get_args(DensityName):
            raise ConfigError(
                f"times: the density {self.name!r} is unknown; take logit_normal, uniform or mode"
            )
        if self.std <= 0:
            raise ConfigError(f"times: std is {self.std}; it must be positive")
        if not _MODE_LOW <= self.scale <= _MODE_HIGH:
            raise ConfigError(f"times: scale of mode is {self.scale}; it must lie in -1 to {_MODE_HIGH:.2f}")


def draw_times(
    n: int,
    generator: torch.Generator,
    times: ShiftedTimes,
    density: TimeDensity | None = None,
    levels: int | None = None,
) -> Tensor:
    """Draw n training times [n] float32, shifted, on the generator's device; `levels` as in `ShiftedTimes.sample`.

    density: None for the published one.
    """
    density = density or TimeDensity()
    if density.name == "logit_normal":
        return times.sample(n, generator, density.mean, density.std, levels)
    u = torch.rand(n, generator=generator, device=generator.device)
    if density.name == "mode":
        u = 1 - u - density.scale * (torch.cos(math.pi * u / 2) ** 2 - 1 + u)
    if levels is not None:
        u = torch.floor(u * levels) / levels
    return times.shifted(u)


def even_times(n: int) -> Tensor:
    """Return the middles of n equal parts of (0, 1), [n] float32 on the CPU: times of a validation that draws none."""
    return (torch.arange(n, dtype=torch.float32, device="cpu") + 0.5) / n
