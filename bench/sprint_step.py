"""A step of `task: sprint` at full size with random weights: `python -m bench.sprint_step [--blocks N] [--dtype fp32]`.

One step of the student and one of the critic, on a picture of 1024 px (latents of 32 x 32) with a caption of 300
tokens.
Prints the plan of `sanakit train --plan`, the memory after each turn beside it, and the time of each part. The teacher
is SANA-0.6B with norms of queries and keys that reads times in 0..1; it is written to --folder once, with a text
encoder of one layer and Toybox's autoencoder.

On a machine of 24 GB: CAME-8bit for both players, every block computed again in the backward pass, a batch of one
picture, and the group norm in the critic's heads; misaligned pairs need two pictures.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor, nn

from sanakit.autoencoder import DCAE
from sanakit.base.heap import keep_pages
from sanakit.flow import Schedule
from sanakit.text import build_gemma, load_tokenizer, small_gemma
from sanakit.toybox.folder import write_pictures
from sanakit.training import (
    EMA,
    DataConfig,
    OptimizerConfig,
    Player,
    RunPhase,
    SavingConfig,
    TrainConfig,
    sentences,
)
from sanakit.training.edits import attend_by_products, recompute
from sanakit.training.objectives.consistency import difference_tangent, exact_tangent
from sanakit.training.objectives.sprint import SprintDistillation
from sanakit.training.objectives.sprint_draws import SprintBatch
from sanakit.training.objectives.sprint_settings import CriticConfig, SprintConfig
from sanakit.training.session import Session
from sanakit.training.tasks.sprint import SprintTask
from sanakit.transformer import PRESETS, SanaTransformer, TransformerConfig, initialise
from sanakit.weights import ModelSpec, load_autoencoder, read_model_spec, resolve, write_folder

SIZE = 1024
WORDS = 300
"""Tokens of the caption."""


def teacher_config(blocks: int) -> TransformerConfig:
    """The published teacher's kind at 0.6B: norms of queries and keys, times in 0..1."""
    return replace(PRESETS["sana-0.6b-1024"], depth=blocks, qk_norm=True, time_scale=0.001)


def write_teacher(folder: Path, shape: TransformerConfig) -> None:
    """Write a model with a random transformer in bf16, unless it is there."""
    if (folder / "model_index.json").exists():
        return
    toybox = read_model_spec(resolve("toybox"))
    autoencoder = DCAE(toybox.autoencoder)
    load_autoencoder(autoencoder, toybox.autoencoder, toybox.autoencoder_folder, dtype=torch.float32)
    vocabulary = len(load_tokenizer(toybox.tokenizer_folder))
    text = small_gemma(
        vocab=vocabulary, width=shape.text_width, layers=1, heads=1, kv_heads=1, head_dim=32, ffn=32
    )
    torch.manual_seed(0)
    transformer = initialise(SanaTransformer(shape))
    nn.init.normal_(transformer.head.out.weight, std=0.02)
    spec = ModelSpec(
        folder=folder, transformer_source=folder / "transformer", kind="sana", transformer=shape,
        autoencoder=toybox.autoencoder, schedule=Schedule(shift=3.0), instruct=False, bins=False, text_config=text,
    )  # fmt: skip
    write_folder(
        spec, transformer=transformer, autoencoder=autoencoder, text_encoder=build_gemma(text, device="cpu"),
        tokenizer=toybox.tokenizer_folder, dtype=torch.bfloat16,
    )  # fmt: skip


def write_picture(folder: Path, size: int, words: int) -> None:
    """Render two pictures, and give each a caption of about so many tokens, unless they are there."""
    if (folder / "captions.jsonl").exists():  # whose captions are no longer those of the scenes
        return
    list(write_pictures(folder, 2, size=size))
    lines = [json.dumps({"key": f"{n:06d}", "captions": [{"text": "cube " * (words - 2)}]}) for n in range(2)]
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n")


def write_inputs(folder: Path, blocks: int) -> None:
    """Write teacher and pictures, unless they are there."""
    write_teacher(folder / "teacher", teacher_config(blocks))
    write_picture(folder / "pictures", SIZE, WORDS)


def config_of(folder: Path, dtype: str, size: int = SIZE) -> TrainConfig:
    """The run whose steps are measured; see above for the settings."""
    optimizer = OptimizerConfig(name="came-8bit", lr=2e-6)
    critic = CriticConfig(optimizer=optimizer, norm="group", misaligned=False)
    return TrainConfig(
        folder=folder / "run", task="sprint", base=str(folder / "teacher"), batch=1,
        dtype=dtype,  # type: ignore[arg-type]
        phases=(RunPhase(steps=2, size=size),), data=DataConfig(path=folder / "pictures", square=True),
        sprint=SprintConfig(critic=critic, warmup=1), optimizer=optimizer, clip=0.1, recompute=1,
        saving=SavingConfig(minutes=1e6),
    )  # fmt: skip


