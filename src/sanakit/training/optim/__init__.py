"""Optimisers and learning rates: built from data, small in memory, the same on one process and on many."""

from sanakit.training.optim.build import build_optimizer, optimiser_bytes, parameter_groups, require_optimizer
from sanakit.training.optim.came import CAME, from_blocks, to_blocks
from sanakit.training.optim.learning_rate import BatchRule, lr_for_batch, trapezoid, warm_constant
from sanakit.training.optim.muon import Muon, hidden_groups, orthogonalised
from sanakit.training.optim.settings import OptimizerConfig, OptimizerName

__all__ = [
    "CAME",
    "BatchRule",
    "Muon",
    "OptimizerConfig",
    "OptimizerName",
    "build_optimizer",
    "from_blocks",
    "hidden_groups",
    "lr_for_batch",
    "optimiser_bytes",
    "orthogonalised",
    "parameter_groups",
    "require_optimizer",
    "to_blocks",
    "trapezoid",
    "warm_constant",
]
