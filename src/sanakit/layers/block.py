"""One block of SANA: linear self-attention, cross-attention, Mix-FFN."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sanakit.base.sizes import Grid
from sanakit.kernels import QuantTokens, gated_depthwise
from sanakit.layers.attention import KV, CrossAttention
from sanakit.layers.norm import AdaLN, split_modulation


class MixFFN(nn.Module):
    """Gated convolutional feed-forward (arXiv 2410.10629, section 2.2). The last projection has no bias."""

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        hidden = int(width * ratio)
        self.expand = nn.Linear(width, 2 * hidden)
        self.depthwise = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden)
        self.project = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor | QuantTokens, grid: Grid) -> Tensor:
        """[B, N, D], quantised if `expand` takes that -> [B, N, D]; row-major over (frames, height, width)."""
        hidden = self.expand(x).reshape(
            -1, grid.height, grid.width, self.expand.out_features
        )  # [B*F, h, w, 2F]
        mixed = gated_depthwise(hidden.permute(0, 3, 1, 2), self.depthwise.weight, self.depthwise.bias)
        out: Tensor = self.project(mixed.permute(0, 2, 3, 1).reshape(*x.shape[:2], -1))
        return out


class LinearBlock(nn.Module):
    """The block of the figure (arXiv 2410.10629, figure 5). Its parts are handed in.

    attention is called as `LinearSelfAttention`, ffn as `MixFFN`; other modules with these signatures can replace them.
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
            mask: [M, L] bool, True for real tokens; see `CrossAttention`.
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
