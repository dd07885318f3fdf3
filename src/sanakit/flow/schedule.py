"""How a checkpoint wants to be sampled, and the time its network reads at a noise level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sanakit.flow.times import TRAIN_STEPS

__all__ = ["Clock", "Schedule"]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How a checkpoint wants to be sampled, by the names of diffusers' schedulers.

    kind: "dpm" (DPM-Solver++ for flows), "euler", or "scm" (Sprint's consistency sampler).
    shift: of the times, towards noise (not used by scm). order, solver_type: of the DPM-Solver; the two types are the
    second-order formulas.
    final: the last sigma of the DPM-Solver, "zero" or "sigma_min" (0.01).
    lower_order_final: below 15 steps the last one is of order 1 and the one before of at most 2.
    euler_at_final: the last step is of order 1 however many there are.
    sigma_data: of scm. angles: of scm, those that this model draws best with, a row for each number of steps that has
    its own; the published ones hold for the others. train_steps: model times run from 0 to this.
    """

    kind: Literal["dpm", "euler", "scm"] = "dpm"
    shift: float = 3.0
    order: int = 2
    solver_type: Literal["midpoint", "heun"] = "midpoint"
    final: Literal["zero", "sigma_min"] = "zero"
    lower_order_final: bool = True
    euler_at_final: bool = False
    sigma_data: float = 0.5
    angles: tuple[tuple[float, ...], ...] = ()
    train_steps: int = 1000

    @property
    def solver(self) -> str:
        """The name of the solver in the table (`solvers.py`)."""
        return f"dpm{self.order}" if self.kind == "dpm" else self.kind


@dataclass(frozen=True, kw_only=True)
class Clock:
    """From a noise level in [0, 1] to the time that the network reads.

    scale      1000 for the base checkpoints, 1 for SANA-Sprint, which reads the noise level itself
    integer    cut the time to a whole number, as the base checkpoints were trained
    timesteps  whole times by step, which replace the computation: diffusers' DPM-Solver cuts in float64, and its sigmas
               were rounded to float32 meanwhile, which lands on the other side of some whole numbers
    """

    scale: float = float(TRAIN_STEPS)
    integer: bool = False
    timesteps: tuple[int, ...] = ()

    def __call__(self, sigma: float, step: int) -> float:
        """Return the model time of a query."""
        if self.timesteps:
            return float(self.timesteps[step])
        time = self.scale * sigma
        return float(int(time)) if self.integer else time
