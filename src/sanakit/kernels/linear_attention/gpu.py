"""The two passes of linear attention as operators of torch, with gradients; see `triton.py` for the kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sanakit.kernels import gpu
from sanakit.kernels.gpu import LazyModule, dense_last
from sanakit.kernels.linear_attention.reference import AttentionState, hide
from sanakit.kernels.problem import Problem
from sanakit.kernels.rms_norm.gpu import kernels as norm_kernels
from sanakit.kernels.rms_norm.gpu import token_rstd
from sanakit.kernels.rms_norm.reference import QKNorm

kernels = LazyModule("sanakit.kernels.linear_attention.triton")

WIDEST = 128
"""Values of a head beyond which its state does not fit the registers of a program."""


def unsupported(problem: Problem) -> str | None:
    """Return why this row does not run a problem, or None."""
    if problem.fact("rotary"):
        return "turns no rotary angles"
    if (problem.fact("width") or 0) > WIDEST:
        return f"holds heads of at most {WIDEST} values, and these have {problem.fact('width')}"
    return gpu.unsupported(problem)


def linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    eps: float = 1e-15,
    angles: None = None,
    mask: Tensor | None = None,
    state: AttentionState | None = None,
    norm: QKNorm | None = None,
) -> Tensor:
    """As the reference, without angles: [B, N, H, D] each -> [B, N, H, E]. A norm is applied where q and k are read."""
    query, key, value = map(dense_last, (query, key, value))
    query_norm: tuple[Tensor | None, Tensor | None] = (None, None)
    key_norm = query_norm
    if norm is not None:
        key = hide(key, mask)
        query_norm = token_rstd(query.detach(), norm.eps), norm.query
        key_norm = token_rstd(key.detach(), norm.eps), norm.key
    product, total = attention_kv_state(key, value, mask, *key_norm)
    if state is not None:
        product, total = state.extend(product, total)
    out: Tensor = attention_output(query, product, total, eps, *query_norm)
    return out.to(value.dtype)


qk_norm_linear_attention = linear_attention
"""The same with a norm."""


@torch.library.custom_op("sanakit::attention_kv_state", mutates_args=())
def attention_kv_state(
    key: Tensor, value: Tensor, mask: Tensor | None, rstd: Tensor | None, weight: Tensor | None
) -> tuple[Tensor, Tensor]:
    """key [B, N, H, D], value [B, N, H, E], mask [B, N] or None -> S [B, H, D, E], z [B, H, D], float32.

    rstd: `token_rstd` of the key, whose gradient is counted as the key's; weight: [H*D]. None for no norm.
    """
    return kernels.kv_state(key, value, mask, (rstd, weight))


@torch.library.custom_op("sanakit::attention_output", mutates_args=())
def attention_output(
    query: Tensor, product: Tensor, total: Tensor, eps: float, rstd: Tensor | None, weight: Tensor | None
) -> Tensor:
    """query [B, N, H, D], S, z -> [B, N, H, E]; rstd and weight as in `attention_kv_state`, of the query."""
    return kernels.output(query, product, total, eps, (rstd, weight))


@torch.library.custom_op("sanakit::attention_kv_state_backward", mutates_args=())
def attention_kv_state_backward(
    dproduct: Tensor,
    dtotal: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    rstd: Tensor | None,
    weight: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of key, value and weight, the last empty if there is none."""
    norm = (rstd, weight)
    dkey, dvalue = kernels.kv_state_backward(dproduct, dtotal, key, value, mask, norm)
    dkey, dweight = _through_norm(dkey, key, *norm)
    return dkey, dvalue, dweight


@torch.library.custom_op("sanakit::attention_output_backward", mutates_args=())
def attention_output_backward(
    grad: Tensor,
    query: Tensor,
    product: Tensor,
    total: Tensor,
    eps: float,
    rstd: Tensor | None,
    weight: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, S, z and weight, the last empty if there is none."""
    norm = (rstd, weight)
    dquery, *dstate = kernels.output_backward(grad, query, product, total, eps, norm)
    dquery, dweight = _through_norm(dquery, query, *norm)
    return dquery, *dstate, dweight


def _through_norm(
    grad: Tensor, x: Tensor, rstd: Tensor | None, weight: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Turn the gradient of what was normalised into those of x and of the weight."""
    if rstd is None or weight is None:
        return grad, grad.new_empty(0)
    dx, dweight = norm_kernels.qk_norm_backward(grad, x, rstd, weight)
    return dx, dweight.to(weight.dtype)


@attention_kv_state.register_fake
def _(
    key: Tensor, value: Tensor, mask: Tensor | None, rstd: Tensor | None, weight: Tensor | None
) -> tuple[Tensor, Tensor]:
    batch, _, heads, width = key.shape
    product = key.new_empty(batch, heads, width, value.shape[-1], dtype=torch.float32)
    return product, key.new_empty(batch, heads, width, dtype=torch.float32)


@attention_output.register_fake
def _(
    query: Tensor, product: Tensor, total: Tensor, eps: float, rstd: Tensor | None, weight: Tensor | None
) -> Tensor:
    return query.new_empty(*query.shape[:-1], product.shape[-1])


@attention_kv_state_backward.register_fake
def _(
    dproduct: Tensor, dtotal: Tensor, key: Tensor, value: Tensor, mask: Tensor | None,
    rstd: Tensor | None, weight: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return key.new_empty(key.shape), value.new_empty(value.shape), _like(weight, key)


@attention_output_backward.register_fake
def _(
    grad: Tensor, query: Tensor, product: Tensor, total: Tensor, eps: float,
    rstd: Tensor | None, weight: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    states = product.new_empty(product.shape), total.new_empty(total.shape)
    return query.new_empty(query.shape), *states, _like(weight, query)


def _like(weight: Tensor | None, x: Tensor) -> Tensor:
    return x.new_empty(0) if weight is None else weight.new_empty(weight.shape)


def _save_state(ctx: Any, inputs: tuple[Tensor | None, ...], output: object) -> None:
    ctx.save_for_backward(*inputs)


def _backward_state(ctx: Any, dproduct: Tensor, dtotal: Tensor) -> tuple[Tensor | None, ...]:
    dkey, dvalue, dweight = attention_kv_state_backward(dproduct, dtotal, *ctx.saved_tensors)
    return dkey, dvalue, None, None, _or_none(dweight)


def _save_output(ctx: Any, inputs: tuple[Any, ...], output: object) -> None:
    query, product, total, ctx.eps, *norm = inputs
    ctx.save_for_backward(query, product, total, *norm)


def _backward_output(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, rstd, weight = ctx.saved_tensors
    *found, dweight = attention_output_backward(grad, *tensors, ctx.eps, rstd, weight)
    return *found, None, None, _or_none(dweight)


def _or_none(gradient: Tensor) -> Tensor | None:
    return gradient if gradient.numel() else None


attention_kv_state.register_autograd(_backward_state, setup_context=_save_state)
attention_output.register_autograd(_backward_output, setup_context=_save_output)
