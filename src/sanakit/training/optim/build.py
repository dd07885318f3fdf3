"""Optimisers built from data: AdamW (torch's, or torchao's with 8-bit moments), CAME and Muon."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sanakit.base.errors import ConfigError
from sanakit.training.optim.came import CAME
from sanakit.training.optim.muon import Muon, hidden_groups
from sanakit.training.optim.settings import OptimizerConfig, OptimizerName

_FUSED = {"cpu", "cuda", "mps", "xpu"}

NEEDS_TORCHAO = (
    'optimizer: adamw-8bit needs torchao; run `pip install "sanakit[adamw-8bit]"`, or take came-8bit, '
    "which needs nothing."
)


def build_optimizer(
    model: nn.Module, config: OptimizerConfig, dtype: torch.dtype = torch.float32
) -> Optimizer:
    """Build the optimiser of all parameters of `model` that are trained: groups with decay and without.

    dtype: of the products of Muon, which is that of the run; states and steps are float32.
    Raises ConfigError if nothing is trained, or nothing that Muon moves, or a library is missing.
    """
    return _BUILDERS[config.name](model, config, dtype)


def require_optimizer(config: OptimizerConfig) -> None:
    """Raise ConfigError if the library of an optimiser is not installed, without importing it."""
    if config.name == "adamw-8bit" and find_spec("torchao") is None:
        raise ConfigError(NEEDS_TORCHAO)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return the trained parameters: matrices (of two axes or more) with decay; biases and the scales of norms without.

    The split does not depend on `weight_decay`, so a saved state fits whatever the decay is. Raises ConfigError if
    nothing is trained.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise ConfigError("optimizer: the model has no parameter that is trained")
    matrices = [p for p in trained if p.ndim > 1]
    vectors = [p for p in trained if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def adamw(
    model: nn.Module, lr: float, weight_decay: float, betas: tuple[float, float], eps: float = 1e-8
) -> torch.optim.AdamW:
    """AdamW with decay for matrices only (arXiv 1711.05101), fused into one kernel if torch has that for the device."""
    groups = parameter_groups(model, weight_decay)
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=_fuses(groups))


def _fuses(groups: list[dict[str, Any]]) -> bool:
    """Return whether torch has AdamW as one kernel wherever the parameters are."""
    return {p.device.type for group in groups for p in group["params"]} <= _FUSED


def adamw_8bit(
    model: nn.Module, lr: float, weight_decay: float, betas: tuple[float, float], eps: float = 1e-8
) -> Optimizer:
    """AdamW with both moments in 8 bits, in blocks of 256 values (arXiv 2110.02861); torchao's.

    It compiles its step, so it needs what torch.compile needs. Raises ConfigError if torchao is missing.
    """
    try:
        from torchao.optim import AdamW8bit
    except ImportError as error:
        raise ConfigError(NEEDS_TORCHAO) from error
    optimizer: Optimizer = AdamW8bit(parameter_groups(model, weight_decay), lr=lr, betas=betas, eps=eps)
    return optimizer


def _adamw(model: nn.Module, config: OptimizerConfig, _: torch.dtype) -> Optimizer:
    beta1, beta2 = config.decays
    return adamw(model, config.lr, config.weight_decay, (beta1, beta2), config.epsilons[0])


def _adamw_8bit(model: nn.Module, config: OptimizerConfig, _: torch.dtype) -> Optimizer:
    beta1, beta2 = config.decays
    return adamw_8bit(model, config.lr, config.weight_decay, (beta1, beta2), config.epsilons[0])


def _came(model: nn.Module, config: OptimizerConfig, _: torch.dtype) -> Optimizer:
    beta1, beta2, beta3 = config.decays
    eps1, eps2 = config.epsilons
    return CAME(
        parameter_groups(model, config.weight_decay),
        lr=config.lr,
        betas=(beta1, beta2, beta3),
        eps=(eps1, eps2),
        clip_threshold=config.clip_threshold,
        block=config.block if config.name == "came-8bit" else None,
    )


def _muon(model: nn.Module, config: OptimizerConfig, dtype: torch.dtype) -> Optimizer:
    (beta1, beta2), groups = config.decays, hidden_groups(model, config.weight_decay)
    return Muon(
        groups,
        lr=config.lr,
        momentum=config.momentum,
        betas=(beta1, beta2),
        eps=config.epsilons[0],
        fused=_fuses(groups),
        dtype=dtype,
    )


_BUILDERS: dict[OptimizerName, Callable[[nn.Module, OptimizerConfig, torch.dtype], Optimizer]] = {
    "adamw": _adamw,
    "came": _came,
    "came-8bit": _came,
    "adamw-8bit": _adamw_8bit,
    "muon": _muon,
}


def optimiser_bytes(optimizer: Optimizer) -> int:
    """Bytes of an optimiser's state on this process: all of it after the first step.

    Of tensors that are cut over processes this process's part is counted, and of quantised ones codes and scales.
    """
    return sum(_bytes(kept) for state in optimizer.state.values() for kept in state.values())


def _bytes(kept: Any) -> int:
    if hasattr(kept, "device_mesh"):
        return _bytes(kept.to_local())
    if not isinstance(kept, Tensor):
        return 0
    if hasattr(kept, "__tensor_flatten__"):
        parts, _ = kept.__tensor_flatten__()
        return sum(_bytes(getattr(kept, name)) for name in parts)
    return kept.numel() * kept.element_size()
