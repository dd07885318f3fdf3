"""The middle of the Mix-FFN on CPUs through oneDNN: the gate's SiLU and the product ride on the two convolutions."""

from __future__ import annotations

import torch
from torch import Tensor

from sanakit.kernels.linear.onednn import refuses

__all__ = ["activated_depthwise", "depthwise_glu", "refuses"]

_LAST = torch.channels_last


def depthwise_glu(value: Tensor, gate: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As the reference: [B, F, h, w] each -> [B, F, h, w], channels last."""
    half, ones = value.shape[1], [1, 1]
    biases = (None, None) if bias is None else (bias[:half], bias[half:])
    opened = activated_depthwise(gate, weight[half:], biases[1])
    out: Tensor = torch.ops.mkldnn._convolution_pointwise.binary(
        value.contiguous(memory_format=_LAST), opened, weight[:half], biases[0], ones, ones, ones, half,
        "mul", None, None, [], None,
    )  # fmt: skip
    return out


def activated_depthwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Depthwise 3x3 and SiLU: x [B, C, h, w], weight [C, 1, 3, 3], bias [C] or None -> [B, C, h, w], channels last."""
    ones = [1, 1]
    out: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x.contiguous(memory_format=_LAST), weight, bias, ones, ones, ones, len(weight), "swish", [], ""
    )
    return out
