"""A training run from its config to its model: print the plan, prepare, build and edit the network, train, export.

config ──▶ task ──▶ plan ──▶ what must be there first ──▶ objective: network, edits, players ──▶ trainer ──▶ model
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
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
from sanakit.training.config import TaskName, TrainConfig
from sanakit.training.cost import program_bytes, usual_rate
from sanakit.training.edits import edit_blocks
from sanakit.training.events import Event, Message
from sanakit.training.log import Monitor, require_trackers
from sanakit.training.meter import Speed
from sanakit.training.objectives.objective import Objective
from sanakit.training.optim import lr_for_batch, require_optimizer
from sanakit.training.parallel import Mode, World, join_world, leave_world, shard
from sanakit.training.plan import Plan
from sanakit.training.run_record import SetChange, base_change, keep_record, set_change
from sanakit.training.run_state import check_facts
from sanakit.training.schema import to_yaml
from sanakit.training.signals import interruptible
from sanakit.training.tasks.autoencoder import AutoencoderTask
from sanakit.training.tasks.control import ControlTask
from sanakit.training.tasks.lora import LoraTask
from sanakit.training.tasks.sprint import SprintTask
from sanakit.training.tasks.task import Task
from sanakit.training.tasks.teacher import TeacherTask
from sanakit.training.tasks.transformer import TransformerTask
from sanakit.training.trainer import Batches, Trainer


@dataclass(frozen=True)
class TaskRow:
    """make: the task. mode: how several processes share it unless the config says."""

    make: type[TransformerTask | AutoencoderTask]
    mode: Mode


TASKS: dict[TaskName, TaskRow] = {
    "transformer": TaskRow(TransformerTask, "fsdp"),
    "lora": TaskRow(LoraTask, "ddp"),
    "control": TaskRow(ControlTask, "ddp"),
    "teacher": TaskRow(TeacherTask, "fsdp"),
    "sprint": TaskRow(SprintTask, "fsdp"),
    "autoencoder": TaskRow(AutoencoderTask, "ddp"),
}


class Session:
    """A run. Constructing it reads configurations and the set, and loads no weights.

    resume: go on from the newest checkpoint of the folder; without it a folder with checkpoints is refused.
    threads: of a CPU; None chooses by the size of the work. They are set while the run works, and set back before each
    event. notify: is given sentences while preparing. Raises ConfigError, DataError or ModelNotFoundError.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        device: str | None = None,
        resume: bool = False,
        threads: int | None = None,
        notify: Callable[[str], object] = lambda text: None,
    ) -> None:
        self.config, self.notify = config, notify
        self.precision = decide(device, config.dtype)
        self.begins = first_step(config, resume)
        require_libraries(config)
        row = TASKS[config.task]
        self.world = join_world(self.precision.device, config.parallel, row.mode)
        check_share(config, self.world)
        self.task: Task = row.make(config, self.precision, self.world, notify)
        self.epochs = self.task.epochs()
        self.threads = self._threads(check_threads(threads))
        self.lr = lr_for_batch(config.optimizer.lr, config.batch, config.schedule.rule)

    def _threads(self, asked: int | None) -> Threads:
        if self.precision.device.type != "cpu":
            return Threads(asked or torch.get_num_threads(), "the work is done by the GPU")
        return choose_threads(self.task.product(), asked)

    @property
    def dtype(self) -> torch.dtype | None:
        """The dtype of the computation; None for float32."""
        return None if self.precision.dtype == torch.float32 else self.precision.dtype

    @cached_property
    def changed(self) -> SetChange:
        """Changes of the set since the run that goes on began."""
        return set_change(self.config.folder, self.task.pictures) if self.begins else SetChange()

    @cached_property
    def rebased(self) -> str:
        """A sentence if the base model has other weights than when the run that goes on began."""
        if not self.begins:
            return ""
        return base_change(self.config.folder, self.config.base_model, self.task.base_weights)

    @cached_property
    def plan(self) -> Plan:
        """The facts and estimates of the run."""
        return Plan(
            config=self.config, work=self.task.workload(), epochs=self.epochs, precision=self.precision,
            world=self.world, lr=self.lr,
            begins=self.begins, pictures=len(self.task.pictures), faults=len(self.task.pictures.faults),
            free=available_bytes(self.precision.device), disk=free_bytes(self.config.folder),
            program=program_bytes() if self.precision.device.type == "cpu" else 0,
            changed=(self.changed.sentence, self.rebased), remarks=self.task.remarks,
            rate=usual_rate(self.precision.device, self.dtype or torch.float32),
        )  # fmt: skip

    def events(self) -> Generator[Event]:
        """Train. Raises KeyboardInterrupt once a run that was asked to stop is saved.

        Raises OutputError if the folder can't be written, or another process trains in it.
        """
        return on_threads(self.threads.count, self._run())

    def _run(self) -> Generator[Event]:
        keep_pages()  # fresh pages for every activation are a quarter of a step on a CPU
        try:
            with self._lock():
                yield from self._events()
        finally:
            keep_no_pages()
            leave_world(self.world)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Be the only run in the folder, and remove what a killed one left half-written."""
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
            for event in self.task.prepare():
                if self.world.leads:
                    yield event
        self.world.wait()
        objective = self.task.objective()
        trainer = self._trainer(objective)
        with self.task.batches(objective) as batches:
            self._keep_config()
            with (
                Monitor(self.config, self.begins, self.world.leads) as monitor,
                closing(self._train(objective, trainer, batches)) as events,
            ):
                for event in events:
                    monitor.see(event)
                    yield event

    def _trainer(self, objective: Objective) -> Trainer:
        """Return the trainer of the edited network, at the step it goes on from."""
        plan = self.plan
        self._edit(objective.network)
        return Trainer(
            objective.network, self.config, objective.players(), dtype=self.dtype, world=self.world,
            identity=self.config.identity, speed=Speed(self.task.operations(), plan.rate), notify=self.notify,
        )  # fmt: skip

    def _keep_config(self) -> None:
        """Write RUN/config.yaml and the set once everything is accepted: a refused command leaves the run's own."""
        if self.world.leads:
            atomic_write(self.config.folder / "config.yaml", to_yaml(self.config).encode())
            keep_record(self.config.folder, self.task.pictures, self.task.base_weights)

    def _train(self, objective: Objective, trainer: Trainer, batches: Batches) -> Generator[Event]:
        yield from trainer.train(objective.losses, batches, self.task.hooks(objective))
        trainer.check_result()
        yield Message(step=trainer.step, text=self.task.export(objective, trainer))

    def _edit(self, network: nn.Module) -> None:
        """Make the edits of the built network, in their order."""
        blocks = self.task.blocks(network)
        edit_blocks(blocks, self.world.device, every=self.config.recompute, compiled=self.config.compile)
        if len(
            blocks
        ):  # without blocks every process holds the network, and the trainer averages its gradients
            shard(network, self.world, [*blocks, *self.task.parts(network)])


