"""The sections of a training config: `phases[0]`, `data`, `schedule`, `times`, `saving`, `preview`, `autoencoder`.

Sections that belong to a part of training are beside it: `model_settings`, `lora_settings`, `control_settings`,
`optim.settings`, `guard`, `objectives.sprint_settings`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from sanakit.base.bounds import Bounds, Count, Positive, Seed, Share
from sanakit.data.caption_rule import CaptionRule
from sanakit.flow import TimeDensity
from sanakit.training.objectives.autoencoder_loss import AutoencoderLoss
from sanakit.training.objectives.velocity import WeightingName
from sanakit.training.optim.learning_rate import BatchRule
from sanakit.training.optim.settings import OptimizerConfig

NAMED = Bounds()
"""Texts and paths that must not be empty."""
_WARMUP = 2000
"""Steps, as published, for runs of 20,000 and more."""


@dataclass(frozen=True, kw_only=True)
class RunPhase:
    """A part of a run at one size of pictures; the cascade 512 -> 1024 -> 2K is three of them.

    Attributes:
        steps: how long this phase is, in steps of `batch` pictures.
        size: side in pixels of the square picture, a multiple of 32; other aspect ratios have about as many pixels.
        shift: flow shift, of the training times towards noise; None for that of the base model.
        position_scale: scale of the positional table, if the model has one; None leaves the model's own.
    """

    steps: Positive
    size: Annotated[int, Bounds(least=32, most=16384)]
    shift: Annotated[float, Bounds(above=0, most=1000)] | None = None
    position_scale: Annotated[float, Bounds(above=0, most=1000)] | None = None


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The set that is trained on.

    Attributes:
        path: a folder of pictures with captions, or webdataset shards; see docs/data.md.
        keys: a file with the keys of the items to use, as `sanakit data filter` writes; None for all.
        cache: folder of latents and text states, shared by runs; None for a folder beside the run.
        square: every picture is cut to a square; otherwise to the nearest of the trained aspect ratios.
        captions: how one of several captions is drawn.
        uncaptioned: pictures without a caption are passed over ("skip"), or seen with the empty one ("empty").
        held: pictures of the set that are kept out of training, to validate with.
        workers: threads that make batches.
    """

    path: Annotated[Path, NAMED]
    keys: Annotated[Path, NAMED] | None = None
    cache: Annotated[Path, NAMED] | None = None
    square: bool = False
    captions: CaptionRule = field(default_factory=CaptionRule)
    uncaptioned: Literal["skip", "empty"] = "skip"
    held: Count = 0
    workers: Annotated[int, Bounds(least=1, most=256)] = 1


@dataclass(frozen=True, kw_only=True)
class LRScheduleConfig:
    """The learning rate over the run: linear warm-up, constant, and a linear fall over the last share.

    Attributes:
        warmup: steps over which the rate rises; None for a tenth of the run, and 2000 at most.
        cooldown: share of the run over which the rate falls to 0 at the end.
        rule: how `optimizer.lr`, which is meant for a batch of 256, follows the batch; the published code says "sqrt".
    """

    warmup: Count | None = None
    cooldown: Share = 0.0
    rule: BatchRule = "none"

    def warmup_of(self, steps: int) -> int:
        """Return the steps of the warm-up of a run of `steps` steps."""
        return min(_WARMUP, steps // 10) if self.warmup is None else self.warmup


@dataclass(frozen=True, kw_only=True)
class TimesConfig:
    """Which noise levels are trained, and how they count.

    Attributes:
        density: how times are drawn; logit-normal with mean 0 and deviation 1 as published.
        levels: times are whole multiples of 1 / levels before the shift, as published; None for all times.
        weighting: weight of the loss at each time.
    """

    density: TimeDensity = field(default_factory=TimeDensity)
    levels: Annotated[int, Bounds(least=2, most=10**6)] | None = 1000
    weighting: WeightingName = "none"


@dataclass(frozen=True, kw_only=True)
class SavingConfig:
    """Checkpoints.

    Attributes:
        minutes: time between checkpoints.
        steps: steps between checkpoints, besides the minutes; 0 for minutes alone.
        keep: how many checkpoints stay, the newest; 0 for all.
    """

    minutes: Annotated[float, Bounds(above=0, most=10**6)] = 10.0
    steps: Count = 0
    keep: Count = 2


@dataclass(frozen=True, kw_only=True)
class PreviewConfig:
    """Pictures drawn by the averaged weights to RUN/previews.

    Attributes:
        every: steps between previews; 0 draws only when asked (`touch RUN/preview`).
        prompts: what is drawn, a picture each; without any, two prompts of Toybox.
        steps: solver steps of a picture.
        guidance: classifier-free guidance scale; 1 for none.
        seed: seed of each picture's noise.
    """

    every: Count = 0
    prompts: tuple[str, ...] = ()
    steps: Annotated[int, Bounds(least=1, most=1000)] = 20
    guidance: Annotated[float, Bounds(least=0, most=1000)] = 4.5
    seed: Seed = 0


@dataclass(frozen=True, kw_only=True)
class AutoencoderRun:
    """Settings that only the task "autoencoder" reads.

    Attributes:
        start: "base" continues the base model's autoencoder, "scratch" draws fresh weights, else a folder RUN/vae.
        preset: shape of a fresh one by its name in `autoencoder/presets.py`.
        phase: of DC-AE's recipe (arXiv 2410.10733, section 3.2): what is trained, and whether against a critic.
        loss: weights of its parts.
        critic: optimiser of the critic, whose gradient is clipped by itself; None for one like the autoencoder's.
    """

    start: Annotated[str, NAMED] = "base"
    preset: str = "toybox"
    phase: Literal["full", "adaptation", "refinement"] = "full"
    loss: AutoencoderLoss = field(default_factory=AutoencoderLoss)
    critic: OptimizerConfig | None = None
