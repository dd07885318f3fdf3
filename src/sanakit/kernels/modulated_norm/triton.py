"""LayerNorm and modulation on GPUs: a token is read once and written once; mean and variance in float32.

The branch that is added to the residual before the norm, perhaps behind a gate, is added here, and the input of an int8
product is quantised here: s = x + gate * b, y = h * (1 + scale) + shift with h = (s - mean) * rstd and
rstd = 1 / sqrt(var + eps). With g = dy * (1 + scale) and dresidual the gradient of the sum itself, the gradients are

    ds = dresidual + rstd * (g - mean(g) - h * mean(g * h))      dscale = sum_n dy * h      dshift = sum_n dy
    dx = ds      dbranch = gate * ds                             dgate = sum_n ds * b

Letters: B batch, N tokens, D width, P pieces of the sequence. `total`: the sum s; `normal`: h; `gate_step` and the
like: values from one sample's row to the next's, 0 if all samples share one. PADDED: D up to a power of two. A
parameter that a kernel does not read (HAS_... is False) gets any other tensor.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sanakit.kernels.gpu import pieces
from sanakit.kernels.quant_matmul.triton import quantised, token_scale
from sanakit.kernels.tuning import launch


def forward(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """x [B, N, D], shift and scale [B or 1, D] -> [B, N, D]."""
    out = torch.empty_like(x)
    _launch(x, None, None, shift, scale, eps, x, out, None)
    return out


def forward_sum(
    x: Tensor, branch: Tensor, gate: Tensor | None, shift: Tensor, scale: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """x and branch [B, N, D], gate [B or 1, D] -> the sum and its norm [B, N, D]."""
    total, out = torch.empty_like(x), torch.empty_like(x)
    _launch(x, branch, gate, shift, scale, eps, total, out, None)
    return total, out


def forward_sum_quant(
    x: Tensor, branch: Tensor | None, gate: Tensor | None, shift: Tensor, scale: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the sum (empty without a branch), and its norm as int8 [B, N, D] with scales [B, N] in float32."""
    total = x.new_empty(0) if branch is None else torch.empty_like(x)
    values, scales = torch.empty_like(x, dtype=torch.int8), x.new_empty(x.shape[:2], dtype=torch.float32)
    _launch(x, branch, gate, shift, scale, eps, total, values, scales)
    return total, values, scales


