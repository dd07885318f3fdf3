"""A training step of ours beside one of diffusers' network, in one process: `python -m bench.train_step`.

The same weights, batch, optimiser (AdamW), clipping and dtype (bf16 autocast over float32 weights), in turn, round
after round. Theirs is the plain loop of a training script: forward, squared error, backward, clip, step. Ours is the
step of `sanakit train`, its average of weights included. Losses must agree before a time is printed. The last line is
a run of `sanakit train` itself: how long it waited for data.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import diffusers
import torch
from torch import Tensor, nn

from sanakit.base.heap import keep_no_pages, keep_pages
from sanakit.base.text_states import TextStates
from sanakit.toybox.folder import write_pictures
from sanakit.training import (
    DataConfig,
    LRScheduleConfig,
    ModelConfig,
    OptimizerConfig,
    RunPhase,
    SavingConfig,
    StepReport,
    TrainConfig,
    Trainer,
)
from sanakit.training.edits import attend_by_products
from sanakit.training.objectives.flow_matching import FlowMatching
from sanakit.training.session import Session
from sanakit.training.tasks.latents import NoisyBatch
from sanakit.transformer import PRESETS, SanaTransformer, TransformerConfig, initialise
from sanakit.weights.formats import diffusers_transformer


@dataclass(frozen=True)
class Case:
    """A network, its batch, the side of its latents, the tokens of a text."""

    name: str
    shape: TransformerConfig
    batch: int
    side: int
    words: int


CASES = (
    Case("toybox, 64 pictures of 256 px", PRESETS["toybox"], 64, 8, 40),
    Case("4 blocks of 0.6B, 2 pictures of 1024 px", replace(PRESETS["sana-0.6b-1024"], depth=4), 2, 32, 300),
)


def batch_of(case: Case) -> NoisyBatch:
    """A batch of noise, with texts of different lengths."""
    shape = (case.batch, case.shape.latent_channels, case.side, case.side)
    lengths = torch.randint(case.words // 4, case.words + 1, (case.batch, 1))
    text = TextStates(
        torch.randn(case.batch, case.words, case.shape.text_width), torch.arange(case.words) < lengths
    )
    times = torch.rand(case.batch)
    return NoisyBatch(
        step=0,
        phase=0,
        x0=torch.randn(shape),
        noise=torch.randn(shape),
        t=times,
        text=text,
        seeds=(),
        keys=(),
        captions=(),
    )


def ours(
    model: SanaTransformer, case: Case, batch: NoisyBatch, folder: Path, compiled: bool
) -> Callable[[], float]:
    """One step of the loop."""
    config = TrainConfig(
        folder=folder, batch=case.batch, phases=(RunPhase(steps=10**6, size=32 * case.side),),
        data=DataConfig(path=folder), optimizer=OptimizerConfig(lr=1e-5, betas=(0.9, 0.99)), report=1, clip=1.0,
        saving=SavingConfig(minutes=1e6),
    )  # fmt: skip
    objective = FlowMatching(config, model, ratio=32, shift=1.0)
    attend_by_products(model.blocks)
    if compiled:
        for block in model.blocks:
            block.compile()
    trainer = Trainer(model, config, objective.players(), dtype=torch.bfloat16)
    events = trainer.train(objective.losses, lambda number: batch)

    def step() -> float:
        while not isinstance(event := next(events), StepReport):
            pass
        return event.losses["loss"]

    return step


def theirs(peer: nn.Module, batch: NoisyBatch) -> Callable[[], float]:
    """One step of a plain training script."""
    text = batch.text
    assert isinstance(text, TextStates)
    peer.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(peer.parameters(), lr=1e-5, betas=(0.9, 0.99), weight_decay=0.0)
    t = batch.t[:, None, None, None]
    noisy, target = (1 - t) * batch.x0 + t * batch.noise, batch.noise - batch.x0

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16):
            predicted: Tensor = peer(
                noisy, encoder_hidden_states=text.states, timestep=(1000 * batch.t).floor(),
                encoder_attention_mask=text.mask, return_dict=False,
            )[0]  # fmt: skip
        loss = torch.nn.functional.mse_loss(predicted.float(), target)
        loss.backward()
        nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def peer_of(model: SanaTransformer) -> nn.Module:
    """diffusers' network with the same weights, of its own."""
    peer: nn.Module = diffusers.SanaTransformer2DModel.from_config(
        diffusers_transformer.to_config(model.config)
    )
    peer.load_state_dict(diffusers_transformer.table(model.config).to_theirs(model.state_dict()))
    return peer


def compare(case: Case, rounds: int, compiled: bool) -> None:
    """Print the medians of a case."""
    torch.manual_seed(0)
    model, batch = initialise(SanaTransformer(case.shape)), batch_of(case)
    nn.init.normal_(model.head.out.weight, std=0.02)
    peer = peer_of(model)
    with tempfile.TemporaryDirectory() as folder:
        steps = {
            "diffusers": theirs(peer, batch),
            "sanakit": ours(model, case, batch, Path(folder), compiled),
        }
        first = {name: step() for name, step in steps.items()}
        if abs(first["sanakit"] / first["diffusers"] - 1) > 0.01:
            raise SystemExit(f"{case.name}: the losses differ: {first}")
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(rounds):
            for name, step in steps.items():
                (keep_pages if name == "sanakit" else keep_no_pages)()
                step()
                begun = time.perf_counter()
                step()
                seconds[name].append(time.perf_counter() - begun)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    ratio = medians["diffusers"] / medians["sanakit"]
    told = ", ".join(f"{name} {value:.3f} s" for name, value in medians.items())
    form = ", blocks compiled" if compiled else ""
    print(
        f"{case.name}: {told}{form}: {ratio:.2f} times ({case.batch / medians['sanakit']:.1f} pictures/s)",
        flush=True,
    )


def waiting(steps: int) -> None:
    """Print the share of a run that was spent waiting for data."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        list(write_pictures(home / "pictures", 256, size=64))
        config = TrainConfig(
            folder=home / "run", batch=64, phases=(RunPhase(steps=steps, size=256),), report=steps,
            data=DataConfig(path=home / "pictures", square=True), model=ModelConfig(start="scratch"),
            schedule=LRScheduleConfig(warmup=10),
        )  # fmt: skip
        for event in Session(config, device="cpu").events():
            if isinstance(event, StepReport):
                print(
                    f"sanakit train, toybox: {event}, waited {event.waited:.2%} of the time for data",
                    flush=True,
                )


def main() -> None:
    """Every case, eager and with blocks compiled, then a run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    for case in CASES:
        for compiled in (False, True):
            compare(case, given.rounds, compiled)
    waiting(20)


if __name__ == "__main__":
    main()
