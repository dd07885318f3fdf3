"""Sampling by name: the table of solvers, the grid each one walks, and the clock the network reads.

    sample(denoise, noise, solver="dpm2", shift=3.0, steps=20)

The names are what a user types. Every row runs on any list of nodes; `times_for` gives the row's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from sanakit.base.errors import RequestError
from sanakit.flow.consistency import Noise, angles, iterate_scm
from sanakit.flow.dpm import USUAL, Ending, Kind, iterate_dpm
from sanakit.flow.euler import iterate_euler
from sanakit.flow.prediction import trigflow
from sanakit.flow.solver import Callback, Denoise, Nodes, State, last_state
from sanakit.flow.times import TRAIN_STEPS, ShiftedTimes

__all__ = ["SOLVERS", "ModelTime", "Run", "Solver", "iterate_sample", "sample", "solver_named", "times_for"]


Form = tuple[Kind, Ending]
"""What a checkpoint's schedule says of the DPM solver beside its order."""


class Run(Protocol):
    """How every solver of the table is called."""

    def __call__(
        self, denoise: Denoise, x: Tensor, nodes: Nodes, *, form: Form, noise: Noise | None
    ) -> Iterator[State]:
        """Walk `nodes` from x; `form` counts for dpm, `noise` for scm."""
        ...


@dataclass(frozen=True)
class Solver:
    """One row: `run` yields the states, `grid(shift, steps)` gives the nodes [steps+1] float32."""

    run: Run
    grid: Callable[[float, int], Tensor]
    about: str


@dataclass(frozen=True)
class ModelTime:
    """From a noise level in [0, 1] to the time the network is given.

    integer  cut it to a whole number, as the base checkpoints were trained (official code, and diffusers' DPM solver)
    scale    1000 for the base checkpoints, 1 for SANA-Sprint, which reads the noise level itself

    A float32 level can land on the other side of a whole number than diffusers' float64 one; where its exact integers
    matter on a plain DPM grid, take them by step from `ShiftedTimes.timesteps`.
    """

    integer: bool
    scale: float = float(TRAIN_STEPS)

    def __call__(self, sigma: float) -> float:
        """The model time, in units of the checkpoint's clock."""
        time = self.scale * sigma
        return float(int(time)) if self.integer else time


def _dpm(order: int) -> Run:
    def run(denoise: Denoise, x: Tensor, nodes: Nodes, *, form: Form, noise: Noise | None) -> Iterator[State]:
        return iterate_dpm(denoise, x, nodes, order, *form)

    return run


def _euler(denoise: Denoise, x: Tensor, nodes: Nodes, *, form: Form, noise: Noise | None) -> Iterator[State]:
    return iterate_euler(denoise, x, nodes)


def _scm(denoise: Denoise, x: Tensor, nodes: Nodes, *, form: Form, noise: Noise | None) -> Iterator[State]:
    return iterate_scm(trigflow(denoise), x, nodes, noise)


def _dpm_grid(shift: float, steps: int) -> Tensor:
    return ShiftedTimes(shift).grid(steps)


def _euler_grid(shift: float, steps: int) -> Tensor:
    return ShiftedTimes(shift).euler_grid(steps)


def _scm_grid(shift: float, steps: int) -> Tensor:
    return angles(steps)


SOLVERS: dict[str, Solver] = {
    "dpm1": Solver(_dpm(1), _dpm_grid, "DPM-Solver++ of order 1 (DDIM)"),
    "dpm2": Solver(_dpm(2), _dpm_grid, "DPM-Solver++ of order 2, what the checkpoints ship with"),
    "dpm3": Solver(_dpm(3), _dpm_grid, "DPM-Solver++ of order 3"),
    "euler": Solver(_euler, _euler_grid, "Euler steps of the flow"),
    "scm": Solver(_scm, _scm_grid, "consistency steps of SANA-Sprint, 1 to 4 of them"),
}


def solver_named(name: str) -> Solver:
    """The row of that name; RequestError lists the names if there is none."""
    if name not in SOLVERS:
        raise RequestError(f"unknown solver {name!r}; choose one of {', '.join(SOLVERS)}")
    return SOLVERS[name]


def times_for(solver: str, shift: float, steps: int) -> Tensor:
    """The nodes of a solver, [steps+1] float32: noise levels, angles for scm.

    Raises RequestError for an unknown solver or steps < 1, ConfigError for a shift that is not positive.
    """
    return solver_named(solver).grid(shift, steps)


def iterate_sample(
    denoise: Denoise,
    x: Tensor,
    *,
    solver: str = "dpm2",
    shift: float = 3.0,
    steps: int = 20,
    nodes: Nodes | None = None,
    kind: Kind = "midpoint",
    noise: Noise | None = None,
    ending: Ending = USUAL,
) -> Iterator[State]:
    """Sample by a named solver, as a generator with one State per step.

    Args:
        denoise: (x, sigma, index) -> velocity of the linear path, for every solver of the table.
        x: standard normal noise [B, ...], or a state at nodes[0].
        solver: a name of SOLVERS.
        shift: the flow shift of the checkpoint.
        steps: the number of network calls; left aside if `nodes` are given.
        nodes: an explicit list in place of the solver's grid.
        kind: the second-order formula of dpm2.
        noise: fresh noise by step, which scm needs for more than one step.
        ending: the orders of the last steps of dpm.

    Raises RequestError for an unknown solver, steps < 1 or bad nodes.
    """
    row = solver_named(solver)
    grid = row.grid(shift, steps) if nodes is None else nodes
    return row.run(denoise, x, grid, form=(kind, ending), noise=noise)


def sample(
    denoise: Denoise,
    x: Tensor,
    *,
    solver: str = "dpm2",
    shift: float = 3.0,
    steps: int = 20,
    nodes: Nodes | None = None,
    kind: Kind = "midpoint",
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Run `iterate_sample` to its end and return the clean sample [B, ...] float32; `callback` sees every State."""
    states = iterate_sample(
        denoise, x, solver=solver, shift=shift, steps=steps, nodes=nodes, kind=kind, noise=noise
    )
    return last_state(states, callback)
