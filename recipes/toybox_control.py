"""ControlNets for the shipped Toybox: outlines (canny) and depth, trained beside it and measured.

    python -m recipes.toybox_control                    all stages; run it again and it goes on
    python -m recipes.toybox_control --steps 4000       longer runs; finished ones go on
    python -m recipes.toybox_control measure            one stage alone
    python -m recipes.toybox_control measure --model toybox-sprint --draw-steps 2    the same ControlNets on its student

Stages:
  pictures   scenes with captions and their true depth to runs/toybox-control/pictures and .../depth
  train      two runs of `task: control` in runs/toybox-control/canny and .../depth
  measure    the tables of docs/control.md to runs/toybox-control/measured.json, and a sheet of pictures; of other
             models to measured-MODEL.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from PIL import Image

from recipes.control_measures import cases, draw_with, score, train_reader
from recipes.settings import resumable
from sanakit.base.errors import SanakitError
from sanakit.base.files import atomic_write, ensure_writable_folder
from sanakit.pipeline import load, make_grid
from sanakit.toybox import sample_scene
from sanakit.toybox.depth import depth_levels
from sanakit.toybox.folder import write_pictures
from sanakit.training import (
    DataConfig,
    LRScheduleConfig,
    OptimizerConfig,
    RunPhase,
    SavingConfig,
    TrainConfig,
    sentences,
)
from sanakit.training.control_settings import ControlTraining
from sanakit.training.session import Session

ROOT = Path("runs/toybox-control")
COUNT = 2000
STEPS = 1000
CASES = 60
"""Scenes that are measured with."""
DRAW_STEPS = 12
MODEL = "toybox"
SIZE = 256
STAGES = ("pictures", "train", "measure")

KINDS = {
    "canny": ControlTraining(annotator="canny", copies=5),
    "depth": ControlTraining(annotator="files", pictures=ROOT / "depth", copies=5),
}
"""Name of a run -> what steers it. The annotator's own blur and contrasts; depth is the renderer's."""


def config(kind: str, steps: int = STEPS, root: Path = ROOT) -> TrainConfig:
    """One run of `KINDS`."""
    control = KINDS[kind]
    if control.pictures is not None:
        control = replace(control, pictures=root / control.pictures.name)
    return TrainConfig(
        folder=root / kind, task="control", control=control, batch=8, phases=(RunPhase(steps=steps, size=SIZE),),
        data=DataConfig(path=root / "pictures", cache=root / "cache", square=True, held=64),
        optimizer=OptimizerConfig(name="adamw", lr=7e-4, betas=(0.9, 0.99)),
        schedule=LRScheduleConfig(warmup=20, cooldown=0.3), clip=1.0, ema=0.97,
        saving=SavingConfig(minutes=3.0), validate=100, report=20,
    )  # fmt: skip


def write_depths(folder: Path, count: int) -> Iterator[int]:
    """Write the depth of the scenes of `write_pictures` under the same names; what is there stays. Yield how many."""
    ensure_writable_folder(folder)
    for number in range(count):
        path = folder / f"{number:06d}.png"
        if not path.exists():
            levels = Image.fromarray(depth_levels(sample_scene(number), SIZE).numpy())
            atomic_write(path, partial(levels.save, format="PNG"))
        yield number + 1


def measure(
    root: Path, kinds: Sequence[str], count: int, draw_steps: int, name: str = MODEL
) -> dict[str, dict[str, float]]:
    """Draw held-out scenes under each control, under all, and without; write what was measured and a sheet of pictures.

    name: of the model that draws.
    """
    reader = None
    if "depth" in kinds:
        reader = train_reader(root / "pictures", len(list((root / "depth").glob("*.png"))))
    found = cases(count)
    model, suffix = load(name, dtype="fp32"), "" if name == MODEL else f"-{name}"
    rows: dict[str, dict[str, Path]] = {"no control": {}} | {
        kind: {kind: root / kind / "control"} for kind in kinds
    }
    if len(kinds) > 1:
        rows["both"] = {kind: root / kind / "control" for kind in kinds}
    measured = {"renders": score([case.picture for case in found], found, reader)}
    print("renders", measured["renders"], flush=True)
    columns = [[case.picture for case in found]] + [[case.controls[kind] for case in found] for kind in kinds]
    for way, nets in rows.items():
        draw = draw_with(model, nets, draw_steps)
        pictures = [draw(case, number) for number, case in enumerate(found)]
        measured[way] = score(pictures, found, reader)
        columns.append(pictures)
        print(way, measured[way], flush=True)
    atomic_write(root / f"measured{suffix}.json", (json.dumps(measured, indent=1) + "\n").encode())
    shown = [column[number] for number in range(min(6, count)) for column in columns]
    sheet = make_grid(shown, columns=len(columns), gap=4)
    atomic_write(root / f"sheet{suffix}.png", lambda draft: sheet.save(draft, format="PNG"))
    return measured


def run_stage(stage: str, given: argparse.Namespace) -> None:
    """Run one stage as the command line asks for it."""
    root: Path = given.root
    print(f"== {stage}", flush=True)
    if stage == "pictures":
        for name, walk in (
            ("pictures", write_pictures(root / "pictures", given.pictures, compiled=True)),
            ("depth", write_depths(root / "depth", given.pictures)),
        ):
            for done in walk:
                if done % 500 == 0:
                    print(f"{name}: {done} of {given.pictures}", flush=True)
    elif stage == "train":
        for kind in given.kinds:
            session = Session(config(kind, given.steps, root), resume=True, notify=print)
            for report in sentences(session.events()):
                print(report, flush=True)
    else:
        measure(root, given.kinds, given.cases, given.draw_steps, given.model)


@resumable
def main() -> None:
    """Run the stages named on the command line, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stages", nargs="*", choices=[*STAGES, []], help="default: all, in order")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--pictures", type=int, default=COUNT)
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--draw-steps", type=int, default=DRAW_STEPS, help="of the solver")
    parser.add_argument("--cases", type=int, default=CASES, help="scenes to measure with")
    parser.add_argument("--model", default=MODEL, help="that draws what is measured")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    given = parser.parse_args()
    try:
        for stage in given.stages or STAGES:
            run_stage(stage, given)
    except SanakitError as error:
        print(f"error: {error}.", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
