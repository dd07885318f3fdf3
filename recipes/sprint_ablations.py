"""What each part of SANA-Sprint is worth on Toybox: `python -m recipes.sprint_ablations [VARIANT ...] [--seeds 3]`.

Every variant distils the same teacher from the same pictures with as many steps of the student; one thing differs.
The averaged weights then draw the judge's prompts in two steps. Runs lie in runs/sprint-ablations, --jobs of them at a
time; they are resumed, and finished ones are not repeated. The time that it will take is printed first. --table prints
what has been measured so far, as Markdown, beside the published figures.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from recipes.few_steps import (
    averaged,
    measured,
    ready_pictures,
    sprint_config,
    sprint_settings,
    trajectory_settings,
)
from recipes.repeats import Found, arguments, keep_result, kept_results, measure_all, missing, spread
from recipes.settings import resumable, run_task
from recipes.unnormed import unnormed_teacher
from sanakit.base.errors import NumericsError
from sanakit.base.precision import decide
from sanakit.flow import Schedule
from sanakit.flow.times import TRAIN_STEPS
from sanakit.training import TrainConfig, Trainer, World
from sanakit.training.objectives.flow_matching import phase_config
from sanakit.training.objectives.objective import Objective
from sanakit.training.objectives.sprint_settings import SprintConfig
from sanakit.training.session import Session
from sanakit.training.tasks.sprint import SprintTask
from sanakit.transformer import TransformerConfig
from sanakit.weights import ModelSpec

RUNS = Path("runs/sprint-ablations")
TEACHER = "toybox"
UNNORMED = RUNS / "teacher-without-norms"
STEPS = 600
"""Half of them the student's."""
RATE = 4e-5
WARMUP, RISE = 0.75, 0.2
"""Shares of the steps over which the derivative comes in, and the rate rises.

The first is about what Toybox-Sprint's first run had. The smaller it is, and the higher the rate, the sooner a run with
both losses collapses (docs/claims.md).
"""

BATCH = 16
FOLLOWED = 2000
"""Trajectories for the variant without the published losses: as many as 120 steps take."""
PROMPTS = 150
DRAWN = 2
"""Steps that pictures are drawn with."""
COLLAPSED = {"collapsed": 1.0}
"""The result of a run whose guard skipped too many steps in a row to go on."""
USUAL = "sCM and LADD"


class ThousandTask(SprintTask):
    """The task with a student that reads times in 0..1000, as its teacher does. No folder can hold such a model."""

    def wanted_network(self) -> TransformerConfig:
        """The usual student's with the teacher's own time embedding."""
        return replace(super().wanted_network(), time_scale=TRAIN_STEPS * self.spec.transformer.time_scale)

    def described(self, phase: int) -> ModelSpec:
        """As if times were in 0..1: the pipeline draws with nothing else, and the network scales what it is given."""
        told = replace(self.network_config, time_scale=1.0)
        config = phase_config(told, self.config.phases[phase], self.ratio)
        return replace(self.spec, kind="sprint", schedule=Schedule(kind="scm"), transformer=config, pag=False)

    def export(self, objective: Objective, trainer: Trainer) -> str:
        """Write nothing."""
        return "nothing is written: Sprint folders are of models with times in 0..1"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One change of the distillation. published: FID and CLIP score in the paper's tables, if it is there."""

    sprint: SprintConfig = field(default_factory=sprint_settings)
    task: type[SprintTask] = SprintTask
    unnormed: bool = False
    published: str = ""


_PLAIN = sprint_settings()
VARIANTS = {
    USUAL: Variant(published="8.11, 28.02"),
    "sCM alone": Variant(sprint=replace(_PLAIN, adversarial=0.0), published="8.93, 27.51"),
    "LADD alone": Variant(sprint=replace(_PLAIN, consistency=0.0), published="12.20, 27.00"),
    "no branch of pure noise": Variant(sprint=replace(_PLAIN, max_time=None)),
    "guidance fixed": Variant(
        sprint=replace(_PLAIN, guidance=(4.5,), guidance_input=False),
        published="9.23, 27.15 (8.72, 28.09 as an input)",
    ),
    "no norm of queries and keys": Variant(unnormed=True),
    "times in 0..1000": Variant(task=ThousandTask),
    "trajectories alone": Variant(sprint=trajectory_settings(stored=FOLLOWED)),
}
"""The paper's tables of the losses and of guidance, arXiv 2503.09641, section 4.3; it has figures for the others."""


