"""RMS norm of queries and keys in plain torch: the definition that faster rows must equal.

SANA-1.5 (arXiv 2501.18427), section 3.1: over the full width, across heads, with a learned weight, before the ReLU.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from sanakit.kernels.rms_norm.reference import rms_norm


class QKNorm(NamedTuple):
    """How queries and keys are normalised: weights [H*D] of both, and what is added to the mean square."""

    query: Tensor
    key: Tensor
    eps: float


def normalised(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / rms(x) * weight over all heads: [B, N, H, D], [H*D] -> [B, N, H, D] in the dtype of x."""
    rows = x.flatten(-2).reshape(-1, weight.numel(), 1, 1)  # tokens as the positions of a map
    return rms_norm(rows, None, weight, None, eps).reshape(x.shape)
