"""The two passes of linear attention as operators of torch, with gradients; see `triton.py`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sanakit.kernels import gpu
from sanakit.kernels.gpu import Later, dense_last
from sanakit.kernels.linear_attention.state import AttentionState
from sanakit.kernels.problem import Problem

kernels = Later("sanakit.kernels.linear_attention.triton")

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
) -> Tensor:
    """As the reference, without angles: [B, N, H, D] each -> [B, N, H, E]."""
    query, key, value = map(dense_last, (query, key, value))
    product, total = attention_sums(key, value, mask)
    if state is not None:
        product, total = state.extend(product, total)
    out: Tensor = attention_answer(query, product, total, eps)
    return out.to(value.dtype)


@torch.library.custom_op("sanakit::attention_sums", mutates_args=())
def attention_sums(key: Tensor, value: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """key [B, N, H, D], value [B, N, H, E], mask [B, N] or None -> S [B, H, D, E], z [B, H, D], float32."""
    return kernels.sums(key, value, mask)


@torch.library.custom_op("sanakit::attention_answer", mutates_args=())
def attention_answer(query: Tensor, product: Tensor, total: Tensor, eps: float) -> Tensor:
    """query [B, N, H, D], S, z -> [B, N, H, E]."""
    return kernels.answer(query, product, total, eps)


@torch.library.custom_op("sanakit::attention_sums_backward", mutates_args=())
def attention_sums_backward(
    into_product: Tensor, into_total: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Gradients of key and value."""
    return kernels.sums_backward(into_product, into_total, key, value, mask)


@torch.library.custom_op("sanakit::attention_answer_backward", mutates_args=())
def attention_answer_backward(
    grad: Tensor, query: Tensor, product: Tensor, total: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, S and z."""
    return kernels.answer_backward(grad, query, product, total, eps)


@attention_sums.register_fake
def _(key: Tensor, value: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    batch, _, heads, width = key.shape
    size = (batch, heads, width)
    return key.new_empty(*size, value.shape[-1], dtype=torch.float32), key.new_empty(
        size, dtype=torch.float32
    )


@attention_answer.register_fake
def _(query: Tensor, product: Tensor, total: Tensor, eps: float) -> Tensor:
    return query.new_empty(*query.shape[:-1], product.shape[-1])


@attention_sums_backward.register_fake
def _(
    into_product: Tensor, into_total: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    return key.new_empty(key.shape), value.new_empty(value.shape)


@attention_answer_backward.register_fake
def _(
    grad: Tensor, query: Tensor, product: Tensor, total: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    return query.new_empty(query.shape), product.new_empty(product.shape), total.new_empty(total.shape)


def _keep_sums(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: object) -> None:
    ctx.save_for_backward(*inputs)


def _into_sums(ctx: Any, into_product: Tensor, into_total: Tensor) -> tuple[Tensor, Tensor, None]:
    into_key, into_value = attention_sums_backward(into_product, into_total, *ctx.saved_tensors)
    return into_key, into_value, None


def _keep_answer(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, float], output: object) -> None:
    *tensors, ctx.eps = inputs
    ctx.save_for_backward(*tensors)


def _into_answer(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
    return (*attention_answer_backward(grad, *ctx.saved_tensors, ctx.eps), None)


attention_sums.register_autograd(_into_sums, setup_context=_keep_sums)
attention_answer.register_autograd(_into_answer, setup_context=_keep_answer)
