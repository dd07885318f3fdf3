"""Training steps of the Toybox recipe, from the plainest to the recipe's own: `python -m bench.training`.

Each row changes a thing or two of a row above. Batches are made once, so what is timed is the step.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from recipes.settings import settings
from recipes.toybox import AUTOENCODER_BATCH, CROP, TRANSFORMER_BATCH
from recipes.toybox_flow import PLACING
from recipes.toybox_model import TOKENS, Captions, fresh_networks
from sanakit.autoencoder import DCAE
from sanakit.autoencoder import PRESETS as AUTOENCODERS
from sanakit.training import Trainer, reconstruction, sentences, velocity

VOCABULARY = 460
WARM, TIMED = 3, 8


@dataclass(frozen=True)
class Row:
    """One way to train: dtype of autocast (None: float32), compiled or not, layout, how attention is computed."""

    name: str
    dtype: torch.dtype | None = None
    compiled: bool = False
    channels_last: bool = False
    plain_attention: bool = False

    def attention(self) -> AbstractContextManager[None]:
        """Matrix products in place of flash attention, or torch's own choice."""
        return sdpa_kernel(SDPBackend.MATH) if self.plain_attention else nullcontext()

    def compile(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call`, compiled where this row compiles."""
        return torch.compile(call) if self.compiled else call


BF16 = torch.bfloat16
AUTOENCODER = (
    Row("eager fp32"),
    Row("eager bf16", BF16),
    Row("eager bf16, channels last", BF16, channels_last=True),
    Row("compiled fp32, channels last", compiled=True, channels_last=True),
    Row("compiled bf16, channels last", BF16, compiled=True, channels_last=True),
)
TRANSFORMER = (
    Row("eager fp32"),
    Row("eager bf16", BF16),
    Row("compiled fp32, attention as products", compiled=True, plain_attention=True),
    Row("compiled bf16", BF16, compiled=True),
    Row("compiled bf16, attention as products", BF16, compiled=True, plain_attention=True),
)


def autoencoder(row: Row) -> float:
    """Steps a second of the autoencoder."""
    layout = torch.channels_last if row.channels_last else torch.contiguous_format
    model = DCAE(AUTOENCODERS["toybox"]).to(memory_format=layout)  # type: ignore[call-overload]
    forward = row.compile(model)
    pixels = torch.rand(AUTOENCODER_BATCH, 3, CROP, CROP).contiguous(memory_format=layout)
    return rate(row, model, lambda batch, _: reconstruction(forward(batch), batch), pixels)


def transformer(row: Row) -> float:
    """Steps a second of text encoder and transformer."""
    model = fresh_networks(VOCABULARY)
    forward = row.compile(model)
    mask = torch.arange(TOKENS) < torch.randint(6, TOKENS, (TRANSFORMER_BATCH, 1))
    ids = torch.randint(VOCABULARY, (TRANSFORMER_BATCH, TOKENS))
    spot, place = torch.full((TRANSFORMER_BATCH,), 3), torch.arange(TRANSFORMER_BATCH) % 4
    captions = Captions(ids, mask, spot, place, torch.arange(4))
    latent = torch.randn(TRANSFORMER_BATCH, 32, 8, 8)

    def loss(batch: Tensor, _: torch.Generator) -> dict[str, Tensor]:
        with row.attention():
            predicted, misplaced = forward(batch, torch.full((len(batch),), 500.0), captions)
        return {"loss": velocity(predicted, batch)["loss"] + PLACING * misplaced}

    return rate(row, model, loss, latent)


def rate(row: Row, model: nn.Module, loss: Callable[..., dict[str, Tensor]], batch: Tensor) -> float:
    """Steps a second of the project's own loop, compilation and first steps left out."""
    begun = [0.0]

    def batches(step: int) -> Tensor:
        if step == WARM:
            begun[0] = time.perf_counter()
        return batch

    with tempfile.TemporaryDirectory() as folder:
        steps = WARM + TIMED
        config = settings(Path(folder), steps, size=CROP, batch=len(batch), lr=1e-5, report=steps)
        for _ in sentences(Trainer(model, config, dtype=row.dtype).train(loss, batches)):
            return TIMED / (time.perf_counter() - begun[0])
    raise AssertionError("a run reports its last step")


def main() -> None:
    """Print both tables."""
    print(f"{os.cpu_count()} cores, torch {torch.__version__}, {torch.get_num_threads()} threads")
    tables = (
        (f"autoencoder, {AUTOENCODER_BATCH} crops of {CROP} px", AUTOENCODER, autoencoder, AUTOENCODER_BATCH),
        (f"transformer, {TRANSFORMER_BATCH} latents", TRANSFORMER, transformer, TRANSFORMER_BATCH),
    )
    for title, rows, measure, batch in tables:
        print(f"{title}:")
        for row in rows:
            torch.manual_seed(0)
            torch.compiler.reset()
            found = measure(row)
            print(f"  {row.name:<38} {found:6.2f} steps/s {found * batch:7.1f} pictures/s", flush=True)


if __name__ == "__main__":
    main()
