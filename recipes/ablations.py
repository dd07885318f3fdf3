"""What each part of SANA is worth on Toybox: `python -m recipes.ablations [VARIANT ...] [--seeds 3] [--steps 1000]`.

Every variant is a small transformer trained from nothing on the same latents and captions, in the same order, for the
same number of steps; one thing differs. The text encoder and the autoencoder are those of the shipped model, frozen.
Runs lie in runs/ablations, --jobs of them at a time, each in a process of its own; they are resumed, and finished ones
are not repeated. --table prints what has been measured so far, as Markdown. The pictures are made beforehand:

    sanakit data toybox runs/sets/256 --count 8000
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from recipes.ablation_parts import (
    Part,
    ablated,
    plain_ffn,
    softmax_attention,
    with_added_positions,
    with_rotary_positions,
    without_positions,
)
from recipes.repeats import Found, arguments, keep_result, kept_results, measure_all, missing, spread
from recipes.settings import resumable
from sanakit.base.precision import decide
from sanakit.evaluation.toybox import outcomes, summarise
from sanakit.flow import TimeDensity
from sanakit.pipeline import ImageRequest, Model
from sanakit.toybox.judging.shipped import load_judge
from sanakit.toybox.trials import Trial, trials
from sanakit.training import (
    DataConfig,
    LRScheduleConfig,
    ModelConfig,
    OptimizerConfig,
    RunPhase,
    SavingConfig,
    TimesConfig,
    TrainConfig,
    Trainer,
    World,
    read_journal,
    sentences,
)
from sanakit.training.edits import attend_by_products
from sanakit.training.tasks.transformer import TransformerTask
from sanakit.transformer import SanaTransformer, TransformerConfig, initialise

RUNS = Path("runs/ablations")
PICTURES = Path("runs/sets/256")
SMALL = {"width": 192, "depth": 4, "heads": 6, "cross_heads": 6, "qk_norm": False, "position_scale": None}
PROMPTS = 100
LOOKS = 5
"""Times a run looks at the held-out pictures."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One change of the small model. shape: of its config. attention, ffn: parts in place of SANA's."""

    shape: Callable[[TransformerConfig], TransformerConfig] = without_positions
    attention: Part | None = None
    ffn: Part | None = None
    times: TimesConfig = field(default_factory=TimesConfig)
    optimizer: OptimizerConfig = field(default_factory=lambda: _adamw(1e-3))


def _came(name: str, lr: float = 1e-3) -> OptimizerConfig:
    return OptimizerConfig(name=name, lr=lr)  # type: ignore[arg-type]


def _adamw(lr: float) -> OptimizerConfig:
    return OptimizerConfig(lr=lr, betas=(0.9, 0.99))


VARIANTS = {
    "sana": Variant(),
    "softmax attention": Variant(attention=softmax_attention),
    "plain FFN": Variant(ffn=plain_ffn),
    "plain FFN, sin-cos positions": Variant(ffn=plain_ffn, shape=with_added_positions),
    "sin-cos positions": Variant(shape=with_added_positions),
    "rotary positions": Variant(shape=with_rotary_positions),
    "uniform times": Variant(times=TimesConfig(density=TimeDensity(name="uniform"))),
    "norm of queries and keys": Variant(shape=lambda config: replace(config, qk_norm=True)),
    "CAME": Variant(optimizer=_came("came")),
    "CAME-8bit": Variant(optimizer=_came("came-8bit")),
    "AdamW, rate 2e-3": Variant(optimizer=_adamw(2e-3)),
    "CAME, rate 5e-4": Variant(optimizer=_came("came", 5e-4)),
}


def config_of(name: str, seed: int, steps: int) -> TrainConfig:
    """The run of a variant. Seeds change weights, noise and order; the latents are shared."""
    variant = VARIANTS[name]
    return TrainConfig(
        folder=RUNS / f"{steps}-steps" / f"{name.replace(' ', '-').replace(',', '')}-{seed}",
        seed=seed,
        batch=32,
        phases=(RunPhase(steps=steps, size=256),),
        data=DataConfig(path=PICTURES, cache=RUNS / "cache", square=True, held=128),
        model=ModelConfig(start="scratch", changes=SMALL),
        times=variant.times,
        optimizer=variant.optimizer,
        clip=1.0,
        ema=0.995,
        saving=SavingConfig(minutes=3, keep=1),
        schedule=LRScheduleConfig(warmup=100, cooldown=0.3),
        report=100,
    )


