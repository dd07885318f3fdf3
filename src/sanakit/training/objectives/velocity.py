"""The rectified-flow objective: mean squared error of the velocity (arXiv 2210.02747; SANA section 2.5)."""

from __future__ import annotations

from torch import Tensor


def velocity(predicted: Tensor, target: Tensor, weights: Tensor | None = None) -> dict[str, Tensor]:
    """Mean squared error of predicted [B, C, h, w] against target (noise - data) [B, C, h, w].

    weights [B] multiply the error of each sample (`time_weights`); they are not made to sum to one.
    """
    if weights is None:
        return {"loss": (predicted.float() - target.float()).square().mean()}
    return {"loss": (weights.float() * sample_errors(predicted, target)).mean()}


def sample_errors(predicted: Tensor, target: Tensor) -> Tensor:
    """The mean squared error of every sample, [B] float32."""
    return (predicted.float() - target.float()).square().flatten(1).mean(1)
