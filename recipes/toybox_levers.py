"""What to switch on when Toybox is trained: the same weights under each lever, for as much processor time each.

    python -m recipes.toybox_levers [VARIANT ...] --minutes 12             the shipped weights, trained on
    python -m recipes.toybox_levers [VARIANT ...] --minutes 9 --fresh      from fresh weights

Needs the latents of `recipes.toybox`. Each variant trains at a constant rate. Its averaged weights are then measured on
scenes and prompts held out: the flow's loss at fixed times and noise; how much worse it is if a caption of two things
swaps their colours and materials, and in how many scenes; how often the alignment head is right; and, but for fresh
ones, whose pictures show nothing yet, what the judge reads in pictures. Time is the processor's, of all threads, so
that variants measured beside other work compare. A variant that was measured is not trained again.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from recipes.settings import recipe_trainer, resumable, settings
from recipes.toybox_alignment import WORDS, hits
from recipes.toybox_flow import FlowTraining, LatentScenes, Levers, open_scenes
from recipes.toybox_model import DEVICE, MODEL, TextToVelocity, fresh_networks, read_captions
from recipes.toybox_second import CELLS, HELD_CELLS, HELD_LATENTS, LATENTS, shipped_networks
from recipes.toybox_shards import RUNS, SIZE
from recipes.toybox_text import extended_text
from sanakit.base.files import atomic_write
from sanakit.base.precision import decide
from sanakit.evaluation.toybox import outcomes, summarise
from sanakit.pipeline.model import Model
from sanakit.pipeline.request import ImageRequest
from sanakit.text import TextEncoder, load_tokenizer
from sanakit.toybox import Scene, SceneSpec, caption, full_spec, phrase
from sanakit.toybox.judging.shipped import load_judge
from sanakit.toybox.trials import Trial, trials
from sanakit.training import Progress, Trainer
from sanakit.training.objectives import sample_errors
from sanakit.weights import read_model_spec

FOLDER = RUNS / "levers"
LR, FRESH_LR = 3e-4, 1e-3
BATCH = 64
TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
HELD = 250
BOUND_TIMES = (0.6, 0.75, 0.9)
"""Where what goes where is decided."""
PROMPTS, STEPS = 120, 20
MORE = 60
"""Prompts for two objects besides: what the shipped model fails at most."""
_WARM = 2  # steps before the clock starts: they compile
_RESULT = "result.json"

VARIANTS = {
    "shipped": None,
    "none": Levers(),
    "alignment": Levers(alignment=0.1),
    "two shapes": Levers(two=0.5),
    "two shapes, unevenly told": Levers(two=0.5, uneven=0.3),
    "alignment, two shapes": Levers(alignment=0.1, two=0.5),
    "edges": Levers(edges=0.25),
    "objects": Levers(objects=2.0),
    "muon": Levers(optimizer="muon"),
    "alignment, two shapes, muon": Levers(alignment=0.1, two=0.5, optimizer="muon"),
}


@dataclass(frozen=True)
class Comparison:
    """What all variants share. minutes: of processor time. batch: scenes of a step. fresh: start from fresh weights."""

    minutes: float
    batch: int
    fresh: bool = False

    @property
    def variants(self) -> list[str]:
        """The names of those that can be compared: fresh weights that were not trained are not worth measuring."""
        return [name for name in VARIANTS if not (self.fresh and VARIANTS[name] is None)]

    def folder(self, name: str) -> Path:
        """Where a variant's run and its result lie."""
        start = "-fresh" if self.fresh else ""
        length = f"{self.minutes:g}-minutes-of-{self.batch}{start}"
        return FOLDER / length / name.replace(", ", "+").replace(" ", "-")

    def result(self, name: str) -> Path:
        """The file of what was measured."""
        return self.folder(name) / _RESULT

    def networks(self) -> tuple[PreTrainedTokenizerBase, TextToVelocity]:
        """The tokenizer, and both networks as every variant starts with them."""
        torch.manual_seed(0)
        if not self.fresh:
            return shipped_networks(extended_text)
        tokenizer = load_tokenizer(read_model_spec(MODEL).tokenizer_folder)
        return tokenizer, fresh_networks(len(tokenizer)).to(DEVICE)


