"""The cross-attention layer of SANA: image tokens ask, text states answer (softmax, masked)."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from sanakit.layers.norm import RMSNorm


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

    def forward(self, x: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """Attend to the text.

        Args:
            x: [B, N, D] image tokens.
            text: [B, L, D] projected text states.
            mask: [B, L] bool, True where a state is real.

        Returns:
            [B, N, D].
        """
        query = self.q(x)
        key, value = self.kv(text).chunk(2, dim=-1)
        query = query if self.norm_q is None else self.norm_q(query)
        key = key if self.norm_k is None else self.norm_k(key)
        mixed = F.scaled_dot_product_attention(
            self._heads(query), self._heads(key), self._heads(value), attn_mask=mask[:, None, None, :]
        )
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(-2))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, H, N, D/H]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
