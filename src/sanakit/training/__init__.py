"""Training: one resumable loop, objectives, optimisers, averaged weights, checkpoints."""

from sanakit.training.checkpoint import Checkpoints
from sanakit.training.ema import EMA
from sanakit.training.guard import GuardConfig
from sanakit.training.journal import read_journal, write_entry
from sanakit.training.loop import Chore, Run
from sanakit.training.loop_config import LoopConfig
from sanakit.training.objectives import reconstruction, velocity
from sanakit.training.optim import OptimizerConfig, adamw, build_optimizer, trapezoid
from sanakit.training.parallel import World, join_world, leave_world, spread
from sanakit.training.report import Event, Notice, Progress, Report, sentences

__all__ = [
    "EMA",
    "Event",
    "Checkpoints",
    "Chore",
    "GuardConfig",
    "LoopConfig",
    "Notice",
    "OptimizerConfig",
    "Progress",
    "Report",
    "Run",
    "World",
    "adamw",
    "build_optimizer",
    "join_world",
    "leave_world",
    "read_journal",
    "reconstruction",
    "sentences",
    "spread",
    "trapezoid",
    "velocity",
    "write_entry",
]
