"""How the time of a step grows with tokens: linear attention against softmax, on two blocks of the network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from sanakit.base.heap import keep_no_pages, keep_pages
from sanakit.base.precision import Precision
from sanakit.base.text_states import TextStates
from sanakit.benchmark.timing import median_seconds
from sanakit.benchmark.workload import WORDS, random_transformer
from sanakit.kernels.choice import Problem
from sanakit.kernels.table import rows_of
from sanakit.layers.attention import LinearSelfAttention
from sanakit.pipeline.engine import choose_engine, edit
from sanakit.transformer import TextKV, TransformerConfig

DEPTH = 2
KINDS = ("linear", "softmax")


class SoftmaxSelfAttention(nn.Module):
    """The same layer with softmax attention, O(N^2) in tokens: what SANA replaces."""

    def __init__(self, layer: LinearSelfAttention) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = layer.heads, layer.qkv, layer.out

    def forward(self, x: Tensor, rope: Tensor | None = None, perturbed: Tensor | None = None) -> Tensor:
        """Mix tokens [B, N, D]."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(-2))
        return out


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Seconds of `DEPTH` blocks per number of tokens (of one branch; two run), and the exponent of the fit."""

    kind: str
    seconds: dict[int, float]

    @property
    def exponent(self) -> float:
        """Slope of log seconds over log tokens, by least squares."""
        return slope(self.seconds)

    def __str__(self) -> str:
        points = ", ".join(f"{tokens} {seconds:.3f} s" for tokens, seconds in self.seconds.items())
        return f"{self.kind} attention, {DEPTH} blocks: {points}; exponent {self.exponent:.2f}"


def slope(points: dict[int, float]) -> float:
    """Return the exponent p of seconds = c * tokens^p, by least squares in logarithms."""
    xs, ys = [math.log(n) for n in points], [math.log(s) for s in points.values()]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    top = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return top / sum((x - mean_x) ** 2 for x in xs)


def growth(
    config: TransformerConfig, sides: Sequence[int], dtype: torch.dtype, rounds: int
) -> Iterator[Growth]:
    """Yield the times of both kinds at latents of `sides` x `sides`."""
    for kind in KINDS:
        network = random_transformer(replace(config, depth=DEPTH), dtype)
        if kind == "softmax":
            for block in network.blocks:
                linear: Any = block.attention
                block.attention = SoftmaxSelfAttention(linear)
        precision = Precision(torch.device("cpu"), dtype, "as asked")
        model: Any = edit(network, "transformer", choose_engine("auto", precision))
        text = TextStates(
            torch.randn(2, WORDS, config.text_width).to(dtype), torch.ones(2, WORDS, dtype=torch.bool)
        )
        keep_pages()
        with torch.no_grad():
            single = torch.tensor([True, False])
            text_kv = replace(model.precompute_text(text, single), mask=None)
            seconds = {
                side * side: median_seconds(partial(_step, model, side, dtype, text_kv), rounds)
                for side in sides
            }
        keep_no_pages()
        yield Growth(kind=kind, seconds=seconds)


def _step(model: nn.Module, side: int, dtype: torch.dtype, text_kv: TextKV) -> Tensor:
    latent = torch.zeros(2, 32, side, side, dtype=dtype)
    out: Tensor = model(latent, torch.tensor([500.0]), text_kv)
    return out


@torch.no_grad()
def attention_table(rounds: int, dtype: torch.dtype = torch.float32) -> dict[str, float]:
    """Return the seconds of attention alone at B=4, N=4096, H=16, D=64: softmax, and every row of linear attention."""
    query, key, value = (torch.randn(4, 4096, 16, 64).to(dtype) for _ in range(3))
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    found = {"softmax": median_seconds(lambda: F.scaled_dot_product_attention(q, k, v), rounds)}
    problem = Problem.of("linear_attention", value)
    for row in rows_of("linear_attention"):
        if row.unsupported(problem) is None:
            found[f"linear, {row.name}"] = median_seconds(partial(row.run, query, key, value), rounds)
    return found
