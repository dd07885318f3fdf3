"""Everything that decides a training run, as one typed value. Recipes return it; YAML and `--set` are read into it.

Names are those of a YAML file: `data.path`, `optimizer.lr`, `phases[0].size`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from sanakit.base.bounds import Bounds, Count, Positive, Seed, check_bounds
from sanakit.base.errors import ConfigError
from sanakit.base.sizes import check_side
from sanakit.training.control_settings import ControlTraining
from sanakit.training.guard import GuardConfig
from sanakit.training.lora_settings import LoraConfig
from sanakit.training.model_settings import BaseConfig, BaseFile, ModelConfig, TextTraining
from sanakit.training.objectives.sprint_settings import SprintConfig
from sanakit.training.optim.settings import OptimizerConfig
from sanakit.training.parallel import Mode
from sanakit.training.sections import (
    NAMED,
    AutoencoderRun,
    DataConfig,
    LRScheduleConfig,
    PreviewConfig,
    RunPhase,
    SavingConfig,
    TimesConfig,
)

TaskName = Literal["transformer", "lora", "control", "teacher", "sprint", "autoencoder"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run.

    Attributes:
        folder: where the run's checkpoints, journal, previews and finished model go.
        task: what is trained; everything else of the base model stays as it is.
        objective: what is minimised, by its name among those of the task; None for the usual one, flow_matching for a
            transformer and autoencoding for an autoencoder.
        base: a model folder, a published short name, a hub id, "toybox", or a file of weights; short for base.model.
        base_file: what a base that is a file of weights does not hold or tell.
        seed: decides first weights, noise, times, captions and the order of pictures.
        batch: pictures of a step, over all processes and accumulated micro-batches.
        accumulate: micro-batches that make a step.
        phases: sizes of pictures one after the other.
        data: what is trained on.
        model: which network, and where its weights begin.
        text: whose text encoder reads the captions, and whether it is trained, too.
        times: which noise levels are trained.
        optimizer: and its learning rate.
        schedule: of the learning rate.
        lora: what only the task "lora" reads.
        control: what only the task "control" reads.
        sprint: what only the task "sprint" reads.
        autoencoder: what only the task "autoencoder" reads.
        clip: largest norm of the gradient; 0 or None for no limit.
        ema: decay of the averaged weights, which previews, validation and the finished model use.
        dtype: what is computed in; weights, averages and sums are float32.
        compile: whether blocks go through torch.compile.
        recompute: gradient checkpointing: activations of all but every n-th block are computed again in the backward
            pass; 0 keeps all.
        parallel: how the processes that torchrun started share the model; None for fsdp if there are several.
        guard: which steps are skipped, and when the run goes back.
        saving: checkpoints.
        preview: pictures on the way.
        validate: steps between measurements of the loss on held-out pictures with fixed noise; 0 for never.
        report: steps between reports.
        tracker: where figures are sent besides TensorBoard's event files.
    """

    folder: Annotated[Path, NAMED]
    task: TaskName = "transformer"
    objective: Annotated[str, NAMED] | None = None
    base: Annotated[str, NAMED] | BaseConfig = "toybox"
    base_file: BaseFile | None = None
    seed: Seed = 0
    batch: Annotated[int, Bounds(least=1, most=10**6)] = 64
    accumulate: Annotated[int, Bounds(least=1, most=10**6)] = 1
    phases: tuple[RunPhase, ...]
    data: DataConfig
    model: ModelConfig = field(default_factory=ModelConfig)
    text: TextTraining = field(default_factory=TextTraining)
    times: TimesConfig = field(default_factory=TimesConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: LRScheduleConfig = field(default_factory=LRScheduleConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    control: ControlTraining = field(default_factory=ControlTraining)
    sprint: SprintConfig = field(default_factory=SprintConfig)
    autoencoder: AutoencoderRun = field(default_factory=AutoencoderRun)
    clip: Annotated[float, Bounds(least=0, most=10**9)] | None = 0.1
    ema: Annotated[float, Bounds(least=0, below=1)] = 0.9999
    dtype: Literal["auto", "bf16", "fp32"] = "auto"
    compile: bool = False
    recompute: Count = 0
    parallel: Mode | None = None
    guard: GuardConfig = field(default_factory=lambda: GuardConfig(spike=20.0, patience=5))
    saving: SavingConfig = field(default_factory=SavingConfig)
    preview: PreviewConfig = field(default_factory=PreviewConfig)
    validate: Count = 0
    report: Positive = 20
    tracker: Literal["none", "trackio", "wandb"] = "none"

    def __post_init__(self) -> None:
        if isinstance(self.base, BaseConfig) and self.base.autoencoder is None:
            object.__setattr__(self, "base", self.base.model)  # one way to say one thing
        if not self.phases:
            raise ConfigError("phases: a run needs at least one, e.g. phases: [{steps: 10000, size: 512}]")
        check_bounds(self)
        for number, phase in enumerate(self.phases):
            check_side(f"phases[{number}].size", phase.size, raises=ConfigError)
        if self.batch % self.accumulate:
            raise ConfigError(
                f"batch {self.batch} does not divide into {self.accumulate} micro-batches (accumulate)"
            )
        if self.validate and not self.data.held:
            raise ConfigError(
                "validate needs pictures that are not trained on: set data.held, e.g. data.held=64"
            )

    @property
    def base_model(self) -> str:
        """The name of the base model."""
        return self.base if isinstance(self.base, str) else self.base.model

    @property
    def base_autoencoder(self) -> str | None:
        """Whose autoencoder takes the place of the base model's."""
        return None if isinstance(self.base, str) else self.base.autoencoder

    @property
    def steps(self) -> int:
        """Steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def phase_at(self, step: int) -> tuple[int, int]:
        """Return (number of the phase, step inside it) of a step of the run."""
        for number, phase in enumerate(self.phases):
            if step < phase.steps:
                return number, step
            step -= phase.steps
        return len(self.phases) - 1, self.phases[-1].steps

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that a checkpoint fixes, as JSON: what a run is, not its length, its set or its reports."""
        values = plain_values(asdict(self))
        kept = {name: values[name] for name in _FIXED}
        # Keys that checkpoints of earlier versions do not know are left out while they have their defaults.
        for name in ("base_file", "objective"):
            if getattr(self, name) is not None:
                kept[name] = values[name]
        if self.autoencoder.critic is None:
            kept["autoencoder"].pop("critic")
        else:
            kept["autoencoder"]["critic"].pop("lr")
            if self.autoencoder.critic.name != "muon":
                kept["autoencoder"]["critic"].pop("momentum")
        if self.task == "sprint":
            kept["sprint"] = values["sprint"]
            (values["sprint"]["critic"]["optimizer"] or {}).pop("lr", None)
            if not self.sprint.trajectory.weight:
                kept["sprint"].pop("trajectory")
            elif not self.sprint.trajectory.stored:
                kept["sprint"]["trajectory"].pop("stored")
        if self.task == "lora":
            kept["lora"] = values["lora"]
            kept["lora"]["prior"].pop("path")  # where a set lies is not what a run is
            if self.lora.prior.target == "pictures":
                kept["lora"]["prior"].pop("target")
        if self.task == "control":
            kept["control"] = {name: value for name, value in values["control"].items() if name != "pictures"}
        kept["data"] = {name: values["data"][name] for name in ("square", "captions", "held")}
        if self.data.uncaptioned != "skip":
            kept["data"]["uncaptioned"] = self.data.uncaptioned
        values["text"].pop("lr")
        usual = plain_values(asdict(TextTraining()))
        if any(value != usual[name] for name, value in values["text"].items()):
            kept["text"] = values["text"]
        values["phases"][-1].pop("steps")  # a finished run may go on
        kept["phases"] = {str(number): phase for number, phase in enumerate(values["phases"])}
        kept["optimizer"].pop("lr")
        if self.optimizer.name != "muon":
            kept["optimizer"].pop("momentum")
        kept["clip"] = self.clip or 0.0  # None means the same
        return kept


_FIXED = (
    "task", "base", "seed", "batch", "accumulate", "model", "times", "optimizer", "autoencoder", "clip", "ema",
)  # fmt: skip


def plain_values(value: Any) -> Any:
    """Turn a value into mappings, lists and text, as JSON would give it back."""
    if isinstance(value, dict):
        return {str(key): plain_values(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(each) for each in value]
    return str(value) if isinstance(value, Path) else value
