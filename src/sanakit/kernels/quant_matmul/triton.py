"""W8A8 products on GPUs: tokens quantised in one pass, whole sums on int8 tensor cores, scales and SiLU behind them.

The product is the usual tiled one; programs are ordered in groups of rows, so that neighbours share what is cached.

Letters: N tokens, K inputs, O outputs. `values` [N, K] and `weight` [O, K] are int8; `per_token` [N] and `scales` [O]
their scales. TILE_N, TILE_O, TILE_K: what a program takes at a time; GROUP: rows of tiles that run side by side.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sanakit.kernels.tuning import launch


def quantise(x: Tensor) -> tuple[Tensor, Tensor]:
    """x [N, K] -> int8 [N, K] and scales [N] in float32, as `reference.quantise_tokens`."""
    tokens, width = x.shape
    values = torch.empty_like(x, dtype=torch.int8)
    scales = x.new_empty(tokens, dtype=torch.float32)
    padded = triton.next_power_of_2(width)
    warps = launch("int8_matmul.quantise", padded, x.device)["warps"]
    _quantise[(tokens,)](x, values, scales, x.stride(0), K=width, PADDED=padded, num_warps=warps)
    return values, scales


def multiply(
    values: Tensor,
    per_token: Tensor,
    weight: Tensor,
    scales: Tensor,
    bias: Tensor | None,
    act: str,
    dtype: torch.dtype,
) -> Tensor:
    """int8 [N, K] with scales [N], int8 weight [O, K] with scales [O], bias [O] -> [N, O] in `dtype`."""
    (tokens, width), outputs = values.shape, len(weight)
    out = values.new_empty(tokens, outputs, dtype=dtype)
    chosen = launch("int8_matmul.multiply", width, values.device)
    grid = (triton.cdiv(tokens, chosen["tile_n"]) * triton.cdiv(outputs, chosen["tile_o"]),)
    _multiply[grid](
        values, per_token, weight, scales, scales if bias is None else bias, out, tokens, outputs, width,
        HAS_BIAS=bias is not None, SILU=act == "silu",
        TILE_N=chosen["tile_n"], TILE_O=chosen["tile_o"], TILE_K=chosen["tile_k"], GROUP=chosen["group"],
        num_warps=chosen["warps"], num_stages=chosen["stages"],
    )  # fmt: skip
    return out


@triton.jit
def token_scale(x):
    """Return the largest magnitude over 127, rounded up to bf16; NaN if a value is not finite."""
    exact = tl.maximum(tl.max(tl.abs(x), 0) / 127.0, 1.1754943508222875e-38)  # the least normal float32
    bits = (exact.to(tl.int32, bitcast=True) + 0xFFFF) >> 16 << 16  # bf16 is the upper half of a float32
    return bits.to(tl.float32, bitcast=True) + tl.sum(x * 0.0, 0)


@triton.jit
def quantised(x, scale):
    """Divide a token by its scale and round to int8; NaN gives zero."""
    # 1.5 * 2**23: beside it float32 has whole numbers only, so the sum rounds, halves to even as torch does.
    whole = (x * (1.0 / scale) + 12582912.0) - 12582912.0
    return tl.where(whole == whole, whole, 0.0).to(tl.int8)


@triton.jit
def _quantise(x, values, scales, stride, K: tl.constexpr, PADDED: tl.constexpr):
    token, k = tl.program_id(0).to(tl.int64), tl.arange(0, PADDED)
    row = tl.load(x + token * stride + k, mask=k < K, other=0.0).to(tl.float32)
    scale = token_scale(row)
    tl.store(values + token * K + k, quantised(row, scale), mask=k < K)
    tl.store(scales + token, scale)


@triton.jit
def _tile(tokens, outputs, TILE_N: tl.constexpr, TILE_O: tl.constexpr, GROUP: tl.constexpr):
    """Return this program's tile: down a group of rows first, then on to the next column."""
    down, across = tl.cdiv(tokens, TILE_N), tl.cdiv(outputs, TILE_O)
    program, each = tl.program_id(0), GROUP * across
    first = program // each * GROUP
    height = tl.minimum(down - first, GROUP)
    return first + program % each % height, program % each // height


@triton.jit
def _multiply(
    values, per_token, weight, scales, bias, out, tokens, outputs, width,
    HAS_BIAS: tl.constexpr, SILU: tl.constexpr,
    TILE_N: tl.constexpr, TILE_O: tl.constexpr, TILE_K: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    down, across = _tile(tokens, outputs, TILE_N, TILE_O, GROUP)
    n, o = down * TILE_N + tl.arange(0, TILE_N), across * TILE_O + tl.arange(0, TILE_O)
    k = tl.arange(0, TILE_K)
    x = values + n.to(tl.int64)[:, None] * width + k[None, :]
    w = weight + o.to(tl.int64)[None, :] * width + k[:, None]
    sums = tl.zeros((TILE_N, TILE_O), tl.int32)
    for start in range(0, width, TILE_K):
        left = k < width - start
        a = tl.load(x + start, mask=(n < tokens)[:, None] & left[None, :], other=0)
        b = tl.load(w + start, mask=(o < outputs)[None, :] & left[:, None], other=0)
        sums = tl.dot(a, b, sums, out_dtype=tl.int32)
    token_scales = tl.load(per_token + n, mask=n < tokens, other=0.0)[:, None]
    y = sums.to(tl.float32) * token_scales * tl.load(scales + o, mask=o < outputs, other=0.0)[None, :]
    if HAS_BIAS:
        y += tl.load(bias + o, mask=o < outputs, other=0.0).to(tl.float32)[None, :]
    if SILU:
        y = y * tl.sigmoid(y)
    at = out + n.to(tl.int64)[:, None] * outputs + o[None, :]
    tl.store(at, y.to(out.dtype.element_ty), mask=(n < tokens)[:, None] & (o < outputs)[None, :])
