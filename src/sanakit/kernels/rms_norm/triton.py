"""RMS norm over the channels of a map, and a residual, on GPUs: every position is read once and written once.

Letters: M positions (batch x height x width), C channels. Maps are channels last: a position's channels lie together.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sanakit.kernels.gpu import dense_last
from sanakit.kernels.rms_norm.chunked import rows_of
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


@triton.jit
def _norm(
    x, residual, weight, bias, out, x_step, residual_step, positions, eps,
    HAS_RESIDUAL: tl.constexpr, HAS_BIAS: tl.constexpr, C: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    m, c = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, PADDED)
    inside = (m < positions)[:, None] & (c < C)[None, :]
    place = m.to(tl.int64)[:, None]
    values = tl.load(x + place * x_step + c[None, :], mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(values * values, 1) / C + eps)[:, None]
    y = values * scale * tl.load(weight + c, mask=c < C, other=0.0).to(tl.float32)[None, :]
    if HAS_BIAS:
        y += tl.load(bias + c, mask=c < C, other=0.0).to(tl.float32)[None, :]
    if HAS_RESIDUAL:
        y += tl.load(residual + place * residual_step + c[None, :], mask=inside, other=0.0).to(tl.float32)
    tl.store(out + place * C + c[None, :], y.to(out.dtype.element_ty), mask=inside)
