"""RMS norms on GPUs: of a map's channels with a residual, and what a qk-norm does outside the attention.

A map is read once and written once. Queries and keys are never written normalised: with rstd = 1 / rms(x) over the
width C = H * D, attention multiplies by rstd and the weight w where it loads x (see `linear_attention/triton.py`), so
rstd, one number a token, is all that is kept. With du the gradient of u = rstd * x * w,

    dx = rstd (w du - h mean(w du h))      dw = sum_n du h      with h = rstd x

Letters: M positions of maps (batch x height x width), C channels; B batch, N tokens, H heads, D their width, P pieces
of the sequence. Maps are channels last: a position's channels lie side by side. `xb`, `xn`, `xh`: values from one
sample, token, head of x to the next. PADDED: C up to a power of two; ROWS: positions or tokens of a program.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sanakit.kernels.gpu import dense_last, pieces
from sanakit.kernels.rms_norm.cpu import rows_of
from sanakit.kernels.tuning import launch


def rms_norm(x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """As the reference: x and residual [B, C, h, w], weight and bias [C] -> [B, C, h, w], channels last."""
    rows, added = (dense_last(rows_of(y)) for y in (x, x if residual is None else residual))
    out = torch.empty_like(x, memory_format=torch.channels_last)
    positions, channels = rows.shape
    padded = triton.next_power_of_2(channels)
    chosen = launch("rms_norm", padded, x.device)
    each = max(1, chosen["values"] // padded)  # positions of a program
    _norm[(triton.cdiv(positions, each),)](
        rows, added, weight, weight if bias is None else bias, out,
        rows.stride(0), added.stride(0), positions, eps,
        HAS_RESIDUAL=residual is not None, HAS_BIAS=bias is not None,
        C=channels, PADDED=padded, ROWS=each, num_warps=chosen["warps"],
    )  # fmt: skip
    return out


def rstd(x: Tensor, eps: float) -> Tensor:
    """x [B, N, H, D], heads of any strides -> 1 / rms of each token [B, N] in float32."""
    batch, tokens, heads, width = x.shape
    out = x.new_empty(batch, tokens, dtype=torch.float32)
    padded = triton.next_power_of_2(heads * width)
    chosen = launch("qk_norm.rstd", padded, x.device)
    each = max(1, chosen["values"] // padded)  # tokens of a program
    _rstd[(triton.cdiv(tokens, each), batch)](
        x, out, *x.stride()[:3], tokens, eps,
        C=heads * width, D=width, PADDED=padded, ROWS=each, num_warps=chosen["warps"],
    )  # fmt: skip
    return out


def qk_norm_backward(grad: Tensor, x: Tensor, rstd: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Turn the gradient of rstd * x * w, contiguous [B, N, H, D], in place into that of x; return it and that of w."""
    batch, tokens, heads, width = x.shape
    parts, length = pieces(tokens, 1, batch, x.device)
    sums = x.new_empty(batch, parts, heads * width, dtype=torch.float32)
    padded = triton.next_power_of_2(heads * width)
    _norm_backward[(parts, batch)](
        grad, x, rstd, weight, sums, *x.stride()[:3], tokens, length,
        C=heads * width, D=width, PADDED=padded, num_warps=launch("qk_norm.backward", padded, x.device)["warps"],
    )  # fmt: skip
    return grad, sums.sum((0, 1))


@triton.jit
def _norm(
    x, residual, weight, bias, out, x_step, residual_step, positions, eps,
    HAS_RESIDUAL: tl.constexpr, HAS_BIAS: tl.constexpr, C: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    m, c = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, PADDED)
    inside = (m < positions)[:, None] & (c < C)[None, :]
    at = m.to(tl.int64)[:, None]
    values = tl.load(x + at * x_step + c[None, :], mask=inside, other=0.0).to(tl.float32)
    rstd = tl.rsqrt(tl.sum(values * values, 1) / C + eps)[:, None]
    y = values * rstd * tl.load(weight + c, mask=c < C, other=0.0).to(tl.float32)[None, :]
    if HAS_BIAS:
        y += tl.load(bias + c, mask=c < C, other=0.0).to(tl.float32)[None, :]
    if HAS_RESIDUAL:
        y += tl.load(residual + at * residual_step + c[None, :], mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at * C + c[None, :], y.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _rstd(
    x, out, xb, xn, xh, n, eps, C: tl.constexpr, D: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr
):  # fmt: skip
    sample, c = tl.program_id(1).to(tl.int64), tl.arange(0, PADDED)
    token = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    at = x + sample * xb + token.to(tl.int64)[:, None] * xn + (c // D * xh + c % D)[None, :]
    values = tl.load(at, mask=(token < n)[:, None] & (c < C)[None, :], other=0.0).to(tl.float32)
    tl.store(out + sample * n + token, tl.rsqrt(tl.sum(values * values, 1) / C + eps), mask=token < n)


@triton.jit
def _norm_backward(
    grad, x, rstd, weight, dweight, xb, xn, xh, n, length,
    C: tl.constexpr, D: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    sample, part, c = tl.program_id(1).to(tl.int64), tl.program_id(0), tl.arange(0, PADDED)
    w = tl.load(weight + c, mask=c < C, other=0.0).to(tl.float32)
    column, weights = c // D * xh + c % D, tl.zeros((PADDED,), tl.float32)
    for token in range(part * length, tl.minimum(n, (part + 1) * length)):
        row = sample * n + token
        r = tl.load(rstd + row)
        normal = r * tl.load(x + sample * xb + token * xn + column, mask=c < C, other=0.0).to(tl.float32)
        du = tl.load(grad + row * C + c, mask=c < C, other=0.0).to(tl.float32)
        weights += du * normal
        dx = r * (w * du - normal * (tl.sum(w * du * normal, 0) / C))
        tl.store(grad + row * C + c, dx.to(grad.dtype.element_ty), mask=c < C)
    tl.store(dweight + (sample * tl.num_programs(0) + part) * C + c, weights, mask=c < C)
