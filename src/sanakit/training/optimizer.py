"""AdamW with two groups (decay for matrices only), and the learning-rate shape of a run."""

from __future__ import annotations

import torch
from torch import nn


def adamw(model: nn.Module, lr: float, weight_decay: float, betas: tuple[float, float]) -> torch.optim.AdamW:
    """Fused AdamW; biases, norms and tables are not decayed."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)


def trapezoid(step: int, steps: int, warmup: int, cooldown: float) -> float:
    """Factor on the learning rate: linear warm-up, constant, linear cool-down over the last share of the run."""
    rise = min(1.0, (step + 1) / max(1, warmup))
    start = steps * (1 - cooldown)
    fall = min(1.0, (steps - step) / max(1.0, steps - start))
    return min(rise, max(fall, 0.0))
