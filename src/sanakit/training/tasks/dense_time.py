"""Dense time: an embedding of times in 0..1000 becomes one of times in 0..1 (SANA-Sprint, arXiv 2503.09641, 3.2).

A consistency model is differentiated by its time, through the sinusoid of its time embedding: times of 0..1000 would
make that derivative a thousand times as large. What a flow model has learnt there is a smooth curve of time all the
same, of whose variance Toybox's loses 1.4 % as a polynomial of degree 6. So the dense embedding is solved for instead
of trained: its first layer bends at even times, its second is the least-squares fit of the curve to those bends.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sanakit.flow.times import TRAIN_STEPS
from sanakit.layers.embed import ScalarEmbed, sinusoid

_STEEP = 10.0  # the slope of a bend: steeper ones follow the curve's jitter, flatter ones need large weights
_RIDGE = 1e-5  # keeps those weights at the size of trained ones; Toybox's fit loses 1.1 % of the variance with both


@torch.no_grad()
def fit_dense_time(embed: ScalarEmbed, most: float) -> None:
    """Change an embedding of times in 0..most into one of times in 0..1, in place."""
    s = torch.linspace(0, 1, TRAIN_STEPS + 1, device=embed.input.weight.device)
    wanted = embed(most * s).double()  # [T, D]
    _bend(embed)
    hidden = F.silu(embed.input(sinusoid(s, embed.features))).double()
    solved = _ridge(torch.cat([hidden, torch.ones_like(hidden[:, :1])], dim=1), wanted)  # [D + 1, D]
    embed.output.weight.copy_(solved[:-1].T)
    embed.output.bias.copy_(solved[-1])


def _bend(embed: ScalarEmbed) -> None:
    """Let unit d of the first layer bend at time d / D, rising or falling, by the slowest sine: sin(s)."""
    width = embed.input.out_features
    places = torch.linspace(-0.05, 1.05, width, device=embed.input.weight.device)
    slopes = torch.where(torch.arange(width, device=places.device) % 2 == 0, _STEEP, -_STEEP)
    embed.input.weight.zero_()
    embed.input.weight[:, embed.features // 2] = slopes  # cosines come first
    embed.input.bias.copy_(-slopes * places.sin())


def _ridge(design: Tensor, wanted: Tensor) -> Tensor:
    """The least-squares solution of design [T, K] x = wanted [T, D] with small x [K, D], in float64."""
    square = design.T @ design
    square.diagonal().add_(_RIDGE * square.diagonal().mean())
    solved: Tensor = torch.linalg.solve(square, design.T @ wanted)
    return solved
