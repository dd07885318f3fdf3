"""Every Triton kernel compiled for GPUs that need not be there: `python -m bench.ahead [--chips 80 90] [--json FILE]`.

Prints registers of a thread, bytes that did not fit them (spills) and shared memory, per kernel, shape and chip. The
shapes are those of Sana-0.6B and 1.6B and of their autoencoder. Exits with 1 where a kernel is beyond its budget.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from sanakit.kernels import tuning
from sanakit.kernels.linear_attention import triton as attention
from sanakit.kernels.mix_ffn import triton as mix
from sanakit.kernels.modulated_norm import triton as norm
from sanakit.kernels.quant_matmul import triton as quant
from sanakit.kernels.rms_norm import triton as rms

CHIPS = (80, 90, 100)

BUDGET: dict[str, tuple[int, int]] = {
    "linear_attention.kv_state": (192, 0),
    "linear_attention.output": (96, 0),
    "linear_attention.backward_query": (160, 0),
    "linear_attention.backward_state": (208, 0),
    "linear_attention.kv_state_backward": (144, 0),
    "normed_attention.kv_state": (224, 0),
    "normed_attention.output": (176, 0),
    "normed_attention.backward_query": (176, 0),
    "normed_attention.backward_state": (240, 0),
    "normed_attention.kv_state_backward": (144, 0),
    "qk_norm.rstd": (48, 0),
    "qk_norm.norm_backward": (112, 0),
    "mix_ffn.forward": (128, 16),
    "mix_ffn.gather": (80, 0),
    "modulated_norm.forward": (48, 0),
    "modulated_norm.backward": (128, 0),
    "add_norm_modulate.forward": (64, 0),
    "add_norm_modulate.backward": (192, 0),
    "int8_matmul.quantise": (48, 0),
    "int8_matmul.multiply": (255, 0),
    "rms_norm.norm": (80, 0),
}
"""Kernel -> registers that a thread may take, and bytes that it may spill, on any chip."""

BF16 = torch.bfloat16


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """What one kernel needs on one chip; bytes but for registers."""

    kernel: str
    shape: str
    chip: int
    registers: int
    spills: int
    shared: int


class Absent:
    """Stands for a driver where there is none: tells the compiler which chip to compile for."""

    def __init__(self, chip: int) -> None:
        self._chip = chip

    def get_current_target(self) -> GPUTarget:
        """What to compile for."""
        return GPUTarget("cuda", self._chip, 32)

    def get_current_device(self) -> int:
        """A number for each chip: kernels are kept by it."""
        return self._chip

    def get_current_stream(self, device: int) -> int:
        """None: nothing is launched."""
        return 0


def attend(width: int, norm: attention.Norm = attention.NO_NORM) -> None:
    """Linear attention, both ways."""
    q, k, v = torch.empty(1, 128, 2, 3 * width, dtype=BF16).split(width, dim=-1)
    mask = torch.ones(1, 128, dtype=torch.bool)
    s, z = attention.kv_state(k, v, None, norm)
    attention.kv_state(k, v, mask, norm)
    attention.output_backward(attention.output(q, s, z, 1e-15, norm), q, s, z, 1e-15, norm)
    attention.kv_state_backward(s, z, k, v, None, norm)


def attend_normed(width: int) -> None:
    """The same with queries and keys normalised on the way."""
    attend(width, (torch.empty(1, 128), torch.empty(2 * width, dtype=BF16)))


def qk_normalise(width: int) -> None:
    """What qk-norm does outside the attention, both ways."""
    x = torch.empty(1, 128, width // 32, 32, dtype=BF16)
    rms.qk_norm_backward(x, x, rms.rstd(x, 1e-5), torch.empty(width, dtype=BF16))


def mix_middle(hidden: int) -> None:
    """The middle of the Mix-FFN, both ways."""
    x = torch.empty(1, 2 * hidden, 32, 32, dtype=BF16).contiguous(memory_format=torch.channels_last)
    filters, bias = torch.empty(9, 2 * hidden, dtype=BF16), torch.empty(2 * hidden, dtype=BF16)
    grad = mix.forward(x, filters, bias)
    mix.backward_to_inputs(mix.backward_to_conv(grad, x, filters, bias), x, filters)


def modulate(width: int) -> None:
    """LayerNorm and modulation, both ways."""
    x, both = torch.empty(2, 64, width, dtype=BF16), torch.empty(2, 2, width, dtype=BF16)
    norm.backward(norm.forward(x, both[0], both[1], 1e-6), x, both[1], 1e-6)


def add_and_modulate(width: int) -> None:
    """The same of a sum behind a gate, both ways, and rounded to int8."""
    x = torch.empty(2, 64, width, dtype=BF16)
    gate, shift, scale = torch.empty(3, 2, width, dtype=BF16)
    total, out = norm.forward_sum(x, x, gate, shift, scale, 1e-6)
    norm.backward_gated(out, total, total, x, gate, scale, 1e-6)
    norm.forward_sum_quant(x, x, gate, shift, scale, 1e-6)


def product(width: int) -> None:
    """Rounding of tokens and the int8 product."""
    weight, scales = torch.empty(5 * width, width, dtype=torch.int8), torch.empty(5 * width)
    values, per_token = quant.quantise(torch.empty(256, width, dtype=BF16))
    quant.multiply(values, per_token, weight, scales, torch.empty(5 * width, dtype=BF16), "silu", BF16)


def normalise(channels: int) -> None:
    """The autoencoder's norm."""
    x, w = torch.empty(1, channels, 32, 32, dtype=BF16), torch.empty(channels, dtype=BF16)
    rms.rms_norm(x, x, w, w, 1e-5)


