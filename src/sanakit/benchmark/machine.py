"""What this machine can do at best: its matrix products and its copies, measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from sanakit.base.heap import keep_no_pages, keep_pages
from sanakit.kernels.choice import Problem, select

SHAPES = ((2048, 1152, 1152), (2048, 1152, 5760), (2048, 2880, 1152), (4096, 2240, 6720))
"""Tokens, inputs and outputs of products as they occur; the best of them is the machine's rate."""

_COPIED = 256 << 20


@dataclass(frozen=True)
class Machine:
    """Operations per second of matrix products per dtype (a multiplication and a sum are two), bytes per second moved.

    A copy of n bytes moves 2 n.
    """

    products: dict[str, float]
    copy: float
    threads: int

    def limit(self, operations: float, dtype: torch.dtype | str) -> float:
        """Seconds that so many operations take at the rate of their dtype."""
        return operations / self.products[str(dtype).removeprefix("torch.")]

    def lines(self) -> list[str]:
        """The figures, one per line."""
        rates = [f"{name:<9} {rate / 1e9:8.0f} G operations/s" for name, rate in self.products.items()]
        return [f"{self.threads} threads", *rates, f"copy      {self.copy / 1e9:8.1f} GB/s"]


def measure_machine(dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16)) -> Machine:
    """Measure products in `dtypes` and, where there are any, in int8. Takes a few seconds."""
    keep_pages()
    try:
        products = {str(dtype).removeprefix("torch."): _best(dtype) for dtype in dtypes}
        if select("int8_matmul", Problem("int8_matmul", "cpu", torch.bfloat16)).name == "onednn":
            products["int8"] = max(_int8_rate(*shape) for shape in SHAPES)
        source = torch.ones(_COPIED, dtype=torch.uint8)
        target = torch.empty_like(source)
        seconds = median_seconds(lambda: target.copy_(source))
    finally:
        keep_no_pages()
    return Machine(products=products, copy=2 * _COPIED / seconds, threads=torch.get_num_threads())


def median_seconds(work: Callable[[], object], rounds: int = 7) -> float:
    """Median duration of `work` after one call that does not count."""
    work()
    found = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        found.append(time.perf_counter() - begun)
    return statistics.median(found)


def _best(dtype: torch.dtype) -> float:
    return max(_rate(dtype, *shape) for shape in SHAPES)


@torch.no_grad()
def _rate(dtype: torch.dtype, tokens: int, inputs: int, outputs: int) -> float:
    """Operations per second of the faster of plain and packed products of one shape."""
    x, weight = torch.randn(tokens, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype)
    row = select("linear", Problem.of("linear", x))
    prepared = weight if row.prepare is None else row.prepare(weight)
    plain = median_seconds(lambda: torch.nn.functional.linear(x, weight))
    packed = median_seconds(lambda: row.run(x, prepared, None))
    return 2 * tokens * inputs * outputs / min(plain, packed)


def _int8_rate(tokens: int, inputs: int, outputs: int) -> float:
    """The bare product of two int8 matrices, without rounding its inputs."""
    x = torch.randint(-127, 128, (tokens, inputs), dtype=torch.int8)
    packed = torch.ops.onednn.qlinear_prepack(
        torch.randint(-127, 128, (outputs, inputs), dtype=torch.int8), None
    )
    steps, none = torch.ones(outputs), torch.zeros(outputs, dtype=torch.int32)
    seconds = median_seconds(
        lambda: torch.ops.onednn.qlinear_pointwise(
            x, 1.0, 0, packed, steps, none, None, 1.0, 0, torch.bfloat16, "none", [], ""
        )
    )
    return 2 * tokens * inputs * outputs / seconds
