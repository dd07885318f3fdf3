"""The two passes of linear attention as operators of torch, with gradients; see `triton.py`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sanakit.kernels import gpu
from sanakit.kernels.gpu import Later, dense_last
from sanakit.kernels.linear_attention.state import AttentionState
from sanakit.kernels.problem import Problem
from sanakit.kernels.qk_norm import QKNorm

kernels = Later("sanakit.kernels.linear_attention.triton")
norms = Later("sanakit.kernels.qk_norm.triton")

WIDEST = 128
"""Values of a head beyond which its sums do not fit the registers of a program."""


def refuses(problem: Problem) -> str | None:
    """Why this row does not run a problem; None where it does."""
    if problem.fact("rotary"):
        return "turns no rotary angles"
    if (problem.fact("width") or 0) > WIDEST:
        return f"holds heads of at most {WIDEST} values, and these have {problem.fact('width')}"
    return gpu.refuses(problem)


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
    spreads = (None, None)
    if norm is not None:
        key = key if mask is None else key.masked_fill(~mask[:, :, None, None], 0)
        spreads = (token_spread(query.detach(), norm.eps), token_spread(key.detach(), norm.eps))
    weights = (None, None) if norm is None else (norm.query, norm.key)
    product, total = attention_sums(key, value, mask, spreads[1], weights[1])
    if state is not None:
        product, total = state.extend(product, total)
    out: Tensor = attention_answer(query, product, total, eps, spreads[0], weights[0])
    return out.to(value.dtype)


@torch.library.custom_op("sanakit::token_spread", mutates_args=())
def token_spread(x: Tensor, eps: float) -> Tensor:
    """x [B, N, H, D] -> 1 / rms of each token over all heads, [B, N] in float32; without a gradient of its own."""
    return norms.spreads(x, eps)


@torch.library.custom_op("sanakit::attention_sums", mutates_args=())
def attention_sums(
    key: Tensor, value: Tensor, mask: Tensor | None, spread: Tensor | None, weight: Tensor | None
) -> tuple[Tensor, Tensor]:
    """key [B, N, H, D], value [B, N, H, E], mask [B, N] or None -> S [B, H, D, E], z [B, H, D], float32.

    spread: `token_spread` of the key, whose gradient is counted as the key's; weight: [H*D]. None for no norm.
    """
    return kernels.sums(key, value, mask, (spread, weight))


@torch.library.custom_op("sanakit::attention_answer", mutates_args=())
def attention_answer(
    query: Tensor, product: Tensor, total: Tensor, eps: float, spread: Tensor | None, weight: Tensor | None
) -> Tensor:
    """query [B, N, H, D], S, z -> [B, N, H, E]; spread and weight as in `attention_sums`, of the query."""
    return kernels.answer(query, product, total, eps, (spread, weight))


@torch.library.custom_op("sanakit::attention_sums_backward", mutates_args=())
def attention_sums_backward(
    into_product: Tensor,
    into_total: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    spread: Tensor | None,
    weight: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of key, value and weight, the last empty where there is none."""
    norm = (spread, weight)
    into_key, into_value = kernels.sums_backward(into_product, into_total, key, value, mask, norm)
    into_key, into_weight = _through_norm(into_key, key, *norm)
    return into_key, into_value, into_weight


@torch.library.custom_op("sanakit::attention_answer_backward", mutates_args=())
def attention_answer_backward(
    grad: Tensor,
    query: Tensor,
    product: Tensor,
    total: Tensor,
    eps: float,
    spread: Tensor | None,
    weight: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, S, z and weight, the last empty where there is none."""
    norm = (spread, weight)
    into_query, *into_sums = kernels.answer_backward(grad, query, product, total, eps, norm)
    into_query, into_weight = _through_norm(into_query, query, *norm)
    return into_query, *into_sums, into_weight


def _through_norm(
    grad: Tensor, x: Tensor, spread: Tensor | None, weight: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The gradient of what was normalised -> those of x and of the weight."""
    if spread is None or weight is None:
        return grad, grad.new_empty(0)
    into_x, into_weight = norms.backward(grad, x, spread, weight)
    return into_x, into_weight.to(weight.dtype)


@token_spread.register_fake
def _(x: Tensor, eps: float) -> Tensor:
    return x.new_empty(x.shape[:2], dtype=torch.float32)


@attention_sums.register_fake
def _(
    key: Tensor, value: Tensor, mask: Tensor | None, spread: Tensor | None, weight: Tensor | None
) -> tuple[Tensor, Tensor]:
    batch, _, heads, width = key.shape
    product = key.new_empty(batch, heads, width, value.shape[-1], dtype=torch.float32)
    return product, key.new_empty(batch, heads, width, dtype=torch.float32)


@attention_answer.register_fake
def _(
    query: Tensor, product: Tensor, total: Tensor, eps: float, spread: Tensor | None, weight: Tensor | None
) -> Tensor:
    return query.new_empty(*query.shape[:-1], product.shape[-1])


@attention_sums_backward.register_fake
def _(
    into_product: Tensor, into_total: Tensor, key: Tensor, value: Tensor, mask: Tensor | None,
    spread: Tensor | None, weight: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return key.new_empty(key.shape), value.new_empty(value.shape), _like(weight, key)


@attention_answer_backward.register_fake
def _(
    grad: Tensor, query: Tensor, product: Tensor, total: Tensor, eps: float,
    spread: Tensor | None, weight: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    states = product.new_empty(product.shape), total.new_empty(total.shape)
    return query.new_empty(query.shape), *states, _like(weight, query)


def _like(weight: Tensor | None, x: Tensor) -> Tensor:
    return x.new_empty(0) if weight is None else weight.new_empty(weight.shape)


def _keep_sums(ctx: Any, inputs: tuple[Tensor | None, ...], output: object) -> None:
    ctx.save_for_backward(*inputs)


def _into_sums(ctx: Any, into_product: Tensor, into_total: Tensor) -> tuple[Tensor | None, ...]:
    into_key, into_value, into_weight = attention_sums_backward(into_product, into_total, *ctx.saved_tensors)
    return into_key, into_value, None, None, _or_none(into_weight)


def _keep_answer(ctx: Any, inputs: tuple[Any, ...], output: object) -> None:
    query, product, total, ctx.eps, *norm = inputs
    ctx.save_for_backward(query, product, total, *norm)


def _into_answer(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, spread, weight = ctx.saved_tensors
    *found, into_weight = attention_answer_backward(grad, *tensors, ctx.eps, spread, weight)
    return *found, None, None, _or_none(into_weight)


def _or_none(gradient: Tensor) -> Tensor | None:
    return gradient if gradient.numel() else None


attention_sums.register_autograd(_into_sums, setup_context=_keep_sums)
attention_answer.register_autograd(_into_answer, setup_context=_keep_answer)
