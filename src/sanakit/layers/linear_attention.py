"""The self-attention layer of SANA: fused q, k, v projection, optional qk-norm, ReLU linear attention, output."""

from __future__ import annotations

from collections.abc import Callable

import torch
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
            perturbed: [B] bool, samples in which every token attends to itself alone (the perturbed branch of
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