CASES: dict[str, tuple[Callable[[int], None], tuple[int, ...]]] = {
    "linear_attention": (attend, (32, 112)),
    "normed_attention": (attend_normed, (32, 112)),
    "qk_norm": (qk_normalise, (1152, 2240)),
    "mix_ffn": (mix_middle, (2880, 5600)),
    "modulated_norm": (modulate, (1152, 2240)),
    "add_norm_modulate": (add_and_modulate, (1152, 2240)),
    "int8_matmul": (product, (1152, 2240)),
    "rms_norm": (normalise, (128, 1024)),
}


def compile_all(chip: int) -> Iterator[Compiled]:
    """Run every launcher with the launch itself left out."""
    triton.runtime.driver.set_active(Absent(chip))
    tuning.chip = lambda device: f"sm_{chip}"  # type: ignore[assignment]  # without its cache
    tuning.USER = Path()  # the chip's parameters that ship
    for op, (run, sizes) in CASES.items():
        for size in sizes:
            for name, kernel in _caught(run, size):
                registers, spills = _resources(kernel.asm["cubin"])
                yield Compiled(
                    kernel=f"{op}.{name}", shape=str(size), chip=chip,
                    registers=registers, spills=spills, shared=kernel.metadata.shared,
                )  # fmt: skip


def _caught(run: Callable[[int], None], size: int) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    launch = JITFunction.run

    def compile_only(self: Any, *arguments: object, grid: object, warmup: bool, **options: object) -> None:
        found.append(
            (self.fn.__name__.strip("_"), launch(self, *arguments, grid=grid, warmup=True, **options))
        )

    JITFunction.run = compile_only
    try:
        run(size)
    finally:
        JITFunction.run = launch
    return found


def _resources(cubin: bytes) -> tuple[int, int]:
    """Registers and spilled bytes of a thread, as NVIDIA's own tool reads them from the machine code."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        told = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    used = dict(re.findall(r"(REG|STACK):(\d+)", told))
    return int(used["REG"]), int(used["STACK"])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chips", type=int, nargs="+", choices=CHIPS, default=CHIPS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"{'kernel':36} {'shape':>6} {'chip':>6} {'registers':>9} {'spills':>6} {'shared':>7}")
    rows = []
    for chip in options.chips:
        for row in compile_all(chip):
            rows.append(row)
            figures = f"{row.registers:9} {row.spills:6} {row.shared:7}"
            print(f"{row.kernel:36} {row.shape:>6} {'sm_' + str(chip):>6} {figures}", flush=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows]), encoding="utf-8")
    beyond = [row for row in rows if (row.registers, row.spills) != _within(row)]
    for row in beyond:
        print(f"{row.kernel} at {row.shape} on sm_{row.chip} is beyond its budget of {BUDGET[row.kernel]}")
    sys.exit(1 if beyond else 0)


def _within(row: Compiled) -> tuple[int, int]:
    """What a kernel takes, cut to its budget."""
    registers, spills = BUDGET[row.kernel]
    return min(row.registers, registers), min(row.spills, spills)


if __name__ == "__main__":
    main()
