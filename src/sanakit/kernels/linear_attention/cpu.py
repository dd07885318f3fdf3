"""ReLU linear attention on CPUs: one copy of q, k and v with heads before tokens, then plain batched products.

Products straight on [B, N, H, D] walk memory in steps of H * D and took eight times as long at 2 x 1,024 tokens. The
arithmetic is the reference's: float32 throughout.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sanakit.kernels.linear_attention import reference
from sanakit.kernels.linear_attention.reference import AttentionState, hide
from sanakit.kernels.problem import Problem
from sanakit.kernels.rms_norm.cpu import qk_norm
from sanakit.kernels.rms_norm.reference import QKNorm


def unsupported(problem: Problem) -> str | None:
    """Return why `linear_attention` does not run a problem, or None."""
    return unsupported_with_norm(problem) or ("turns no rotary angles" if problem.fact("rotary") else None)


def unsupported_with_norm(problem: Problem) -> str | None:
    """Return why `qk_norm_linear_attention` does not run a problem, or None."""
    return None if problem.device == "cpu" else "is laid out for CPUs"


def linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    eps: float = 1e-15,
    angles: Tensor | None = None,
    mask: Tensor | None = None,
    state: AttentionState | None = None,
) -> Tensor:
    """As the reference: [B, N, H, D] each -> [B, N, H, E]."""
    batch, tokens, heads = query.shape[:3]
    with torch.autocast(value.device.type, enabled=False):
        q, k, v = _heads_first(query).relu_(), _heads_first(key).relu_(), _heads_first(value)  # [B*H, N, D]
        if mask is not None:
            hidden = ~mask.repeat_interleave(heads, 0)[:, :, None]  # [B*H, N, 1]
            k, v = k.masked_fill(hidden, 0), v.masked_fill(hidden, 0)
        product, total = torch.bmm(k.transpose(1, 2), v), k.sum(dim=1)  # [B*H, D, E], [B*H, D]
        if state is not None:
            split = (batch, heads)
            product, total = state.extend(product.unflatten(0, split), total.unflatten(0, split))
            product, total = product.flatten(0, 1), total.flatten(0, 1)
        below = torch.bmm(q, total[:, :, None]) + eps  # [B*H, N, 1]
        mixed = torch.bmm(q, product) / below
        return mixed.view(batch, heads, tokens, -1).transpose(1, 2).to(value.dtype)


def qk_norm_linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    eps: float,
    angles: Tensor | None,
    mask: Tensor | None,
    state: AttentionState | None,
    norm: QKNorm,
) -> Tensor:
    """As the reference; rotary angles are turned by the reference's attention."""
    query, key = qk_norm(query, norm.query, norm.eps), qk_norm(hide(key, mask), norm.key, norm.eps)
    attend = linear_attention if angles is None else reference.linear_attention
    return attend(query, key, value, eps, angles, mask, state)


def _heads_first(x: Tensor) -> Tensor:
    """[B, N, H, D] -> a copy [B*H, N, D] in float32."""
    batch, tokens, heads, width = x.shape
    copy = torch.empty(batch, heads, tokens, width, dtype=torch.float32, device=x.device)
    return copy.copy_(x.transpose(1, 2)).flatten(0, 1)
