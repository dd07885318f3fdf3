"""The shipped transformer without norms of queries and keys: a teacher for ablations of SANA-Sprint.

The norms' weights go into the projections before them, and so does the usual length of queries and keys in
cross-attention; in linear attention a common length cancels. What a token's own length did is lost, so the network is
trained on for a while as a flow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recipes.few_steps import CACHE, PICTURES, SIZE
from recipes.settings import run_flow
from sanakit.base.precision import decide
from sanakit.base.text_states import TextStates
from sanakit.training import (
    DataConfig,
    LRScheduleConfig,
    OptimizerConfig,
    RunPhase,
    SavingConfig,
    TrainConfig,
)
from sanakit.transformer import SanaTransformer
from sanakit.weights import load_transformer, read_model_spec, resolve

STEPS = 1000
DATA = DataConfig(path=PICTURES, cache=CACHE, square=True)
_NORMS = ("norm_q", "norm_k")


def unnormed_teacher(folder: Path, batch: int, steps: int = STEPS, data: DataConfig = DATA) -> Path:
    """Train the shipped transformer on without the norms, unless it is there; return the folder of the model."""
    config = TrainConfig(
        folder=folder, batch=batch, phases=(RunPhase(steps=steps, size=SIZE),),
        data=data,
        optimizer=OptimizerConfig(lr=3e-4, betas=(0.9, 0.99)), clip=1.0, ema=0.995,
        schedule=LRScheduleConfig(warmup=min(50, steps), cooldown=0.3), saving=SavingConfig(minutes=5, keep=1),
    )  # fmt: skip
    return run_flow(config, shipped_unnormed(config.base_model), decide(dtype=config.dtype))


def shipped_unnormed(name: str = "toybox") -> SanaTransformer:
    """A model's transformer, its norms of queries and keys folded into the projections, float32."""
    spec = read_model_spec(resolve(name))
    model = SanaTransformer(spec.transformer)
    load_transformer(model, spec.transformer, spec.transformer_source, dtype=torch.float32)
    plain = SanaTransformer(replace(spec.transformer, qk_norm=False))
    plain.load_state_dict(folded(model.state_dict(), usual_lengths(model)))
    return plain


def folded(weights: Mapping[str, Tensor], lengths: Mapping[str, float]) -> dict[str, Tensor]:
    """Weights without norms. lengths: name of a norm of cross-attention -> root mean square of what it reads."""
    found = {name: weight.clone() for name, weight in weights.items() if ".norm_" not in name}
    for name, weight in weights.items():
        block, _, norm = name.removesuffix(".weight").rpartition(".")
        if norm not in _NORMS:
            continue
        scale = weight / lengths.get(f"{block}.{norm}", 1.0)
        rows = (
            slice(0, len(scale))
            if norm == "norm_q" or ".cross" in block
            else slice(len(scale), 2 * len(scale))
        )
        if ".cross" in block:
            target = f"{block}.{'q' if norm == 'norm_q' else 'kv'}"
            found[f"{target}.bias"][rows] *= scale
        else:
            target = f"{block}.qkv"
        found[f"{target}.weight"][rows] *= scale[:, None]
    return found


@torch.no_grad()
def usual_lengths(model: SanaTransformer, samples: int = 16) -> dict[str, float]:
    """The root mean square of the queries and keys that cross-attention normalises, on noise with random texts."""
    config, generator = model.config, torch.Generator().manual_seed(0)
    shape = (samples, config.latent_channels, config.sample_size, config.sample_size)
    states = torch.randn(samples, 16, config.text_width, generator=generator)
    text = TextStates(states, torch.ones(samples, 16, dtype=torch.bool))
    found: dict[str, float] = {}
    with observed(model, found):
        model(torch.randn(shape, generator=generator), torch.linspace(100, 1000, samples), text)
    return found


@contextmanager
def observed(model: SanaTransformer, found: dict[str, float]) -> Iterator[None]:
    """Note the root mean square of what each norm of cross-attention reads."""

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found[name] = float(inputs[0].square().mean().sqrt())

        return hook

    chosen = [
        (name, module)
        for name, module in model.named_modules()
        if ".cross." in name and name.endswith(_NORMS)
    ]
    handles = [module.register_forward_pre_hook(note(name)) for name, module in chosen]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
