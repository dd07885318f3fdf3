"""Training: one config, one resumable trainer, objectives, optimisers, averaged weights, checkpoints."""

from sanakit.training.checkpoint import Checkpoints
from sanakit.training.config import TrainConfig
from sanakit.training.events import Event, Message, Progress, StepReport, sentences
from sanakit.training.guard import GuardConfig
from sanakit.training.log import read_journal, write_entry
from sanakit.training.model_settings import ModelConfig, TextTraining
from sanakit.training.objectives import reconstruction, velocity
from sanakit.training.optim import OptimizerConfig, build_optimizer, trapezoid
from sanakit.training.parallel import World, join_world, leave_world, shard
from sanakit.training.players import EMA, Player, make_player
from sanakit.training.sections import DataConfig, LRScheduleConfig, RunPhase, SavingConfig, TimesConfig
from sanakit.training.trainer import Hook, Trainer

__all__ = [
    "EMA",
    "Checkpoints",
    "DataConfig",
    "Event",
    "GuardConfig",
    "Hook",
    "LRScheduleConfig",
    "Message",
    "ModelConfig",
    "OptimizerConfig",
    "Player",
    "Progress",
    "RunPhase",
    "SavingConfig",
    "StepReport",
    "TextTraining",
    "TimesConfig",
    "TrainConfig",
    "Trainer",
    "World",
    "build_optimizer",
    "join_world",
    "leave_world",
    "make_player",
    "read_journal",
    "reconstruction",
    "sentences",
    "shard",
    "trapezoid",
    "velocity",
    "write_entry",
]
