"""What stands in for SANA's parts in ablations: softmax attention, a plain feed-forward, other positions.

Parts are handed in, so the network knows nothing of them, and what is not replaced keeps its name in checkpoints:

    model = ablated(config, attention=softmax_attention, ffn=plain_ffn)
    model = ablated(with_rotary_positions(config))

Their models are for measuring: no checkpoint format knows them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from sanakit.base.sizes import Grid
from sanakit.kernels import QKNorm
from sanakit.kernels.linear_attention.reference import rotate_pairs
from sanakit.kernels.rms_norm.reference import qk_norm
from sanakit.layers import LinearSelfAttention
from sanakit.transformer import SanaTransformer, TransformerConfig

Part = Callable[[TransformerConfig], nn.Module]
"""Makes one layer of a block."""


def softmax_mix(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    eps: float,
    angles: Tensor | None,
    norm: QKNorm | None = None,
) -> Tensor:
    """Softmax attention over all tokens, in place of the ReLU's linear one.

    query, key, value: [B, N, H, D]. eps: unused, a softmax needs none. angles: [N, D/2], by which queries and keys are
    turned (arXiv 2104.09864). norm: of queries and keys. Returns [B, N, H, D].
    """
    if norm is not None:
        query = qk_norm(query, norm.query, norm.eps)
        key = qk_norm(key, norm.key, norm.eps)
    if angles is not None:
        query, key = (rotate_pairs(part.float(), angles).to(part.dtype) for part in (query, key))
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    mixed = F.scaled_dot_product_attention(query, key, value)
    return mixed.transpose(1, 2)


class PlainFFN(nn.Module):
    """Linear, GELU, Linear, as in DiT (arXiv 2212.09748): every token by itself, whatever is beside it."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, hidden)
        self.project = nn.Linear(hidden, width)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """[B, N, D] -> [B, N, D]; the grid makes no difference."""
        out: Tensor = self.project(F.gelu(self.expand(x), approximate="tanh"))
        return out


def softmax_attention(config: TransformerConfig) -> nn.Module:
    """The layer of the linear attention with another mix: as many heads and parameters."""
    return LinearSelfAttention(
        config.width,
        config.heads,
        eps=config.attention_eps,
        qk_norm=config.qk_norm,
        qk_norm_eps=config.qk_norm_eps,
        mix=softmax_mix,
    )


def plain_ffn(config: TransformerConfig) -> nn.Module:
    """As many parameters as the Mix-FFN that it replaces, to within one hidden channel.

    With D = width and h = D * ffn_ratio a Mix-FFN has 3 h D + 22 h (2 h D + 2 h, 9 * 2 h + 2 h, h D), a plain one of
    hidden width f has (2 D + 1) f + D.
    """
    width, hidden = config.width, int(config.width * config.ffn_ratio)
    return PlainFFN(width, round((3 * hidden * width + 22 * hidden - width) / (2 * width + 1)))


def ablated(
    config: TransformerConfig, attention: Part | None = None, ffn: Part | None = None
) -> SanaTransformer:
    """The network of `config` with other parts in every block; None leaves SANA's own."""
    model = SanaTransformer(config)
    for block in model.blocks:
        block.attention = block.attention if attention is None else attention(config)
        block.ffn = block.ffn if ffn is None else ffn(config)
    return model


def without_positions(config: TransformerConfig) -> TransformerConfig:
    """NoPE: where a token lies is known from the zeros around the picture alone, by the Mix-FFN's convolution."""
    return replace(config, position_scale=None, rotary=False)


def with_added_positions(config: TransformerConfig) -> TransformerConfig:
    """A sin-cos table added to the tokens once."""
    return replace(config, position_scale=1.0, rotary=False)


def with_rotary_positions(config: TransformerConfig) -> TransformerConfig:
    """Queries and keys turned by rows and columns in every block."""
    return replace(config, position_scale=None, rotary=True)
