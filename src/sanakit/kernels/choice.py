"""Choose the implementation that runs an operator: one question to the table, an answer in words.

`run` is how the rest of the program calls an operator, eager or traced by torch.compile: for compiled code the choice
is made once per graph, which is for one device and dtype. `prepare` chooses for a weight that is to be laid out once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from sanakit.base.chip import Chip, this_chip
from sanakit.base.errors import ConfigError
from sanakit.kernels import table
from sanakit.kernels.problem import Like, Problem, stated, takes_tangents
from sanakit.kernels.table import Implementation, operators, row_of, rows_of

__all__ = [
    "Implementation",
    "Prepared",
    "Problem",
    "avoid",
    "choose",
    "explain",
    "force",
    "operators",
    "prepare",
    "run",
    "select",
]

_forced: ContextVar[tuple[tuple[str, str], ...]] = ContextVar("forced", default=())
_avoided: ContextVar[frozenset[str]] = ContextVar("avoided", default=frozenset())


def run(op: str, like: Like, **facts: int) -> Callable[..., Tensor]:
    """Return what computes `op` on tensors of the device and dtype of `like`; the arguments are the reference's."""
    return choose(op, like, **facts).form()


def choose(op: str, like: Like, **facts: int) -> Implementation:
    """Return the row that runs `op` here and now, also for a graph that is being traced."""
    if torch.compiler.is_compiling():
        index: int = _index(op, like.device.type, like.dtype, **facts)
        return table.TABLE[index]
    return select(op, Problem.of(op, like, **facts))


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _index(op: str, device: str, dtype: torch.dtype, **facts: int) -> int:
    """Return where in the table the row stands that a compiler is given: a number, which it takes as a constant."""
    return table.TABLE.index(select(op, Problem(op, device, dtype, stated({**facts, "compiling": 1}))))


@dataclass(frozen=True, eq=False)
class Prepared:
    """A row together with a weight that was laid out for it once."""

    row: Implementation
    weight: Tensor

    def __call__(self, x: Tensor, *rest: Any) -> Tensor:
        """Run the row: the arguments are the reference's, but for the weight.

        Raises ConfigError inside forward-mode differentiation if the row carries no tangents: no other row can use its
        weight.
        """
        if takes_tangents() and not self.row.forward_ad:
            raise ConfigError(
                f"{self.row.op}: its weight is prepared for the row {self.row.name}, which has no forward-mode "
                "derivative; differentiate a model that is not packed"
            )
        out: Tensor = self.row.form()(x, self.weight, *rest)
        return out


def prepare(op: str, weight: Tensor) -> Prepared:
    """Choose the row for tensors such as `weight` [O, ...], and lay the weight out for it."""
    row = select(op, Problem.of(op, weight))
    weight = weight.detach()
    return Prepared(row, weight if row.prepare is None else row.prepare(weight))


def select(op: str, problem: Problem) -> Implementation:
    """Return the row that runs `op` on `problem`: the forced one, else the first that does not refuse.

    Raises ConfigError if the operator is unknown, `problem` is about another one, or every row refuses.
    """
    if problem.op != op:
        raise ConfigError(f"asked for {op} with a problem of {problem.op}; both must name one operator")
    return _select(problem, dict(_forced.get()).get(op), _avoided.get(), this_chip())


@contextmanager
def force(op: str, name: str) -> Iterator[None]:
    """Within the block, `op` runs by the row `name`, or `select` raises ConfigError with its refusal."""
    row_of(op, name)
    token = _forced.set((*_forced.get(), (op, name)))
    try:
        yield
    finally:
        _forced.reset(token)


@contextmanager
def avoid(name: str) -> Iterator[None]:
    """Within the block no row called `name` is taken, of any operator, unless it is forced."""
    token = _avoided.set(_avoided.get() | {name})
    try:
        yield
    finally:
        _avoided.reset(token)


def explain(problem: Problem) -> list[str]:
    """Return one line per row of the operator: chosen, refused with the reason, or not reached."""
    chosen = select(problem.op, problem)
    forced = problem.op in dict(_forced.get())
    lines = []
    for row in rows_of(problem.op):
        refusal = row.refusal(problem)
        if row is chosen:
            verdict = "chosen, forced" if forced else "chosen"
        elif refusal is not None:
            verdict = f"refuses: {refusal}"
        elif row.name in _avoided.get():
            verdict = "able, avoided"
        else:
            verdict = "able, not chosen"
        lines.append(f"{problem.op}: {row.name}: {verdict}")
    return lines


@cache
def _select(problem: Problem, forced: str | None, avoided: frozenset[str], chip: Chip) -> Implementation:
    wanted = tuple(row for row in rows_of(problem.op) if row.name not in avoided)
    rows = (row_of(problem.op, forced),) if forced else wanted
    refusals = []
    for row in rows:
        refusal = row.refusal(problem)
        if refusal is None:
            return row
        refusals.append(f"{row.name}: {refusal}")
    raise ConfigError(f"no implementation of {problem.op} takes this problem ({'; '.join(refusals)})")
