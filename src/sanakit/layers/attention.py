"""The attentions of SANA: linear self-attention of image tokens, and softmax cross-attention to the text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from sanakit.kernels import QKNorm, QuantTokens, linear_attention
from sanakit.layers.norm import RMSNorm

_FP16_MAX = 65504.0


class LinearSelfAttention(nn.Module):
    """Linear attention over all tokens (arXiv 2410.10629, section 2.2). q, k, v have no bias, the output has one.

    qk-norm is over the full width, across heads, and before the ReLU (arXiv 2501.18427, section 3.1).
    `mix` turns query, key and value [B, N, H, D/H], eps, angles and `norm` into the attended values [B, N, H, D/H].
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        eps: float,
        qk_norm: bool,
        qk_norm_eps: float,
        mix: Callable[..., Tensor] = linear_attention,
    ) -> None:
        super().__init__()
        self.heads, self.eps, self.mix = heads, eps, mix
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.norm_q = RMSNorm(width, qk_norm_eps) if qk_norm else None
        self.norm_k = RMSNorm(width, qk_norm_eps) if qk_norm else None

    def forward(
        self, x: Tensor | QuantTokens, rope: Tensor | None = None, perturbed: Tensor | None = None
    ) -> Tensor:
        """[B, N, D] -> [B, N, D].

        Args:
            x: tokens, normalised and modulated; quantised ones if `qkv` takes them.
            rope: [N, D/heads/2] rotary angles or None.
            perturbed: [B] bool, samples in which every token attends only to itself (the perturbed branch of
                perturbed-attention guidance, arXiv 2403.17377); None for none.
        """
        query, key, value = (part.unflatten(-1, (self.heads, -1)) for part in self.qkv(x).chunk(3, dim=-1))
        mixed = self.mix(query, key, value, self.eps, rope, norm=self._norm())
        if perturbed is not None:
            mixed = torch.where(perturbed[:, None, None, None], value, mixed)
        out: Tensor = self.out(mixed.flatten(-2))
        # Sums over tokens can leave fp16's range; the published fp16 checkpoints were run with this clamp.
        return out.clamp(-_FP16_MAX, _FP16_MAX) if out.dtype == torch.float16 else out

    def _norm(self) -> QKNorm | None:
        if self.norm_q is None or self.norm_k is None:
            return None
        return QKNorm(self.norm_q.weight, self.norm_k.weight, self.norm_q.eps)


@dataclass(frozen=True, eq=False)
class KV:
    """Keys and values of a text in one layer, the same for every step of an image.

    key, value: [M, H, L, D/H], of M samples of the batch.
    rows: [M] int64, which samples these are; None for all of them.
    constant: [B, 1, D], the output of the layer for every other sample, whose text is a single token: softmax over one
        key is 1, whatever the query is.
    """

    key: Tensor
    value: Tensor
    rows: Tensor | None = None
    constant: Tensor | None = None


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

    def project_kv(self, text: Tensor, rows: Tensor | None = None, single: Tensor | None = None) -> KV:
        """Keys and values of projected text states [B, L, D].

        Args:
            text: the states.
            rows: [M] int64, samples that attend to their text; None for all of them.
            single: [S, 2] int64, sample and position of the one real token of the others.
        """
        key, value = self.kv(text).chunk(2, dim=-1)
        key = key if self.norm_k is None else self.norm_k(key)
        if rows is None or single is None:
            return KV(self._heads(key), self._heads(value))
        sample, position = single.unbind(dim=1)
        known = self.out(value[sample, position].unsqueeze(1))  # [S, 1, D]
        constant = known.new_zeros(len(text), 1, known.shape[-1]).index_copy(0, sample, known)
        return KV(self._heads(key[rows]), self._heads(value[rows]), rows, constant)

    def forward(self, x: Tensor, text: KV | Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend to the text.

        Args:
            x: [B, N, D] image tokens.
            text: what `project_kv` gave, or the projected states [B, L, D] themselves.
            mask: [M, L] bool (M = B for states), True for real states; None if all are real. [M, N, L] says so for each
                image token: for texts that only a part of the picture reads.

        Returns:
            [B, N, D].
        """
        kv = self.project_kv(text) if isinstance(text, Tensor) else text
        if kv.rows is None or kv.constant is None:
            return self._attend(x, kv, mask)
        out = kv.constant.expand(-1, x.shape[1], -1)
        if len(kv.rows) == 0:
            return out
        return out.index_copy(0, kv.rows, self._attend(x.index_select(0, kv.rows), kv, mask))

    def _attend(self, x: Tensor, kv: KV, mask: Tensor | None) -> Tensor:
        query = self.q(x)
        query = query if self.norm_q is None else self.norm_q(query)
        by_head = None if mask is None else mask[:, None] if mask.dim() == 3 else mask[:, None, None, :]
        attended = F.scaled_dot_product_attention(self._heads(query), kv.key, kv.value, attn_mask=by_head)
        out: Tensor = self.out(attended.transpose(1, 2).flatten(-2))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, H, N, D/H]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
