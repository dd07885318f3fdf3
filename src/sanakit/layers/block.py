"""One block of SANA: linear self-attention, cross-attention, Mix-FFN."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sanakit.base.grid import Grid
from sanakit.kernels import QuantTokens, add_norm_modulate
from sanakit.layers.cross_attention import CrossAttention, Memory
from sanakit.layers.modulation import per_token, split_modulation

Entry = Callable[..., tuple[Tensor, Tensor | QuantTokens]]


class LinearBlock(nn.Module):
    """The block of the figure (arXiv 2410.10629, figure 5). Its parts are handed in.

    attention is called as `LinearSelfAttention`, ffn as `MixFFN`; others that are called so can stand in their places.

    Attributes:
        enter_attention: adds what came before and normalises for the attention; see `kernels.add_norm_modulate`.
        enter_ffn: the same for the feed-forward. Edits of a built model replace either by `add_norm_modulate_quant`.
    """

    enter_attention: Entry
    enter_ffn: Entry

    def __init__(
        self, width: int, attention: nn.Module, cross: CrossAttention, ffn: nn.Module, norm_eps: float
    ) -> None:
        super().__init__()
        self.norm_eps = norm_eps
        self.table = nn.Parameter(torch.randn(6, width) / width**0.5)
        self.attention = attention
        self.cross = cross
        self.ffn = ffn
        self.enter_attention = self.enter_ffn = add_norm_modulate

    def forward(
        self,
        x: Tensor,
        signal: Tensor,
        memory: Memory | Tensor,
        mask: Tensor | None,
        grid: Grid,
        angles: Tensor | None = None,
        identity_rows: int = 0,
    ) -> Tensor:
        """One round of looking around, reading the prompt, and thinking.

        Args:
            x: [B, N, D] tokens.
            signal: [B, F, 6, D] from time.
            memory: what the cross-attention of this block keeps of the text, or the projected text [B, L, D].
            mask: [B, L] bool, True where the text is real; None where all of it is.
            grid: how the N tokens lie in space.
            angles: [N, D/heads/2] rotary angles or None.
            identity_rows: see `LinearSelfAttention`.

        Returns:
            [B, N, D].
        """
        look, think = (per_token(m, grid.tokens) for m in split_modulation(self.table, signal))
        x, h = self.enter_attention(x, None, None, look.shift, look.scale, self.norm_eps)
        x = torch.addcmul(x, look.gate, self.attention(h, angles, identity_rows))
        read = self.cross(x, memory, mask)
        x, h = self.enter_ffn(x, read, None, think.shift, think.scale, self.norm_eps)
        return torch.addcmul(x, think.gate, self.ffn(h, grid))
