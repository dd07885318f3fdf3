"""The blocks of DC-AE: a residual convolution block and an EfficientViT block, both at constant resolution.

Letters: B batch, C channels, h/w position, N = h*w, H heads, D head width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sanakit.autoencoder.config import Stage
from sanakit.kernels import Act, conv, gated_depthwise, linear_attention
from sanakit.layers.norm import ChannelRMSNorm

_FFN_RATIO = 4


class Conv(nn.Conv2d):
    """A 3x3 convolution, perhaps with its SiLU, as one operator of the table."""

    def __init__(self, width: int, act: Act = "none", bias: bool = True) -> None:
        super().__init__(width, width, 3, padding=1, bias=bias)
        self.act: Act = act

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C, h, w]."""
        return conv(x, self.weight, self.bias, self.act)


class ResBlock(nn.Module):
    """x + norm(conv(silu(conv(x))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = Conv(width, "silu")
        self.conv2 = Conv(width, bias=False)
        self.norm = ChannelRMSNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C, h, w]."""
        out: Tensor = self.norm(self.conv2(self.conv1(x)), residual=x)
        return out


class Scale(nn.Module):
    """One more view of q, k, v: gathered from a k x k neighbourhood, mixed inside each head's D channels."""

    def __init__(self, width: int, head_dim: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width, bias=False)
        self.pointwise = nn.Conv2d(width, width, 1, groups=width // head_dim, bias=False)

    def forward(self, qkv: Tensor) -> Tensor:
        """[B, 3C, h, w] -> [B, 3C, h, w]."""
        out: Tensor = self.pointwise(self.depthwise(qkv))
        return out


class MultiScaleAttention(nn.Module):
    """EfficientViT attention (arXiv 2205.14756, section 3.1): linear attention over q, k, v seen at several scales.

    A head is 3 * D *consecutive* channels of the joined map: its first D act as query, the next as key, the last as
    value. So the first third of `qkv` is not "the queries", whatever the checkpoints call it.
    """

    def __init__(self, width: int, head_dim: int, kernels: tuple[int, ...]) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.scales = nn.ModuleList(Scale(3 * width, head_dim, kernel) for kernel in kernels)
        self.out = nn.Linear(width * (1 + len(kernels)), width, bias=False)
        self.norm = ChannelRMSNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C, h, w], the residual included."""
        b, _, h, w = x.shape
        qkv = self.qkv(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        views = torch.cat([qkv, *(scale(qkv) for scale in self.scales)], dim=1)
        tokens = views.permute(0, 2, 3, 1).reshape(b, h * w, -1, 3, self.head_dim)  # [B, N, H, 3, D]
        query, key, value = tokens.unbind(dim=3)
        mixed = linear_attention(query, key, value).reshape(b, h, w, -1)
        return self.norm(self.out(mixed).permute(0, 3, 1, 2), residual=x)


class GatedConv(nn.Module):
    """DC-AE's Mix-FFN: 1x1, gated depthwise 3x3, 1x1, norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = 2 * _FFN_RATIO * width
        self.expand = nn.Conv2d(width, hidden, 1)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.project = nn.Conv2d(hidden // 2, width, 1, bias=False)
        self.norm = ChannelRMSNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C, h, w], the residual included."""
        hidden = gated_depthwise(self.expand(x), self.depthwise.weight, self.depthwise.bias)
        return self.norm(self.project(hidden), residual=x)


class EViTBlock(nn.Module):
    """Attention for what is far, gated convolution for what is near; both add to what they are given."""

    def __init__(self, width: int, head_dim: int, kernels: tuple[int, ...]) -> None:
        super().__init__()
        self.attention = MultiScaleAttention(width, head_dim, kernels)
        self.ffn = GatedConv(width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C, h, w]."""
        return self.ffn(self.attention(x))


def build_blocks(stage: Stage, head_dim: int) -> nn.ModuleList:
    """Return the blocks of one stage."""
    if stage.kind == "res":
        return nn.ModuleList(ResBlock(stage.width) for _ in range(stage.depth))
    return nn.ModuleList(EViTBlock(stage.width, head_dim, stage.scales) for _ in range(stage.depth))
