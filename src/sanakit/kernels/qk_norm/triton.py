"""RMS norm of queries and keys on GPUs, without writing what is normalised: one number a token forward, one pass back.

With r = 1 / rms(x) over the width C = H * D, u = r x w what attention sees and du the gradient of it,

    dx = r (w du - h mean(w du h))      dw = sum_n du h      with h = r x

Attention multiplies by r and w where it loads x (see `linear_attention/triton.py`), so r is all that is kept.
Letters: B batch, N tokens, H heads, D their width, P pieces of the sequence.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sanakit.kernels.gpu import pieces
from sanakit.kernels.tuning import launch


def spreads(x: Tensor, eps: float) -> Tensor:
    """x [B, N, H, D], heads of any strides -> 1 / rms of each token [B, N] in float32."""
    batch, tokens, heads, width = x.shape
    out = x.new_empty(batch, tokens, dtype=torch.float32)
    padded = triton.next_power_of_2(heads * width)
    chosen = launch("qk_norm.spreads", padded, x.device)
    each = max(1, chosen["values"] // padded)  # tokens of a program
    _spreads[(triton.cdiv(tokens, each), batch)](
        x, out, *x.stride()[:3], tokens, eps,
        C=heads * width, D=width, PADDED=padded, ROWS=each, num_warps=chosen["warps"],
    )  # fmt: skip
    return out


def backward(grad: Tensor, x: Tensor, spread: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of r x w, contiguous [B, N, H, D] and overwritten -> those of x, and of w in float32."""
    batch, tokens, heads, width = x.shape
    parts, length = pieces(tokens, 1, batch, x.device)
    sums = x.new_empty(batch, parts, heads * width, dtype=torch.float32)
    padded = triton.next_power_of_2(heads * width)
    _backward[(parts, batch)](
        grad, x, spread, weight, sums, *x.stride()[:3], tokens, length,
        C=heads * width, D=width, PADDED=padded, num_warps=launch("qk_norm.backward", padded, x.device)["warps"],
    )  # fmt: skip
    return grad, sums.sum((0, 1))


@triton.jit
def _spreads(
    x, out, xb, xn, xh, n, eps, C: tl.constexpr, D: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr
):  # fmt: skip
    sample, c = tl.program_id(1).to(tl.int64), tl.arange(0, PADDED)
    token = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    at = x + sample * xb + token.to(tl.int64)[:, None] * xn + (c // D * xh + c % D)[None, :]
    values = tl.load(at, mask=(token < n)[:, None] & (c < C)[None, :], other=0.0).to(tl.float32)
    tl.store(out + sample * n + token, tl.rsqrt(tl.sum(values * values, 1) / C + eps), mask=token < n)


@triton.jit
def _backward(
    grad, x, spread, weight, into_weight, xb, xn, xh, n, length,
    C: tl.constexpr, D: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    sample, part, c = tl.program_id(1).to(tl.int64), tl.program_id(0), tl.arange(0, PADDED)
    w = tl.load(weight + c, mask=c < C, other=0.0).to(tl.float32)
    column, weights = c // D * xh + c % D, tl.zeros((PADDED,), tl.float32)
    for token in range(part * length, tl.minimum(n, (part + 1) * length)):
        row = sample * n + token
        r = tl.load(spread + row)
        normal = r * tl.load(x + sample * xb + token * xn + column, mask=c < C, other=0.0).to(tl.float32)
        du = tl.load(grad + row * C + c, mask=c < C, other=0.0).to(tl.float32)
        weights += du * normal
        dx = r * (w * du - normal * (tl.sum(w * du * normal, 0) / C))
        tl.store(grad + row * C + c, dx.to(grad.dtype.element_ty), mask=c < C)
    tl.store(into_weight + (sample * tl.num_programs(0) + part) * C + c, weights, mask=c < C)
