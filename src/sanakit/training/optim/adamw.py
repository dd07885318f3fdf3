"""AdamW: torch's, fused where torch has it, and one with 8-bit moments from torchao."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import Optimizer

from sanakit.base.errors import ConfigError
from sanakit.training.optim.groups import parameter_groups

_FUSED = {"cpu", "cuda", "mps", "xpu"}

NEEDS_TORCHAO = (
    'optimizer: adamw-8bit needs torchao; run `pip install "sanakit[adamw-8bit]"`, or take came-8bit, '
    "which needs nothing."
)


def adamw(
    model: nn.Module, lr: float, weight_decay: float, betas: tuple[float, float], eps: float = 1e-8
) -> torch.optim.AdamW:
    """AdamW with decay for matrices only (arXiv 1711.05101), fused into one kernel where torch has that."""
    groups = parameter_groups(model, weight_decay)
    devices = {p.device.type for group in groups for p in group["params"]}
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=devices <= _FUSED)


def adamw_8bit(
    model: nn.Module, lr: float, weight_decay: float, betas: tuple[float, float], eps: float = 1e-8
) -> Optimizer:
    """AdamW with both moments in 8 bits, in blocks of 256 values (arXiv 2110.02861); torchao's.

    It compiles its step, so it needs what torch.compile needs. Raises ConfigError where torchao is missing.
    """
    try:
        from torchao.optim import AdamW8bit
    except ImportError as error:
        raise ConfigError(NEEDS_TORCHAO) from error
    optimizer: Optimizer = AdamW8bit(parameter_groups(model, weight_decay), lr=lr, betas=betas, eps=eps)
    return optimizer
