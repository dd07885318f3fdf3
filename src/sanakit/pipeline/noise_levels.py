"""The noise levels that a request walks down, and the time that the transformer reads at each of them."""

from __future__ import annotations

from dataclasses import replace

from sanakit.base.errors import RequestError
from sanakit.flow import SOLVERS, Clock, SolverSpec, last_levels, lowered_sigmas
from sanakit.pipeline.edit_plan import EditPlan
from sanakit.pipeline.request import ImageRequest
from sanakit.weights import ModelSpec


def noise_levels(
    spec: ModelSpec, request: ImageRequest, solver: SolverSpec, steps: int, edit: EditPlan | None
) -> tuple[tuple[float, ...], Clock]:
    """Return the noise levels of a request, steps + 1 falling numbers, and the clock of the transformer.

    edit: of the request; it begins further down. Raises RequestError for angles with a solver that has none.
    """
    sigmas, clock = _from_noise(spec, request, solver, steps), _model_clock(spec, solver, steps)
    if edit is None:
        return sigmas, clock
    sigmas = _of_edit(sigmas, request, solver, edit)
    return sigmas, replace(clock, timesteps=clock.timesteps[len(clock.timesteps) - len(sigmas) + 1 :])


def _from_noise(spec: ModelSpec, request: ImageRequest, solver: SolverSpec, steps: int) -> tuple[float, ...]:
    """Return the noise levels of a request's angles, else those of its number of steps."""
    if request.angles is None:
        return tuple(solver.sigmas(spec.schedule, steps))
    if solver.from_angles is None:
        able = ", ".join(name for name, row in SOLVERS.items() if row.from_angles)
        raise RequestError(
            f"angles are for the solver {able}, and this picture is drawn by {solver.name}: "
            "leave them out, or name the solver"
        )
    return tuple(solver.from_angles(request.angles))


def _of_edit(
    sigmas: tuple[float, ...], request: ImageRequest, solver: SolverSpec, edit: EditPlan
) -> tuple[float, ...]:
    """Return the noise levels of an edit, which begin where its strength says.

    Of the few steps of a consistency model none can be spared to follow words: all are made, from that level on.
    """
    if edit.words is None or not solver.consistency or request.angles is not None or edit.strength == 0:
        return last_levels(sigmas, edit.strength)
    return tuple(lowered_sigmas(sigmas, edit.strength))


def _model_clock(spec: ModelSpec, solver: SolverSpec, steps: int) -> Clock:
    """Return the time that the transformer reads at a noise level.

    Consistency models read the noise level itself, models that scale time on their own exact thousandths; else the
    solver decides, and the official dialect wants whole thousandths from all.
    """
    if spec.schedule.kind == "scm":
        return Clock(scale=1.0)
    if spec.dialect.integer_time and spec.transformer.time_scale != 1:
        return Clock()
    return solver.clock(spec.schedule, steps, spec.dialect.integer_time)
