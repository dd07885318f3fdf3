"""The SANA transformer, the figure: latent and text in, velocity out (arXiv 2410.10629, figure 5).

Letters: B batch, C latent channels, h/w latent position, p patch, N = (h/p)*(w/p) tokens, D width, L text tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from sanakit.base.sizes import Grid
from sanakit.base.text_states import TextStates
from sanakit.kernels import modulated_norm
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


class Head(nn.Module):
    """Norm, modulation by the time embedding itself (not by that of the blocks), and projection to patches."""

    def __init__(self, width: int, out: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.table = nn.Parameter(torch.randn(2, width) / width**0.5)
        self.out = nn.Linear(width, out)

    def forward(self, x: Tensor, t_emb: Tensor) -> Tensor:
        """x [B, N, D], t_emb [B, D] -> [B, N, p*p*C]."""
        shift, scale = (self.table + t_emb[:, None, :]).chunk(2, dim=1)  # [B, 1, D] each
        out: Tensor = self.out(modulated_norm(x, shift, scale, self.eps))
        return out


class SanaTransformer(nn.Module):
    """Linear diffusion transformer of the SANA family (1.0, 1.5, Sprint) for images."""

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
        self.head = Head(width, patch * patch * config.latent_channels, config.norm_eps)

    def forward(
        self,
        latent: Tensor,
        time: Tensor,
        text: TextStates | TextKV,
        guidance: Tensor | None = None,
        perturbed: Mapping[int, Tensor] | None = None,
        positions: Positions | None = None,
    ) -> Tensor:
        """The velocity (noise minus data) at a noisy latent. Samples don't see each other.

        Args:
            latent: [B, C, h, w].
            time: [B], 0 (data) to 1000 (noise) as in the published checkpoints; multiplied by `config.time_scale`. [1]
                for all samples is faster: it is embedded once, and norms share its modulation.
            text: states [B, L, text_width] and mask [B, L], or what `precompute_text` made of them.
            guidance: [B] or [1] guidance scales, for networks with `guidance_embed`.
            perturbed: number of a block -> [B] bool, the samples whose self-attention is the identity in that block
                (perturbed-attention guidance).
            positions: of the positional table; None for those of `config`.

        Returns:
            [B, C, h, w] in the dtype of the weights.
        """
        grid = Grid.of(latent, self.config.patch_size)
        x = self.embed_latent(latent, grid, positions or self.config.positions)
        t_emb = self.embed_time(time, guidance)  # [B, D], or [1, D] for all
        x, _ = self._walk(x, t_emb, text, grid, self.config.depth, perturbed)
        return self.unpatch(self.head(x, t_emb), grid)

    def features(
        self,
        latent: Tensor,
        time: Tensor,
        text: TextStates | TextKV,
        blocks: Collection[int],
        positions: Positions | None = None,
    ) -> list[Tensor]:
        """The tokens [B, N, D] after some blocks, in their order; what follows the last of them is not computed.

        blocks: their numbers. The rest as in `forward`, for networks without `guidance_embed`.
        """
        grid = Grid.of(latent, self.config.patch_size)
        x = self.embed_latent(latent, grid, positions or self.config.positions)
        t_emb = self.embed_time(time, None)
        return self._walk(x, t_emb, text, grid, max(blocks) + 1, keep=blocks)[1]

    def _walk(
        self,
        x: Tensor,
        t_emb: Tensor,
        text: TextStates | TextKV,
        grid: Grid,
        depth: int,
        perturbed: Mapping[int, Tensor] | None = None,
        keep: Collection[int] = (),
    ) -> tuple[Tensor, list[Tensor]]:
        """Tokens [B, N, D] through the first `depth` blocks, and those after the blocks to `keep`."""
        modulation = self.modulation(F.silu(t_emb)).unflatten(-1, (1, 6, -1))  # [B, 1, 6, D]
        text_kv, mask = (text.blocks, text.mask) if isinstance(text, TextKV) else self._project_text(text)
        rope = self._rope(grid, x.device)
        kept = []
        for index in range(depth):
            others = perturbed.get(index) if perturbed else None
            x = self.blocks[index](x, modulation, text_kv[index], mask, grid, rope, others)
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
        """The projected text for every block, and its mask.

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

    def unpatch(self, x: Tensor, grid: Grid) -> Tensor:
        """[B, N, p*p*C] -> [B, C, h, w]."""
        p = self.config.patch_size
        x = x.reshape(-1, grid.height, grid.width, p, p, self.config.latent_channels)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(x.shape[0], -1, grid.height * p, grid.width * p)

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


def initialise(model: SanaTransformer) -> SanaTransformer:
    """Xavier for linear layers, N(0, 0.02) for time, modulation and text, zero for the output. In place.

    The cross-attention's output also starts at zero, so that text enters gradually. Gates stay as constructed.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.xavier_uniform_(model.patch.weight.view(model.patch.weight.shape[0], -1))
    embeds: list[ScalarEmbed | TextEmbed] = [model.time, model.text]
    embeds += [] if model.guidance is None else [model.guidance]
    for linear in [model.modulation, *(part for e in embeds for part in (e.input, e.output))]:
        nn.init.normal_(linear.weight, std=0.02)
    for block in model.modules():
        if isinstance(block, CrossAttention):
            nn.init.zeros_(block.out.weight)
    nn.init.zeros_(model.head.out.weight)
    nn.init.zeros_(model.head.out.bias)
    return model
