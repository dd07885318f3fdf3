"""Convolutions on CPUs through oneDNN, channels last, with the SiLU inside: a pass over the largest maps is saved."""

from __future__ import annotations

import torch
from torch import Tensor

from sanakit.kernels.linear.onednn import refuses
from sanakit.kernels.linear.reference import Act

__all__ = ["conv", "refuses"]


def conv(x: Tensor, weight: Tensor, bias: Tensor | None, act: Act = "none") -> Tensor:
    """As the reference; the result is channels last."""
    pad, ones = [weight.shape[-1] // 2] * 2, [1, 1]
    out: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x.contiguous(memory_format=torch.channels_last), weight, bias, pad, ones, ones, 1,
        "swish" if act == "silu" else "none", [], "",
    )  # fmt: skip
    return out
