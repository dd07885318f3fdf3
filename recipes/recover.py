"""A pruned model learns again what it lost: `python -m recipes.recover --blocks 0,1,3,5,6,8,9 [--steps 100]`.

The student has these blocks of the model, and learns the model's velocities and, after each of its blocks, the tokens
that the model has before the next one that was kept, on pictures of the Toybox world (SANA-1.5, arXiv 2501.18427,
section 3.3, fine-tunes for about 100 steps). Which blocks matter: `sanakit importance`. Runs lie in runs/recover and go
on where they are; at the end a table: score, size, time of a picture, before and after.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from recipes.edge import distil
from recipes.few_steps import CACHE, PICTURES, SIZE, kept_measures, ready_pictures
from recipes.settings import resumable
from recipes.toybox_steps import told
from sanakit.adapt.depth import plan_pruning
from sanakit.pipeline import load
from sanakit.pipeline.depth import write_reshaped
from sanakit.pipeline.shapes import transformer_parameters
from sanakit.training import (
    DataConfig,
    LRScheduleConfig,
    OptimizerConfig,
    RunPhase,
    SavingConfig,
    TrainConfig,
)
from sanakit.weights import read_model_spec, resolve

RUNS = Path("runs/recover")
BATCH = 32
STEPS = 20
"""Of the solver, in the table."""


def recovery_config(
    folder: Path, steps: int, *, base: str = "toybox", pictures: Path = PICTURES, cache: Path = CACHE, size: int = SIZE,
    batch: int = BATCH,
) -> TrainConfig:  # fmt: skip
    """The run of a student with some blocks of the base model."""
    return TrainConfig(
        folder=folder, base=base, batch=batch, phases=(RunPhase(steps=steps, size=size),),
        data=DataConfig(path=pictures, cache=cache, square=True), optimizer=OptimizerConfig(lr=3e-4, betas=(0.9, 0.99)),
        schedule=LRScheduleConfig(warmup=min(20, steps), cooldown=0.5), clip=1.0, ema=0.98,
        saving=SavingConfig(minutes=5, keep=1),
    )  # fmt: skip


def handed_on(blocks: Sequence[int], depth: int) -> list[int]:
    """The model's blocks whose tokens the student's blocks should give: each the last before the next that was kept."""
    return [*(following - 1 for following in blocks[1:]), depth - 1]


def recover(config: TrainConfig, blocks: Sequence[int]) -> Path:
    """Train the student, unless its model is there; return the folder of the model."""
    depth = read_model_spec(resolve(config.base_model)).transformer.depth
    return distil(config, blocks, handed_on(blocks, depth))


def table(models: Sequence[tuple[str, Path]], prompts: int, folder: Path, steps: int = STEPS) -> str:
    """Markdown: a row for each model, drawn in so many steps."""
    rows = [
        "| model | blocks | parameters, M | right | score | Frechet distance | denoising, ms |",
        "|---" * 7 + "|",
    ]
    for name, where in models:
        model = load(where)
        config = model.spec.transformer
        cell = kept_measures(folder / f"{name}-{steps}-{prompts}.json", model, steps, prompts)
        rows.append(
            f"| {name} | {config.depth} | {transformer_parameters(config) / 1e6:.1f} | {told(cell)} |"
        )
    return "\n".join(rows)


@resumable
def main() -> None:
    """Train what is missing, measure, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="toybox")
    parser.add_argument("--blocks", required=True, help="numbers of the blocks that stay, such as 0,2,4")
    parser.add_argument("--steps", type=int, nargs="+", default=[100], help="lengths of the runs")
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--prompts", type=int, default=150)
    parser.add_argument("--draw-steps", type=int, default=STEPS, help="of the solver, in the table")
    given = parser.parse_args()
    spec = read_model_spec(resolve(given.model))
    plan = plan_pruning(spec.transformer.depth, [int(number) for number in given.blocks.split(",")])
    blocks = [origin.block for origin in plan if origin.block is not None]
    folder = RUNS / "-".join(map(str, blocks))
    ready_pictures(count=given.pictures)
    models = [("whole", spec.folder), ("pruned", folder / "pruned")]
    if not models[1][1].exists():
        write_reshaped(replace(spec, about=None), plan, models[1][1])
    for steps in given.steps:
        config = recovery_config(folder / f"{steps}-steps", steps, base=given.model, batch=given.batch)
        models.append((f"after {steps} steps", recover(config, blocks)))
    print(table(models, given.prompts, folder, given.draw_steps))


if __name__ == "__main__":
    main()