def measure(name: str, seed: int, steps: int) -> Found:
    """Train a variant, and keep how it ends: the loss on held-out pictures, and what its drawings show."""
    config = config_of(name, seed, steps)
    task, trainer, model = trained(name, config, steps)
    looked = read_journal(config.folder, kind="validation")
    return keep_result(config.folder, {"loss": looked[steps]["loss"], **drawn(task, trainer, model)})


def trained(name: str, config: TrainConfig, steps: int) -> tuple[TransformerTask, Trainer, SanaTransformer]:
    """A variant's run at its end; it goes on where it was."""
    precision = decide(dtype=config.dtype)
    world = World(device=precision.device)
    task = TransformerTask(replace(config, validate=max(1, steps // LOOKS)), precision, world, print)
    for notice in sentences(task.prepare()):
        print(notice, flush=True)
    model = network(VARIANTS[name], task.network_config, config.seed).to(precision.device)
    objective = task.minimising(model)
    attend_by_products(model.blocks)
    for block in model.blocks:
        block.compile()
    trainer = Trainer(model, config, objective.players(), dtype=torch.bfloat16)
    validation = [hook for hook in task.hooks(objective) if hook.name == "validation"]
    with task.batches(objective) as batches:
        for event in sentences(trainer.train(objective.losses, batches, validation)):
            print(name, config.seed, event, flush=True)
    return task, trainer, model


def network(variant: Variant, shape: TransformerConfig, seed: int) -> SanaTransformer:
    """The variant's network with fresh weights."""
    torch.manual_seed(seed)
    return initialise(ablated(variant.shape(shape), variant.attention, variant.ffn))


@torch.no_grad()
def drawn(task: TransformerTask, trainer: Trainer, model: SanaTransformer) -> dict[str, float]:
    """How well the averaged weights draw prompts, in 20 steps: accuracy, score and distance of `Summary`."""
    shape, judge = model.config, load_judge()
    drawer = Model(replace(task.spec, transformer=shape), decide(dtype="fp32"), fast="off", frugal=False)
    with trainer.ema.applied(model):
        drawer.parts.replace("transformer", model.eval())

        def draw(trial: Trial, number: int) -> Any:
            return drawer.images(ImageRequest(prompt=trial.prompt, seed=number, steps=20, guidance=4.5))[0]

        found = summarise(list(outcomes(draw, trials(PROMPTS, 0), judge.network)), judge.features)
    return {"accuracy": found.overall.accuracy, "score": found.score, "frechet": found.frechet or 0.0}


def table(steps: int) -> str:
    """What has been measured, as Markdown: means over seeds with the standard deviation."""
    rows = [
        "| variant | seeds | held-out loss | less `sana` of the same seed | words drawn | distance |",
        "|---|---|---|---|---|---|",
    ]
    usual = results("sana", steps)
    for name in VARIANTS:
        found = results(name, steps)
        if found:
            loss, score, distance = (
                spread([one[key] for one in found.values()]) for key in ("loss", "score", "frechet")
            )
            less = spread([found[seed]["loss"] - usual[seed]["loss"] for seed in found.keys() & usual.keys()])
            rows.append(
                f"| {name} | {len(found)} | {loss} | {'' if name == 'sana' else less} | {score} | {distance} |"
            )
    return "\n".join(rows)


def results(name: str, steps: int) -> dict[int, Found]:
    """seed -> what was measured."""
    return kept_results(lambda seed: config_of(name, seed, steps).folder)


@resumable
def main() -> None:
    """Measure the variants named, or all, and print the table."""
    given = arguments(__doc__, VARIANTS, 1000)
    if not given.table:
        wanted = missing(given.variants, given.seeds, lambda name: results(name, given.steps))
        for name, seed, found in measure_all(measure, wanted, given.steps, given.jobs):
            print(name, seed, found, flush=True)
    print(table(given.steps))


if __name__ == "__main__":
    main()
