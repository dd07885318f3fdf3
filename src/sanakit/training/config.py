"""Everything that decides a training run, as one typed value. Recipes return it; YAML and `--set` are read into it.

Names are those of a YAML file: `data.path`, `optimizer.lr`, `phases[0].size`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from sanakit.base.errors import ConfigError
from sanakit.flow import TimeDensity
from sanakit.training.guard import GuardConfig
from sanakit.training.labels.sampler import CaptionRule
from sanakit.training.objectives.autoencoder import AutoencoderLoss
from sanakit.training.objectives.weighting import WeightingName
from sanakit.training.optim.config import OptimizerConfig
from sanakit.training.optim.learning_rate import BatchRule
from sanakit.training.parallel import Mode

Task = Literal["transformer", "autoencoder"]


@dataclass(frozen=True, kw_only=True)
class RunPhase:
    """A part of a run at one size of pictures; the cascade 512 -> 1024 -> 2K is three of them.

    Attributes:
        steps: of this phase.
        size: side in pixels of the square picture; other aspect ratios have about as many pixels.
        shift: of the training times towards noise; None for that of the base model.
        position_scale: of the positional table, where the model has one; None leaves the model's own.
    """

    steps: int
    size: int
    shift: float | None = None
    position_scale: float | None = None


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is trained on.

    Attributes:
        path: a folder of pictures with captions, or webdataset shards; see docs/data.md.
        keys: a file with the keys of the items to use, as `sanakit data filter` writes; None for all.
        cache: folder of latents and text states, shared by runs; None for a folder beside the run.
        square: every picture is cut to a square; otherwise to the nearest of the trained aspect ratios.
        captions: how one of several captions is drawn.
        held: pictures of the set that are kept out of training, to validate with.
        workers: threads that make batches.
    """

    path: Path
    keys: Path | None = None
    cache: Path | None = None
    square: bool = False
    captions: CaptionRule = field(default_factory=CaptionRule)
    held: int = 0
    workers: int = 1


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which network, and where its weights begin.

    Attributes:
        start: "base" continues the weights of the base model, "scratch" draws fresh ones.
        preset: shape of a fresh network by its name in `transformer/presets.py`; None for the base model's own.
        changes: fields of `TransformerConfig` that differ from it, e.g. {depth: 4, qk_norm: true}.
    """

    start: Literal["base", "scratch"] = "base"
    preset: str | None = None
    changes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """The learning rate over the run: linear warm-up, constant, and a linear fall over the last share.

    Attributes:
        warmup: steps.
        cooldown: share of the run.
        rule: how `optimizer.lr`, which is meant for a batch of 256, follows the batch; the published code says "sqrt".
    """

    warmup: int = 2000
    cooldown: float = 0.0
    rule: BatchRule = "none"


@dataclass(frozen=True, kw_only=True)
class TimesConfig:
    """Which noise levels are trained, and how they count.

    Attributes:
        density: of the times; logit-normal with mean 0 and deviation 1 as published.
        levels: times are whole multiples of 1 / levels before the shift, as published; None for all times.
        weighting: of the loss at each time.
    """

    density: TimeDensity = field(default_factory=TimeDensity)
    levels: int | None = 1000
    weighting: WeightingName = "none"


@dataclass(frozen=True, kw_only=True)
class SavingConfig:
    """Checkpoints: minutes, and steps where they are not 0, between them, and how many stay (0: all)."""

    minutes: float = 10.0
    steps: int = 0
    keep: int = 2


@dataclass(frozen=True, kw_only=True)
class PreviewConfig:
    """Pictures drawn by the averaged weights every so many steps (0: only when asked), to RUN/previews."""

    every: int = 0
    prompts: tuple[str, ...] = ()
    steps: int = 20
    guidance: float = 4.5
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class AutoencoderRun:
    """What only the task "autoencoder" reads.

    Attributes:
        start: "base" continues the base model's autoencoder, "scratch" draws fresh weights, else a folder RUN/vae.
        preset: shape of a fresh one by its name in `autoencoder/presets.py`.
        phase: of DC-AE's training (arXiv 2410.10733, section 3.2): what is trained, and whether against a critic.
        loss: its parts and their weights.
    """

    start: str = "base"
    preset: str = "toybox"
    phase: Literal["full", "adaptation", "refinement"] = "full"
    loss: AutoencoderLoss = field(default_factory=AutoencoderLoss)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run.

    Attributes:
        folder: of the run; checkpoints, journal, previews and the finished model go there.
        task: what is trained; everything else of the base model stays as it is.
        base: a model folder, a published short name, a hub id, or "toybox".
        batch: pictures of a step, over all processes and accumulated micro-batches.
        accumulate: micro-batches of a step.
        clip: largest norm of the gradient.
        ema: decay of the averaged weights, which previews, validation and the finished model use.
        dtype: of the computation; weights, averages and sums are float32.
        compile: the blocks through torch.compile.
        recompute: activations of all but every n-th block are computed again in the backward pass; 0 keeps all.
        parallel: among the processes that torchrun started; None for fsdp where there are several.
        validate: steps between measurements of the loss on held-out pictures with fixed noise; 0 for never.
        report: steps between reports.
        tracker: where figures are sent besides TensorBoard's event files.
    """

    folder: Path
    task: Task = "transformer"
    base: str = "toybox"
    seed: int = 0
    batch: int = 64
    accumulate: int = 1
    phases: tuple[RunPhase, ...]
    data: DataConfig
    model: ModelConfig = field(default_factory=ModelConfig)
    times: TimesConfig = field(default_factory=TimesConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    autoencoder: AutoencoderRun = field(default_factory=AutoencoderRun)
    clip: float = 0.1
    ema: float = 0.9999
    dtype: Literal["auto", "bf16", "fp32"] = "auto"
    compile: bool = False
    recompute: int = 0
    parallel: Mode | None = None
    guard: GuardConfig = field(default_factory=lambda: GuardConfig(spike=20.0, patience=5))
    saving: SavingConfig = field(default_factory=SavingConfig)
    preview: PreviewConfig = field(default_factory=PreviewConfig)
    validate: int = 0
    report: int = 20
    tracker: Literal["none", "trackio", "wandb"] = "none"

    def __post_init__(self) -> None:
        if not self.phases:
            raise ConfigError("phases: a run needs at least one, e.g. phases: [{steps: 10000, size: 512}]")
        for name, value in (("batch", self.batch), ("accumulate", self.accumulate), ("report", self.report)):
            if value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1")
        for number, phase in enumerate(self.phases):
            if phase.steps < 1 or phase.size < 32 or phase.size % 32:
                raise ConfigError(
                    f"phases[{number}]: steps must be at least 1 and size a multiple of 32, "
                    f"not {phase.steps} and {phase.size}"
                )
        if self.batch % self.accumulate:
            raise ConfigError(
                f"batch {self.batch} does not divide into {self.accumulate} micro-batches (accumulate)"
            )
        if self.validate and not self.data.held:
            raise ConfigError(
                "validate needs pictures that are not trained on: set data.held, e.g. data.held=64"
            )

    @property
    def steps(self) -> int:
        """Of all phases."""
        return sum(phase.steps for phase in self.phases)

    def phase_at(self, step: int) -> tuple[int, int]:
        """(number of the phase, step inside it) of a step of the run."""
        for number, phase in enumerate(self.phases):
            if step < phase.steps:
                return number, step
            step -= phase.steps
        return len(self.phases) - 1, self.phases[-1].steps

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that a checkpoint fixes, as JSON: what a run is, not how long, how often told, or on what."""
        told = plain_values(asdict(self))
        kept = {name: told[name] for name in _FIXED}
        kept["data"] = {name: told["data"][name] for name in ("square", "captions", "held")}
        told["phases"][-1].pop("steps")  # a finished run may go on
        kept["phases"] = {str(number): phase for number, phase in enumerate(told["phases"])}
        kept["optimizer"].pop("lr")
        return kept


_FIXED = (
    "task", "base", "seed", "batch", "accumulate", "model", "times", "optimizer", "autoencoder", "clip", "ema",
)  # fmt: skip


def plain_values(value: Any) -> Any:
    """The same in mappings, lists and text, as JSON would give it back."""
    if isinstance(value, dict):
        return {str(key): plain_values(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(each) for each in value]
    return str(value) if isinstance(value, Path) else value
