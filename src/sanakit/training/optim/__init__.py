"""Optimisers and learning rates: built from data, small in memory, the same on one process and on many."""

from sanakit.training.optim.adamw import adamw, adamw_8bit
from sanakit.training.optim.blocks import from_blocks, to_blocks
from sanakit.training.optim.build import build_optimizer, require_optimizer
from sanakit.training.optim.came import CAME
from sanakit.training.optim.config import OptimizerConfig, OptimizerName
from sanakit.training.optim.groups import parameter_groups
from sanakit.training.optim.learning_rate import BatchRule, lr_for_batch, trapezoid, warm_constant
from sanakit.training.optim.memory import optimiser_bytes

__all__ = [
    "CAME",
    "BatchRule",
    "OptimizerConfig",
    "OptimizerName",
    "adamw",
    "adamw_8bit",
    "build_optimizer",
    "from_blocks",
    "lr_for_batch",
    "optimiser_bytes",
    "parameter_groups",
    "require_optimizer",
    "to_blocks",
    "trapezoid",
    "warm_constant",
]
