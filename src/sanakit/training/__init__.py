"""Training: one resumable loop, objectives, averaged weights, checkpoints."""

from sanakit.training.checkpoint import load_state, save_state
from sanakit.training.ema import EMA
from sanakit.training.journal import read_journal, write_entry
from sanakit.training.loop import LoopConfig, Report, Run
from sanakit.training.objectives import reconstruction, velocity
from sanakit.training.optimizer import adamw, trapezoid
from sanakit.training.order import batch_indices

__all__ = [
    "EMA",
    "LoopConfig",
    "Report",
    "Run",
    "adamw",
    "batch_indices",
    "load_state",
    "read_journal",
    "reconstruction",
    "save_state",
    "trapezoid",
    "velocity",
    "write_entry",
]