def backward(
    grad: Tensor, x: Tensor, scale: Tensor, eps: float, dresidual: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Turn the gradient of `forward` into those of x, and of shift and scale for each sample [B, D] in float32.

    dresidual: a gradient that x, a sum, has besides.
    """
    dx, sums = _launch_back(grad, x, scale, eps, dresidual, None, None, x)
    return dx, sums[0], sums[1]


def backward_gated(
    grad: Tensor, dresidual: Tensor, total: Tensor, branch: Tensor, gate: Tensor, scale: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x and branch, and of gate, shift and scale for each sample [B, D] in float32."""
    dbranch = torch.empty_like(total)
    dx, sums = _launch_back(grad, total, scale, eps, dresidual, branch, gate, dbranch)
    return dx, dbranch, sums[2], sums[0], sums[1]


def _launch(
    x: Tensor, branch: Tensor | None, gate: Tensor | None, shift: Tensor, scale: Tensor, eps: float,
    total: Tensor, out: Tensor, scales: Tensor | None,
) -> None:  # fmt: skip
    batch, tokens, width = x.shape
    _forward[(tokens, batch)](
        x, _or(branch, x), _or(gate, x), shift, scale, total, out, _or(scales, x),
        _step(gate), _step(shift), _step(scale), tokens, eps,
        HAS_BRANCH=branch is not None, HAS_GATE=gate is not None, QUANTISES=scales is not None,
        D=width, **_sizes(x),
    )  # fmt: skip


def _launch_back(
    grad: Tensor, total: Tensor, scale: Tensor, eps: float, dresidual: Tensor | None,
    branch: Tensor | None, gate: Tensor | None, dbranch: Tensor,
) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
    """Return the gradient of what was normalised, and those of shift, scale and perhaps gate, [B, D] each."""
    batch, tokens, width = total.shape
    parts, length = pieces(tokens, 1, batch, total.device)
    dx = torch.empty_like(total)
    sums = total.new_empty(2 + (gate is not None), batch, parts, width, dtype=torch.float32)
    _backward[(parts, batch)](
        grad, total, scale, _or(dresidual, total), _or(branch, total), _or(gate, total),
        dx, dbranch, sums[0], sums[1], sums[-1], _step(scale), _step(gate), tokens, length, eps,
        HAS_RESIDUAL=dresidual is not None, HAS_GATE=gate is not None, D=width, **_sizes(total),
    )  # fmt: skip
    return dx, [part.sum(1) for part in sums]


def _or(x: Tensor | None, unread: Tensor) -> Tensor:
    """Return what a kernel gets for `x`; if that is None, something that it does not read."""
    return unread if x is None else x


def _step(x: Tensor | None) -> int:
    """From one sample's row to the next's: 0 if all share one."""
    return x.stride(0) if x is not None and x.shape[0] > 1 else 0


def _sizes(x: Tensor) -> dict[str, Any]:
    padded = triton.next_power_of_2(x.shape[-1])
    return {"PADDED": padded, "num_warps": launch("modulated_norm", padded, x.device)["warps"]}


@triton.jit
def _normal(values, eps, D: tl.constexpr, PADDED: tl.constexpr):
    """Return a token less its mean, times rstd; and rstd."""
    d = tl.arange(0, PADDED)
    centred = tl.where(d < D, values - tl.sum(values, 0) / D, 0.0)
    rstd = tl.rsqrt(tl.sum(centred * centred, 0) / D + eps)
    return centred * rstd, rstd


@triton.jit
def _row(base, d, D: tl.constexpr):
    """Load [PADDED] in float32, zero beyond the width."""
    return tl.load(base + d, mask=d < D, other=0.0).to(tl.float32)


@triton.jit
def _forward(
    x, branch, gate, shift, scale, total, out, scales, gate_step, shift_step, scale_step, n, eps,
    HAS_BRANCH: tl.constexpr, HAS_GATE: tl.constexpr, QUANTISES: tl.constexpr, D: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    sample, d = tl.program_id(1).to(tl.int64), tl.arange(0, PADDED)
    token = sample * n + tl.program_id(0)
    values = _row(x + token * D, d, D)
    if HAS_BRANCH:
        more = _row(branch + token * D, d, D)
        if HAS_GATE:
            more *= _row(gate + sample * gate_step, d, D)
        kept = (values + more).to(total.dtype.element_ty)
        tl.store(total + token * D + d, kept, mask=d < D)
        values = kept.to(tl.float32)
    normal, _ = _normal(values, eps, D, PADDED)
    moved = normal * (1.0 + _row(scale + sample * scale_step, d, D)) + _row(shift + sample * shift_step, d, D)
    if QUANTISES:
        moved = moved.to(x.dtype.element_ty).to(tl.float32)  # the input of the product without fusion
        of_token = token_scale(moved)
        tl.store(out + token * D + d, quantised(moved, of_token), mask=d < D)
        tl.store(scales + token, of_token)
    else:
        tl.store(out + token * D + d, moved.to(out.dtype.element_ty), mask=d < D)


@triton.jit
def _backward(
    grad, total, scale, dresidual, branch, gate, dx, dbranch, dshift, dscale, dgate,
    scale_step, gate_step, n, length, eps,
    HAS_RESIDUAL: tl.constexpr, HAS_GATE: tl.constexpr, D: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    sample, part, d = tl.program_id(1).to(tl.int64), tl.program_id(0), tl.arange(0, PADDED)
    factor = 1.0 + _row(scale + sample * scale_step, d, D)
    shifts, scales = tl.zeros((PADDED,), tl.float32), tl.zeros((PADDED,), tl.float32)
    gates, opened = shifts, shifts
    if HAS_GATE:
        opened = _row(gate + sample * gate_step, d, D)
    for token in range(part * length, tl.minimum(n, (part + 1) * length)):
        row = (sample * n + token) * D
        normal, rstd = _normal(_row(total + row, d, D), eps, D, PADDED)
        dy = _row(grad + row, d, D)
        g = dy * factor
        ds = rstd * (g - tl.sum(g, 0) / D - normal * (tl.sum(g * normal, 0) / D))
        if HAS_RESIDUAL:
            ds += _row(dresidual + row, d, D)
        tl.store(dx + row + d, ds.to(dx.dtype.element_ty), mask=d < D)
        if HAS_GATE:
            tl.store(dbranch + row + d, (ds * opened).to(dbranch.dtype.element_ty), mask=d < D)
            gates += ds * _row(branch + row, d, D)
        shifts += dy
        scales += dy * normal
    place = (sample * tl.num_programs(0) + part) * D
    tl.store(dshift + place + d, shifts, mask=d < D)
    tl.store(dscale + place + d, scales, mask=d < D)
    if HAS_GATE:
        tl.store(dgate + place + d, gates, mask=d < D)
