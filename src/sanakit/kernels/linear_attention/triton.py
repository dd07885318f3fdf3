"""ReLU linear attention on GPUs: two passes over memory, products on tensor cores, sums in float32.

The state (the sums over keys and values) is one pass, split over the sequence if batch x heads alone would leave the
chip idle; the output for the queries is the other. Both read q, k, v where the projection left them: [B, N, H, D] of
any strides, D any size. Rounded is what the reference rounds: the inputs to their own dtype and the result. With a
qk-norm, rstd = 1 / rms of a token comes in as [B, N] and the weight as [H*D]: both are multiplied in on loading, and
gradients are those of the normalised values, from which `rms_norm/triton.py` goes on. With S = sum_j k_j^T v_j, z =
sum_j k_j, both after the ReLU, and o = q S / c with c = q z + eps, the gradients are

    g = do / c                dc = -(do . o) / c
    dq = g S^T + dc z         dS = sum_n q_n^T g_n     dz = sum_n dc_n q_n
    dk = v dS^T + dz          dv = k dS

Letters: B batch, N tokens, H heads, D and E their key and value width, P pieces of the sequence. Parameters:
`product` is S, `total` is z. `kb`, `kn`, `kh`: values from one sample, token, head of the key to the next, and so q
for the query, v the value, o the output, g the gradient of the output, dq, dk, dv their gradients. `heads`, `n`:
counts of heads and tokens; `length`, `parts`: tokens of a piece, and pieces. DP, EP: D and E up to powers of two that
tensor cores take. WIDE: precision of products of float32; NARROW: the dtype in which values of the inputs enter
tensor cores.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sanakit.kernels.gpu import dense_last, operand, pieces
from sanakit.kernels.tuning import launch

Norm = tuple[Tensor | None, Tensor | None]
"""1 / rms of each token [B, N] and the weight [H*D] of a qk-norm; None and None without one."""

NO_NORM: Norm = (None, None)


def kv_state(key: Tensor, value: Tensor, mask: Tensor | None, norm: Norm = NO_NORM) -> tuple[Tensor, Tensor]:
    """key [B, N, H, D], value [B, N, H, E], mask [B, N] bool -> S [B, H, D, E] and z [B, H, D] in float32."""
    (batch, tokens, heads, width), outputs = key.shape, value.shape[-1]
    sizes = _sizes(key, width, outputs)
    parts, length = pieces(tokens, int(sizes["TOKENS"]), batch * heads, key.device)
    product = key.new_empty(batch, heads, parts, width, outputs, dtype=torch.float32)
    total = key.new_empty(batch, heads, parts, width, dtype=torch.float32)
    _kv_state[(batch * heads, parts)](
        key, value, value if mask is None else mask, *_given(norm, key), product, total,
        *key.stride()[:3], *value.stride()[:3], heads, tokens, length, parts,
        HAS_MASK=mask is not None, HAS_NORM=norm[0] is not None, **sizes,
    )  # fmt: skip
    return product.sum(2), total.sum(2)


def output(query: Tensor, product: Tensor, total: Tensor, eps: float, norm: Norm = NO_NORM) -> Tensor:
    """query [B, N, H, D], S [B, H, D, E], z [B, H, D] -> [B, N, H, E] in the dtype of the query."""
    (batch, tokens, heads, width), outputs = query.shape, product.shape[-1]
    out, sizes = query.new_empty(batch, tokens, heads, outputs), _sizes(query, width, outputs)
    _output[(batch * heads, triton.cdiv(tokens, sizes["TOKENS"]))](
        query, *_given(norm, query), product.contiguous(), total.contiguous(), out,
        *query.stride()[:3], *out.stride()[:3], heads, tokens, eps, HAS_NORM=norm[0] is not None, **sizes,
    )  # fmt: skip
    return out


def output_backward(
    grad: Tensor, query: Tensor, product: Tensor, total: Tensor, eps: float, norm: Norm = NO_NORM
) -> tuple[Tensor, Tensor, Tensor]:
    """Turn the gradient of `output` [B, N, H, E] into those of the query, normalised, of S and of z.

    Two kernels: S and its gradient do not fit the registers of one.
    """
    (batch, tokens, heads, width), outputs = query.shape, product.shape[-1]
    grad, total = dense_last(grad), total.contiguous()
    dquery = query.new_empty(query.shape)
    dc = total.new_empty(batch, heads, tokens)  # of the denominator
    sizes = _sizes(query, width, outputs)
    _backward_query[(batch * heads, triton.cdiv(tokens, sizes["TOKENS"]))](
        grad, query, *_given(norm, query), product.contiguous(), total, dquery, dc,
        *grad.stride()[:3], *query.stride()[:3], *dquery.stride()[:3], heads, tokens, eps,
        HAS_NORM=norm[0] is not None, **sizes,
    )  # fmt: skip
    parts, length = pieces(tokens, sizes["TOKENS"], batch * heads, query.device)
    dproduct = product.new_empty(batch, heads, parts, width, outputs)
    dtotal = total.new_empty(batch, heads, parts, width)
    _backward_state[(batch * heads, parts)](
        grad, query, *_given(norm, query), total, dc, dproduct, dtotal,
        *grad.stride()[:3], *query.stride()[:3], heads, tokens, length, parts, eps,
        HAS_NORM=norm[0] is not None, **sizes,
    )  # fmt: skip
    return dquery, dproduct.sum(2), dtotal.sum(2)


def kv_state_backward(
    dproduct: Tensor,
    dtotal: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    norm: Norm = NO_NORM,
) -> tuple[Tensor, Tensor]:
    """Turn the gradients of `kv_state` into those of the key, normalised, and of the value."""
    (batch, tokens, heads, width), outputs = key.shape, value.shape[-1]
    dkey, dvalue = key.new_empty(key.shape), value.new_empty(value.shape)
    sizes = _sizes(key, width, outputs)
    _kv_state_backward[(batch * heads, triton.cdiv(tokens, sizes["TOKENS"]))](
        dproduct.contiguous(), dtotal.contiguous(), key, value, value if mask is None else mask,
        *_given(norm, key), dkey, dvalue, *key.stride()[:3], *value.stride()[:3],
        *dkey.stride()[:3], *dvalue.stride()[:3], heads, tokens,
        HAS_MASK=mask is not None, HAS_NORM=norm[0] is not None, **sizes,
    )  # fmt: skip
    return dkey, dvalue


def _given(norm: Norm, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a kernel gets for a norm; without one, something that it does not read."""
    return x if norm[0] is None else norm[0], x if norm[1] is None else norm[1]


