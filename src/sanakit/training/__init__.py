"""Training: one resumable loop, objectives, averaged weights, checkpoints."""

from sanakit.training.checkpoint import load_state, save_state
from sanakit.training.ema import EMA
from sanakit.training.loop import LoopConfig, Report, Run
from sanakit.training.objectives import reconstruction, velocity
from sanakit.training.optimizer import adamw, trapezoid

__all__ = [
    "EMA",
    "LoopConfig",
    "Report",
    "Run",
    "adamw",
    "load_state",
    "reconstruction",
    "save_state",
    "trapezoid",
    "velocity",
]
