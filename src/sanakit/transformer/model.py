"""The SANA transformer, the figure: latent and text in, velocity out (arXiv 2410.10629, figure 5).

Letters: B batch, C latent channels, h/w latent position, p patch, N = (h/p)*(w/p) tokens, D width, L text tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from sanakit.base.grid import Grid
from sanakit.base.values import TextStates
from sanakit.kernels import modulated_norm
from sanakit.layers.block import LinearBlock
from sanakit.layers.cross_attention import CrossAttention, Memory
from sanakit.layers.embed import ScalarEmbed, TextEmbed, position_table
from sanakit.layers.linear_attention import LinearSelfAttention
from sanakit.layers.mix_ffn import MixFFN
from sanakit.layers.rotary import rotary_angles
from sanakit.transformer.config import TransformerConfig


@dataclass(frozen=True)
class Perturbation:
    """Perturbed-attention guidance: in `layers`, self-attention of the last `rows` samples is the identity."""

    layers: frozenset[int]
    rows: int


@dataclass(frozen=True, eq=False)
class TextMemory:
    """What the blocks keep of a text: one memory each, and the mask [B - S, L] of the samples that are not settled.

    The mask is None where every token is real.
    """

    blocks: tuple[Memory, ...]
    mask: Tensor | None


class Head(nn.Module):
    """Norm, modulation by the time embedding itself (not by the blocks' signal), and projection to patches."""

    def __init__(self, width: int, out: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.table = nn.Parameter(torch.randn(2, width) / width**0.5)
        self.out = nn.Linear(width, out)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x [B, N, D], time [B, D] -> [B, N, p*p*C]."""
        shift, scale = (self.table + time[:, None, :]).chunk(2, dim=1)  # [B, 1, D] each
        out: Tensor = self.out(modulated_norm(x, shift, scale, self.eps))
        return out


class SanaTransformer(nn.Module):
    """Linear diffusion transformer of the SANA family (1.0, 1.5, Sprint) for images.

    `block` makes one block; None for `build_block`, which also takes other parts.
    """

    def __init__(
        self, config: TransformerConfig, block: Callable[[TransformerConfig], nn.Module] | None = None
    ) -> None:
        super().__init__()
        block = block or build_block
        self.config = config
        width, patch = config.width, config.patch_size
        self.patch = nn.Conv2d(config.latent_channels, width, patch, stride=patch)
        self.time = ScalarEmbed(width)
        self.guidance = ScalarEmbed(width) if config.guidance_embed else None
        self.modulation = nn.Linear(width, 6 * width)
        self.text = TextEmbed(config.text_width, width, config.text_norm_eps)
        self.blocks = nn.ModuleList(block(config) for _ in range(config.depth))
        self.head = Head(width, patch * patch * config.latent_channels, config.norm_eps)

    def forward(
        self,
        latent: Tensor,
        time: Tensor,
        text: TextStates | TextMemory,
        guidance: Tensor | None = None,
        residuals: Sequence[Tensor] = (),
        perturbation: Perturbation | None = None,
    ) -> Tensor:
        """The velocity (noise minus data) at a noisy latent.

        Args:
            latent: [B, C, h, w].
            time: [B], or [1] for all samples, 0 (data) to 1000 (noise) as in the published checkpoints; multiplied by
                `config.time_scale`.
            text: states [B, L, text_width] and mask [B, L], or what `read` made of them.
            guidance: [B] or [1] guidance scales, for networks with `guidance_embed`.
            residuals: tensors [B, N, D] of a control branch; number i is added after block i + 1.
            perturbation: identity attention for some samples in some blocks.

        Returns:
            [B, C, h, w] in the dtype of the weights.
        """
        grid = Grid(1, latent.shape[-2] // self.config.patch_size, latent.shape[-1] // self.config.patch_size)
        x = self.embed_latent(latent, grid)
        moment = self.embed_time(time, guidance)  # [B, D], or [1, D] for all
        signal = self.modulation(F.silu(moment)).unflatten(-1, (1, 6, -1))  # [B, F=1, 6, D]
        kept, mask = (text.blocks, text.mask) if isinstance(text, TextMemory) else self._unread(text)
        angles = self._angles(grid, x.device)
        for index, (block, memory) in enumerate(zip(self.blocks, kept, strict=True)):
            identity = perturbation.rows if perturbation and index in perturbation.layers else 0
            x = block(x, signal, memory, mask, grid, angles, identity)
            if 0 < index <= len(residuals):
                x = x + residuals[index - 1]
        return self.unpatch(self.head(x, moment), grid)

    def read(self, text: TextStates, lone: int = 0) -> TextMemory:
        """Keys and values of a text in every block: once per picture instead of once per step.

        lone: of so many samples at the front the first token alone is real (`TextStates.lone`); they are settled now.
        """
        words = self.embed_text(text)
        memories = tuple(block.cross.remember(words, lone) for block in self.blocks)  # type: ignore[union-attr, operator]
        return TextMemory(memories, text.mask[lone:])

    def _unread(self, text: TextStates) -> tuple[tuple[Tensor, ...], Tensor]:
        """The projected text for every block, and its mask.

        Each block reads it in its own forward pass: weights that are gathered block by block, and activations that are
        computed again, must not be used outside of it.
        """
        return (self.embed_text(text),) * len(self.blocks), text.mask

    def embed_text(self, text: TextStates) -> Tensor:
        """States [B, L, text_width] -> [B, L, D]."""
        words: Tensor = self.text(text.states.to(self.patch.weight.dtype))
        return words

    def embed_latent(self, latent: Tensor, grid: Grid) -> Tensor:
        """[B, C, h, w] -> tokens [B, N, D], with the positional table where the model has one."""
        # Token by token in memory: every sum downstream would inherit the convolution's channels-first strides.
        x: Tensor = self.patch(latent.to(self.patch.weight.dtype)).flatten(2).transpose(1, 2).contiguous()
        if self.config.position_scale is None:
            return x
        base = self.config.sample_size // self.config.patch_size
        scale = self.config.position_scale
        table = position_table(grid.height, grid.width, self.config.width, base, scale, x.device)
        # The table stays float32 and only the sum is rounded: bf16 positions would merge neighbours at 4K.
        return (x + table).to(x.dtype)

    def embed_time(self, time: Tensor, guidance: Tensor | None) -> Tensor:
        """[B] (and [B] guidance) -> [B, D]."""
        moment: Tensor = self.time(time * self.config.time_scale)
        if self.guidance is None:
            return moment
        if guidance is None:
            raise ValueError("this network has a guidance embedding: pass guidance=[B] scales.")
        return moment + self.guidance(guidance * self.config.guidance_scale)

    def unpatch(self, x: Tensor, grid: Grid) -> Tensor:
        """[B, N, p*p*C] -> [B, C, h, w]."""
        p = self.config.patch_size
        x = x.reshape(-1, grid.height, grid.width, p, p, self.config.latent_channels)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(x.shape[0], -1, grid.height * p, grid.width * p)

    def _angles(self, grid: Grid, device: torch.device) -> Tensor | None:
        if not self.config.rotary:
            return None
        return rotary_angles(grid, self.config.width // self.config.heads, device)


def build_block(
    config: TransformerConfig, attention: nn.Module | None = None, ffn: nn.Module | None = None
) -> LinearBlock:
    """One block with the parts that `config` asks for, or with those that are handed in.

    attention: called as `LinearSelfAttention` is. ffn: called as `MixFFN` is.
    """
    if attention is None:
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
    ffn = MixFFN(config.width, config.ffn_ratio) if ffn is None else ffn
    return LinearBlock(config.width, attention, cross, ffn, config.norm_eps)
