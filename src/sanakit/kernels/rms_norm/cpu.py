"""RMS norms on CPUs, a piece of the map at a time: plain torch's six passes over memory become one.

Intermediate results stay in float32: the sum is rounded to the dtype of x once, at its end.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sanakit.kernels.problem import Problem, needs_grad, takes_tangents
from sanakit.kernels.rms_norm import reference

_PIECE = 1 << 18
"""Values in a piece: 1 MiB in float32, so that a core's second cache holds it with what is added."""


def unsupported(problem: Problem) -> str | None:
    """Return why this row does not run a problem, or None."""
    return None if problem.device == "cpu" else "is made for the caches of CPUs"


def rms_norm(x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """As the reference; the result is channels last."""
    rows, (width, step) = rows_of(x), (x.shape[1], max(1, _PIECE // x.shape[1]))
    out = torch.empty_like(x, memory_format=torch.channels_last)
    added = None if residual is None else rows_of(residual)
    wide_weight, wide_bias = weight.float(), None if bias is None else bias.float()
    buffer = x.new_empty(min(step, len(rows)), width, dtype=torch.float32)
    for start in range(0, len(rows), step):
        window = slice(start, start + step)
        wide = buffer[: len(rows[window])].copy_(rows[window])
        norm = torch.linalg.vector_norm(wide, dim=1, keepdim=True)  # [n, 1]
        wide *= norm.square_().div_(width).add_(eps).rsqrt_()
        if wide_bias is None:
            wide *= wide_weight
        else:
            torch.addcmul(wide_bias, wide, wide_weight, out=wide)
        rows_of(out)[window] = wide if added is None else wide.add_(added[window])
    return out


def qk_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """As the reference, with every derivative: [B, N, H, D], [H*D] -> [B, N, H, D]."""
    if needs_grad(x, weight) or takes_tangents():
        return reference.qk_norm(x, weight, eps)
    return rms_norm(reference.tokens_as_map(x, weight), None, weight, None, eps).reshape(x.shape)


def rows_of(x: Tensor) -> Tensor:
    """[B, C, h, w] -> [B*h*w, C], without a copy if x is channels last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