def _sizes(x: Tensor, width: int, outputs: int) -> dict[str, Any]:
    """Return the compile-time constants. Half precision enters tensor cores as it is, float32 stays exact."""
    # Tensor cores take no side shorter than 16.
    padded = [max(16, triton.next_power_of_2(size)) for size in (width, outputs)]
    chosen = launch("linear_attention", max(padded), x.device)  # wide heads need the registers for S
    return {
        "D": width,
        "E": outputs,
        "DP": padded[0],
        "EP": padded[1],
        "TOKENS": chosen["tokens"],
        "WIDE": "ieee" if x.dtype == torch.float32 else "tf32",
        "NARROW": operand(x),
        "num_warps": chosen["warps"],
        "num_stages": chosen["stages"],
    }


@triton.jit
def _load(base, tokens, last, stride, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """One head of some tokens [T, PADDED], zero from token `last` on and beyond the width."""
    columns = tl.arange(0, PADDED)
    inside = (tokens < last)[:, None] & (columns < WIDTH)[None, :]
    return tl.load(base + tokens[:, None] * stride + columns[None, :], mask=inside, other=0.0)


@triton.jit
def _relu(x):
    """ReLU in float32 that lets NaN through, as torch does."""
    return tl.maximum(x.to(tl.float32), 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _normed(
    x, rstd, weight, row, head, tokens, last, D: tl.constexpr, DP: tl.constexpr, HAS_NORM: tl.constexpr
):
    """[T, DP] times 1 / rms of its tokens and the weight of its head; as it is without a norm."""
    if HAS_NORM:
        d = tl.arange(0, DP)
        r = tl.load(rstd + row + tokens, mask=tokens < last, other=0.0)
        w = tl.load(weight + head * D + d, mask=d < D, other=0.0).to(tl.float32)
        x = x.to(tl.float32) * r[:, None] * w[None, :]
    return x


@triton.jit
def _save(base, x, tokens, last, stride, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """Store what `_load` loads."""
    columns = tl.arange(0, PADDED)
    inside = (tokens < last)[:, None] & (columns < WIDTH)[None, :]
    tl.store(base + tokens[:, None] * stride + columns[None, :], x.to(base.dtype.element_ty), mask=inside)


@triton.jit
def _load_state(
    product, total, head_index, D: tl.constexpr, E: tl.constexpr, DP: tl.constexpr, EP: tl.constexpr
):
    """S [DP, EP] and z [DP] of one head, padded by zeros."""
    d, e = tl.arange(0, DP), tl.arange(0, EP)
    at = head_index * D * E + d[:, None] * E + e[None, :]
    s = tl.load(product + at, mask=(d < D)[:, None] & (e < E)[None, :], other=0.0)
    return s, tl.load(total + head_index * D + d, mask=d < D, other=0.0)


@triton.jit
def _save_state(
    product, total, s, z, head_index, D: tl.constexpr, E: tl.constexpr, DP: tl.constexpr, EP: tl.constexpr
):
    d, e = tl.arange(0, DP), tl.arange(0, EP)
    at = head_index * D * E + d[:, None] * E + e[None, :]
    tl.store(product + at, s, mask=(d < D)[:, None] & (e < E)[None, :])
    tl.store(total + head_index * D + d, z, mask=d < D)


@triton.jit
def _visible(mask, sample, tokens, n, HAS_MASK: tl.constexpr):
    """[T]: which tokens exist and are not hidden by the mask."""
    seen = tokens < n
    if HAS_MASK:
        seen = seen & (tl.load(mask + sample * n + tokens, mask=seen, other=0) != 0)
    return seen


@triton.jit
def _kv_state(
    key, value, mask, rstd, weight, product, total, kb, kn, kh, vb, vn, vh, heads, n, length, parts,
    D: tl.constexpr, E: tl.constexpr, DP: tl.constexpr, EP: tl.constexpr,
    TOKENS: tl.constexpr, WIDE: tl.constexpr, NARROW: tl.constexpr, HAS_MASK: tl.constexpr,
    HAS_NORM: tl.constexpr,
):  # fmt: skip
    pair, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    sample, head = pair // heads, pair % heads
    keys, values = key + sample * kb + head * kh, value + sample * vb + head * vh
    s, z = tl.zeros((DP, EP), tl.float32), tl.zeros((DP,), tl.float32)
    last = tl.minimum(n, (part + 1) * length)
    for start in range(part * length, last, TOKENS):
        tokens = start + tl.arange(0, TOKENS)
        k = _load(keys, tokens, last, kn, D, DP)
        k = _relu(_normed(k, rstd, weight, sample * n, head, tokens, last, D, DP, HAS_NORM))
        v = _load(values, tokens, last, vn, E, EP).to(tl.float32)
        if HAS_MASK:
            seen = _visible(mask, sample, tokens, n, HAS_MASK)[:, None]
            k, v = tl.where(seen, k, 0.0), tl.where(seen, v, 0.0)
        s = tl.dot(tl.trans(k.to(NARROW)), v.to(NARROW), s, input_precision="ieee")
        z += tl.sum(k, 0)
    _save_state(product, total, s, z, pair * parts + part, D, E, DP, EP)


@triton.jit
def _output(
    query, rstd, weight, product, total, out, qb, qn, qh, ob, on, oh, heads, n, eps,
    D: tl.constexpr, E: tl.constexpr, DP: tl.constexpr, EP: tl.constexpr,
    TOKENS: tl.constexpr, WIDE: tl.constexpr, NARROW: tl.constexpr, HAS_NORM: tl.constexpr,
):  # fmt: skip
    pair, tokens = tl.program_id(0).to(tl.int64), tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    sample, head = pair // heads, pair % heads
    s, z = _load_state(product, total, pair, D, E, DP, EP)
    q = _load(query + sample * qb + head * qh, tokens, n, qn, D, DP)
    q = _relu(_normed(q, rstd, weight, sample * n, head, tokens, n, D, DP, HAS_NORM))
    mixed = tl.dot(q, s, input_precision=WIDE) / (tl.sum(q * z[None, :], 1) + eps)[:, None]
    _save(out + sample * ob + head * oh, mixed, tokens, n, on, E, EP)


@triton.jit
def _backward_query(
    grad, query, rstd, weight, product, total, dquery, dc,
    gb, gn, gh, qb, qn, qh, dqb, dqn, dqh, heads, n, eps,
    D: tl.constexpr, E: tl.constexpr, DP: tl.constexpr, EP: tl.constexpr,
    TOKENS: tl.constexpr, WIDE: tl.constexpr, NARROW: tl.constexpr, HAS_NORM: tl.constexpr,
):  # fmt: skip
    pair, tokens = tl.program_id(0).to(tl.int64), tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    sample, head = pair // heads, pair % heads
    s, z = _load_state(product, total, pair, D, E, DP, EP)
    q = _load(query + sample * qb + head * qh, tokens, n, qn, D, DP)
    q = _relu(_normed(q, rstd, weight, sample * n, head, tokens, n, D, DP, HAS_NORM))
    below = tl.sum(q * z[None, :], 1) + eps
    g = _load(grad + sample * gb + head * gh, tokens, n, gn, E, EP).to(tl.float32) / below[:, None]
    back = tl.dot(g, tl.trans(s), input_precision=WIDE)  # g S^T, [T, D]
    dc_n = -tl.sum(back * q, 1) / below
    dq = back + dc_n[:, None] * z[None, :]
    _save(dquery + sample * dqb + head * dqh, tl.where(q > 0, dq, 0.0), tokens, n, dqn, D, DP)
    tl.store(dc + pair * n + tokens, dc_n, mask=tokens < n)


@triton.jit
def _backward_state(
    grad, query, rstd, weight, total, dc, dproduct, dtotal,
    gb, gn, gh, qb, qn, qh, heads, n, length, parts, eps,
    D: tl.constexpr, E: tl.constexpr, DP: tl.constexpr, EP: tl.constexpr,
    TOKENS: tl.constexpr, WIDE: tl.constexpr, NARROW: tl.constexpr, HAS_NORM: tl.constexpr,
):  # fmt: skip
    pair, part, d = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.arange(0, DP)
    sample, head = pair // heads, pair % heads
    z = tl.load(total + pair * D + d, mask=d < D, other=0.0)
    ds, dz = tl.zeros((DP, EP), tl.float32), tl.zeros((DP,), tl.float32)
    last = tl.minimum(n, (part + 1) * length)
    for start in range(part * length, last, TOKENS):
        tokens = start + tl.arange(0, TOKENS)
        q = _load(query + sample * qb + head * qh, tokens, last, qn, D, DP)
        q = _relu(_normed(q, rstd, weight, sample * n, head, tokens, last, D, DP, HAS_NORM))
        do = _load(grad + sample * gb + head * gh, tokens, last, gn, E, EP).to(tl.float32)
        dc_n = tl.load(dc + pair * n + tokens, mask=tokens < last, other=0.0)
        g = do / (tl.sum(q * z[None, :], 1) + eps)[:, None]
        ds = tl.dot(tl.trans(q), g, ds, input_precision=WIDE)
        dz += tl.sum(dc_n[:, None] * q, 0)
    _save_state(dproduct, dtotal, ds, dz, pair * parts + part, D, E, DP, EP)


@triton.jit
def _kv_state_backward(
    dproduct, dtotal, key, value, mask, rstd, weight, dkey, dvalue,
    kb, kn, kh, vb, vn, vh, dkb, dkn, dkh, dvb, dvn, dvh, heads, n,
    D: tl.constexpr, E: tl.constexpr, DP: tl.constexpr, EP: tl.constexpr,
    TOKENS: tl.constexpr, WIDE: tl.constexpr, NARROW: tl.constexpr, HAS_MASK: tl.constexpr,
    HAS_NORM: tl.constexpr,
):  # fmt: skip
    pair, tokens = tl.program_id(0).to(tl.int64), tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    sample, head = pair // heads, pair % heads
    ds, dz = _load_state(dproduct, dtotal, pair, D, E, DP, EP)
    k = _load(key + sample * kb + head * kh, tokens, n, kn, D, DP)
    k = _relu(_normed(k, rstd, weight, sample * n, head, tokens, n, D, DP, HAS_NORM))
    v = _load(value + sample * vb + head * vh, tokens, n, vn, E, EP).to(tl.float32)
    seen = _visible(mask, sample, tokens, n, HAS_MASK)[:, None]
    k, v = tl.where(seen, k, 0.0), tl.where(seen, v, 0.0)
    dk = tl.dot(v, tl.trans(ds), input_precision=WIDE) + dz[None, :]
    dv = tl.dot(k, ds, input_precision=WIDE)
    _save(dkey + sample * dkb + head * dkh, tl.where(k > 0, dk, 0.0), tokens, n, dkn, D, DP)
    _save(dvalue + sample * dvb + head * dvh, tl.where(seen, dv, 0.0), tokens, n, dvn, E, EP)
