"""The one table of implementations: which rows an operator has, and what each can do.

Rows of an operator are tried from top to bottom, so the fastest stands first and the reference, which takes every
problem, stands last. A row that can't solve a problem says why. On a CPU a row that takes a problem is tried once
beside the reference, and refuses as well if it is wrong or slow there (see `proof`). `choice` asks the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sanakit.base.chip import this_chip
from sanakit.base.errors import ConfigError
from sanakit.kernels.conv import conv, quarters, split_taps, upsample_conv
from sanakit.kernels.conv import onednn as conv_onednn
from sanakit.kernels.linear import linear, packed_linear
from sanakit.kernels.linear import onednn as linear_onednn
from sanakit.kernels.linear import pack as pack_linear
from sanakit.kernels.linear import unsupported as unsupported_onednn
from sanakit.kernels.linear_attention import cpu as attention_cpu
from sanakit.kernels.linear_attention import gpu as attention_gpu
from sanakit.kernels.linear_attention import reference as attention
from sanakit.kernels.mix_ffn import cpu as ffn_cpu
from sanakit.kernels.mix_ffn import gpu as ffn_gpu
from sanakit.kernels.mix_ffn import reference as ffn
from sanakit.kernels.modulated_norm import gpu as norm_gpu
from sanakit.kernels.modulated_norm import layer_norm
from sanakit.kernels.modulated_norm import reference as norm
from sanakit.kernels.problem import Problem
from sanakit.kernels.proof import failure
from sanakit.kernels.quant_matmul import cpu as quant_cpu
from sanakit.kernels.quant_matmul import gpu as quant_gpu
from sanakit.kernels.quant_matmul import reference as quant
from sanakit.kernels.rms_norm import cpu as rms_cpu
from sanakit.kernels.rms_norm import fused as rms_fused
from sanakit.kernels.rms_norm import gpu as rms_gpu
from sanakit.kernels.rms_norm import reference as rms
from sanakit.kernels.winograd import conv as winograd
from sanakit.kernels.winograd import unsupported as unsupported_winograd

__all__ = ["TABLE", "Implementation", "operators", "row_of", "rows_of"]


def _takes_all(_: Problem) -> str | None:
    return None


@dataclass(frozen=True)
class Implementation:
    """One row: `run` computes the operator `op`.

    unsupported: returns the reason why the row can't run a problem, or None.
    traced: what torch.compile is given to trace in place of `run`; a row without it is not for compiled code, in which
        the compiler fuses the reference itself.
    backward: has a gradient.
    forward_ad: carries tangents (`torch.func.jvp`), as plain torch does. An operator registered with torch, an
        autograd function or a call of oneDNN does not: a tangent through it would be lost without an error.
    prepare: makes of the weight, once, what `run` takes in its place, or with `prepared_last` as one argument more.
    """

    op: str
    name: str
    run: Callable[..., Any]
    unsupported: Callable[[Problem], str | None] = _takes_all
    traced: Callable[..., Any] | None = None
    backward: bool = True
    forward_ad: bool = False
    prepare: Callable[[Tensor], Tensor] | None = None
    prepared_last: bool = False

    def refusal(self, problem: Problem) -> str | None:
        """Return why this row does not run a problem on this machine, or None: its own reason, else the trial's."""
        reason = self.unsupported(problem) or self._lacks(problem)
        reference = rows_of(problem.op)[-1]
        if reason is not None or problem.device != "cpu" or self is reference:
            return reason
        return failure(problem.op, self.ready, reference.ready, problem.dtype, this_chip())

    def _lacks(self, problem: Problem) -> str | None:
        if problem.fact("training") and not self.backward:
            return "has no backward pass"
        if problem.fact("tangent") and not self.forward_ad:
            return "has no forward-mode derivative"
        if problem.fact("compiling") and self.traced is None:
            return "is not for a compiler, which fuses the reference"
        return None

    def form(self) -> Callable[..., Any]:
        """Return what computes the operator here: `run`, or while a compiler traces the form for it."""
        return self.traced if self.traced is not None and torch.compiler.is_compiling() else self.run

    def ready(self, *arguments: Any) -> Callable[[], Tensor]:
        """Return a call of `run` with the arguments of the reference, the weight (the second of them) prepared."""
        if self.prepare is None:
            return partial(self.run, *arguments)
        prepared = self.prepare(arguments[1])
        if self.prepared_last:
            return partial(self.run, *arguments, prepared)
        return partial(self.run, arguments[0], prepared, *arguments[2:])


def _reference(op: str, run: Callable[..., Any]) -> Implementation:
    """Return a row of plain torch: takes every problem, has every derivative, and is what a compiler fuses."""
    return Implementation(op, "reference", run, traced=run, forward_ad=True)


