"""LayerNorm and modulation as one LayerNorm with weights, in one pass, if all samples share one modulation.

Guided steps run every branch at the same time, so this is the rule in generation and the exception in training.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sanakit.kernels.modulated_norm.reference import add
from sanakit.kernels.problem import Problem


def unsupported(problem: Problem) -> str | None:
    """Return why this row does not run a problem, or None."""
    return None if problem.fact("shared") else "needs one modulation for all samples and tokens"


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6) -> Tensor:
    """As the reference, with shift and scale [1, 1, D]: [B, N, D] -> [B, N, D]."""
    return F.layer_norm(x, x.shape[-1:], (1 + scale).flatten(), shift.flatten(), eps)


def add_norm_modulate(
    x: Tensor, branch: Tensor | None, gate: Tensor | None, shift: Tensor, scale: Tensor, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """As the reference, with shift and scale [1, 1, D]: the sum and its norm, [B, N, D] each."""
    total = add(x, branch, gate)
    return total, modulated_norm(total, shift, scale, eps)
