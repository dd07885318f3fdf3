"""What this machine can do at best: its matrix products and its copies, measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from sanakit.base.chip import this_chip
from sanakit.base.heap import keep_no_pages, keep_pages
from sanakit.base.precision import CPU
from sanakit.base.threads import available_cores
from sanakit.base.units import dtype_name
from sanakit.benchmark.timing import median_seconds
from sanakit.kernels.choice import Problem, prepare, select
from sanakit.kernels.quant_matmul import cpu as quant_cpu

SHAPES = ((2048, 1152, 1152), (2048, 1152, 5760), (2048, 2880, 1152), (4096, 2240, 6720))
"""Tokens, inputs and outputs of products as they occur; the best of them is the machine's rate."""

DTYPES = (torch.float32, torch.bfloat16)
SMALL = (256, 256, 256)
"""A product that is tried first: if it takes as long as a reference loop, the others would take minutes."""

_BEARABLE = 5e9  # operations per second; the slowest of today's CPUs with vector units does ten times as many
_COPIED = 256 << 20


@dataclass(frozen=True)
class Machine:
    """Operations per second of matrix products per dtype (a multiplication and a sum are two), bytes per second moved.

    A copy of n bytes moves 2 n. name: the chip in words. cores: that this process may use; threads: of torch.
    instructions: sets of the chip that these networks gain by.
    """

    products: dict[str, float]
    copy: float
    name: str
    cores: int = 0
    threads: int = 0
    instructions: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        """`AMD EPYC, 2 cores, 2 threads, AVX2`."""
        counts = [f"{self.cores} cores", f"{self.threads} threads"] if self.cores else []
        return ", ".join([self.name, *counts, *self.instructions])

    def limit(self, operations: float, dtype: torch.dtype | str) -> float:
        """Return the seconds that operations take at the rate of their dtype."""
        return operations / self.products[dtype_name(dtype)]

    def lines(self) -> list[str]:
        """Return the figures, one per line."""
        rates = [f"{name:<9} {rate / 1e9:8.0f} G operations/s" for name, rate in self.products.items()]
        return [self.description, *rates, f"copy      {self.copy / 1e9:8.1f} GB/s"]


def measure_machine(device: torch.device = CPU) -> Machine:
    """Measure products in float32, bf16 and, if there are any, int8. Takes a few seconds."""
    keep_pages()
    try:
        products = {dtype_name(dtype): _best(partial(_rate, dtype, device)) for dtype in DTYPES}
        int8 = select("int8_matmul", Problem("int8_matmul", device.type, torch.bfloat16)).name
        if int8 in _INT8:
            products["int8"] = _best(_INT8[int8])
        source = torch.ones(_COPIED, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        seconds = median_seconds(lambda: target.copy_(source), device=device)
    finally:
        keep_no_pages()
    return _described(products, 2 * _COPIED / seconds, device)


def _described(products: dict[str, float], copy: float, device: torch.device) -> Machine:
    if device.type == "cuda":
        return Machine(products=products, copy=copy, name=torch.cuda.get_device_name())
    chip = this_chip()
    return Machine(
        products=products, copy=copy, name=str(chip), cores=available_cores(),
        threads=torch.get_num_threads(), instructions=chip.instructions,
    )  # fmt: skip


def _best(rate: Callable[[int, int, int], float]) -> float:
    """Return the best rate of all shapes; that of the small one if it is as slow as a reference loop."""
    first = rate(*SMALL)
    return first if first < _BEARABLE else max(rate(*shape) for shape in SHAPES)


@torch.no_grad()
def _rate(dtype: torch.dtype, device: torch.device, tokens: int, inputs: int, outputs: int) -> float:
    """Operations per second of the faster of plain and packed products of one shape."""
    x = torch.randn(tokens, inputs, device=device).to(dtype)
    weight = torch.randn(outputs, inputs, device=device).to(dtype)
    product = prepare("linear", weight)
    plain = median_seconds(lambda: torch.nn.functional.linear(x, weight), device=device)
    packed = median_seconds(lambda: product(x, None), device=device)
    return 2 * tokens * inputs * outputs / min(plain, packed)


def _int8_cpu(tokens: int, inputs: int, outputs: int, shift: int = 0) -> float:
    """Return the bare product of two int8 matrices, without rounding its inputs."""
    x = torch.randint(-127, 128, (tokens, inputs), dtype=torch.int16) + shift
    x = x.to(torch.uint8 if shift else torch.int8)
    packed = quant_cpu.pack(torch.randint(-127, 128, (outputs, inputs), dtype=torch.int8))
    scales, zeros = torch.ones(outputs), torch.zeros(outputs, dtype=torch.int32)
    seconds = median_seconds(lambda: quant_cpu.multiply(x, packed, scales, zeros, torch.bfloat16))
    return 2 * tokens * inputs * outputs / seconds


def _int8_gpu(tokens: int, inputs: int, outputs: int) -> float:
    """Return the same by torch's own product on a GPU."""
    device = torch.device("cuda")
    x = torch.randint(-127, 128, (tokens, inputs), dtype=torch.int8, device=device)
    weight = torch.randint(-127, 128, (outputs, inputs), dtype=torch.int8, device=device).t()
    seconds = median_seconds(lambda: torch._int_mm(x, weight), device=device)
    return 2 * tokens * inputs * outputs / seconds


_INT8: dict[str, Callable[[int, int, int], float]] = {
    "onednn": _int8_cpu,
    "onednn-shifted": partial(_int8_cpu, shift=quant_cpu.SHIFT),
    "triton": _int8_gpu,
}
"""Row of the table for int8 products -> what measures their rate."""
