"""A training run from its config to its model: tell the plan, prepare, build and edit the network, train, export.

config ──▶ job ──▶ plan ──▶ what must be there first ──▶ network, edits, optimiser ──▶ loop ──▶ finished model
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from sanakit.base.errors import ConfigError, OutputError
from sanakit.base.files import atomic_write, ensure_writable_folder
from sanakit.base.heap import keep_no_pages, keep_pages
from sanakit.base.locks import hold
from sanakit.base.precision import decide
from sanakit.base.threads import Threads, check_threads, choose_threads, on_threads
from sanakit.pipeline import available_bytes
from sanakit.training.checkpoint import Checkpoints, read_facts
from sanakit.training.config import Task, TrainConfig
from sanakit.training.control import interruptible
from sanakit.training.edits import attend_by_products, recompute
from sanakit.training.facts import check_facts
from sanakit.training.jobs import Autoencoder, Job, TextToImage
from sanakit.training.loop import Batches, Run
from sanakit.training.loop_config import LoopConfig
from sanakit.training.memory import program_bytes
from sanakit.training.monitor import Monitor, require_trackers
from sanakit.training.optim import build_optimizer, lr_for_batch, require_optimizer
from sanakit.training.parallel import Mode, World, join_world, leave_world, spread
from sanakit.training.plan import Plan
from sanakit.training.report import Event, Notice
from sanakit.training.schema import to_yaml
from sanakit.training.set_record import SetChange, keep_set, set_change
from sanakit.training.speed import product_rate
from sanakit.training.tasks.joint import JointNetwork, layers_of, scale_rate

_JOBS: dict[Task, tuple[type[TextToImage | Autoencoder], Mode]] = {
    "transformer": (TextToImage, "fsdp"),
    "autoencoder": (Autoencoder, "ddp"),
}
"""What each task makes, and how several processes share it unless the config says."""


class Session:
    """A run. Constructing it reads configurations and the set, and loads no weights.

    resume: go on from the newest checkpoint of the folder; without it a folder with checkpoints is refused.
    threads: of a CPU; None chooses by the size of the work. They are set while the run works, and set back before each
    event. told: is given sentences while preparing. Raises ConfigError, DataError or ModelNotFoundError.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        device: str | None = None,
        resume: bool = False,
        threads: int | None = None,
        told: Callable[[str], object] = lambda text: None,
    ) -> None:
        self.config, self.told = config, told
        self.precision = decide(device, config.dtype)
        self.begins = first_step(config, resume)
        require_libraries(config)
        make, usual = _JOBS[config.task]
        self.world = join_world(self.precision.device, config.parallel, usual)
        check_share(config, self.world)
        self.job: Job = make(config, self.precision, self.world, told)
        self.visits = self.job.visits()
        self.threads = self._threads(check_threads(threads))
        self.lr = lr_for_batch(config.optimizer.lr, config.batch, config.schedule.rule)

    def _threads(self, asked: int | None) -> Threads:
        if self.precision.device.type != "cpu":
            return Threads(asked or torch.get_num_threads(), "the work is done by the GPU")
        return choose_threads(self.job.product(), asked)

    @property
    def dtype(self) -> torch.dtype | None:
        """Of the computation; None for float32."""
        return None if self.precision.dtype == torch.float32 else self.precision.dtype

    @cached_property
    def changed(self) -> SetChange:
        """What has become of the set since the run that goes on began."""
        return set_change(self.config.folder, self.job.pictures) if self.begins else SetChange()

    @cached_property
    def plan(self) -> Plan:
        """What the run is going to do."""
        return Plan(
            config=self.config, size=self.job.size(), visits=self.visits, precision=self.precision,
            world=self.world, lr=self.lr,
            begins=self.begins, pictures=len(self.job.pictures), faults=len(self.job.pictures.faults),
            free=available_bytes(self.precision.device), disk=free_bytes(self.config.folder),
            program=program_bytes() if self.precision.device.type == "cpu" else 0,
            changed=self.changed.sentence, remarks=self.job.remarks,
            rate=product_rate(self.precision.device, self.dtype or torch.float32),
        )  # fmt: skip

    def events(self) -> Generator[Event]:
        """Do it. Raises KeyboardInterrupt once a run that was asked to stop is saved.

        Raises OutputError where the folder can't be written, or another process trains in it.
        """
        return on_threads(self.threads.count, self._run())

    def _run(self) -> Generator[Event]:
        keep_pages()  # fresh pages for every activation are a quarter of a step on a CPU
        try:
            with self._alone():
                yield from self._events()
        finally:
            keep_no_pages()
            leave_world(self.world)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Be the only run in the folder; what a killed one left half-written is removed."""
        folder = self.config.folder
        fault: str | None = None
        with ExitStack() as held:
            try:
                if self.world.leads:
                    ensure_writable_folder(folder)
                    held.enter_context(hold(folder / ".lock", "trains"))
                    Checkpoints(folder).sweep()
            except OutputError as error:
                fault = str(error)
            fault = self.world.from_lead(fault)
            if fault is not None:
                raise OutputError(fault)
            yield

    def _events(self) -> Generator[Event]:
        with interruptible():
            for event in self.job.prepare():
                if self.world.leads:
                    yield event
        self.world.wait()
        model, run = self._begun()
        with self.job.batches() as batches:
            self._keep_config()
            with (
                Monitor(self.config, self.begins, self.world.leads) as monitor,
                closing(self._train(model, run, batches)) as events,
            ):
                for event in events:
                    monitor.see(event)
                    yield event

    def _begun(self) -> tuple[nn.Module, Run]:
        """The network and its run, at the step it goes on from."""
        model, plan = self.job.build(), self.plan
        self._edit(model)
        run = Run(
            model,
            replace(
                loop_config(self.config, self.lr, self.dtype), operations=self.job.operations(), rate=plan.rate,
            ),
            optimizer=self._optimizer(model), world=self.world,
            identity=self.config.identity, told=self.told,
        )  # fmt: skip
        return model, run

    def _keep_config(self) -> None:
        """RUN/config.yaml and the set: once everything is accepted, so that a refused command leaves the run's own."""
        if self.world.leads:
            atomic_write(self.config.folder / "config.yaml", to_yaml(self.config).encode())
            keep_set(self.config.folder, self.job.pictures)

    def _train(self, model: nn.Module, run: Run, batches: Batches) -> Generator[Event]:
        yield from run.train(self.job.loss(model), batches, self.job.chores(model))
        run.check_result()
        yield Notice(step=run.step, text=self.job.export(model, run))

    def _optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Of all that is trained; a text encoder may learn at a rate of its own."""
        config, optimizer = self.config, build_optimizer(model, self.config.optimizer)
        rate, usual = config.text.lr, config.optimizer.lr
        if isinstance(model, JointNetwork) and rate is not None:
            scale_rate(optimizer, model.text_encoder.parameters(), rate / usual if usual else 0.0)
        return optimizer

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
            spread(model, self.world, [*blocks, *layers_of(model)])


def loop_config(config: TrainConfig, lr: float, dtype: torch.dtype | None) -> LoopConfig:
    """The part of a config that the loop reads."""
    return LoopConfig(
        folder=config.folder, steps=config.steps, lr=lr, clip=config.clip,
        warmup=config.schedule.warmup_of(config.steps),
        cooldown=config.schedule.cooldown, accumulate=config.accumulate, ema=config.ema, seed=config.seed,
        save_minutes=config.saving.minutes, save_steps=config.saving.steps, keep=config.saving.keep,
        report_every=config.report, dtype=dtype, guard=config.guard, samples=config.batch,
    )  # fmt: skip


def first_step(config: TrainConfig, resume: bool) -> int:
    """The step that the run goes on from.

    Raises ConfigError for a folder that holds a run which is not resumed, or one of other settings.
    """
    checkpoints = Checkpoints(config.folder)
    steps = checkpoints.steps()
    if steps and not resume:
        raise ConfigError(
            f"{config.folder} holds a run at step {steps[-1]}: add --resume to go on, or choose another folder"
        )
    newest = checkpoints.newest()  # of damaged ones the run tells when it reads them
    if newest is not None:
        checkpoint = checkpoints.path(newest)
        check_facts(read_facts(checkpoint), config.identity, checkpoint)
    return newest or 0


def free_bytes(folder: Path) -> int | None:
    """Bytes that are free where a folder is, or will be; None where the system does not tell."""
    there = next((path for path in (folder, *folder.absolute().parents) if path.is_dir()), folder)
    try:
        return shutil.disk_usage(there).free
    except OSError:
        return None


def require_libraries(config: TrainConfig) -> None:
    """Raises ConfigError for a library that the run will need and that is not installed, before anything is encoded."""
    require_trackers(config)
    require_optimizer(config.optimizer)


def check_share(config: TrainConfig, world: World) -> None:
    """Raises ConfigError for a batch that can't be dealt to micro-batches and processes evenly."""
    if config.batch % (config.accumulate * world.size):
        raise ConfigError(
            f"batch {config.batch} does not divide into {config.accumulate} micro-batches on {world.size} processes"
        )
