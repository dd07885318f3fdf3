"""What every network of the family has below its output: embeddings of latent, time and text, and the blocks.

Letters: B batch, C latent channels, h/w latent position, p patch, N = (h/p)*(w/p) tokens, D width, L text tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from sanakit.base.sizes import Grid
from sanakit.base.text_states import TextStates
from sanakit.layers.attention import KV, CrossAttention, LinearSelfAttention
from sanakit.layers.block import LinearBlock, MixFFN
from sanakit.layers.embed import ScalarEmbed, TextEmbed, position_table, rotary_angles
from sanakit.transformer.config import Positions, TransformerConfig


@dataclass(frozen=True, eq=False)
class TextKV:
    """Keys and values of a text in every block, and the mask [M, L] of the samples they belong to (see `KV.rows`).

    The mask is None if every token is real.
    """

    blocks: tuple[KV, ...]
    mask: Tensor | None

    def unpadded(self) -> TextKV:
        """Return the same without a mask that hides nothing; one that hides padding stays."""
        real = self.mask is not None and bool(self.mask.all())
        return replace(self, mask=None) if real else self


class Backbone(nn.Module):
    """The embeddings and the blocks, without a head."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        width, patch = config.width, config.patch_size
        self.patch = nn.Conv2d(config.latent_channels, width, patch, stride=patch)
        self.time = ScalarEmbed(width)
        self.guidance = ScalarEmbed(width) if config.guidance_embed else None
        self.modulation = nn.Linear(width, 6 * width)
        self.text = TextEmbed(config.text_width, width, config.text_norm_eps)
        self.blocks = nn.ModuleList(build_block(config) for _ in range(config.depth))

    def walk(
        self,
        x: Tensor,
        t_emb: Tensor,
        text: TextStates | TextKV,
        grid: Grid,
        depth: int,
        perturbed: Mapping[int, Tensor] | None = None,
        residuals: Mapping[int, Tensor] | None = None,
        keep: Collection[int] = (),
    ) -> tuple[Tensor, list[Tensor]]:
        """Tokens [B, N, D] through the first `depth` blocks, and those after the blocks to `keep`.

        t_emb: [B, D], or [1, D] for all. perturbed, residuals: see `SanaTransformer.forward`.
        """
        modulation = self.modulation(F.silu(t_emb)).unflatten(-1, (1, 6, -1))  # [B, 1, 6, D]
        text_kv, mask = (text.blocks, text.mask) if isinstance(text, TextKV) else self._project_text(text)
        rope = self._rope(grid, x.device)
        kept = []
        for index in range(depth):
            others = perturbed.get(index) if perturbed else None
            x = self.blocks[index](x, modulation, text_kv[index], mask, grid, rope, others)
            if residuals is not None and index in residuals:
                x = x + residuals[index]
            if index in keep:
                kept.append(x)
        return x, kept

    def precompute_text(self, text: TextStates, single: Tensor | None = None) -> TextKV:
        """Keys and values of a text in every block: once per image instead of once per step.

        single: [B] bool, the samples with one real token, whose attention is known now; None looks at the mask.
        """
        single = text.single if single is None else single
        states, mask = self.embed_text(text), text.mask
        rows: Tensor | None = None
        tokens: Tensor | None = None
        if bool(single.any()):
            rows, sample = ((~single).nonzero()[:, 0].to(mask.device), single.nonzero()[:, 0].to(mask.device))
            tokens = torch.stack([sample, mask[sample].int().argmax(dim=1)], dim=1)
            mask = mask[rows]
        crosses = (cast(LinearBlock, block).cross for block in self.blocks)
        return TextKV(tuple(cross.project_kv(states, rows, tokens) for cross in crosses), mask)

    def _project_text(self, text: TextStates) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return the projected text for every block, and its mask.

        Each block makes its keys and values in its own forward pass: weights that are gathered block by block, and
        activations that are computed again, must not be used outside of it.
        """
        return (self.embed_text(text),) * len(self.blocks), text.mask

    def embed_text(self, text: TextStates) -> Tensor:
        """States [B, L, text_width] -> [B, L, D]."""
        states: Tensor = self.text(text.states.to(self.patch.weight.dtype))
        return states

    def embed_latent(self, latent: Tensor, grid: Grid, positions: Positions) -> Tensor:
        """[B, C, h, w] -> tokens [B, N, D], with the positional table if the model has one."""
        # Token by token in memory: every sum downstream would inherit the convolution's channels-first strides.
        x: Tensor = self.patch(latent.to(self.patch.weight.dtype)).flatten(2).transpose(1, 2).contiguous()
        if positions.scale is None:
            return x
        side, scale = positions.side, positions.scale
        table = position_table(grid.height, grid.width, self.config.width, side, scale, x.device)
        # The table stays float32 and only the sum is rounded: bf16 positions would merge neighbours at 4K.
        return (x + table).to(x.dtype)

    def embed_time(self, time: Tensor, guidance: Tensor | None) -> Tensor:
        """[B] (and [B] guidance) -> [B, D]."""
        t_emb: Tensor = self.time(time * self.config.time_scale)
        if self.guidance is None:
            return t_emb
        if guidance is None:
            raise ValueError("this network has a guidance embedding: pass guidance=[B] scales.")
        return t_emb + self.guidance(guidance * self.config.guidance_scale)

    def _rope(self, grid: Grid, device: torch.device) -> Tensor | None:
        if not self.config.rotary:
            return None
        return rotary_angles(grid, self.config.width // self.config.heads, device)


def build_block(config: TransformerConfig) -> LinearBlock:
    """One block with the parts that `config` asks for."""
    attention = LinearSelfAttention(
        config.width,
        config.heads,
        eps=config.attention_eps,
        qk_norm=config.qk_norm,
        qk_norm_eps=config.qk_norm_eps,
    )
    cross = CrossAttention(
        config.width, config.cross_heads, qk_norm=config.qk_norm, qk_norm_eps=config.cross_norm_eps
    )
    ffn = MixFFN(config.width, config.ffn_ratio)
    return LinearBlock(config.width, attention, cross, ffn, config.norm_eps)
