"""RMS norm over channels and a residual as an operator of torch, for drawing; see `triton.py`."""

from __future__ import annotations

import torch
from torch import Tensor

from sanakit.kernels import gpu
from sanakit.kernels.gpu import Later
from sanakit.kernels.problem import Problem

kernels = Later("sanakit.kernels.rms_norm.triton")


def refuses(problem: Problem) -> str | None:
    """Why this row does not run a problem; None where it does."""
    return "has no backward pass" if problem.fact("training") else gpu.refuses(problem)


@torch.library.custom_op("sanakit::rms_norm", mutates_args=())
def rms_norm(x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """As the reference, without a gradient: [B, C, h, w] -> [B, C, h, w], channels last."""
    return kernels.rms_norm(x, residual, weight, bias, eps)


@rms_norm.register_fake
def _(x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)