def first_step(config: TrainConfig, resume: bool) -> int:
    """Return the step that the run goes on from.

    Raises ConfigError for a folder that holds a run which is not resumed, or one of other settings.
    """
    checkpoints = Checkpoints(config.folder)
    steps = checkpoints.steps()
    if steps and not resume:
        raise ConfigError(
            f"{config.folder} holds a run at step {steps[-1]}: add --resume to go on, or choose another folder"
        )
    newest = checkpoints.newest()  # the run reports damaged ones when it reads them
    if newest is not None:
        checkpoint = checkpoints.path(newest)
        check_facts(read_facts(checkpoint), config.identity, checkpoint)
    return newest or 0


def free_bytes(folder: Path) -> int | None:
    """Free bytes on the disk of a folder, existing or not; None if the system does not tell."""
    there = next((path for path in (folder, *folder.absolute().parents) if path.is_dir()), folder)
    try:
        return shutil.disk_usage(there).free
    except OSError:
        return None


def require_libraries(config: TrainConfig) -> None:
    """Raise ConfigError for a library that the run will need and that is not installed, before anything is encoded."""
    require_trackers(config)
    require_optimizer(config.optimizer)


def check_share(config: TrainConfig, world: World) -> None:
    """Raise ConfigError for a batch that can't be dealt to micro-batches and processes evenly."""
    if config.batch % (config.accumulate * world.size):
        raise ConfigError(
            f"batch {config.batch} does not divide into {config.accumulate} micro-batches on {world.size} processes"
        )
