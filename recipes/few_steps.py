"""What the recipes of models of few steps share: the pictures, a run of `task: sprint`, and how a model is measured."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL import Image

from sanakit.base.files import atomic_write
from sanakit.base.precision import decide
from sanakit.evaluation.toybox import outcomes, summarise
from sanakit.pipeline import ImageRequest, Model, PictureDone, StageDone
from sanakit.toybox.folder import write_pictures
from sanakit.toybox.judging.shipped import load_judge
from sanakit.toybox.trials import Trial, trials
from sanakit.training import (
    DataConfig,
    LRScheduleConfig,
    OptimizerConfig,
    RunPhase,
    SavingConfig,
    TrainConfig,
    Trainer,
)
from sanakit.training.objectives.sprint_settings import DistributionConfig, SprintConfig, TrajectoryConfig
from sanakit.training.sections import PreviewConfig
from sanakit.training.tasks.joint_text import transformer_weights
from sanakit.training.tasks.transformer import TransformerTask
from sanakit.transformer import SanaTransformer
from sanakit.weights import assign

PICTURES = Path("runs/sets/256-captions")
CACHE = Path("runs/sets/256-captions-cache")
"""Latents and text states of the pictures, for every run that has the shipped model's encoders."""
COUNT = 6000
CAPTIONS = 4
SIZE = 256
BATCH = 16
WARMUP = 400
STORED = 16_000
"""Trajectories of the teacher: three quarters of an hour of one core, 0.5 GB."""
SCORE_RATE, SCORE_BETAS = 1e-4, (0.0, 0.99)
"""Of a score network: what it has to know changes with every step of the student, so it keeps no momentum."""
RATE = 1e-4
"""The published 2e-6 is for 40,000 steps of a network fifty times as large."""


def ready_pictures(folder: Path = PICTURES, count: int = COUNT, size: int = SIZE) -> None:
    """Render the pictures that are not there yet, with every core."""
    workers = os.cpu_count() or 1
    made = write_pictures(folder, count, size=size, captions=CAPTIONS, workers=workers, compiled=True)
    for done in made:
        if done % 500 == 0:
            print(f"picture {done}/{count}", flush=True)


def sprint_config(
    folder: Path,
    steps: int,
    *,
    base: str = "toybox",
    seed: int = 0,
    lr: float = RATE,
    sprint: SprintConfig | None = None,
    pictures: Path = PICTURES,
    cache: Path = CACHE,
    size: int = SIZE,
    batch: int = BATCH,
    held: int = 64,
) -> TrainConfig:
    """A distillation of a small model. Seeds change noise and order; the latents are shared."""
    looks = max(1, steps // 8)
    return TrainConfig(
        folder=folder, task="sprint", base=base, seed=seed, batch=batch, phases=(RunPhase(steps=steps, size=size),),
        data=DataConfig(path=pictures, cache=cache, square=True, held=held),
        sprint=sprint or sprint_settings(), optimizer=OptimizerConfig(lr=lr, betas=(0.9, 0.99)),
        schedule=LRScheduleConfig(warmup=100, cooldown=0.2), clip=1.0, ema=0.998, saving=SavingConfig(minutes=5),
        preview=PreviewConfig(every=looks), validate=looks,
    )  # fmt: skip


def sprint_settings(warmup: int = WARMUP, student: str | None = None) -> SprintConfig:
    """Settings for latents of 2,048 numbers, a sixteenth of the published ones: a norm that is independent of size."""
    return SprintConfig(student=student, warmup=warmup, norm="mean")


def trajectory_settings(
    student: str | None = None, adversarial: float = 0.0, stored: int = STORED
) -> SprintConfig:
    """Settings of a student that learns where its teacher's own steps end, in place of consistency."""
    path = TrajectoryConfig(weight=1.0, steps=8, points=2, noise=0.6, stored=stored)
    return SprintConfig(student=student, consistency=0.0, adversarial=adversarial, trajectory=path)


def matching_settings(student: str | None = None, stored: int = STORED) -> SprintConfig:
    """Settings of a student that draws what its teacher would as likely draw, with trajectories as an anchor.

    Two turns of the score network after each of the student's, not five as published: beside a regression one does
    (arXiv 2311.18828).
    """
    anchored = trajectory_settings(student, stored=stored)
    score = OptimizerConfig(lr=SCORE_RATE, betas=SCORE_BETAS)
    matched = DistributionConfig(
        weight=1.0, guidance=3.0, turns=2, warmup=240, simulated=0.4, optimizer=score
    )
    return replace(anchored, trajectory=replace(anchored.trajectory, weight=0.5), distribution=matched)


def draw(model: Model, prompt: str, seed: int, steps: int) -> tuple[Image.Image, float]:
    """A picture, and the seconds that its denoising took."""
    pictures, seconds = [], 0.0
    for event in model.generate(ImageRequest(prompt=prompt, seed=seed, steps=steps)):
        if isinstance(event, StageDone) and event.stage == "denoise":
            seconds += event.seconds
        elif isinstance(event, PictureDone):
            pictures.append(event.image)
    return pictures[0], seconds


def averaged(task: TransformerTask, trainer: Trainer) -> Model:
    """The model of a task with the averaged weights of its run, float32, whether a folder can hold it or not."""
    precision = decide(dtype="fp32")
    weights = transformer_weights(task.main(trainer.model), trainer.ema.gathered())
    with torch.device("meta"):
        network = SanaTransformer(task.network_config)
    assign(network, weights.items(), dtype=torch.float32, device=precision.device)
    drawer = Model(task.described(0), precision, fast="off", frugal=False)
    drawer.parts.replace("transformer", network.eval().requires_grad_(False))
    return drawer


@torch.no_grad()
def measured(model: Model, steps: int, prompts: int) -> dict[str, float]:
    """How a model draws the judge's prompts in so many steps.

    Returns `right` of `prompts`, `score` and `frechet` as `sanakit.evaluation.toybox.Summary` has them, and `seconds`,
    the median of a picture's denoising.
    """
    judge, seconds = load_judge(), []

    def drawn(trial: Trial, number: int) -> Image.Image:
        picture, taken = draw(model, trial.prompt, number, steps)
        seconds.append(taken)
        return picture

    found = summarise(list(outcomes(drawn, trials(prompts, 0), judge.network)), judge.features)
    return {
        "right": found.overall.hits, "prompts": prompts, "score": found.score, "frechet": found.frechet or 0.0,
        "seconds": median(seconds),
    }  # fmt: skip


def kept_measures(path: Path, model: Model, steps: int, prompts: int) -> dict[str, float]:
    """What `measured` finds, from a file if it has been found for this model since its weights were written."""
    spec, where = model.spec, str(model.spec.folder.resolve())
    parts = (spec.transformer_source, spec.autoencoder_folder, spec.text_folder)
    files = [file for part in parts for file in (part.iterdir() if part.is_dir() else [part])]
    if path.exists() and path.stat().st_mtime > max(file.stat().st_mtime for file in files):
        kept: dict[str, Any] = json.loads(path.read_text())
        if kept.pop("model", None) == where:  # runs of one name lie in many folders
            return kept
    found = measured(model, steps, prompts)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, json.dumps({"model": where, **found}).encode())
    return found
