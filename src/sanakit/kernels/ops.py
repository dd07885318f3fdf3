"""The operators as layers call them: the table is asked once per problem, then its row runs.

While torch.compile traces, a GPU's row of attention, gated convolution and rounded products is traced where the table
has one: an operator of torch, opaque to the compiler, chosen once per graph, which is made for one device and dtype.
Everywhere else the reference is traced, which the compiler fuses. The exceptions, on CPUs, are the files named
`compiled.py`, which say why; parts that `adapt` packed have made their choice before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from sanakit.kernels import conv as _conv
from sanakit.kernels import fp8_matmul as _fp8
from sanakit.kernels import int8_matmul as _int8
from sanakit.kernels import linear_attention as _attention
from sanakit.kernels import mix_ffn as _mix_ffn
from sanakit.kernels import modulated_norm as _norm
from sanakit.kernels import rms_norm as _rms_norm
from sanakit.kernels.choice import Implementation, Problem, select
from sanakit.kernels.fp8_matmul import scaled as _fp8_scaled
from sanakit.kernels.int8_matmul import QuantTokens
from sanakit.kernels.int8_matmul import compiled as _compiled_int8
from sanakit.kernels.int8_matmul import gpu as _int8_gpu
from sanakit.kernels.int8_matmul import widened as _widened
from sanakit.kernels.int8_matmul.onednn import SHIFT
from sanakit.kernels.linear import Act
from sanakit.kernels.linear_attention import AttentionState
from sanakit.kernels.linear_attention import gpu as _attention_gpu
from sanakit.kernels.mix_ffn import compiled as _compiled
from sanakit.kernels.mix_ffn import gpu as _mix_ffn_gpu
from sanakit.kernels.problem import stated
from sanakit.kernels.qk_norm import QKNorm

Row = Callable[..., Tensor]

_ON_GPU = ("triton", "scaled")
"""Names of rows that a compiler is given as they are."""


def linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    eps: float = 1e-15,
    angles: Tensor | None = None,
    mask: Tensor | None = None,
    state: AttentionState | None = None,
    norm: QKNorm | None = None,
) -> Tensor:
    """ReLU linear attention, [B, N, H, D] each -> [B, N, H, D]; see `linear_attention/reference.py`.

    Where the row does not normalise on its way, `rms_norm` does so before it.
    """
    facts = {"rotary": int(angles is not None), "width": max(query.shape[-1], value.shape[-1])}
    if torch.compiler.is_compiling():
        there = _traces("linear_attention", value, **facts)
        traced: Row = _attention_gpu.linear_attention if there else _attention.linear_attention
        return traced(query, key, value, eps, angles, mask, state, norm)
    row = select("linear_attention", Problem.of("linear_attention", value, **facts))
    if norm is not None and row.together is not None:
        return cast(Tensor, row.together(query, key, value, eps, angles, mask, state, norm))
    if norm is not None:
        key = key if mask is None else key.masked_fill(~mask[:, :, None, None], 0)
        query, key = _normalised(query, norm.query, norm.eps), _normalised(key, norm.key, norm.eps)
    return row.run(query, key, value, eps, angles, mask, state)


def _normalised(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """[B, N, H, D], over all heads; tokens are the positions of a map."""
    rows = x.flatten(-2).reshape(-1, len(weight), 1, 1)
    return rms_norm(rows, None, weight, None, eps).reshape(x.shape)


def gated_depthwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """SiLU, depthwise 3x3, gate: [B, 2F, h, w] -> [B, F, h, w]; see `mix_ffn/reference.py`."""
    if torch.compiler.is_compiling():
        if _traces("gated_depthwise", x):
            return _mix_ffn_gpu.gated_depthwise(x, weight, bias)
        traced = _compiled.gated_depthwise if x.device.type == "cpu" else _mix_ffn.gated_depthwise
        return traced(x, weight, bias)
    return select("gated_depthwise", Problem.of("gated_depthwise", x)).run(x, weight, bias)


def depthwise_glu(value: Tensor, gate: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Depthwise 3x3 of activated halves, gate: [B, F, h, w] each -> the same; see `mix_ffn/reference.py`."""
    if torch.compiler.is_compiling():
        traced = _compiled.depthwise_glu if _drawn(value, weight) else _mix_ffn.depthwise_glu
        return traced(value, gate, weight, bias)
    problem = Problem.of("depthwise_glu", value, training=_training(value, gate, weight, bias))
    return select("depthwise_glu", problem).run(value, gate, weight, bias)


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6) -> Tensor:
    """LayerNorm, scale, shift: [B, N, D] -> [B, N, D]; see `modulated_norm/reference.py`."""
    if torch.compiler.is_compiling():
        return _norm.modulated_norm(x, shift, scale, eps)
    return _norm_row(x, shift, scale).run(x, shift, scale, eps)


