"""LayerNorm and modulation as one LayerNorm with weights: in one pass, where all samples share one modulation.

Guided steps run every branch at the same time, so this is the rule when drawing and the exception in training.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sanakit.kernels.problem import Problem


def refuses(problem: Problem) -> str | None:
    """Why this row does not run a problem; None where it does."""
    return None if problem.fact("modulations") == 1 else "needs one modulation for all samples and tokens"


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6) -> Tensor:
    """As the reference, with shift and scale [1, 1, D]: [B, N, D] -> [B, N, D]."""
    return F.layer_norm(x, x.shape[-1:], (1 + scale).flatten(), shift.flatten(), eps)
