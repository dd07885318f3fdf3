"""Products in 8 bits in plain torch: int8 (W8A8) and fp8 (e4m3).

Symmetric, as LLM.int8 (arXiv 2208.07339, section 2.1) without its outliers: a row of weights (an output channel) and a
row of activations (a token) have one scale each, the largest value over the largest number of the format, and

    y[n, o] = scale_x[n] * scale_w[o] * sum_k x_q[n, k] * w_q[o, k] + bias[o]

with the sum exact. Scales of tokens are taken from the tokens at hand, so nothing has to be calibrated. Those for int8
are numbers that bf16 has, so that a product in bf16 can be scaled in bf16 without a second error. Numbers of e4m3
(arXiv 2209.05433) have three bits behind the point and reach 448.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sanakit.kernels.linear import Act

INT8_MAX = 127
FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0
_NEXT = 1 + 5 / 1024
"""x * _NEXT rounds up to the next number of bf16.

A number of bf16 is 128 to 255 units of its last place, and 5/1024 of it 0.6 to 1.2 units: more than half, at most one
and a half.
"""


class QuantTokens(NamedTuple):
    """Activations already quantised by the preceding norm: int8 [..., K] and scales [...] in float32.

    dtype: of the tokens before, and of products with them.
    """

    values: Tensor
    scales: Tensor
    dtype: torch.dtype

    @property
    def shape(self) -> torch.Size:
        """[..., K]."""
        return self.values.shape

    @property
    def device(self) -> torch.device:
        """Of the values."""
        return self.values.device

    def exact(self) -> Tensor:
        """Return what they stand for, [..., K] in float64."""
        return self.values.double() * self.scales.double()[..., None]


def quantise_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Round every row to int8 times a scale.

    Args:
        x: [..., K], any floating dtype.

    Returns:
        int8 [..., K] in -127..127, and the scales [...] in float32: x is nearly `values * scales[..., None]`.
        A row with NaN or Inf has a scale of NaN or Inf, so that products with it are NaN.
    """
    wide = x.float()
    scales = (wide.abs().amax(dim=-1) / INT8_MAX).clamp_min(torch.finfo(torch.float32).tiny)
    values = (wide / scales[..., None]).round().clamp(-INT8_MAX, INT8_MAX)
    return values.nan_to_num(0.0).to(torch.int8), scales


def quantise_tokens(x: Tensor) -> tuple[Tensor, Tensor]:
    """As `quantise_rows`, with the scales rounded up to numbers of bf16, so that no value leaves the range."""
    scales = token_scales(x)
    values = (x.float() * scales.reciprocal()[..., None]).round()
    return values.nan_to_num(0.0).to(torch.int8), scales


def token_scales(x: Tensor) -> Tensor:
    """[..., K] -> [...] in float32: the largest value over 127, rounded up to a number that bf16 has."""
    exact = (x.abs().amax(dim=-1).float() / INT8_MAX).clamp_min(torch.finfo(torch.float32).tiny)
    near = exact.to(torch.bfloat16).float()
    return torch.where(near < exact, (near * _NEXT).to(torch.bfloat16).float(), near)


def quantise_rows_fp8(x: Tensor) -> tuple[Tensor, Tensor]:
    """Round every row to numbers of fp8 times a scale.

    Args:
        x: [..., K], any floating dtype.

    Returns:
        e4m3 [..., K] and the scales [...] in float32: x is nearly `values * scales[..., None]`. A row with NaN or Inf
        has a scale of NaN or Inf, so that products with it are not finite.
    """
    wide = x.float()
    scales = (wide.abs().amax(dim=-1) / FP8_MAX).clamp_min(torch.finfo(torch.float32).tiny)
    return (wide / scales[..., None]).clamp(-FP8_MAX, FP8_MAX).to(FP8), scales


def int8_matmul(
    x: Tensor | QuantTokens, weight: Tensor, scales: Tensor, bias: Tensor | None, act: Act = "none"
) -> Tensor:
    """Multiply tokens by weights in int8.

    Args:
        x: [..., K], any floating dtype, or tokens that are quantised already.
        weight: int8 [O, K].
        scales: float32 [O], of the weight's rows.
        bias: [O] or None.
        act: "silu" or "none", on the result.

    Returns:
        [..., O] in the dtype of x. The gradient is that of the product with the weights as they are; rounding of x
        counts as the identity (the straight-through estimator, arXiv 1308.3432).
    """
    if isinstance(x, QuantTokens):
        return _product(x.exact(), (x.values, x.scales), (weight, scales), bias, act).to(x.dtype)
    return _product(x, quantise_tokens(x.detach()), (weight, scales), bias, act)


def fp8_matmul(x: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None, act: Act = "none") -> Tensor:
    """As `int8_matmul` with e4m3 weights [O, K]: [..., K] -> [..., O]."""
    return _product(x, quantise_rows_fp8(x.detach()), (weight, scales), bias, act)


def _product(
    x: Tensor, tokens: tuple[Tensor, Tensor], weight: tuple[Tensor, Tensor], bias: Tensor | None, act: Act
) -> Tensor:
    """Multiply quantised tokens by quantised weights (values and scales each) in float64; x: the tokens before."""
    wide = x.double()
    rounded = wide + (_dequantise(tokens) - wide).detach()  # the gradient of x itself
    product = rounded @ _dequantise(weight).T
    out = (product if bias is None else product + bias.double()).to(x.dtype)
    return F.silu(out) if act == "silu" else out


def _dequantise(quantised: tuple[Tensor, Tensor]) -> Tensor:
    values, scales = quantised
    return values.double() * scales.double()[..., None]
