"""Dense time: an embedding of times in 0..1000 becomes one of times in 0..1 (SANA-Sprint, arXiv 2503.09641, 3.2).

A consistency model is differentiated by its time, through the sinusoid of its time embedding: times of 0..1000 would
make that derivative a thousand times as large. What a flow model has learnt there is a smooth curve of time all the
same, and a small network on 0..1 can draw that curve. So the dense embedding is solved for instead of trained: some
units of its first layer bend at even times, and its second is the least-squares fit of the curve to those bends. What
the fit leaves out is the jitter between neighbouring times, which is what a derivative would have amplified.

Many steep bends fit best, and can't be trained: an optimiser like Adam moves every weight by the learning rate, so the
embedding moves by that times the sum of the units' values. A few bends, each towards the nearer end of time, keep that
sum, and the weights, at the size of trained ones (docs/training.md has numbers).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sanakit.flow.times import TRAIN_STEPS
from sanakit.layers.embed import ScalarEmbed, sinusoid

DENSE_SCALE = 1 / TRAIN_STEPS
"""The `time_scale` of a transformer whose time embedding reads 0..1; `timestep_scale` in diffusers."""

_BENDS = 32
_STEEP = 20.0  # the slope of a bend: steeper ones follow the curve's jitter, flatter ones need large weights
_RIDGE = 1e-5  # keeps those weights at the size of trained ones
_REST = 0.005  # deviation of the weights of units that don't bend: near nothing, but not stuck at it


@torch.no_grad()
def fit_dense_time(embed: ScalarEmbed, most: float) -> float:
    """Change an embedding of times in 0..most into one of times in 0..1, in place.

    It is fitted at the whole thousandths, which flow models are trained at. Returns the share of the curve's variance
    over time that is lost.
    """
    s = torch.linspace(0, 1, TRAIN_STEPS + 1, device=embed.input.weight.device)
    wanted = embed(most * s).double()  # [T, D]
    _bend(embed)
    hidden = F.silu(embed.input(sinusoid(s, embed.features))).double()
    count = min(_BENDS, hidden.shape[1])
    design = torch.cat([hidden[:, :count], torch.ones_like(hidden[:, :1])], dim=1)
    solved = _ridge(design, wanted)  # [bends + 1, D]
    embed.output.weight.zero_()
    embed.output.weight[:, :count] = solved[:-1].T
    embed.output.bias.copy_(solved[-1])
    left = (embed(s).double() - wanted).square().mean()
    return float(left / (wanted - wanted.mean(dim=0)).square().mean().clamp_min(1e-30))


def _bend(embed: ScalarEmbed) -> None:
    """Let the first units bend at even times, by the sine of time itself: falling in the first half, rising after."""
    width, weight = embed.input.out_features, embed.input.weight
    count = min(_BENDS, width)
    places = torch.linspace(0, 1, count, device=weight.device)
    slopes = torch.where(places <= 0.5, -_STEEP, _STEEP)
    generator = torch.Generator().manual_seed(0)
    weight.copy_(torch.randn(weight.shape, generator=generator) * _REST)
    weight[:count] = 0
    weight[:count, embed.features // 2] = slopes  # cosines come first
    embed.input.bias.zero_()
    embed.input.bias[:count] = -slopes * places.sin()


def _ridge(design: Tensor, wanted: Tensor) -> Tensor:
    """Return the least-squares solution of design [T, K] x = wanted [T, D] with small x [K, D], in float64."""
    square = design.T @ design
    square.diagonal().add_(_RIDGE * square.diagonal().mean())
    solved: Tensor = torch.linalg.solve(square, design.T @ wanted)
    return solved
