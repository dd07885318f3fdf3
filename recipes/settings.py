"""What recipes train with: configs for batches and losses of their own, and runs of a task without a session."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sanakit.base.precision import Precision, autocast, decide
from sanakit.training import (
    DataConfig,
    GuardConfig,
    LRScheduleConfig,
    OptimizerConfig,
    Player,
    RunPhase,
    SavingConfig,
    TrainConfig,
    Trainer,
    World,
    sentences,
)
from sanakit.training.edits import attend_by_products
from sanakit.training.objectives.objective import Objective
from sanakit.training.optim import OptimizerName
from sanakit.training.tasks.transformer import TransformerTask
from sanakit.transformer import SanaTransformer
from sanakit.weights import read_words, write_derived


def settings(
    folder: Path,
    steps: int,
    *,
    size: int,
    batch: int,
    lr: float,
    weight_decay: float = 0.0,
    warmup: int = 200,
    cooldown: float = 0.2,
    ema: float = 0.999,
    minutes: float = 5.0,
    report: int = 50,
    optimizer: OptimizerName = "adamw",
) -> TrainConfig:
    """A run of `steps` steps; `data.path` is where the recipe keeps its scenes and is not read."""
    return TrainConfig(
        folder=folder,
        batch=batch,
        phases=(RunPhase(steps=steps, size=size),),
        data=DataConfig(path=folder.parent),
        optimizer=OptimizerConfig(name=optimizer, lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay),
        schedule=LRScheduleConfig(warmup=warmup, cooldown=cooldown),
        clip=1.0,
        ema=ema,
        guard=GuardConfig(),
        saving=SavingConfig(minutes=minutes),
        report=report,
    )


def shortened(config: TrainConfig, steps: int | None) -> TrainConfig:
    """The same run with so many steps; None leaves it as it is."""
    return config if steps is None else replace(config, phases=(replace(config.phases[0], steps=steps),))


def fast_autocast(device: torch.device) -> torch.autocast:
    """A context in the dtype that is fastest here."""
    return autocast(device, decide(device.type).dtype)


def recipe_trainer(model: nn.Module, config: TrainConfig, players: Sequence[Player] = ()) -> Trainer:
    """The trainer of a model, in the dtype that is fastest here; it goes on from the newest checkpoint of the run."""
    dtype = decide(next(model.parameters()).device.type, config.dtype).dtype
    return Trainer(model, config, players, dtype=None if dtype == torch.float32 else dtype)


def run_training(
    model: nn.Module,
    config: TrainConfig,
    losses: Callable[[Any, torch.Generator], dict[str, Tensor]],
    batches: Callable[[int], Any],
) -> Trainer:
    """Train to the end, from the newest checkpoint of the run, and print how it goes; return the trainer."""
    trainer = recipe_trainer(model, config)
    for report in sentences(trainer.train(losses, batches)):
        print(report, flush=True)
    return trainer


def resumable(main: Callable[[], None]) -> Callable[[], None]:
    """Wrap the main function of a recipe that can go on: stopped, it says so and exits with 130."""

    @wraps(main)
    def wrapped() -> None:
        try:
            main()
        except KeyboardInterrupt:
            print("\nstopped; the same command goes on from there", file=sys.stderr)
            raise SystemExit(130) from None

    return wrapped


def run_stages(
    about: str | None, stages: Mapping[str, Callable[[], None]], usual: Sequence[str] = (), told: str = "all"
) -> None:
    """Run the stages named on the command line, in that order.

    about: the recipe's docstring, as its help. usual: those that run if none is named, `told` in the help; () for all.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", choices=[*stages, []], help=f"default: {told}, in order")
    for stage in parser.parse_args().stages or usual or stages:
        print(f"== {stage}", flush=True)
        stages[stage]()


def run_task(
    task: TransformerTask, config: TrainConfig, precision: Precision, objective: Objective | None = None
) -> Trainer:
    """Train a task to its end, from where its run is, and export the model.

    objective: in place of the task's own, of whose network the task knows no model: nothing is exported then.
    """
    for notice in sentences(task.prepare()):
        print(notice, flush=True)
    chosen = objective or task.objective()
    if precision.device.type == "cpu":
        attend_by_products(task.blocks(chosen.network))
    trainer = Trainer(
        chosen.network, config, chosen.players(),
        dtype=None if precision.dtype == torch.float32 else precision.dtype, identity=config.identity,
    )  # fmt: skip
    with task.batches(chosen) as batches:
        for event in sentences(trainer.train(chosen.losses, batches)):
            print(f"{config.folder.name}: {event}", flush=True)
    if objective is None:
        task.export(chosen, trainer)
    return trainer


def run_flow(
    config: TrainConfig,
    network: SanaTransformer,
    precision: Precision,
    objective: Callable[[TransformerTask], Objective] | None = None,
) -> Path:
    """Train a transformer of another shape than the base model's, unless its model is there; return the model's folder.

    objective: made of the task; None for flow matching.
    """
    folder = config.folder / "model"
    if (folder / "model_index.json").is_file():
        return folder
    task = TransformerTask(config, precision, World(device=precision.device), print)
    network = network.to(precision.device)
    trainer = run_task(
        task, config, precision, task.minimising(network) if objective is None else objective(task)
    )
    spec = replace(task.spec, transformer=network.config)
    words = read_words(task.spec)
    write_derived(spec, folder, trainer.ema.gathered(), words=words, dtype=torch.bfloat16, force=True)
    return folder
