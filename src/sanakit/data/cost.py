"""What the cache of a set would cost: bytes of latents and text states exactly, the time to make them as an estimate.

Operations are counted on networks without weights; the machine's rate is that of its matrix products, measured for
a fifth of a second, of which the networks reach about half. Caption lengths are counted by a model's tokenizer, or
estimated from their bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from sanakit.autoencoder import DCAE, AutoencoderConfig
from sanakit.data.buckets import Bucket
from sanakit.pipeline.shapes import gemma_parameters
from sanakit.text import MAX_TOKENS, TextConfig, load_tokenizer

_STORED = 2  # bytes of a value, in bf16
_SAMPLE = 256  # pixels: operations grow in proportion to the area
_INSTRUCTION = 256  # tokens that are read in front of every caption and not kept
_REACHED = 0.5

_BYTES_PER_TOKEN = 4.0

CountTokens = Callable[[Sequence[str]], list[int]]
"""Texts -> the tokens of each, <bos> included."""


@dataclass(frozen=True, kw_only=True)
class CacheCost:
    """Of a whole set: bytes on disk, and operations (a multiplication and a sum are two)."""

    latent_bytes: int
    text_bytes: int
    operations: float

    def seconds(self, rate: float) -> float:
        """Time to make it at `rate` operations per second of plain matrix products."""
        return self.operations / (rate * _REACHED)


def cache_cost(
    buckets: Iterable[Bucket], tokens: Iterable[int], autoencoder: AutoencoderConfig, text: TextConfig
) -> CacheCost:
    """buckets: of every picture. tokens: of every caption; padding is not stored, nor what is beyond 300."""
    pixels = sum(height * width for height, width in buckets)
    lengths = [min(count, MAX_TOKENS) for count in tokens]
    weights = gemma_parameters(text) - int(
        text["vocab_size"] * text["hidden_size"]
    )  # looking up costs nothing
    return CacheCost(
        latent_bytes=pixels // autoencoder.ratio**2 * autoencoder.latent_channels * _STORED,
        text_bytes=sum(lengths) * int(text["hidden_size"]) * _STORED,
        operations=pixels * _operations_per_pixel(autoencoder)
        + 2.0 * weights * sum(length + _INSTRUCTION for length in lengths),
    )


@cache
def _operations_per_pixel(config: AutoencoderConfig) -> float:
    with torch.device("meta"), torch.no_grad():
        model = DCAE(config).eval()
        with FlopCounterMode(display=False) as counter:
            model.encode(torch.empty(1, 3, _SAMPLE, _SAMPLE))
    return float(counter.get_total_flops()) / _SAMPLE**2


def estimate_tokens(texts: Sequence[str]) -> list[int]:
    """About right for English under Gemma's tokenizer: four bytes of UTF-8 a token, and <bos>."""
    return [1 + round(len(text.encode()) / _BYTES_PER_TOKEN) for text in texts]


def token_counter(folder: Path, lowercase: bool) -> CountTokens:
    """Count by the tokenizer of a folder. lowercase: as the model's dialect does. Raises ConfigError."""
    tokenizer = load_tokenizer(folder)

    def count(texts: Sequence[str]) -> list[int]:
        cleaned = [(text.lower() if lowercase else text).strip() for text in texts]
        return [len(ids) for ids in tokenizer(cleaned)["input_ids"]] if cleaned else []

    return count
