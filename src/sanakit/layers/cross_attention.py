"""The cross-attention layer of SANA: image tokens ask, text states answer (softmax, masked)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from sanakit.layers.norm import RMSNorm


@dataclass(frozen=True, eq=False)
class Memory:
    """What one layer keeps of a text, the same for every step of a picture.

    key, value: [B - S, H, L, D/H]. settled: [S, 1, D], the answers to the first S samples, whose text is one token: all
    weight lies on it, whatever is asked. None for S = 0.
    """

    key: Tensor
    value: Tensor
    settled: Tensor | None = None


class CrossAttention(nn.Module):
    """Softmax attention to the text. It reads the raw residual: no norm before it, no modulation, no gate."""

    def __init__(self, width: int, heads: int, *, qk_norm: bool, qk_norm_eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.norm_q = RMSNorm(width, qk_norm_eps) if qk_norm else None
        self.norm_k = RMSNorm(width, qk_norm_eps) if qk_norm else None

    def remember(self, text: Tensor, lone: int = 0) -> Memory:
        """Projected text states [B, L, D] -> their keys and values; the first `lone` samples are their first token."""
        key, value = self.kv(text).chunk(2, dim=-1)
        key = key if self.norm_k is None else self.norm_k(key)
        settled = self.out(value[:lone, :1]) if lone else None
        return Memory(self._heads(key[lone:]), self._heads(value[lone:]), settled)

    def forward(self, x: Tensor, memory: Memory | Tensor, mask: Tensor | None) -> Tensor:
        """Attend to the text.

        Args:
            x: [B, N, D] image tokens.
            memory: of the text, from `remember`; or the projected states [B, L, D] themselves.
            mask: [B - S, L] bool, True where a state is real; None where all are.

        Returns:
            [B, N, D].
        """
        if isinstance(memory, Tensor):
            memory = self.remember(memory)
        if memory.settled is None:
            return self._ask(x, memory, mask)
        known = memory.settled.expand(-1, x.shape[1], -1)
        open_ = x[len(known) :]
        return torch.cat([known, self._ask(open_, memory, mask)]) if len(open_) else known

    def _ask(self, x: Tensor, memory: Memory, mask: Tensor | None) -> Tensor:
        query = self.q(x)
        query = query if self.norm_q is None else self.norm_q(query)
        mixed = F.scaled_dot_product_attention(
            self._heads(query),
            memory.key,
            memory.value,
            attn_mask=None if mask is None else mask[:, None, None, :],
        )
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(-2))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, H, N, D/H]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
