"""From the data of an optimiser to the optimiser of a model."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from torch import nn
from torch.optim import Optimizer

from sanakit.base.errors import ConfigError
from sanakit.training.optim.adamw import NEEDS_TORCHAO, adamw, adamw_8bit
from sanakit.training.optim.came import CAME
from sanakit.training.optim.config import OptimizerConfig, OptimizerName
from sanakit.training.optim.groups import parameter_groups


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> Optimizer:
    """The optimiser of all parameters of `model` that are trained; two groups, with decay and without.

    Raises ConfigError where nothing is trained or a library is missing.
    """
    return _BUILDERS[config.name](model, config)


def require_optimizer(config: OptimizerConfig) -> None:
    """Raises ConfigError where the library of an optimiser is not installed, without importing it."""
    if config.name == "adamw-8bit" and find_spec("torchao") is None:
        raise ConfigError(NEEDS_TORCHAO)


def _adamw(model: nn.Module, config: OptimizerConfig) -> Optimizer:
    beta1, beta2 = config.decays
    return adamw(model, config.lr, config.weight_decay, (beta1, beta2), config.epsilons[0])


def _adamw_8bit(model: nn.Module, config: OptimizerConfig) -> Optimizer:
    beta1, beta2 = config.decays
    return adamw_8bit(model, config.lr, config.weight_decay, (beta1, beta2), config.epsilons[0])


def _came(model: nn.Module, config: OptimizerConfig) -> Optimizer:
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


_BUILDERS: dict[OptimizerName, Callable[[nn.Module, OptimizerConfig], Optimizer]] = {
    "adamw": _adamw,
    "came": _came,
    "came-8bit": _came,
    "adamw-8bit": _adamw_8bit,
}
