"""The shipped networks of Toybox, trained on.

    python -m recipes.toybox second               as many steps as `SECOND` says
    python -m recipes.toybox_second --steps 1500  another number

Text encoder and transformer start from src/sanakit/toybox/model, with a token for every word of captions; the
autoencoder, and with it the latents, stay.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import Gemma2Model, PreTrainedTokenizerBase

from recipes.settings import resumable, run_training, settings, shortened
from recipes.toybox_flow import FlowTraining, Levers, open_scenes
from recipes.toybox_model import DEVICE, MODEL, TextToVelocity
from recipes.toybox_shards import RUNS, SIZE
from recipes.toybox_text import extended_text
from sanakit.autoencoder import DCAE
from sanakit.text import build_gemma, load_tokenizer
from sanakit.transformer import SanaTransformer
from sanakit.weights import ModelSpec, load_autoencoder, load_text_encoder, load_transformer, read_model_spec

LATENTS, HELD_LATENTS = RUNS / "latents.pt", RUNS / "held-latents.pt"
CELLS, HELD_CELLS = RUNS / "cells.pt", RUNS / "held-cells.pt"
BATCH = 64
LEVERS = Levers(alignment=0.1, two=0.5, uneven=0.3)
SECOND = settings(
    RUNS / "second", 2_000, size=SIZE, batch=BATCH, lr=3e-4, weight_decay=0.01, warmup=50, cooldown=0.5, ema=0.998,
    minutes=4, optimizer=LEVERS.optimizer,
)  # fmt: skip

Text = Callable[[ModelSpec], tuple[PreTrainedTokenizerBase, Gemma2Model]]
"""A model's tokenizer and text encoder in float32, as they are or with more words."""


def shipped_text(spec: ModelSpec) -> tuple[PreTrainedTokenizerBase, Gemma2Model]:
    """The tokenizer and the text encoder of a model, as they are."""
    model = build_gemma(spec.text_config, device="cpu")
    load_text_encoder(model, spec.text_folder, dtype=torch.float32)
    return load_tokenizer(spec.tokenizer_folder), model


def shipped_networks(
    text: Text = shipped_text, folder: Path = MODEL
) -> tuple[PreTrainedTokenizerBase, TextToVelocity]:
    """The tokenizer, and both networks of a model in float32, by default of the shipped one."""
    spec = read_model_spec(folder)
    transformer = SanaTransformer(spec.transformer)
    load_transformer(transformer, spec.transformer, spec.transformer_source, dtype=torch.float32)
    tokenizer, encoder = text(spec)
    return tokenizer, TextToVelocity(encoder, transformer).to(DEVICE)


def shipped_autoencoder(folder: Path = MODEL) -> tuple[DCAE, float]:
    """A model's autoencoder in float32, by default the shipped one, and the factor that scales its latents."""
    spec = read_model_spec(folder)
    model = DCAE(spec.autoencoder)
    load_autoencoder(model, spec.autoencoder, spec.autoencoder_folder, dtype=torch.float32)
    return model.to(DEVICE), spec.autoencoder.scaling_factor


def second_training() -> FlowTraining:
    """Batches and losses of the stage, from the shipped weights."""
    tokenizer, joint = shipped_networks(extended_text)
    scenes = open_scenes(RUNS / "train", LATENTS, CELLS)
    torch.manual_seed(0)  # of the head
    return FlowTraining(joint, scenes, tokenizer, LEVERS, BATCH)


def train_second(steps: int | None = None) -> None:
    """Text encoder and transformer together, from the shipped weights or this stage's newest checkpoint."""
    training = second_training()
    run_training(training.model, shortened(SECOND, steps), training.losses, training.batches)


@resumable
def main() -> None:
    """Train for a number of steps; a run that has them goes on if more are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=SECOND.steps)
    train_second(parser.parse_args().steps)


if __name__ == "__main__":
    main()
