"""LayerNorm and modulation on GPUs: a token is read once and written once; mean and variance in float32.

With h = (x - mean) * r, r = 1 / sqrt(var + eps), and g = dy * (1 + scale), the gradients are

    dx = r * (g - mean(g) - h * mean(g * h))      dscale = sum_n dy * h      dshift = sum_n dy

Letters: B batch, N tokens, D width, P pieces of the sequence.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sanakit.kernels.gpu import pieces


def forward(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """x [B, N, D], shift and scale [B or 1, D] -> [B, N, D]."""
    batch, tokens, width = x.shape
    out = torch.empty_like(x)
    _forward[(tokens, batch)](
        x, shift, scale, out, _step(shift), _step(scale), tokens, eps, D=width, **_sizes(width)
    )
    return out


def backward(grad: Tensor, x: Tensor, scale: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of `forward` -> those of x, and of shift and scale for each sample [B, D] in float32."""
    batch, tokens, width = x.shape
    parts, length = pieces(tokens, 1, batch, x.device)
    into_x = torch.empty_like(x)
    sums = x.new_empty(2, batch, parts, width, dtype=torch.float32)
    _backward[(parts, batch)](
        grad, x, scale, into_x, sums[0], sums[1], _step(scale), tokens, length, eps, D=width, **_sizes(width)
    )
    return into_x, sums[0].sum(1), sums[1].sum(1)


def _step(x: Tensor) -> int:
    """From one sample's row to the next's: none where all share one."""
    return x.stride(0) if x.shape[0] > 1 else 0


def _sizes(width: int) -> dict[str, int]:
    padded = triton.next_power_of_2(width)
    return {"PADDED": padded, "num_warps": 4 if padded <= 2048 else 8}


@triton.jit
def _normal(x, token, eps, D: tl.constexpr, PADDED: tl.constexpr):
    """A token in float32, less its mean and by its spread, and one over that spread."""
    d = tl.arange(0, PADDED)
    values = tl.load(x + token * D + d, mask=d < D, other=0.0).to(tl.float32)
    centred = tl.where(d < D, values - tl.sum(values, 0) / D, 0.0)
    spread = tl.rsqrt(tl.sum(centred * centred, 0) / D + eps)
    return centred * spread, spread


@triton.jit
def _forward(
    x, shift, scale, out, shift_step, scale_step, n, eps, D: tl.constexpr, PADDED: tl.constexpr
):  # fmt: skip
    sample, d = tl.program_id(1).to(tl.int64), tl.arange(0, PADDED)
    token = sample * n + tl.program_id(0)
    normal, _ = _normal(x, token, eps, D, PADDED)
    factor = 1.0 + tl.load(scale + sample * scale_step + d, mask=d < D, other=0.0).to(tl.float32)
    moved = normal * factor + tl.load(shift + sample * shift_step + d, mask=d < D, other=0.0).to(tl.float32)
    tl.store(out + token * D + d, moved.to(out.dtype.element_ty), mask=d < D)


@triton.jit
def _backward(
    grad, x, scale, into_x, into_shift, into_scale, scale_step, n, length, eps,
    D: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    sample, part, d = tl.program_id(1).to(tl.int64), tl.program_id(0), tl.arange(0, PADDED)
    factor = 1.0 + tl.load(scale + sample * scale_step + d, mask=d < D, other=0.0).to(tl.float32)
    shifts, scales = tl.zeros((PADDED,), tl.float32), tl.zeros((PADDED,), tl.float32)
    for token in range(part * length, tl.minimum(n, (part + 1) * length)):
        row = sample * n + token
        normal, spread = _normal(x, row, eps, D, PADDED)
        dy = tl.load(grad + row * D + d, mask=d < D, other=0.0).to(tl.float32)
        g = dy * factor
        dx = spread * (g - tl.sum(g, 0) / D - normal * (tl.sum(g * normal, 0) / D))
        tl.store(into_x + row * D + d, dx.to(into_x.dtype.element_ty), mask=d < D)
        shifts += dy
        scales += dy * normal
    place = (sample * tl.num_programs(0) + part) * D
    tl.store(into_shift + place + d, shifts, mask=d < D)
    tl.store(into_scale + place + d, scales, mask=d < D)