def add_norm_modulate(
    x: Tensor, branch: Tensor | None, gate: Tensor | None, shift: Tensor, scale: Tensor, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """x + gate * branch, and its modulated norm: [B, N, D] each; see `modulated_norm/reference.py`."""
    if torch.compiler.is_compiling():
        return _norm.add_norm_modulate(x, branch, gate, shift, scale, eps)
    row = _norm_row(x, shift, scale)
    if branch is not None and row.together is not None:
        return cast(tuple[Tensor, Tensor], row.together(x, branch, gate, shift, scale, eps))
    total = _norm.add(x, branch, gate)
    return total, row.run(total, shift, scale, eps)


def add_norm_modulate_quant(
    x: Tensor, branch: Tensor | None, gate: Tensor | None, shift: Tensor, scale: Tensor, eps: float = 1e-6
) -> tuple[Tensor, Tensor | QuantTokens]:
    """As `add_norm_modulate`, the norm rounded to int8 where a row does so on its way, for `int8_matmul`."""
    row = None if torch.compiler.is_compiling() else _norm_row(x, shift, scale)
    if row is None or row.together is None or _training(x, branch, gate, shift, scale):
        return add_norm_modulate(x, branch, gate, shift, scale, eps)
    return cast(tuple[Tensor, QuantTokens], row.together(x, branch, gate, shift, scale, eps, rounds=True))


def _norm_row(x: Tensor, shift: Tensor, scale: Tensor) -> Implementation:
    shared = shift.shape[0] == scale.shape[0] == shift.shape[1] == scale.shape[1] == 1
    per_token = int(max(shift.shape[1], scale.shape[1]) > 1)
    problem = Problem.of("modulated_norm", x, modulations=1 if shared else len(x), per_token=per_token)
    return select("modulated_norm", problem)


def conv(x: Tensor, weight: Tensor, bias: Tensor | None, act: Act = "none") -> Tensor:
    """Convolution that keeps the size, perhaps a SiLU: [B, C, h, w] -> [B, D, h, w]; see `conv/reference.py`."""
    if torch.compiler.is_compiling():
        return _conv.conv(x, weight, bias, act)
    problem = Problem.of("conv", x, training=_training(x, weight, bias))
    return select("conv", problem).run(x, weight, bias, act)


def rms_norm(x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """RMS norm over channels, and a sum: [B, C, h, w] -> the same; see `rms_norm/reference.py`."""
    if torch.compiler.is_compiling():
        return _rms_norm.rms_norm(x, residual, weight, bias, eps)
    problem = Problem.of("rms_norm", x, training=_training(x, residual, weight, bias))
    return select("rms_norm", problem).run(x, residual, weight, bias, eps)


def _traces(op: str, x: Tensor, **facts: int) -> bool:
    """While a compiler traces: whether it is given the operator of a GPU's row."""
    return _chosen(op, x.device.type, x.dtype, **facts) in _ON_GPU


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _chosen(op: str, device: str, dtype: torch.dtype, **facts: int) -> str:
    """The name of the row that runs a problem, for a graph that is being traced."""
    return select(op, Problem(op, device, dtype, stated(facts))).name


def _drawn(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN's fused forms run here: on a CPU, without gradients."""
    return x.device.type == "cpu" and not _training(x, weight)


def _training(*tensors: Tensor | None) -> int:
    """Whether a gradient will be asked for, as a fact of a problem."""
    return int(torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors))


def int8_matmul(
    x: Tensor | QuantTokens,
    weight: Tensor,
    steps: Tensor,
    bias: Tensor | None,
    act: Act = "none",
    prepared: Tensor | None = None,
) -> Tensor:
    """W8A8 product: x [..., K], int8 weight [O, K], steps [O] -> [..., O]; see `int8_matmul/reference.py`.

    prepared: what `prepare_int8` made of the weight, so that it is not made again at each call.
    """
    if torch.compiler.is_compiling():
        held = x.values if isinstance(x, QuantTokens) else x
        name = _chosen("int8_matmul", held.device.type, x.dtype)
        if prepared is not None and isinstance(x, Tensor):
            shift = SHIFT if name == "onednn-shifted" else 0
            return _compiled_int8.int8_matmul(x, steps, bias, act, prepared, shift)
        if name == "float32" and isinstance(x, Tensor) and not _training(x, bias):
            return _widened.traced(x, weight, steps, bias, act)
        return (_int8_gpu.int8_matmul if name in _ON_GPU else _int8.int8_matmul)(x, weight, steps, bias, act)
    row = select("int8_matmul", _int8_problem(x))
    if row.prepare is None:
        return row.run(x, weight, steps, bias, act)
    return row.run(x, weight, steps, bias, act, row.prepare(weight) if prepared is None else prepared)


def _int8_problem(x: Tensor | QuantTokens) -> Problem:
    rounded = isinstance(x, QuantTokens)
    held = x.values if isinstance(x, QuantTokens) else x
    return Problem("int8_matmul", held.device.type, x.dtype, stated({"rounded": int(rounded)}))


def prepare_int8(weight: Tensor, like: Tensor) -> Tensor | None:
    """What the chosen row wants made of an int8 weight [O, K] for tokens such as `like`; None for nothing."""
    row = select("int8_matmul", Problem.of("int8_matmul", like))
    return None if row.prepare is None else row.prepare(weight)


def fp8_matmul(x: Tensor, weight: Tensor, steps: Tensor, bias: Tensor | None, act: Act = "none") -> Tensor:
    """Product in fp8: x [..., K], e4m3 weight [O, K], steps [O] -> [..., O]; see `fp8_matmul/reference.py`."""
    facts = {"training": _training(x, bias)}
    if torch.compiler.is_compiling():
        there = _traces("fp8_matmul", x, **facts)
        return (_fp8_scaled.fp8_matmul if there else _fp8.fp8_matmul)(x, weight, steps, bias, act)
    problem = Problem.of("fp8_matmul", x, **facts)
    return select("fp8_matmul", problem).run(x, weight, steps, bias, act)
