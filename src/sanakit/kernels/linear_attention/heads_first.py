"""ReLU linear attention on CPUs: one copy of q, k and v with heads before tokens, then plain batched products.

Products straight on [B, N, H, D] walk memory in steps of H * D and took eight times as long at 2 x 1,024 tokens. The
arithmetic is the reference's: float32 throughout.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sanakit.kernels.linear_attention.state import AttentionState
from sanakit.kernels.problem import Problem


def refuses(problem: Problem) -> str | None:
    """Why this row does not run a problem; None where it does."""
    if problem.device != "cpu":
        return "is laid out for CPUs"
    return "turns no rotary angles" if problem.fact("rotary") else None


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
        product, sums = torch.bmm(k.transpose(1, 2), v), k.sum(dim=1)  # [B*H, D, E], [B*H, D]
        if state is not None:
            split = (batch, heads)
            product, sums = state.extend(product.unflatten(0, split), sums.unflatten(0, split))
            product, sums = product.flatten(0, 1), sums.flatten(0, 1)
        total = torch.bmm(q, sums[:, :, None])  # [B*H, N, 1]
        mixed = torch.bmm(q, product) / (total + eps)
        return mixed.view(batch, heads, tokens, -1).transpose(1, 2).to(value.dtype)


def _heads_first(x: Tensor) -> Tensor:
    """[B, N, H, D] -> a copy [B*H, N, D] in float32."""
    batch, tokens, heads, width = x.shape
    copy = torch.empty(batch, heads, tokens, width, dtype=torch.float32, device=x.device)
    return copy.copy_(x.transpose(1, 2)).flatten(0, 1)
