"""Export of the model of any checkpoint of a run, not only that of its end.

The network is built as the run builds it, takes the averaged weights of the checkpoint, and is written as at the end.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sanakit.base.errors import WeightsError
from sanakit.base.folders import new_folder
from sanakit.base.precision import decide
from sanakit.training.checkpoint import Checkpoints, fault_of, read_facts, read_into
from sanakit.training.config import TrainConfig
from sanakit.training.optim.settings import OptimizerConfig
from sanakit.training.parallel import World
from sanakit.training.run_state import average_tensors, check_facts
from sanakit.training.session import TASKS
from sanakit.training.tasks.task import Task
from sanakit.training.tasks.transformer import TransformerTask
from sanakit.training.trainer import Trainer

__all__ = ["export_step"]

_WORK = ".export"


def export_step(config: TrainConfig, step: int, notify: Callable[[str], object] = lambda text: None) -> Path:
    """Write the model of a checkpoint to RUN/model-STEP, of other tasks to RUN/vae-STEP, lora-STEP or control-STEP.

    On the CPU. Replaces an earlier export of the step. Returns the folder. Raises WeightsError if there is no whole
    checkpoint of the step, ConfigError if it belongs to other settings, OutputError, DataError, ModelNotFoundError.
    """
    checkpoint = _whole_checkpoint(config, step)
    name = {"autoencoder": "vae", "lora": "lora", "control": "control"}.get(config.task, "model")
    target = config.folder / f"{name}-{step:08d}"
    with new_folder(target, replace=True) as draft:
        _export(checkpoint, _config_at(config, step, draft / _WORK), step, notify)
        for path in (draft / _WORK / name).iterdir():
            path.rename(draft / path.name)
        shutil.rmtree(draft / _WORK)
    return target


def _whole_checkpoint(config: TrainConfig, step: int) -> Path:
    checkpoints = Checkpoints(config.folder)
    steps = checkpoints.steps()
    if step not in steps:
        there = f"those of steps {', '.join(map(str, steps))}" if steps else "none"
        raise WeightsError(
            f"{config.folder} has no checkpoint of step {step}, but {there}; saving.keep says how many stay"
        )
    checkpoint = checkpoints.path(step)
    fault = fault_of(checkpoint)
    if fault is not None:
        raise WeightsError(f"{checkpoint} is damaged ({fault}): choose another step")
    check_facts(read_facts(checkpoint), config.identity, checkpoint)
    return checkpoint


def _config_at(config: TrainConfig, step: int, folder: Path) -> TrainConfig:
    """Return the config as it was at a step, when later phases had not begun, and with another folder to write to."""
    number, _ = config.phase_at(max(0, step - 1))
    phases = config.phases[: number + 1]
    return replace(config, folder=folder, phases=phases, optimizer=OptimizerConfig())  # nothing is optimised


def _export(checkpoint: Path, config: TrainConfig, step: int, notify: Callable[[str], object]) -> None:
    """Write the model of a checkpoint as a run that ends there would."""
    world = World()
    task: Task = TASKS[config.task].make(config, decide("cpu", "fp32"), world, notify)
    if isinstance(task, TransformerTask) and task.text is not None:
        task.text.folder = checkpoint.parents[1] / "tokenizer"  # the words that the run began with
    objective = task.objective()
    trainer = Trainer(objective.network, config, objective.players(), world=world)
    main = trainer.players[0]
    read_into(checkpoint, average_tensors(trainer.model, main, trainer.averages), world)
    trainer.step = step
    task.export(objective, trainer)
