"""What to switch on when Toybox is trained on: the shipped weights under each lever, for as much processor time each.

    python -m recipes.toybox_levers [VARIANT ...] --minutes 12

Needs the latents of `recipes.toybox`. Each variant starts from the shipped weights, trains at a constant rate, and its
averaged weights are measured on scenes and prompts held out: the flow's loss at fixed times and noise, how often the
alignment head is right, and what the judge reads in pictures. Time is the processor's, of all threads, so that
variants measured beside other work compare. A variant that was measured is not trained again.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recipes.settings import recipe_trainer, settings
from recipes.toybox_alignment import WORDS, hits
from recipes.toybox_flow import FlowTraining, LatentScenes, Levers, open_scenes
from recipes.toybox_model import MODEL, read_captions
from recipes.toybox_second import CELLS, HELD_CELLS, HELD_LATENTS, LATENTS, shipped_networks
from recipes.toybox_shards import RUNS, SIZE
from sanakit.base.files import atomic_write
from sanakit.base.precision import decide
from sanakit.evaluation.toybox import Summary, outcomes, summarise
from sanakit.pipeline.model import Model
from sanakit.pipeline.request import ImageRequest
from sanakit.text import TextEncoder
from sanakit.toybox import caption
from sanakit.toybox.judging.shipped import load_judge
from sanakit.toybox.trials import Trial, trials
from sanakit.training import Progress, Trainer
from sanakit.training.objectives import sample_errors
from sanakit.weights import read_model_spec

FOLDER = RUNS / "levers"
LR = 3e-4
BATCH = 64
TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
HELD = 250
PROMPTS, STEPS = 120, 20
_WARM = 2  # steps before the clock starts: they compile
_RESULT = "result.json"

VARIANTS = {
    "shipped": None,
    "trained on": Levers(),
    "alignment": Levers(alignment=0.1),
    "two shapes": Levers(two=0.5),
    "alignment, two shapes": Levers(alignment=0.1, two=0.5),
    "edges": Levers(edges=0.25),
    "muon": Levers(optimizer="muon"),
    "alignment, two shapes, muon": Levers(alignment=0.1, two=0.5, optimizer="muon"),
}


def folder_of(name: str, minutes: float, batch: int) -> Path:
    """Where a variant's run and its result lie."""
    return FOLDER / f"{minutes:g}-minutes-of-{batch}" / name.replace(", ", "+").replace(" ", "-")


def measure(name: str, minutes: float, batch: int) -> dict[str, Any]:
    """Train a variant, and keep how it ends."""
    levers, folder = VARIANTS[name], folder_of(name, minutes, batch)
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped
    scenes = open_scenes(RUNS / "train", LATENTS, CELLS)
    tokenizer, joint = shipped_networks()
    torch.manual_seed(0)
    training = FlowTraining(joint, scenes, tokenizer, levers or Levers(), batch)
    config = settings(
        folder, 10**6, size=SIZE, batch=batch, lr=LR, weight_decay=0.01, warmup=20, cooldown=0.0, ema=0.98,
        minutes=10**6, optimizer=training.levers.optimizer,
    )  # fmt: skip
    trainer = recipe_trainer(training.model, config)
    if levers is not None:
        train_for(trainer, training, minutes * 60)
    with trainer.ema.applied(training.model):
        training.model.eval()
        found = {"steps": trainer.step, **held_out(training), **drawn(training).to_json()}
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / _RESULT, json.dumps(found).encode())
    return found


def train_for(trainer: Trainer, training: FlowTraining, seconds: float) -> None:
    """Train until so much processor time is spent."""
    begun = 0.0
    for event in trainer.train(training.losses, training.batches):
        if not isinstance(event, Progress):
            print(event, flush=True)
        elif event.done == _WARM:
            begun = time.process_time()
        elif event.done > _WARM and time.process_time() - begun > seconds:
            return


