"""One block of SANA: linear self-attention, cross-attention, Mix-FFN."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sanakit.base.sizes import Grid
from sanakit.layers.cross_attention import KV, CrossAttention
from sanakit.layers.modulation import AdaLN, split_modulation


class LinearBlock(nn.Module):
    """The block of the figure (arXiv 2410.10629, figure 5). Its parts are handed in.

    attention is called as `LinearSelfAttention`, ffn as `MixFFN`; others that are called so can stand in their places.
    """

    def __init__(
        self, width: int, attention: nn.Module, cross: CrossAttention, ffn: nn.Module, norm_eps: float
    ) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(6, width) / width**0.5)
        self.attention = attention
        self.cross = cross
        self.ffn = ffn
        self.norm_attention = AdaLN(norm_eps)
        self.norm_ffn = AdaLN(norm_eps)

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        text: KV | Tensor,
        mask: Tensor | None,
        grid: Grid,
        rope: Tensor | None = None,
        perturbed: Tensor | None = None,
    ) -> Tensor:
        """Self-attention, cross-attention, feed-forward.

        Args:
            x: [B, N, D] tokens.
            modulation: [B or 1, 1, 6, D] from time.
            text: keys and values of the text in this block, or the projected text [B, L, D].
            mask: [M, L] bool, True where the text is real; see `CrossAttention`.
            grid: how the N tokens lie in space.
            rope: [N, D/heads/2] rotary angles or None.
            perturbed: see `LinearSelfAttention`.

        Returns:
            [B, N, D].
        """
        attn, ffn = split_modulation(self.table, modulation)
        x, h = self.norm_attention(x, attn)
        x = torch.addcmul(x, attn.gate, self.attention(h, rope, perturbed))
        x, h = self.norm_ffn(x, ffn, self.cross(x, text, mask))  # x + cross(x), and its norm
        return torch.addcmul(x, ffn.gate, self.ffn(h, grid))