def config_of(name: str, seed: int, steps: int, teacher: str = TEACHER) -> TrainConfig:
    """The run of a variant. Without a critic every step is the student's, so half as many are as long."""
    variant = VARIANTS[name]
    long = steps if variant.sprint.adversarial else steps // 2
    sprint = variant.sprint
    if sprint.consistency:
        sprint = replace(sprint, warmup=round(WARMUP * long))
    folder = RUNS / f"{steps}-steps" / f"{name.replace(' ', '-')}-{seed}"
    base = str(UNNORMED / "model") if variant.unnormed else teacher
    plain = sprint_config(folder, long, base=base, seed=seed, lr=RATE, sprint=sprint, batch=BATCH)
    schedule = replace(plain.schedule, warmup=round(RISE * long))
    return replace(plain, report=50, schedule=schedule, saving=replace(plain.saving, keep=1))


def measure(name: str, seed: int, steps: int) -> Found:
    """Train a variant, and keep how its model draws, or that the run's guard gave it up."""
    config = config_of(name, seed, steps)
    precision = decide(dtype=config.dtype)
    task = VARIANTS[name].task(config, precision, World(device=precision.device), print)
    try:
        trainer = run_task(task, config, precision)
    except NumericsError as error:
        print(f"{name}, seed {seed}: {error}", flush=True)
        return keep_result(config.folder, COLLAPSED)
    return keep_result(config.folder, measured(averaged(task, trainer), DRAWN, PROMPTS))


def results(name: str, steps: int) -> dict[int, Found]:
    """seed -> what was measured."""
    return kept_results(lambda seed: config_of(name, seed, steps).folder)


def table(steps: int) -> str:
    """What has been measured, as Markdown: means over the seeds that did not collapse, with the standard deviation."""
    head = f"| variant | seeds, not collapsed | right, of {PROMPTS} in {DRAWN} steps | score | Frechet distance |"
    rows = [f"{head} published: FID, CLIP score |", "|---" * 6 + "|"]
    for name, variant in VARIANTS.items():
        found = results(name, steps)
        if found:
            whole = [one for one in found.values() if one != COLLAPSED]
            right, score, distance = (
                spread([one[key] for one in whole], digits)
                for key, digits in (("right", 0), ("score", 3), ("frechet", 2))
            )
            seeds = f"{len(whole)} of {len(found)}"
            rows.append(f"| {name} | {seeds} | {right} | {score} | {distance} | {variant.published} |")
    return "\n".join(rows)


def expected(wanted: Sequence[tuple[str, int]], steps: int) -> float:
    """Seconds that the runs will take by the plan of the usual one; processes side by side share the cores."""
    # In a folder of its own: the variant's may hold a run that began with other settings, which a session refuses.
    usual = replace(config_of(USUAL, 0, steps), folder=RUNS / "plan")
    return len(wanted) * Session(usual).plan.seconds * steps


def run_all(names: Sequence[str], seeds: int, steps: int, jobs: int) -> None:
    """Measure what is missing, and say how long it takes: before, by the plan; then by what is done."""
    wanted = missing(names, seeds, lambda name: results(name, steps))
    if not wanted:
        return
    ready_pictures()
    if any(VARIANTS[name].unnormed for name, _ in wanted):
        unnormed_teacher(UNNORMED, BATCH)
    print(f"{len(wanted)} runs, about {expected(wanted, steps) / 3600:.1f} h by their plan", flush=True)
    begun = time.monotonic()
    for done, (name, seed, found) in enumerate(measure_all(measure, wanted, steps, jobs), start=1):
        left = (time.monotonic() - begun) / done * (len(wanted) - done)
        print(f"{name}, seed {seed}: {found}; about {left / 3600:.1f} h left", flush=True)


@resumable
def main() -> None:
    """Measure the variants named, or all, and print the table."""
    given = arguments(__doc__, VARIANTS, STEPS)
    if not given.table:
        run_all(given.variants, given.seeds, given.steps, given.jobs)
    print(table(given.steps))


if __name__ == "__main__":
    main()
