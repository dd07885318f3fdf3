"""The middle of the Mix-FFN on GPUs: SiLU, depthwise 3x3 and SiLU gate in one pass over the widest tensor of a block.

A program owns a strip of columns and channels and walks down the rows. Each row is read once for every column shift and
adds to the three output rows that see it, so nothing is activated nine times and no row is kept. The backward pass is
two walks: the gradient of the convolution's result, from which the next gets those of input, filters and bias.
Maps are channels last, filters [9, 2F]: channels lie side by side in memory wherever a program reads.

Letters: B batch, h/w position, F hidden width (the convolution has 2F channels, values before gates). Parameters:
`columns`, `channels`, `gates`: indices [X] or [C] of what a program owns; `limit`: which channels exist; `stride`:
values from one position to the next; `rows`, `parts`: rows of a program, and programs along the height; `first`,
`last`: the rows it writes; `above`, `beside`, `below`: what one input row adds to the output rows above it, beside it
and below it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sanakit.kernels.gpu import pieces
from sanakit.kernels.tuning import launch

_ROWS = 8
"""Least rows of a program: of each part's rows, the one above and the one below are read twice."""


def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x [B, 2F, h, w] channels last, weight [9, 2F], bias [2F] -> [B, F, h, w] channels last."""
    batch, doubled, height, width = x.shape
    out = _map(x, doubled // 2)
    _walk(x, weight, bias, out, out, backward=False)
    return out


def backward_to_conv(grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Turn the gradient of `forward` [B, F, h, w] into that of the convolution's result [B, 2F, h, w]."""
    dmixed = _map(x, x.shape[1])
    _walk(x, weight, bias, grad, dmixed, backward=True)
    return dmixed


