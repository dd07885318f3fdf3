"""The table of solvers: a row owns a solver's name, how it runs, its noise levels and the times it gives the network.

    solver = SOLVERS["dpm2"]
    sigmas = solver.sigmas(schedule, steps)
    states = drive(solver.run(noise, sigmas, schedule, None), denoise)

The names are what a user types. A new solver is a generator function in its own file and a row here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from sanakit.flow.dpm import dpm
from sanakit.flow.euler import euler
from sanakit.flow.path import LinearPath, TrigPath, angle_from_time
from sanakit.flow.sampling import Noise, Solver
from sanakit.flow.schedule import Clock, Schedule
from sanakit.flow.scm import scm, scm_angles, scm_sigmas
from sanakit.flow.times import SIGMA_MIN, ShiftedTimes

__all__ = ["SOLVERS", "SolverSpec"]

Run = Callable[[Tensor, list[float], Schedule, Noise | None], Solver]
Sigmas = Callable[[Schedule, int], list[float]]
Start = Callable[[Tensor, Tensor, float], Tensor]
MakeClock = Callable[[Schedule, int, bool], Clock]


def _usual_clock(schedule: Schedule, steps: int, integer: bool) -> Clock:
    return Clock(integer=integer)


def _linear_start(x0: Tensor, noise: Tensor, sigma: float) -> Tensor:
    return LinearPath().point(x0, noise, sigma)


def _trig_start(x0: Tensor, noise: Tensor, sigma: float) -> Tensor:
    return TrigPath().point(x0, noise, angle_from_time(sigma))


@dataclass(frozen=True, kw_only=True)
class SolverSpec:
    """One row.

    name         as a user types it
    about        one line for people
    run          (x, sigmas, schedule, noise) -> the solver: x is noise [B, ...], `noise` fresh noise by step
    sigmas       (schedule, steps) -> its noise levels, steps + 1 falling numbers
    start        (x0, noise, sigma) -> the state at a noise level that leads to the clean sample x0
    clock        (schedule, steps, integer) -> the times of a network that reads thousandths; `integer`: whole ones
    from_angles  angles (radians, falling) -> its noise levels; None for a solver whose times nobody chooses
    consistency  made for consistency models (SANA-Sprint), not for flow models
    """

    name: str
    about: str
    run: Run
    sigmas: Sigmas
    start: Start = _linear_start
    clock: MakeClock = _usual_clock
    from_angles: Callable[[Sequence[float]], list[float]] | None = None
    consistency: bool = False

    def mismatch(self, schedule: Schedule) -> str | None:
        """Return a sentence if the checkpoint was made for the other kind of solver; it samples all the same."""
        if self.consistency == (schedule.kind == "scm"):
            return None
        if self.consistency:
            return (
                f"{self.name} is the sampler of Sprint models, and this isn't one: "
                "expect a worse picture than with dpm2."
            )
        return f"{self.name} isn't a sampler for Sprint models: expect a worse picture than with scm."


def _dpm(order: int, about: str) -> SolverSpec:
    return SolverSpec(
        name=f"dpm{order}",
        about=about,
        run=lambda x, sigmas, schedule, noise: dpm(x, sigmas, order, schedule),
        sigmas=_dpm_sigmas,
        # Whole times in either case: diffusers' DPM-Solver cuts its own, and the official code cuts all.
        clock=lambda schedule, steps, integer: Clock(
            timesteps=tuple(ShiftedTimes(schedule.shift).timesteps(steps))
        ),
    )


def _dpm_sigmas(schedule: Schedule, steps: int) -> list[float]:
    final = SIGMA_MIN if schedule.final == "sigma_min" else 0.0
    return list(ShiftedTimes(schedule.shift).sigmas(steps, final).tolist())


_ROWS = (
    _dpm(1, "DPM-Solver++ of order 1 (DDIM)"),
    _dpm(2, "DPM-Solver++ of order 2, what the checkpoints ship with"),
    _dpm(3, "DPM-Solver++ of order 3"),
    SolverSpec(
        name="euler",
        about="Euler steps of the flow",
        run=lambda x, sigmas, schedule, noise: euler(x, sigmas),
        sigmas=lambda schedule, steps: list(ShiftedTimes(schedule.shift).euler_sigmas(steps).tolist()),
    ),
    SolverSpec(
        name="scm",
        about="consistency steps of SANA-Sprint, 1 to 4 of them",
        run=lambda x, sigmas, schedule, noise: scm(x, sigmas, noise),
        sigmas=lambda schedule, steps: scm_sigmas(scm_angles(steps, schedule.angles)),
        start=_trig_start,
        from_angles=lambda angles: scm_sigmas([*angles, 0.0]),
        consistency=True,
    ),
)
SOLVERS: dict[str, SolverSpec] = {row.name: row for row in _ROWS}
"""All solvers by name."""