def peak() -> float:
    """The most bytes that this process has held."""
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def timed(call: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """What a call returns, and its seconds."""
    begun = time.perf_counter()
    found = call()
    return found, time.perf_counter() - begun


def built(session: Session) -> SprintDistillation:
    """The objective of the run, with its cache filled, its networks built and edited."""
    for notice in sentences(session.task.prepare()):
        print(notice, flush=True)
    objective = session.task.objective()
    assert isinstance(objective, SprintDistillation)
    blocks = session.task.blocks(objective.network)
    if session.precision.device.type == "cpu":
        attend_by_products(blocks)
    recompute(blocks, session.config.recompute)
    return objective


def batch_of(session: Session, objective: SprintDistillation, turn: int) -> SprintBatch:
    """The batch of a turn."""
    task = session.task
    assert isinstance(task, SprintTask)
    return objective.draw(task.data.batch(turn)).to(session.precision.device)


def parts(objective: SprintDistillation, batch: SprintBatch) -> dict[str, float]:
    """Seconds of the teacher's velocity and of the student's derivative along it, as a student's turn takes them."""
    flow, student = batch.flow, objective.student
    x = flow.point(batch.x0)
    dx, teacher = timed(lambda: objective.teacher.velocity(x, flow.angle, batch.text, batch.guidance))
    take = exact_tangent if objective.exact else difference_tangent
    count = 1 if objective.exact else 2

    def ask(x: Tensor, angle: Tensor) -> Tensor:
        text = batch.text.repeat(count) if count > 1 else batch.text
        found: Tensor = student(x, angle, text, batch.guidance.repeat(count))[0]
        return found

    _, tangent = timed(lambda: take(ask, x, flow.angle, dx))
    return {"teacher": teacher, "tangent": tangent}


def turn(
    objective: SprintDistillation, player: Player, batch: SprintBatch, dtype: torch.dtype
) -> dict[str, float]:
    """Seconds of a player's loss, its backward pass and its step."""
    with torch.autocast(batch.x0.device.type, dtype, enabled=dtype != torch.float32):
        loss, forward = timed(lambda: objective.losses(batch)[player.loss])
    _, backward = timed(lambda: (loss.backward(), loss)[1])

    def move() -> Tensor:
        player.clip_gradient()
        player.optimizer.step()
        player.optimizer.zero_grad(set_to_none=True)
        return loss

    _, step = timed(move)
    return {"loss": forward, "backward": backward, "optimiser": step}


def measure(config: TrainConfig) -> dict[str, float]:
    """Print plan, memory and times of a turn of each player; return peak and plan in bytes, and the seconds."""
    keep_pages()
    session = Session(config, notify=print)
    memory = session.plan.memory  # before networks are built, which would count as the program's
    print("\n".join(session.plan.lines()), flush=True)
    objective = built(session)
    # Nothing is written here, and the cache is filled.
    planned = memory.program + memory.step - memory.checkpoint
    players = objective.players()
    average = EMA(players[0].module, config.ema)
    seconds = parts(objective, batch_of(session, objective, 0))
    for number, player in enumerate(players):
        found = turn(objective, player, batch_of(session, objective, number), session.precision.dtype)
        seconds |= {f"{player.name} {name}": value for name, value in found.items()}
        print(f"{player.name}: peak {peak() / 1e9:.2f} GB", flush=True)
    average.update(players[0].module, 0)
    for name, value in seconds.items():
        print(f"{name:<18} {value:8.2f} s", flush=True)
    rest = seconds["student loss"] - seconds["teacher"] - seconds["tangent"]
    print(f"of the student's loss {rest:.2f} s are its own passes and the critic's", flush=True)
    print(f"peak {peak() / 1e9:.2f} GB, plan {planned / 1e9:.2f} GB: {peak() / planned - 1:+.1%}", flush=True)
    return seconds | {"peak": peak(), "plan": float(planned)}


def main() -> None:
    """Write what is missing, and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("out/sprint-step"))
    parser.add_argument("--blocks", type=int, default=PRESETS["sana-0.6b-1024"].depth)
    parser.add_argument("--dtype", choices=("auto", "fp32", "bf16"), default="auto")
    given = parser.parse_args()
    # In a process of its own: the memory that writing took would count as the program's.
    writing = get_context("spawn").Process(target=write_inputs, args=(given.folder, given.blocks))
    writing.start()
    writing.join()
    if writing.exitcode:
        raise SystemExit(writing.exitcode)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    measure(config_of(given.folder, given.dtype))


if __name__ == "__main__":
    main()
