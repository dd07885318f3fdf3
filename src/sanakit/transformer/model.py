"""The SANA transformer, the figure: latent and text in, velocity out (arXiv 2410.10629, figure 5).

Its embeddings and blocks are `backbone.py`; a ControlNet is a copy of some of them (`control.py`).

Letters: B batch, C latent channels, h/w latent position, p patch, N = (h/p)*(w/p) tokens, D width, L text tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from sanakit.base.sizes import Grid
from sanakit.base.text_states import TextStates
from sanakit.kernels import modulated_norm
from sanakit.layers.attention import CrossAttention
from sanakit.layers.embed import ScalarEmbed, TextEmbed
from sanakit.transformer.backbone import Backbone, TextKV
from sanakit.transformer.config import Positions, TransformerConfig


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


class SanaTransformer(Backbone):
    """Linear diffusion transformer of the SANA family (1.0, 1.5, Sprint) for images."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        out = config.patch_size**2 * config.latent_channels
        self.head = Head(config.width, out, config.norm_eps)

    def forward(
        self,
        latent: Tensor,
        time: Tensor,
        text: TextStates | TextKV,
        guidance: Tensor | None = None,
        perturbed: Mapping[int, Tensor] | None = None,
        positions: Positions | None = None,
        residuals: Mapping[int, Tensor] | None = None,
    ) -> Tensor:
        """Return the velocity (noise minus data) at a noisy latent. Samples don't see each other.

        Args:
            latent: [B, C, h, w].
            time: [B], 0 (data) to 1000 (noise) as in the published checkpoints; multiplied by `config.time_scale`. [1]
                for all samples is faster: it is embedded once, and norms share its modulation.
            text: states [B, L, text_width] and mask [B, L], or what `precompute_text` made of them.
            guidance: [B] or [1] guidance scales, for networks with `guidance_embed`.
            perturbed: number of a block -> [B] bool, the samples whose self-attention is the identity in that block
                (perturbed-attention guidance).
            positions: of the positional table; None for those of `config`.
            residuals: number of a block -> [B, N, D], added to its output (ControlNets, see `control.py`).

        Returns:
            [B, C, h, w] in the dtype of the weights.
        """
        grid = Grid.of(latent, self.config.patch_size)
        x = self.embed_latent(latent, grid, positions or self.config.positions)
        t_emb = self.embed_time(time, guidance)  # [B, D], or [1, D] for all
        x, _ = self.walk(x, t_emb, text, grid, self.config.depth, perturbed, residuals)
        return self.unpatch(self.head(x, t_emb), grid)

    def features(
        self,
        latent: Tensor,
        time: Tensor,
        text: TextStates | TextKV,
        blocks: Collection[int],
        positions: Positions | None = None,
    ) -> list[Tensor]:
        """Return the tokens [B, N, D] after some blocks, in their order; what follows the last of them is not computed.

        blocks: their numbers. The rest as in `forward`, for networks without `guidance_embed`.
        """
        grid = Grid.of(latent, self.config.patch_size)
        x = self.embed_latent(latent, grid, positions or self.config.positions)
        t_emb = self.embed_time(time, None)
        return self.walk(x, t_emb, text, grid, max(blocks) + 1, keep=blocks)[1]

    def unpatch(self, x: Tensor, grid: Grid) -> Tensor:
        """[B, N, p*p*C] -> [B, C, h, w]."""
        p = self.config.patch_size
        x = x.reshape(-1, grid.height, grid.width, p, p, self.config.latent_channels)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(x.shape[0], -1, grid.height * p, grid.width * p)


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
