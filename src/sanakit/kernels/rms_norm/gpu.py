"""RMS norms as operators of torch: of a map's channels with a residual, for inference, and a token's rstd for qk-norm.

See `triton.py` for the kernels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sanakit.kernels.gpu import LazyModule, unsupported

__all__ = ["kernels", "rms_norm", "token_rstd", "unsupported"]

kernels = LazyModule("sanakit.kernels.rms_norm.triton")


@torch.library.custom_op("sanakit::rms_norm", mutates_args=())
def rms_norm(x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """As the reference, without a gradient: [B, C, h, w] -> [B, C, h, w], channels last."""
    return kernels.rms_norm(x, residual, weight, bias, eps)


@rms_norm.register_fake
def _(x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


@torch.library.custom_op("sanakit::token_rstd", mutates_args=())
def token_rstd(x: Tensor, eps: float) -> Tensor:
    """x [B, N, H, D] -> 1 / rms of each token over all heads, [B, N] in float32; without a gradient of its own."""
    return kernels.rstd(x, eps)


@token_rstd.register_fake
def _(x: Tensor, eps: float) -> Tensor:
    return x.new_empty(x.shape[:2], dtype=torch.float32)
