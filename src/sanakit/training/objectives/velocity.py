"""The rectified-flow objective: mean squared error of the velocity (arXiv 2210.02747; SANA section 2.5)."""

from __future__ import annotations

from torch import Tensor


def velocity(predicted: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Mean squared error of predicted [B, C, h, w] against target (noise - data) [B, C, h, w]."""
    return {"loss": (predicted.float() - target.float()).square().mean()}
