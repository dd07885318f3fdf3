"""A training run from its config to its model: prepare, tell the plan, fill the cache, train, export.

config ──▶ base model, set of pictures ──▶ plan ──▶ cache of latents and text states ──▶ loop ──▶ RUN/model
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property

import torch

from sanakit.base.errors import ConfigError
from sanakit.base.files import atomic_write, ensure_writable_folder
from sanakit.base.precision import decide
from sanakit.pipeline import available_bytes
from sanakit.training.checkpoint import Checkpoints
from sanakit.training.config import TrainConfig
from sanakit.training.data import PictureSet, Prefetch, open_set
from sanakit.training.edits import attend_by_products, recompute
from sanakit.training.export import export
from sanakit.training.labels import places_of, read_keys
from sanakit.training.loop import Chore, Run
from sanakit.training.loop_config import LoopConfig
from sanakit.training.monitor import Monitor
from sanakit.training.optim import build_optimizer, lr_for_batch
from sanakit.training.parallel import join_world, leave_world, spread
from sanakit.training.plan import Plan, count_parameters, machine_rate, needed_memory, needed_operations
from sanakit.training.preview import preview
from sanakit.training.report import Event, Notice
from sanakit.training.schema import to_yaml
from sanakit.training.tasks.frozen import Frozen
from sanakit.training.tasks.latents import LatentData
from sanakit.training.tasks.transformer import TransformerTask, build_network, network_config
from sanakit.training.validation import validation
from sanakit.transformer import SanaTransformer
from sanakit.weights import Descriptor, read_descriptor, resolve

_WORDS = 300
_AHEAD = 4


class Session:
    """A run that trains a transformer. Constructing it reads configurations and the set, and loads no weights.

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
        self.descriptor = _trainable(read_descriptor(resolve(config.base, announce=told)))
        self.shape = network_config(config.model, self.descriptor)
        self.pictures = _opened(config)
        self.world = join_world(self.precision.device, config.parallel)
        self.frozen = Frozen(config, self.descriptor, self.precision, self.pictures)

    @property
    def dtype(self) -> torch.dtype | None:
        """Of the computation; None for float32."""
        return None if self.precision.dtype == torch.float32 else self.precision.dtype

    @cached_property
    def lr(self) -> float:
        """The learning rate of this batch."""
        config = self.config
        return lr_for_batch(config.optimizer.lr, config.batch, config.schedule.rule)

    def plan(self) -> Plan:
        """What the run is going to do."""
        config, ratio = self.config, self.descriptor.autoencoder.ratio
        with torch.device("meta"):
            parameters = count_parameters(SanaTransformer(self.shape))
        there, wanted = self.frozen.count()
        return Plan(
            config=config, network=config.model.preset or config.base, parameters=parameters,
            precision=self.precision, world=self.world, lr=self.lr, begins=self.begins,
            pictures=len(self.pictures), held=config.data.held, faults=len(self.pictures.faults),
            cached=there, wanted=wanted,
            memory=needed_memory(config, self.shape, parameters, self.world, ratio, _WORDS),
            free=available_bytes(self.precision.device),
            operations=needed_operations(config, self.shape, ratio, _WORDS),
            rate=machine_rate(self.precision, self.dtype),
        )  # fmt: skip

    def events(self) -> Iterator[Event]:
        """Do it: fill the cache, train, export. Raises KeyboardInterrupt once a run that was asked to stop is saved."""
        try:
            ensure_writable_folder(self.config.folder)
            if self.world.leads:
                atomic_write(self.config.folder / "config.yaml", to_yaml(self.config).encode())
                yield from self.frozen.fill()
            self.world.wait()
            with Monitor(self.config, self.begins, self.world.leads) as monitor:
                for event in self._train():
                    monitor.see(event)
                    yield event
        finally:
            leave_world(self.world)

    def _train(self) -> Iterator[Event]:
        config, schedule = self.config, self.descriptor.schedule
        data = LatentData(config, self.pictures, self.frozen.cached(), schedule.shift, self.world)
        model = build_network(config, self.descriptor, self.precision.device)
        task = TransformerTask(config, model, self.descriptor.autoencoder.ratio)
        run = self._run(task)
        with Prefetch(data.batch, workers=config.data.workers, ahead=_AHEAD) as batches:
            yield from run.train(task.loss, batches, self._chores(task, data))
        where = export(config, self.descriptor, model, run)
        yield Notice(step=run.step, text=f"the model is in {where}: sanakit generate --model {where} PROMPT")

    def _run(self, task: TransformerTask) -> Run:
        """The edits of the built network, in their order, then optimiser and checkpoint."""
        config = self.config
        if self.world.device.type == "cpu":
            attend_by_products(task.blocks)
        recompute(task.blocks, config.recompute)
        if config.compile:
            for block in task.blocks:
                block.compile()
        spread(task.model, self.world, task.blocks)
        optimizer = build_optimizer(task.model, config.optimizer)
        return Run(
            task.model, loop_config(config, self.lr, self.dtype),
            optimizer=optimizer, world=self.world, identity=config.identity, told=self.told,
        )  # fmt: skip

    def _chores(self, task: TransformerTask, data: LatentData) -> list[Chore]:
        chores = [preview(self.config, self.descriptor, self.precision, task.model)]
        if self.config.validate:
            chores.append(validation(task, data, self.config.validate))
        return chores


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


def _opened(config: TrainConfig) -> PictureSet:
    pictures = open_set(config.data.path)
    if config.data.keys is not None:
        pictures = pictures.only(places_of(pictures, read_keys(config.data.keys), config.data.keys))
    if config.data.held >= len(pictures):
        raise ConfigError(f"data.held is {config.data.held}, but the set has {len(pictures)} pictures")
    return pictures


def _trainable(descriptor: Descriptor) -> Descriptor:
    """Raises ConfigError for a base whose transformer is no flow model."""
    if descriptor.kind != "sana":
        raise ConfigError(
            f"{descriptor.folder} is a {descriptor.kind} model; `sanakit train` trains flow models: take one as base"
        )
    return descriptor
