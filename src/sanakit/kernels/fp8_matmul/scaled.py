"""Products in fp8 by torch's scaled matmul: the chip's own, with both steps applied to float32 sums."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sanakit.kernels.fp8_matmul.reference import quantise_rows
from sanakit.kernels.gpu import why_no_chip
from sanakit.kernels.linear.reference import Act
from sanakit.kernels.problem import Problem

OLDEST = (9, 0)
"""The oldest compute capability whose scaled matmul takes a step per row (Hopper)."""


def refuses(problem: Problem) -> str | None:
    """Why this row does not run a problem; None where it does."""
    if problem.device != "cuda":
        return "runs on CUDA GPUs only"
    chip = why_no_chip(OLDEST)
    if chip is not None:
        return chip
    if problem.dtype != torch.bfloat16:
        return "gives bf16 only"
    return "has no backward pass" if problem.fact("training") else None


def fp8_matmul(x: Tensor, weight: Tensor, steps: Tensor, bias: Tensor | None, act: Act = "none") -> Tensor:
    """As the reference, for bf16 tokens: [..., K], e4m3 [O, K], [O], [O] -> [..., O]."""
    values, per_row = quantise_rows(x.reshape(-1, x.shape[-1]))
    out: Tensor = torch._scaled_mm(
        values, weight.t(), scale_a=per_row[:, None], scale_b=steps[None, :], bias=bias, out_dtype=x.dtype
    )
    out = F.silu(out) if act == "silu" else out
    return out.reshape(*x.shape[:-1], len(weight))