def measure(name: str, comparison: Comparison) -> dict[str, Any]:
    """Train a variant, and keep how it ends."""
    levers, folder = VARIANTS[name], comparison.folder(name)
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped
    scenes = open_scenes(RUNS / "train", LATENTS, CELLS)
    tokenizer, joint = comparison.networks()
    torch.manual_seed(0)
    training = FlowTraining(joint, scenes, tokenizer, levers or Levers(), comparison.batch)
    config = settings(
        folder, 10**6, size=SIZE, batch=comparison.batch, lr=FRESH_LR if comparison.fresh else LR,
        weight_decay=0.01, warmup=20, cooldown=0.0, ema=0.98, minutes=10**6, optimizer=training.levers.optimizer,
    )  # fmt: skip
    trainer = recipe_trainer(training.model, config)
    if levers is not None:
        train_for(trainer, training, comparison.minutes * 60)
    with trainer.ema.applied(training.model):
        training.model.eval()
        found = {"steps": trainer.step, **held_out(training), **binding(training)}
        if not comparison.fresh:
            found |= drawn(training)
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(comparison.result(name), json.dumps(found).encode())
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
    lines = [caption(scenes.shards.scene(row), random.Random(row)) for row in range(HELD)]
    loss, right, asked = {}, Counter[str](), Counter[str]()
    for time_ in TIMES:
        errors = []
        for at in range(0, HELD, 50):
            rows = list(range(at, at + 50))
            found, logits = predict(training, scenes, rows, lines[at : at + 50], noise[rows], time_)
            errors.append(found)
            for name, (hit, of) in (
                hits(logits, scenes.cells[rows]).items() if scenes.cells and logits else ()
            ):
                right[name] += hit
                asked[name] += of
        loss[str(time_)] = float(torch.cat(errors).mean())
    return {"loss": loss, "head": {name: right[name] / asked[name] for name in asked}}


