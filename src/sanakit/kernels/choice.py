"""Which implementation of an operator runs: one table, one question, an answer in words.

A row may refuse a problem and says why. Rows of an operator are tried from top to bottom, so the fastest stands first
and the reference, which refuses nothing, stands last. On a CPU a row that takes a problem is tried once beside the
reference, and refuses as well where it is wrong or slow there (see `proof`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from torch import Tensor

from sanakit.base.chip import Chip, this_chip
from sanakit.base.errors import ConfigError
from sanakit.kernels.conv import onednn as conv_onednn
from sanakit.kernels.conv import reference as conv
from sanakit.kernels.fp8_matmul import reference as fp8_matmul
from sanakit.kernels.fp8_matmul import scaled as fp8_scaled
from sanakit.kernels.int8_matmul import gpu as int8_gpu
from sanakit.kernels.int8_matmul import onednn as int8_onednn
from sanakit.kernels.int8_matmul import reference as int8_matmul
from sanakit.kernels.int8_matmul import widened as int8_widened
from sanakit.kernels.linear import onednn as linear_onednn
from sanakit.kernels.linear import reference as linear
from sanakit.kernels.linear_attention import gpu as linear_attention_gpu
from sanakit.kernels.linear_attention import heads_first
from sanakit.kernels.linear_attention import reference as linear_attention
from sanakit.kernels.mix_ffn import gpu as mix_ffn_gpu
from sanakit.kernels.mix_ffn import onednn as mix_ffn_onednn
from sanakit.kernels.mix_ffn import reference as mix_ffn
from sanakit.kernels.modulated_norm import gpu as modulated_norm_gpu
from sanakit.kernels.modulated_norm import layer_norm
from sanakit.kernels.modulated_norm import reference as modulated_norm
from sanakit.kernels.problem import Problem
from sanakit.kernels.proof import failure
from sanakit.kernels.rms_norm import chunked
from sanakit.kernels.rms_norm import gpu as rms_norm_gpu
from sanakit.kernels.rms_norm import reference as rms_norm
from sanakit.kernels.upsample_conv import quarters
from sanakit.kernels.upsample_conv import reference as upsample_conv

__all__ = ["TABLE", "Implementation", "Problem", "avoid", "explain", "force", "operators", "select"]


def _never(_: Problem) -> str | None:
    return None


@dataclass(frozen=True)
class Implementation:
    """One row: `run` computes the operator; `refuses` gives the reason why it can't, or None when it can.

    prepare: what this row wants made of its weight once; `run` takes the result as its last argument.
    together: computes the operator with what comes before it, in one pass; see `ops` for which that is.
    prepared_last: what `prepare` made is one argument more; otherwise it takes the place of the weight.
    forward_ad: carries tangents (`torch.func.jvp`), as plain torch does. An operator registered with torch, an autograd
        function or a call of oneDNN does not: a tangent through it would be lost without an error.
    """

    op: str
    name: str
    run: Callable[..., Tensor]
    refuses: Callable[[Problem], str | None] = _never
    prepare: Callable[[Tensor], Tensor] | None = None
    together: Callable[..., Any] | None = None
    prepared_last: bool = False
    forward_ad: bool = False

    def refusal(self, problem: Problem) -> str | None:
        """Why this row does not run a problem on this machine: what it says, else what a trial on the CPU found."""
        told = self.refuses(problem)
        if told is None and problem.fact("tangent") and not self.forward_ad:
            told = "has no forward-mode derivative"
        reference = _rows(problem.op)[-1]
        if told is not None or problem.device != "cpu" or self is reference:
            return told
        return failure(problem.op, self.ready, reference.ready, problem.dtype, this_chip())

    def ready(self, *arguments: Any) -> Callable[[], Tensor]:
        """A call of `run` with the arguments of the reference, what it wants of the weight (the second) prepared."""
        if self.prepare is None:
            return partial(self.run, *arguments)
        prepared = self.prepare(arguments[1])
        if self.prepared_last:
            return partial(self.run, *arguments, prepared)
        return partial(self.run, arguments[0], prepared, *arguments[2:])


TABLE: tuple[Implementation, ...] = (
    Implementation(
        "linear_attention",
        "triton",
        linear_attention_gpu.linear_attention,
        linear_attention_gpu.refuses,
        together=linear_attention_gpu.linear_attention,
    ),
    Implementation(
        "linear_attention", "heads_first", heads_first.linear_attention, heads_first.refuses, forward_ad=True
    ),
    Implementation("linear_attention", "reference", linear_attention.linear_attention, forward_ad=True),
    Implementation("gated_depthwise", "triton", mix_ffn_gpu.gated_depthwise, mix_ffn_gpu.refuses),
    Implementation("gated_depthwise", "reference", mix_ffn.gated_depthwise, forward_ad=True),
    Implementation("depthwise_glu", "onednn", mix_ffn_onednn.depthwise_glu, mix_ffn_onednn.refuses),
    Implementation("depthwise_glu", "reference", mix_ffn.depthwise_glu, forward_ad=True),
    Implementation(
        "modulated_norm",
        "triton",
        modulated_norm_gpu.modulated_norm,
        modulated_norm_gpu.refuses,
        together=modulated_norm_gpu.add_norm_modulate,
    ),
    Implementation(
        "modulated_norm", "layer_norm", layer_norm.modulated_norm, layer_norm.refuses, forward_ad=True
    ),
    Implementation("modulated_norm", "reference", modulated_norm.modulated_norm, forward_ad=True),
    Implementation("linear", "onednn", linear_onednn.linear, linear_onednn.refuses, linear_onednn.pack),
    Implementation("linear", "reference", linear.linear, forward_ad=True),
    Implementation("int8_matmul", "triton", int8_gpu.int8_matmul, int8_gpu.refuses),
    Implementation(
        "int8_matmul",
        "onednn",
        int8_onednn.int8_matmul,
        int8_onednn.refuses,
        int8_onednn.pack,
        prepared_last=True,
    ),
    Implementation(
        "int8_matmul",
        "onednn-shifted",
        int8_onednn.int8_matmul_shifted,
        int8_onednn.refuses_shifted,
        int8_onednn.pack,
        prepared_last=True,
    ),
    Implementation("int8_matmul", "float32", int8_widened.int8_matmul, int8_widened.refuses),
    Implementation("int8_matmul", "reference", int8_matmul.int8_matmul, forward_ad=True),
    Implementation("fp8_matmul", "scaled", fp8_scaled.fp8_matmul, fp8_scaled.refuses),
    Implementation("fp8_matmul", "reference", fp8_matmul.fp8_matmul, forward_ad=True),
    Implementation("conv", "onednn", conv_onednn.conv, conv_onednn.refuses),
    Implementation("conv", "reference", conv.conv, forward_ad=True),
    Implementation("rms_norm", "triton", rms_norm_gpu.rms_norm, rms_norm_gpu.refuses),
    Implementation("rms_norm", "chunked", chunked.rms_norm, chunked.refuses),
    Implementation("rms_norm", "reference", rms_norm.rms_norm, forward_ad=True),
    Implementation("upsample_conv", "quarters", quarters.upsample_conv, quarters.refuses, quarters.prepare),
    Implementation("upsample_conv", "reference", upsample_conv.upsample_conv, forward_ad=True),
)
"""Every implementation there is, the preferred ones of an operator first."""

_forced: ContextVar[tuple[tuple[str, str], ...]] = ContextVar("forced", default=())
_avoided: ContextVar[frozenset[str]] = ContextVar("avoided", default=frozenset())


def operators() -> tuple[str, ...]:
    """Names of the operators in the table."""
    return tuple(dict.fromkeys(row.op for row in TABLE))


def select(op: str, problem: Problem) -> Implementation:
    """The row that runs `op` on `problem`: the forced one, else the first that does not refuse.

    Raises ConfigError when the operator is unknown, `problem` is about another one, or every row refuses.
    """
    if problem.op != op:
        raise ConfigError(f"asked for {op} with a problem of {problem.op}; both must name one operator")
    return _select(problem, dict(_forced.get()).get(op), _avoided.get(), this_chip())


@contextmanager
def force(op: str, name: str) -> Iterator[None]:
    """Within the block, `op` runs by the row `name`, or `select` raises ConfigError with its refusal."""
    _row(op, name)
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
    """One line per row of the operator: chosen, refused with the reason, or not reached."""
    chosen = select(problem.op, problem)
    forced = problem.op in dict(_forced.get())
    lines = []
    for row in _rows(problem.op):
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
    wanted = tuple(row for row in _rows(problem.op) if row.name not in avoided)
    rows = (_row(problem.op, forced),) if forced else wanted
    refusals = []
    for row in rows:
        refusal = row.refusal(problem)
        if refusal is None:
            return row
        refusals.append(f"{row.name}: {refusal}")
    raise ConfigError(f"no implementation of {problem.op} takes this problem ({'; '.join(refusals)})")


def _rows(op: str) -> tuple[Implementation, ...]:
    rows = tuple(row for row in TABLE if row.op == op)
    if not rows:
        raise ConfigError(f"unknown operator {op!r}; known are {', '.join(operators())}")
    return rows


def _row(op: str, name: str) -> Implementation:
    rows = {row.name: row for row in _rows(op)}
    if name not in rows:
        raise ConfigError(f"{op} has no implementation {name!r}; it has {', '.join(rows)}")
    return rows[name]
