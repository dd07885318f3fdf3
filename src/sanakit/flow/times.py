"""Times: the noise levels of samplers and of training, from one shift.

High resolutions need more noise to hide the same structure, so SANA moves every time u in [0, 1] to

    t(u) = a u / (1 + (a-1) u),       that is       logit t = logit u + ln a

(a = 3 for most checkpoints, 6 at 4K, 8 for video). `ShiftedTimes(a)` holds a once and gives both the falling
noise levels of the solvers and the times of training: with u = sigmoid(N(mean, std)) the shifted time is again
logit-normal, with mean + ln a.

Sources: Esser et al. 2024, "Scaling rectified flow transformers", arXiv:2403.03206, sections 3.1 and 5.3.2;
Xie et al. 2024, "SANA", arXiv:2410.10629, section 3.4. The noise levels are those of diffusers' schedulers, to the bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from sanakit.base.errors import ConfigError, RequestError

__all__ = ["SIGMA_MIN", "TRAIN_STEPS", "ShiftedTimes", "check_steps"]

U = TypeVar("U", float, Tensor)

TRAIN_STEPS = 1000
"""Steps of the training clock: the checkpoints' model time is 1000 t, and DPM-Solver++ starts at u = 0.999."""

SIGMA_MIN = 0.010001329705119133
"""The last noise level when a scheduler config asks for `sigma_min` in place of zero.

sqrt(beta / (1-beta)) for beta = 1e-4, which is 0.0100005; diffusers takes it in float32 and gets this number.
"""


@dataclass(frozen=True)
class ShiftedTimes:
    """All times of a model whose flow shift is `shift`; raises ConfigError unless the shift is positive."""

    shift: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.shift) and self.shift > 0):
            raise ConfigError(f"the flow shift must be a positive number, not {self.shift!r}")

    def sigmas(self, steps: int, final: float = 0.0) -> Tensor:
        """Return the noise levels of the DPM solver, [steps+1] float32 on the CPU, descending, `final` last.

        u runs evenly from 0.999 to 0, is shifted in float64 and rounded to float32, exactly as diffusers'
        DPMSolverMultistepScheduler does with use_flow_sigmas. Raises RequestError for steps < 1.
        """
        return _float32([*self._levels(steps), final])

    def timesteps(self, steps: int) -> list[int]:
        """Return the integer model times of `sigmas`, one per step: 1000 t cut to an integer, as diffusers has them.

        They are cut before the rounding to float32, which matters if 1000 t is a whole number.
        """
        return [int(level * TRAIN_STEPS) for level in self._levels(steps)]

    def euler_sigmas(self, steps: int) -> Tensor:
        """Return the noise levels of diffusers' FlowMatchEulerDiscreteScheduler, [steps+1] float32, from 1 to 0.

        That scheduler spreads its times evenly between ends that are already shifted, then shifts them again, so
        its last step is longer than that of the DPM solver. Raises RequestError for steps < 1.
        """
        check_steps(steps)
        lowest = torch.ones(1, device="cpu") / TRAIN_STEPS
        lowest = self.shift * lowest / (1 + (self.shift - 1) * lowest)
        clock = _linspace(float(TRAIN_STEPS), lowest.item() * TRAIN_STEPS, steps)
        return _float32([*(self.shifted(t / TRAIN_STEPS) for t in clock), 0.0])

    def sample(
        self,
        n: int,
        generator: torch.Generator,
        mean: float = 0.0,
        std: float = 1.0,
        levels: int | None = None,
    ) -> Tensor:
        """Draw n training times [n] float32 in (0, 1), on the generator's device.

        u = sigmoid(N(mean, std)), then shifted. With `levels` u is first cut to a multiple of 1/levels; the
        official training uses 1000 levels, which adds t = 0 and keeps t below 0.99967 for shift 3.
        """
        normal = torch.randn(n, generator=generator, device=generator.device) * std + mean
        if levels is None:
            return torch.sigmoid(normal + math.log(self.shift))
        u = torch.floor(torch.sigmoid(normal) * levels) / levels
        return self.shifted(u)

    def _levels(self, steps: int) -> list[float]:
        check_steps(steps)
        alphas = _linspace(1.0, 1 / TRAIN_STEPS, steps + 1)
        return [self.shifted(1.0 - alpha) for alpha in alphas][:0:-1]

    def shifted(self, u: U) -> U:
        """Return t(u) for one time or a tensor of them."""
        return self.shift * u / (1 + (self.shift - 1) * u)


def check_steps(steps: int) -> None:
    """Raise RequestError unless `steps` is a whole number of at least 1."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise RequestError(f"the number of steps must be a whole number of at least 1, not {steps!r}")


def _linspace(start: float, stop: float, count: int) -> list[float]:
    """`count` even values in float64, with the rounding of numpy.linspace."""
    if count == 1:
        return [start]
    width = (stop - start) / (count - 1)
    return [*(start + i * width for i in range(count - 1)), stop]


def _float32(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device="cpu").to(torch.float32)