def predict(
    training: FlowTraining,
    scenes: LatentScenes,
    rows: list[int],
    lines: list[str],
    noise: Tensor,
    time_: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The squared errors [B] of scenes under captions at a time, and the head's logits; empty without a head."""
    x0, noise = scenes.x0(rows).to(training.device), noise.to(training.device)
    t = torch.full((len(rows),), time_, device=training.device)
    captions = read_captions(training.tokenizer, lines).to(training.device)
    point = training.path.point(x0, noise, t)
    predicted, _, *read = training.model(point, (1000 * t).floor(), captions)
    return sample_errors(predicted, training.path.target(x0, noise, t)), read[0] if read else {}


@torch.no_grad()
def binding(training: FlowTraining) -> dict[str, float]:
    """How much worse scenes of two things are predicted if what is said of them is swapped, and how often.

    bound: the rise of the loss, as a share of it. told_apart: the share of scenes whose loss rises.
    """
    scenes = open_scenes(RUNS / "held", HELD_LATENTS, HELD_CELLS)
    rows = [row for row in scenes.two if swapped(scenes.shards.scene(row)) is not None]
    noise = torch.randn((len(rows), *scenes.latents.shape[1:]), generator=torch.Generator().manual_seed(1))
    specs = [full_spec(scenes.shards.scene(row)) for row in rows]
    false = [swapped(scenes.shards.scene(row)) or spec for row, spec in zip(rows, specs, strict=True)]
    errors = []  # [2, n] at each time
    for time_ in BOUND_TIMES:
        pair = [
            torch.cat([
                predict(training, scenes, rows[at : at + 50], lines[at : at + 50], noise[at : at + 50], time_)[0]
                for at in range(0, len(rows), 50)
            ])
            for lines in (list(map(phrase, specs)), list(map(phrase, false)))
        ]  # fmt: skip
        errors.append(torch.stack(pair))
    right, wrong = torch.stack(errors).mean(0)
    return {
        "bound": float((wrong.mean() - right.mean()) / right.mean()),
        "told_apart": float((wrong > right).float().mean()),
    }


def swapped(scene: Scene) -> SceneSpec | None:
    """What a scene of two things shows, each with the other's colour and material; None if that is no difference."""
    spec = full_spec(scene)
    first, second = spec.groups
    if (first.colour, first.material) == (second.colour, second.material):
        return None
    groups = (
        replace(first, colour=second.colour, material=second.material),
        replace(second, colour=first.colour, material=first.material),
    )
    return replace(spec, groups=groups)


@torch.no_grad()
def drawn(training: FlowTraining) -> dict[str, Any]:
    """What the judge reads in pictures of prompts of all kinds, and of more that name two objects."""
    judge, joint = load_judge(), training.joint
    drawer = Model(read_model_spec(MODEL), decide(dtype="fp32"), fast="off", frugal=False)
    drawer.parts.replace("transformer", joint.transformer)
    drawer.parts.replace("text", TextEncoder(joint.text, training.tokenizer, model_id="under training"))

    def draw(trial: Trial, number: int) -> Any:
        return drawer.images(ImageRequest(prompt=trial.prompt, seed=number, steps=STEPS))[0]

    more = [trial for trial in trials(PROMPTS + 6 * MORE)[PROMPTS:] if trial.category == "two_objects"]
    found = list(outcomes(draw, [*trials(PROMPTS), *more], judge.network))
    pairs = [outcome for outcome in found if outcome.trial.category == "two_objects"]
    return summarise(found[:PROMPTS], judge.features).to_json() | {
        "two": summarise(pairs, judge.features).to_json()
    }


def table(comparison: Comparison) -> Iterator[str]:
    """What has been measured, as Markdown."""
    judged = [] if comparison.fresh else ["correct", "two objects", "score", "distance"]
    columns = ["variant", "steps", *(f"loss at {t}" for t in TIMES), "bound", "told apart", "head", *judged]
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    for name in comparison.variants:
        path = comparison.result(name)
        if path.exists():
            yield f"| {' | '.join([name, *figures(json.loads(path.read_text()))])} |"


def figures(found: Mapping[str, Any]) -> list[str]:
    """The figures of one variant."""
    losses = [f"{found['loss'][str(t)]:.4f}" for t in TIMES]
    asked = [found["head"][word] for word in WORDS if word in found["head"]]
    head = f"{sum(asked) / len(asked):.1%}" if asked else ""
    told = [str(found["steps"]), *losses, f"{found['bound']:.2%}", f"{found['told_apart']:.1%}", head]
    if "overall" not in found:
        return told
    shares = [f"{part['overall']['accuracy']:.1%}" for part in (found, found["two"])]
    return [*told, *shares, f"{found['score']:.3f}", f"{found['frechet']:.2f}"]


@resumable
def main() -> None:
    """Measure the variants named, or all, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("variants", nargs="*", choices=[*VARIANTS, []], help="default: all")
    parser.add_argument("--minutes", type=float, default=12, help="of processor time, of all threads")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--fresh", action="store_true", help="start from fresh weights, not the shipped ones")
    given = parser.parse_args()
    comparison = Comparison(given.minutes, given.batch, given.fresh)
    wanted = given.variants or comparison.variants
    if not set(wanted) <= set(comparison.variants):
        parser.error("--fresh: weights that were not trained show nothing, so leave out `shipped`")
    for name in wanted:
        if not comparison.result(name).exists():
            print(name, measure(name, comparison), flush=True)
            torch.compiler.reset()
    print("\n".join(table(comparison)))


if __name__ == "__main__":
    main()
