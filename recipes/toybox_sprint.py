"""Distil the shipped Toybox into Toybox-Sprint, which draws in one to four steps.

    python -m recipes.toybox_sprint                  pictures, training and shipping; run it again and it goes on
    python -m recipes.toybox_sprint --student toybox-sprint --folder runs/further --steps 1500 --lr 4e-5 --warmup 0
                                                     further from there; at 1e-4 a run collapses after 700 steps
    python -m recipes.toybox_sprint --trajectories --student toybox-sprint --folder runs/further --steps 2000 --lr 1e-4
                                                     further, towards where the teacher's own steps end (no critic);
                                                     16,000 trajectories of the teacher are followed first
    python -m recipes.toybox_sprint --matching --student toybox-sprint --folder runs/matched --steps 1140 --lr 5e-5
                                                     further, to draw what the teacher would as likely draw
    python -m recipes.toybox_sprint --compile        blocks through torch.compile, the derivative by central differences
    python -m recipes.toybox_sprint ship             one stage alone
    python -m recipes.toybox_sprint pictures train --teacher runs/recover/0-3-4-5-6-7-8-9/1000-steps/model
                                                     --folder runs/recover/sprint          another model of Toybox

Stages:
  pictures   scenes with captions to runs/sets/256-captions
  train      the run in runs/toybox-sprint: latents and text states first, then `task: sprint`
  ship       its averaged weights in bf16 to src/sanakit/toybox/sprint, where `--model toybox-sprint` finds them; of a
             run on trajectories alone that began with a student, the mean of that one's weights and its own
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from recipes.few_steps import (
    BATCH,
    COUNT,
    RATE,
    STORED,
    WARMUP,
    matching_settings,
    ready_pictures,
    sprint_config,
    sprint_settings,
    trajectory_settings,
)
from recipes.settings import resumable
from recipes.toybox_follow import write_student
from recipes.toybox_model import between
from recipes.toybox_text import ABOUT
from sanakit.base.bounds import MAX_ANGLE
from sanakit.base.errors import SanakitError
from sanakit.base.precision import CPU
from sanakit.training import TrainConfig, sentences
from sanakit.training.session import Session
from sanakit.training.tasks.network import load_base
from sanakit.weights import read_model_spec, resolve

RUN = Path("runs/toybox-sprint")
SPRINT = Path("src/sanakit/toybox/sprint")
SHIPPED = Path("src/sanakit/toybox")
STEPS = 520
"""Half of them the student's."""
LARGEST = 80e6
"""Bytes that all shipped weights may take together."""
ANGLES = ((MAX_ANGLE, 1.0),)
"""That draw best in two steps (recipes/toybox_angles.py); the published ones are for 32 times as many latents."""
STAGES = ("pictures", "train", "ship")


def train(config: TrainConfig) -> None:
    """Train, or go on where the run is; the plan is printed first."""
    session = Session(config, resume=True, notify=print)
    print("\n".join(session.plan.lines()), flush=True)
    for report in sentences(session.events()):
        print(report, flush=True)


def ship(config: TrainConfig, folder: Path = SPRINT) -> None:
    """Write the finished model with the words that its teacher knows, and what Toybox says of itself.

    Of a run on trajectories alone that began with a student the mean of both is written: it is right most often, and
    nearest to renders.
    Raises ModelNotFoundError if the run has not ended yet.
    """
    found = read_model_spec(resolve(config.folder / "model"))
    teacher = read_model_spec(resolve(config.base_model))
    model = load_base(found, torch.float32, CPU)
    if config.sprint.student is not None and not config.sprint.distribution.weight:
        first = read_model_spec(resolve(config.sprint.student))
        model = between(load_base(first, torch.float32, CPU), model)
    about = None if teacher.about is None else replace(ABOUT, name="Toybox-Sprint")
    student = replace(found, schedule=replace(found.schedule, angles=ANGLES), about=about)
    write_student(student, teacher, model, folder)


def shipped_bytes(folder: Path = SHIPPED) -> int:
    """Bytes of all weights in the package."""
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def run_stages(stages: Sequence[str], config: TrainConfig, count: int) -> None:
    """Run the stages in their order."""
    for stage in (stage for stage in STAGES if stage in stages):
        print(f"== {stage}", flush=True)
        if stage == "pictures":
            ready_pictures(config.data.path, count)
        elif stage == "train":
            train(config)
        else:
            ship(config)
            print(f"{SPRINT} is written; all shipped weights take {shipped_bytes() / 1e6:.1f} MB", flush=True)


@resumable
def main() -> None:
    """Run the stages named on the command line, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stages", nargs="*", choices=[*STAGES, []], help="default: all, in order")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--pictures", type=int, default=COUNT)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--warmup", type=int, default=WARMUP, help="steps over which the derivative comes in")
    parser.add_argument("--lr", type=float, default=RATE, help="learning rate of the student")
    parser.add_argument(
        "--student", help="a model of few steps to begin with, such as toybox-sprint; default: the teacher"
    )
    parser.add_argument(
        "--teacher", default="toybox", help="the model that is distilled; only toybox's ships"
    )
    parser.add_argument(
        "--trajectories",
        action="store_true",
        help="learn where the teacher's own steps end, in place of consistency and critic",
    )
    parser.add_argument(
        "--matching",
        action="store_true",
        help="learn to draw what the teacher would as likely draw (DMD), with trajectories at half their weight",
    )
    parser.add_argument(
        "--adversarial",
        type=float,
        default=0.0,
        help="weight of a critic beside --trajectories; default: none",
    )
    parser.add_argument(
        "--stored",
        type=int,
        default=STORED,
        help="trajectories that are followed first and used again and again; 0 follows new ones in every step",
    )
    parser.add_argument("--folder", type=Path, default=RUN, help="of the run")
    parser.add_argument("--compile", action="store_true")
    given = parser.parse_args()
    if given.matching and (given.trajectories or given.adversarial):
        parser.error("--matching has trajectories already, and no critic: leave the others out")
    if given.matching:
        sprint = matching_settings(given.student, given.stored)
    elif given.trajectories:
        sprint = trajectory_settings(given.student, given.adversarial, given.stored)
    elif given.adversarial:
        parser.error("--adversarial is for --trajectories: the published losses have a critic of weight 0.5")
    else:
        sprint = sprint_settings(given.warmup, given.student)
    config = sprint_config(
        given.folder, given.steps, base=given.teacher, lr=given.lr, sprint=sprint, batch=given.batch
    )
    config = replace(config, compile=given.compile)
    stages = given.stages or (STAGES if given.teacher == "toybox" else STAGES[:-1])
    if "ship" in stages and given.teacher != "toybox":
        parser.error("only the distilled toybox ships: leave out `ship`, or --teacher")
    try:
        run_stages(stages, config, given.pictures)
    except SanakitError as error:
        print(f"error: {error}.", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
