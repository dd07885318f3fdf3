"""A training run from its config to its model: tell the plan, prepare, build and edit the network, train, export.

config ──▶ job ──▶ plan ──▶ what must be there first ──▶ network, edits, optimiser ──▶ loop ──▶ finished model
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property

import torch
from torch import nn

from sanakit.base.errors import ConfigError
from sanakit.base.files import atomic_write, ensure_writable_folder
from sanakit.base.heap import keep_no_pages, keep_pages
from sanakit.base.precision import decide
from sanakit.pipeline import available_bytes
from sanakit.training.checkpoint import Checkpoints
from sanakit.training.config import Task, TrainConfig
from sanakit.training.edits import attend_by_products, recompute
from sanakit.training.jobs import Autoencoder, Job, TextToImage
from sanakit.training.loop import Run
from sanakit.training.loop_config import LoopConfig
from sanakit.training.monitor import Monitor
from sanakit.training.optim import build_optimizer, lr_for_batch
from sanakit.training.parallel import Mode, join_world, leave_world, spread
from sanakit.training.plan import Plan
from sanakit.training.report import Event, Notice
from sanakit.training.schema import to_yaml
from sanakit.training.speed import product_rate

_JOBS: dict[Task, tuple[type[TextToImage | Autoencoder], Mode]] = {
    "transformer": (TextToImage, "fsdp"),
    "autoencoder": (Autoencoder, "ddp"),
}
"""What each task makes, and how several processes share it unless the config says."""


class Session:
    """A run. Constructing it reads configurations and the set, and loads no weights.

    resume: go on from the newest checkpoint of the folder; without it a folder with checkpoints is refused.
    told: is given sentences while preparing. Raises ConfigError, DataError or ModelNotFoundError.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        device: str | None = None,
        resume: bool = False,
        told: Callable[[str], object] = lambda text: None,
    ) -> None:
        self.config, self.told = config, told
        self.precision = decide(device, config.dtype)
        self.begins = first_step(config, resume)
        make, usual = _JOBS[config.task]
        self.world = join_world(self.precision.device, config.parallel, usual)
        self.job: Job = make(config, self.precision, self.world, told)
        self.lr = lr_for_batch(config.optimizer.lr, config.batch, config.schedule.rule)

    @property
    def dtype(self) -> torch.dtype | None:
        """Of the computation; None for float32."""
        return None if self.precision.dtype == torch.float32 else self.precision.dtype

    @cached_property
    def plan(self) -> Plan:
        """What the run is going to do."""
        return Plan(
            config=self.config, size=self.job.size(), precision=self.precision, world=self.world, lr=self.lr,
            begins=self.begins, pictures=len(self.job.pictures), faults=len(self.job.pictures.faults),
            free=available_bytes(self.precision.device),
            rate=product_rate(self.precision.device, self.dtype or torch.float32),
        )  # fmt: skip

    def events(self) -> Iterator[Event]:
        """Do it. Raises KeyboardInterrupt once a run that was asked to stop is saved."""
        keep_pages()  # fresh pages for every activation are a quarter of a step on a CPU
        try:
            ensure_writable_folder(self.config.folder)
            if self.world.leads:
                atomic_write(self.config.folder / "config.yaml", to_yaml(self.config).encode())
            for notice in self.job.prepare():
                if self.world.leads:
                    yield notice
            self.world.wait()
            with Monitor(self.config, self.begins, self.world.leads) as monitor:
                for event in self._train():
                    monitor.see(event)
                    yield event
        finally:
            keep_no_pages()
            leave_world(self.world)

    def _train(self) -> Iterator[Event]:
        job, model, plan = self.job, self.job.build(), self.plan
        self._edit(model)
        run = Run(
            model,
            replace(
                loop_config(self.config, self.lr, self.dtype),
                operations=plan.size.operations / self.world.size, rate=plan.rate,
            ),
            optimizer=build_optimizer(model, self.config.optimizer), world=self.world,
            identity=self.config.identity, told=self.told,
        )  # fmt: skip
        with job.batches() as batches:
            yield from run.train(job.loss(model), batches, job.chores(model))
        yield Notice(step=run.step, text=job.export(model, run))

    def _edit(self, model: nn.Module) -> None:
        """The edits of the built network, in their order."""
        blocks = self.job.blocks(model)
        if self.world.device.type == "cpu":
            attend_by_products(blocks)
        recompute(blocks, self.config.recompute)
        if self.config.compile:
            for block in blocks:
                block.compile()
        if blocks:  # what has none stays whole on every process, and the loop averages its gradients
            spread(model, self.world, blocks)


def loop_config(config: TrainConfig, lr: float, dtype: torch.dtype | None) -> LoopConfig:
    """The part of a config that the loop reads."""
    return LoopConfig(
        folder=config.folder, steps=config.steps, lr=lr, clip=config.clip, warmup=config.schedule.warmup,
        cooldown=config.schedule.cooldown, accumulate=config.accumulate, ema=config.ema, seed=config.seed,
        save_minutes=config.saving.minutes, save_steps=config.saving.steps, keep=config.saving.keep,
        report_every=config.report, dtype=dtype, guard=config.guard, samples=config.batch,
    )  # fmt: skip


def first_step(config: TrainConfig, resume: bool) -> int:
    """The step that the run goes on from. Raises ConfigError for a folder that holds a run which is not resumed."""
    steps = Checkpoints(config.folder).steps()
    if steps and not resume:
        raise ConfigError(
            f"{config.folder} holds a run at step {steps[-1]}: add --resume to go on, or choose another folder"
        )
    return steps[-1] if steps else 0