TABLE: tuple[Implementation, ...] = (
    Implementation(
        "linear_attention", "triton", attention_gpu.linear_attention, attention_gpu.unsupported,
        traced=attention_gpu.linear_attention,
    ),
    Implementation(
        "linear_attention", "heads_first", attention_cpu.linear_attention, attention_cpu.unsupported,
        forward_ad=True,
    ),
    _reference("linear_attention", attention.linear_attention),
    Implementation(
        "qk_norm_linear_attention", "triton", attention_gpu.qk_norm_linear_attention, attention_gpu.unsupported,
        traced=attention_gpu.qk_norm_linear_attention,
    ),
    Implementation(
        "qk_norm_linear_attention", "heads_first", attention_cpu.qk_norm_linear_attention,
        attention_cpu.unsupported_with_norm, forward_ad=True,
    ),
    _reference("qk_norm_linear_attention", attention.qk_norm_linear_attention),
    Implementation(
        "gated_depthwise", "triton", ffn_gpu.gated_depthwise, ffn_gpu.unsupported, traced=ffn_gpu.gated_depthwise
    ),
    Implementation(
        "gated_depthwise", "channels_last", ffn_cpu.gated_depthwise, ffn_cpu.unsupported_eager,
        traced=ffn_cpu.gated_depthwise,
    ),
    _reference("gated_depthwise", ffn.gated_depthwise),
    Implementation(
        "depthwise_glu", "onednn", ffn_cpu.depthwise_glu, unsupported_onednn, traced=ffn_cpu.depthwise_glu_traced,
        backward=False,
    ),
    _reference("depthwise_glu", ffn.depthwise_glu),
    Implementation("modulated_norm", "triton", norm_gpu.modulated_norm, norm_gpu.unsupported),
    Implementation(
        "modulated_norm", "layer_norm", layer_norm.modulated_norm, layer_norm.unsupported, forward_ad=True
    ),
    _reference("modulated_norm", norm.modulated_norm),
    Implementation("add_norm_modulate", "triton", norm_gpu.add_norm_modulate, norm_gpu.unsupported),
    Implementation(
        "add_norm_modulate", "layer_norm", layer_norm.add_norm_modulate, layer_norm.unsupported, forward_ad=True
    ),
    _reference("add_norm_modulate", norm.add_norm_modulate),
    Implementation(
        "add_norm_modulate_quant", "triton", norm_gpu.add_norm_modulate_quant, norm_gpu.unsupported
    ),
    Implementation(
        "add_norm_modulate_quant", "layer_norm", layer_norm.add_norm_modulate, layer_norm.unsupported,
        forward_ad=True,
    ),
    _reference("add_norm_modulate_quant", norm.add_norm_modulate_quant),
    Implementation(
        "linear", "onednn", linear_onednn, unsupported_onednn, traced=packed_linear, backward=False,
        prepare=pack_linear,
    ),
    _reference("linear", linear),
    Implementation(
        "int8_matmul", "triton", quant_gpu.int8_matmul, quant_gpu.unsupported, traced=quant_gpu.int8_matmul
    ),
    Implementation(
        "int8_matmul", "onednn", quant_cpu.int8_matmul, quant_cpu.unsupported_signed,
        traced=quant_cpu.int8_matmul_traced, prepare=quant_cpu.pack, prepared_last=True,
    ),
    Implementation(
        "int8_matmul", "onednn-shifted", quant_cpu.int8_matmul_shifted, quant_cpu.unsupported_shifted,
        traced=quant_cpu.int8_matmul_shifted_traced, prepare=quant_cpu.pack, prepared_last=True,
    ),
    Implementation(
        "int8_matmul", "float32", quant_cpu.int8_matmul_float32, quant_cpu.unsupported_float32,
        traced=quant_cpu.int8_matmul_float32_traced,
    ),
    _reference("int8_matmul", quant.int8_matmul),
    Implementation(
        "fp8_matmul", "scaled", quant_gpu.fp8_matmul, quant_gpu.unsupported_fp8, traced=quant_gpu.fp8_matmul,
        backward=False,
    ),
    _reference("fp8_matmul", quant.fp8_matmul),
    Implementation("conv", "winograd", winograd, unsupported_winograd, backward=False),
    Implementation("conv", "onednn", conv_onednn, unsupported_onednn, backward=False),
    _reference("conv", conv),
    Implementation("rms_norm", "triton", rms_gpu.rms_norm, rms_gpu.unsupported, backward=False),
    Implementation("rms_norm", "fused", rms_fused.rms_norm, rms_fused.unsupported),
    Implementation("rms_norm", "chunked", rms_cpu.rms_norm, rms_cpu.unsupported, backward=False),
    _reference("rms_norm", rms.rms_norm),
    Implementation(
        "upsample_conv", "quarters", quarters, traced=quarters, backward=False, prepare=split_taps
    ),
    _reference("upsample_conv", upsample_conv),
)  # fmt: skip
"""Every implementation there is, the preferred ones of an operator first."""


def operators() -> tuple[str, ...]:
    """Return the names of the operators in the table."""
    return tuple(dict.fromkeys(row.op for row in TABLE))


def rows_of(op: str) -> tuple[Implementation, ...]:
    """Return the rows of an operator in their order. Raises ConfigError if there are none."""
    rows = tuple(row for row in TABLE if row.op == op)
    if not rows:
        raise ConfigError(f"unknown operator {op!r}; known are {', '.join(operators())}")
    return rows


def row_of(op: str, name: str) -> Implementation:
    """Return a row by its name. Raises ConfigError if the operator has no such row."""
    rows = {row.name: row for row in rows_of(op)}
    if name not in rows:
        raise ConfigError(f"{op} has no implementation {name!r}; it has {', '.join(rows)}")
    return rows[name]
