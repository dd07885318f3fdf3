"""A Toybox of more blocks: the shipped one grown, and trained on.

    python -m recipes.toybox_larger [--depth 16] [--steps 1800]
    python -m sanakit.cli evaluate toybox --model runs/toybox/larger-16/model

Every block is followed by silent copies of it (`--how progressive` of `sanakit grow`), so that training begins where
the shipped model is; text encoder and transformer go on together as in recipes/toybox_second.py. The model lies in
runs/toybox/larger-DEPTH/model. It is what best of N is held against (recipes/best_of.py).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from recipes.settings import resumable, run_training, shortened
from recipes.toybox import write_model
from recipes.toybox_flow import FlowTraining, LatentScenes, open_scenes
from recipes.toybox_model import DEVICE, TextToVelocity
from recipes.toybox_second import BATCH, CELLS, LATENTS, LEVERS, SECOND, shipped_autoencoder, shipped_networks
from recipes.toybox_shards import RUNS
from sanakit.adapt.depth import plan_growth, reshape_network
from sanakit.training import TrainConfig

DEPTH = 16
STEPS = 1_800


def larger_config(depth: int, steps: int) -> TrainConfig:
    """The run of a network of so many blocks."""
    return replace(shortened(SECOND, steps), folder=RUNS / f"larger-{depth}")


def larger_training(
    depth: int, scenes: LatentScenes, batch: int = BATCH, compiled: bool = True
) -> FlowTraining:
    """Batches and losses of the run, from the shipped weights in a network of so many blocks."""
    tokenizer, joint = shipped_networks()
    plan = plan_growth(joint.transformer.config.depth, depth, drop=0, how="progressive")
    deep = TextToVelocity(joint.text, reshape_network(joint.transformer, plan)).to(DEVICE)
    read = next(number for number, origin in enumerate(plan) if origin.block == LEVERS.block)
    torch.manual_seed(0)  # of the head
    return FlowTraining(deep, scenes, tokenizer, replace(LEVERS, block=read), batch, compiled)


def train_larger(training: FlowTraining, config: TrainConfig) -> Path:
    """Train to the end, from the newest checkpoint of the run; return the folder of the model."""
    trainer = run_training(training.model, config, training.losses, training.batches)
    trainer.ema.copy_to(training.model)
    folder = config.folder / "model"
    write_model(training.tokenizer, training.joint, *shipped_autoencoder(), folder)
    return folder


@resumable
def main() -> None:
    """Train for a number of steps; a run that has them goes on if more are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--depth", type=int, default=DEPTH, help="blocks of the network")
    parser.add_argument("--steps", type=int, default=STEPS)
    given = parser.parse_args()
    training = larger_training(given.depth, open_scenes(RUNS / "train", LATENTS, CELLS))
    print(f"{train_larger(training, larger_config(given.depth, given.steps))} is written", flush=True)


if __name__ == "__main__":
    main()