@torch.no_grad()
def held_out(training: FlowTraining) -> dict[str, Any]:
    """Of held-out scenes: the flow's loss at each time under one noise, and how often the head is right there."""
    scenes = open_scenes(RUNS / "held", HELD_LATENTS, HELD_CELLS)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((HELD, *scenes.latents.shape[1:]), generator=generator)
    loss, right, asked = {}, Counter[str](), Counter[str]()
    for time_ in TIMES:
        errors = []
        for rows in torch.arange(HELD).split(50):
            predicted, logits = predict(training, scenes, rows, noise[rows], time_)
            errors.append(
                sample_errors(predicted, noise[rows].to(predicted.device) - scenes.x0(rows.tolist()))
            )
            for name, (hit, of) in hits(logits, scenes.cells[rows]).items() if logits else ():  # type: ignore[index]
                right[name] += hit
                asked[name] += of
        loss[str(time_)] = float(torch.cat(errors).mean())
    return {"loss": loss, "head": {name: right[name] / asked[name] for name in asked}}


def predict(
    training: FlowTraining, scenes: LatentScenes, rows: Tensor, noise: Tensor, time_: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Velocities of scenes at a time, and the head's logits; empty without a head."""
    lines = [caption(scenes.shards.scene(row), random.Random(row)) for row in rows.tolist()]
    t = torch.full((len(rows),), time_)
    point = training.path.point(scenes.x0(rows.tolist()), noise, t)
    inputs = point.to(training.device), (1000 * t).floor().to(training.device)
    predicted, _, *read = training.model(
        *inputs, read_captions(training.tokenizer, lines).to(training.device)
    )
    return predicted, read[0] if read else {}


@torch.no_grad()
def drawn(training: FlowTraining) -> Summary:
    """What the judge reads in pictures of prompts."""
    judge, joint = load_judge(), training.joint
    drawer = Model(read_model_spec(MODEL), decide(dtype="fp32"), fast="off", frugal=False)
    drawer.parts.replace("transformer", joint.transformer)
    drawer.parts.replace("text", TextEncoder(joint.text, training.tokenizer, model_id="under training"))

    def draw(trial: Trial, number: int) -> Any:
        return drawer.images(ImageRequest(prompt=trial.prompt, seed=number, steps=STEPS))[0]

    return summarise(list(outcomes(draw, trials(PROMPTS), judge.network)), judge.features)


def table(minutes: float, batch: int) -> Iterator[str]:
    """What has been measured, as Markdown."""
    yield (
        "| variant | steps | loss at "
        + " | ".join(map(str, TIMES))
        + " | head | correct | score | distance |"
    )
    yield "|---" * (7 + len(TIMES)) + "|"
    for name in VARIANTS:
        path = folder_of(name, minutes, batch) / _RESULT
        if not path.exists():
            continue
        found = json.loads(path.read_text())
        losses = [f"{found['loss'][str(t)]:.4f}" for t in TIMES]
        asked = [found["head"][word] for word in WORDS if word in found["head"]]
        head = f"{sum(asked) / len(asked):.1%}" if asked else ""
        judged = [f"{found['overall']['accuracy']:.1%}", f"{found['score']:.3f}", f"{found['frechet']:.2f}"]
        yield f"| {' | '.join([name, str(found['steps']), *losses, head, *judged])} |"


def main() -> None:
    """Measure the variants named, or all, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("variants", nargs="*", choices=[*VARIANTS, []], help="default: all")
    parser.add_argument("--minutes", type=float, default=12, help="of processor time, of all threads")
    parser.add_argument("--batch", type=int, default=BATCH)
    given = parser.parse_args()
    for name in given.variants or VARIANTS:
        if not (folder_of(name, given.minutes, given.batch) / _RESULT).exists():
            print(name, measure(name, given.minutes, given.batch), flush=True)
            torch.compiler.reset()
    print("\n".join(table(given.minutes, given.batch)))


if __name__ == "__main__":
    main()