def backward_to_inputs(dmixed: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Turn the gradient of the convolution's result [B, 2F, h, w] into those of x, weight [9, 2F] and bias [2F]."""
    batch, channels, height, width = x.shape
    tile = _tile("mix_ffn.gather", x)
    strips, blocks = triton.cdiv(width, tile["COLUMNS"]), triton.cdiv(channels, tile["CHANNELS"])
    parts, rows = pieces(height, _ROWS, strips * blocks * batch, x.device)
    dx = _map(x, channels)
    sums = x.new_empty(batch * parts * strips, 10, channels, dtype=torch.float32)
    _gather[(strips, blocks, batch * parts)](
        dmixed, x, weight, dx, sums, height, width, rows, parts, channels, **tile
    )  # fmt: skip
    return dx, sums[:, :9].sum(0).to(weight.dtype), sums[:, 9].sum(0).to(weight.dtype)


def _tile(kernel: str, x: Tensor) -> dict[str, int]:
    """Columns and channels of a program, and its warps; the walk back keeps more values of each, so it has fewer."""
    chosen = launch(kernel, x.shape[1], x.device)
    return {"COLUMNS": chosen["columns"], "CHANNELS": chosen["channels"], "num_warps": chosen["warps"]}


def _map(x: Tensor, channels: int) -> Tensor:
    """Return an empty map like x with that many channels, channels last."""
    size = (x.shape[0], channels, *x.shape[2:])
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _walk(x: Tensor, weight: Tensor, bias: Tensor | None, grad: Tensor, out: Tensor, backward: bool) -> None:
    """grad is read on the way back only."""
    batch, doubled, height, width = x.shape
    tile = _tile("mix_ffn.walk", x)
    strips, blocks = triton.cdiv(width, tile["COLUMNS"]), triton.cdiv(doubled // 2, tile["CHANNELS"])
    parts, rows = pieces(height, _ROWS, strips * blocks * batch, x.device)
    _forward[(strips, blocks, batch * parts)](
        x, weight, weight if bias is None else bias, grad, out, height, width, rows, parts, doubled // 2,
        HAS_BIAS=bias is not None, BACKWARD=backward, **tile,
    )  # fmt: skip


@triton.jit
def _silu(x):
    return x * tl.sigmoid(x)


@triton.jit
def _dsilu(x):
    """Return the derivative of SiLU."""
    s = tl.sigmoid(x)
    return s * (1.0 + x * (1.0 - s))


@triton.jit
def _load(base, y, columns, channels, h, w, stride, limit):
    """[X, C] of row y in float32, zero outside the map. channels: offsets of them; limit: which are there."""
    row = y + tl.zeros_like(columns)
    inside = ((row >= 0) & (row < h) & (columns >= 0) & (columns < w))[:, None] & limit[None, :]
    at = (row * w + columns)[:, None].to(tl.int64) * stride + channels[None, :]
    return tl.load(base + at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _store(base, tile, y, columns, channels, first, last, w, stride, limit):
    """Store what `_load` loads, for rows from `first` to before `last`."""
    row = y + tl.zeros_like(columns)
    inside = ((row >= first) & (row < last) & (columns < w))[:, None] & limit[None, :]
    at = (row * w + columns)[:, None].to(tl.int64) * stride + channels[None, :]
    tl.store(base + at, tile.to(base.dtype.element_ty), mask=inside)


@triton.jit
def _filter(weight, row: tl.constexpr, channels, stride, limit):
    """Return the three taps of a row of the filters, each [1, C]."""
    at = weight + row * 3 * stride + channels
    left = tl.load(at, mask=limit, other=0.0).to(tl.float32)[None, :]
    middle = tl.load(at + stride, mask=limit, other=0.0).to(tl.float32)[None, :]
    right = tl.load(at + 2 * stride, mask=limit, other=0.0).to(tl.float32)[None, :]
    return left, middle, right


@triton.jit
def _contributions(base, weight, y, columns, channels, h, w, stride, limit):
    """Return what input row y adds to the output rows above it, beside it and below it."""
    a = _silu(_load(base, y, columns - 1, channels, h, w, stride, limit))
    b = _silu(_load(base, y, columns, channels, h, w, stride, limit))
    c = _silu(_load(base, y, columns + 1, channels, h, w, stride, limit))
    left, middle, right = _filter(weight, 2, channels, stride, limit)
    above = a * left + b * middle + c * right
    left, middle, right = _filter(weight, 1, channels, stride, limit)
    beside = a * left + b * middle + c * right
    left, middle, right = _filter(weight, 0, channels, stride, limit)
    return above, beside, a * left + b * middle + c * right


@triton.jit
def _forward(
    x, weight, bias, grad, out, h, w, rows, parts, hidden,
    HAS_BIAS: tl.constexpr, BACKWARD: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    values = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    sample, part = (tl.program_id(2) // parts).to(tl.int64), tl.program_id(2) % parts
    limit, gates = values < hidden, values + hidden
    first, last = part * rows, tl.minimum(h, (part + 1) * rows)
    base, stride = x + sample * h * w * 2 * hidden, 2 * hidden
    start = tl.zeros((COLUMNS, CHANNELS), tl.float32)
    start_gate = start
    if HAS_BIAS:
        start += tl.load(bias + values, mask=limit, other=0.0).to(tl.float32)[None, :]
        start_gate += tl.load(bias + gates, mask=limit, other=0.0).to(tl.float32)[None, :]
    value, next_value, gate, next_gate = start, start, start_gate, start_gate
    for step in range(0, rows + 2):
        y = first - 1 + step
        above, beside, below = _contributions(base, weight, y, columns, values, h, w, stride, limit)
        value, next_value, last_value = value + above, next_value + beside, start + below
        above, beside, below = _contributions(base, weight, y, columns, gates, h, w, stride, limit)
        gate, next_gate, last_gate = gate + above, next_gate + beside, start_gate + below
        if BACKWARD:
            target = out + sample * h * w * stride
            do = _load(grad + sample * h * w * hidden, y - 1, columns, values, h, w, hidden, limit)
            _store(target, do * _silu(gate), y - 1, columns, values, first, last, w, stride, limit)
            _store(target, do * value * _dsilu(gate), y - 1, columns, gates, first, last, w, stride, limit)
        else:
            target = out + sample * h * w * hidden
            _store(target, value * _silu(gate), y - 1, columns, values, first, last, w, hidden, limit)
        value, next_value, gate, next_gate = next_value, last_value, next_gate, last_gate


@triton.jit
def _gather(
    dmixed, x, weight, dx, sums, h, w, rows, parts, width,
    COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    sample, part = (tl.program_id(2) // parts).to(tl.int64), tl.program_id(2) % parts
    limit, shift = channels < width, sample * h * w * width
    first, last = part * rows, tl.minimum(h, (part + 1) * rows)
    none = tl.zeros((COLUMNS, CHANNELS), tl.float32)
    w00, w01, w02, w10, w11, w12, w20, w21, w22, total = (
        none, none, none, none, none, none, none, none, none, none,
    )  # fmt: skip
    above, beside, x_beside = none, none, none
    # Triton carries a name through a loop if its value changes there. x_above becomes what x_beside was: had both begun
    # as one value, Triton would see no change in the first round, and keep zeros for all of them.
    x_above = tl.zeros((COLUMNS, CHANNELS), tl.float32)
    for step in range(0, rows + 2):
        y = first - 1 + step
        a = _load(dmixed + shift, y, columns - 1, channels, h, w, width, limit)
        b = _load(dmixed + shift, y, columns, channels, h, w, width, limit)
        c = _load(dmixed + shift, y, columns + 1, channels, h, w, width, limit)
        row = y + 1
        x_below = _load(x + shift, row, columns, channels, tl.minimum(h, last), w, width, limit)
        s_above, s_beside, s_below = _silu(x_above), _silu(x_beside), _silu(x_below)
        w00, w01, w02 = w00 + s_above * c, w01 + s_above * b, w02 + s_above * a
        w10, w11, w12 = w10 + s_beside * c, w11 + s_beside * b, w12 + s_beside * a
        w20, w21, w22 = w20 + s_below * c, w21 + s_below * b, w22 + s_below * a
        here = y + tl.zeros_like(columns)
        total += tl.where(((here >= first) & (here < last))[:, None], b, 0.0)
        left, center, right = _filter(weight, 0, channels, width, limit)
        above += c * left + b * center + a * right
        left, center, right = _filter(weight, 1, channels, width, limit)
        beside += c * left + b * center + a * right
        left, center, right = _filter(weight, 2, channels, width, limit)
        below = c * left + b * center + a * right
        _store(dx + shift, above * _dsilu(x_above), y - 1, columns, channels, first, last, w, width, limit)
        above, beside, x_above, x_beside = beside, below, x_beside, x_below
    program = tl.program_id(2) * tl.num_programs(0) + tl.program_id(0)
    at = sums + program.to(tl.int64) * 10 * width + channels
    taps = (w00, w01, w02, w10, w11, w12, w20, w21, w22, total)
    for tap in tl.static_range(10):
        tl.store(at + tap * width, tl.sum(taps[tap], 0), mask=limit)
