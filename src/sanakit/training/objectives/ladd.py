"""The critic of latent adversarial diffusion distillation (LADD): heads on the tokens of a frozen teacher.

    tokens ──▶ 1x1 conv, norm, LeakyReLU ──▶ (x + 9-wide conv, norm, LeakyReLU) / sqrt 2 ──▶ 1x1 conv ──▶ scores
    [B, N, D]                                                                                              [B, N]

All convolutions run along the tokens in their order, the wide one in a circle, and have a spectral norm of 1. Pictures
are noised before they are judged, so the noise level says what is looked at: structure or texture.

Sources: Sauer et al. 2024, "LADD", arXiv:2403.12015, section 3; the heads are those of StyleGAN-T, arXiv:2301.09515,
section 3.2; the settings are SANA-Sprint's, arXiv:2503.09641.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

_SLOPE = 0.2  # of LeakyReLU
_WIDE = 9
_GROUPS = 32  # of channels, in a group norm
_EPS = 1e-5

Norm = Callable[[int], nn.Module]
"""Channels -> a norm of maps [B, D, N]."""


class SpectralConv(nn.Module):
    """A convolution along tokens whose weight is divided by its largest singular value (arXiv 1802.05957).

    A power iteration follows that value, one round with every pass in training; `left` is its vector.
    """

    left: Tensor

    def __init__(self, width: int, out: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        conv = nn.Conv1d(width, out, kernel)
        self.weight, self.bias = conv.weight, nn.Parameter(torch.zeros(out))
        self.register_buffer("left", F.normalize(torch.randn(out), dim=0))

    def forward(self, x: Tensor, frozen: bool = False) -> Tensor:
        """[B, D, N] -> [B, out, N]. frozen: weights are constants, and the power iteration rests."""
        weight, bias = (self.weight.detach(), self.bias.detach()) if frozen else (self.weight, self.bias)
        around = F.pad(x, (self.kernel // 2, self.kernel // 2), mode="circular") if self.kernel > 1 else x
        return F.conv1d(around, weight / self._largest(weight, self.training and not frozen), bias)

    def _largest(self, weight: Tensor, follow: bool) -> Tensor:
        """Return the largest singular value of the weight, with a gradient for the weight."""
        matrix = weight.flatten(1)  # [out, D * kernel]
        with torch.no_grad():
            right = F.normalize(matrix.T @ self.left, dim=0)
            left = F.normalize(matrix @ right, dim=0)
            if follow:
                self.left.copy_(left)
        return torch.dot(left, matrix @ right)


class LocalBatchNorm(nn.Module):
    """A batch norm over the tokens of a few samples, the same in training and after it (StyleGAN-T).

    size: samples that are seen together, at most; a batch is cut into equal parts of no more than that.
    """

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, frozen: bool = False) -> Tensor:
        """[B, D, N] -> [B, D, N]."""
        weight, bias = _held(self.weight, frozen), _held(self.bias, frozen)
        parts = x.tensor_split(-(-len(x) // self.size))
        return torch.cat(
            [F.batch_norm(part, None, None, weight, bias, training=True, eps=_EPS) for part in parts]
        )


class ChannelGroupNorm(nn.Module):
    """A group norm of each sample by itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.groups = math.gcd(_GROUPS, width)
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, frozen: bool = False) -> Tensor:
        """[B, D, N] -> [B, D, N]."""
        return F.group_norm(x, self.groups, _held(self.weight, frozen), _held(self.bias, frozen), _EPS)


class CriticHead(nn.Module):
    """Judges the tokens after one block."""

    def __init__(self, width: int, norm: Norm) -> None:
        super().__init__()
        self.first, self.first_norm = SpectralConv(width, width, 1), norm(width)
        self.wide, self.wide_norm = SpectralConv(width, width, _WIDE), norm(width)
        self.score = SpectralConv(width, 1, 1)

    def forward(self, tokens: Tensor, frozen: bool = False) -> Tensor:
        """[B, N, D] -> scores [B, 1, N]."""
        x = tokens.transpose(1, 2)
        x = F.leaky_relu(self.first_norm(self.first(x, frozen), frozen), _SLOPE)
        x = (x + F.leaky_relu(self.wide_norm(self.wide(x, frozen), frozen), _SLOPE)) / 2**0.5
        scores: Tensor = self.score(x, frozen)
        return scores


class Critic(nn.Module):
    """A head for each block of the teacher that is looked at."""

    def __init__(self, width: int, heads: int, norm: Norm) -> None:
        super().__init__()
        self.heads = nn.ModuleList(CriticHead(width, norm) for _ in range(heads))

    def forward(self, features: Sequence[Tensor], frozen: bool = False) -> Tensor:
        """Tokens [B, N, D] after each block -> scores [B, 1, heads * N] float32, high where a picture looks real.

        frozen: the critic gets no gradient from this pass and does not change in it, which is what the student wants.
        """
        pairs = zip(self.heads, features, strict=True)
        return torch.cat([head(tokens, frozen).float() for head, tokens in pairs], dim=2)


def gradient_penalty(scores: Tensor, features: Sequence[Tensor]) -> Tensor:
    """R1 (arXiv 1801.04406): the mean over samples of |d scores / d features|^2, with a gradient for the critic.

    features: what the scores were made of, with `requires_grad`.
    """
    gradients = torch.autograd.grad(scores.sum(), list(features), create_graph=True)
    return torch.stack([g.float().square().flatten(1).sum(1) for g in gradients]).sum(0).mean()


def head_operations(width: int) -> int:
    """Operations of a head on one token; a multiplication and a sum are two."""
    return 2 * (width**2 * (1 + _WIDE) + width)


def _held(parameter: nn.Parameter, frozen: bool) -> Tensor:
    return parameter.detach() if frozen else parameter
