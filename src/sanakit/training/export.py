"""The finished model of a run: a diffusers folder that `sanakit generate --model RUN/model` and diffusers load."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from sanakit.base.grid import BUCKETS
from sanakit.training.config import TrainConfig
from sanakit.training.loop import Run
from sanakit.training.tasks.joint import text_weights, transformer_of, transformer_weights
from sanakit.training.tasks.transformer import phase_config
from sanakit.weights import ModelSpec, write_derived

_NAME = "model"


def export(
    config: TrainConfig, spec: ModelSpec, model: nn.Module, run: Run, words: Iterable[str] = ()
) -> Path:
    """Write the averaged weights with the other parts of the base model to RUN/model, replacing an earlier export.

    words: that it has learnt. Every process gathers the weights; the first one writes. Returns the folder. Raises
    OutputError.
    """
    weights = run.ema.gathered()
    folder = config.folder / _NAME
    if run.world.leads:
        write_derived(
            finished(config, spec, model), folder, transformer_weights(model, weights),
            text_encoder=text_weights(model, weights), words=words, dtype=torch.bfloat16, force=True,
        )  # fmt: skip
    run.world.wait()
    return folder


def finished(config: TrainConfig, spec: ModelSpec, model: nn.Module) -> ModelSpec:
    """The description of the trained model: its network, the shift it was trained with, sizes binned if it saw bins."""
    last = config.phases[-1]
    schedule = spec.schedule if last.shift is None else replace(spec.schedule, shift=last.shift)
    bins = last.size in BUCKETS and not config.data.square
    network = phase_config(transformer_of(model).config, last, spec.autoencoder.ratio)
    return replace(spec, transformer=network, schedule=schedule, bins=bins)
