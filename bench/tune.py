"""Launch parameters measured on this GPU: `python -m bench.tune`, some minutes; run `python -m bench.gpu` after it.

For every kernel and width of the published models each candidate is launched, held against the result of the defaults,
and timed as in `bench.gpu`. The fastest are kept in the user's table (`sanakit doctor` names it), which kernels read
before the one that ships. `--device cpu --small` walks the same way through Triton's interpreter and keeps nothing.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import triton
from torch import Tensor
from triton.errors import TritonError

from bench.gpu import TOLERANCE, seconds
from sanakit.benchmark.run import difference
from sanakit.kernels import tuning
from sanakit.kernels.linear_attention import triton as attention
from sanakit.kernels.mix_ffn import triton as mix
from sanakit.kernels.modulated_norm import triton as norm
from sanakit.kernels.quant_matmul import triton as quant
from sanakit.kernels.quant_matmul.reference import quantise_rows
from sanakit.kernels.rms_norm import triton as rms

CANDIDATES: dict[str, dict[str, tuple[int, ...]]] = {
    "linear_attention": {"tokens": (32, 64, 128), "warps": (4, 8), "stages": (1, 2, 3)},
    "qk_norm.rstd": {"values": (2048, 4096, 8192), "warps": (2, 4, 8)},
    "qk_norm.backward": {"warps": (4, 8, 16)},
    "mix_ffn.walk": {"columns": (4, 8, 16), "channels": (32, 64, 128), "warps": (2, 4, 8)},
    "mix_ffn.gather": {"columns": (2, 4, 8), "channels": (32, 64, 128), "warps": (2, 4, 8)},
    "modulated_norm": {"warps": (2, 4, 8, 16)},
    "rms_norm": {"values": (2048, 4096, 8192), "warps": (2, 4, 8)},
    "int8_matmul.quantise": {"warps": (2, 4, 8, 16)},
    "int8_matmul.multiply": {
        "tile_n": (64, 128), "tile_o": (128, 256), "tile_k": (64, 128), "group": (8,), "warps": (4, 8),
        "stages": (3, 4),
    },
}  # fmt: skip
"""Kernel -> parameter -> what is tried; every combination is."""

Timer = Callable[[Callable[[], object]], float]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One kernel at one size, as the table names them, and what launches it."""

    kernel: str
    size: int
    run: Callable[[], Tensor]


def jobs(device: str, small: bool) -> Iterator[Job]:
    """Shapes of Sana-0.6B and 1.6B at 1024 px and above."""

    def normal(*size: int) -> Tensor:
        return torch.randn(size, device=device).to(torch.bfloat16)

    batch, tokens, side = (1, 6, 2) if small else (2, 4096, 64)
    for width in (8,) if small else (32, 64, 112):
        parts = normal(batch, tokens, 2 if small else 16, 3 * width).split(width, dim=-1)
        yield Job(kernel="linear_attention", size=_padded(width), run=lambda p=parts: _attend(*p))
    for width in (16,) if small else (1152, 2240):
        x, both = normal(batch, tokens, width), normal(3, batch, width)
        heads, size = x.unflatten(-1, (-1, 8)), _padded(width)
        rstd = rms.rstd(heads, 1e-5)
        yield Job(kernel="qk_norm.rstd", size=size, run=lambda h=heads: rms.rstd(h, 1e-5))
        yield Job(
            kernel="qk_norm.backward", size=size,
            run=lambda h=heads, s=rstd, w=both[0, 0]: rms.qk_norm_backward(h.clone(), h, s, w)[0],
        )  # fmt: skip
        yield Job(
            kernel="modulated_norm", size=size,
            run=lambda x=x, m=both: norm.forward_sum(x, x, *m, 1e-6)[1] + norm.backward(x, x, m[1], 1e-6)[0],
        )  # fmt: skip
        yield Job(kernel="int8_matmul.quantise", size=size, run=lambda x=x: quant.quantise(x[0])[1])
        values, scales = quant.quantise(x.flatten(0, 1))
        weight = quantise_rows(normal(5 * width, width))
        yield Job(
            kernel="int8_matmul.multiply", size=width,
            run=lambda v=values, s=scales, w=weight: quant.multiply(v, s, *w, None, "none", torch.bfloat16),
        )  # fmt: skip
        hidden = (2 if small else 5) * width
        maps = normal(batch, hidden, side, side).contiguous(memory_format=torch.channels_last)
        filters = normal(9, hidden)
        yield Job(
            kernel="mix_ffn.walk", size=hidden, run=lambda m=maps, f=filters: mix.forward(m, f, None)
        )  # fmt: skip
        yield Job(
            kernel="mix_ffn.gather", size=hidden,
            run=lambda m=maps, f=filters: mix.backward_to_inputs(m, m, f)[0],
        )  # fmt: skip
    for channels in (8,) if small else (128, 1024):
        picture = normal(1, channels, 4 * side, 4 * side).contiguous(memory_format=torch.channels_last)
        gain = normal(channels)
        yield Job(
            kernel="rms_norm", size=_padded(channels),
            run=lambda p=picture, w=gain: rms.rms_norm(p, p, w, w, 1e-5),
        )  # fmt: skip


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Both ways: a training step and a picture want the same tile."""
    product, total = attention.kv_state(key, value, None)
    out = attention.output(query, product, total, 1e-15)
    attention.output_backward(out, query, product, total, 1e-15)
    attention.kv_state_backward(product, total, key, value, None)
    return out


def _padded(width: int) -> int:
    return int(max(16, triton.next_power_of_2(width)))


def candidates(kernel: str) -> Iterator[dict[str, int]]:
    """Every combination of what is tried."""
    names = CANDIDATES[kernel]
    for values in itertools.product(*names.values()):
        yield dict(zip(names, values, strict=True))


def tune(job: Job, timer: Timer) -> tuple[dict[str, int] | None, float, float]:
    """The fastest candidate, or None where the present parameters are; its seconds, and the present ones'."""
    wanted = job.run().clone()
    present = timer(job.run)
    found: dict[str, int] | None = None
    least = present
    for candidate in candidates(job.kernel):
        with tuning.trying(job.kernel, candidate):
            took = _seconds_if_right(job, wanted, timer)
        if took < least:
            found, least = candidate, took
    return found, least, present


def _seconds_if_right(job: Job, wanted: Tensor, timer: Timer) -> float:
    """Infinity for a candidate that does not fit the chip or gives something else."""
    try:
        error = difference(job.run(), wanted)
    except TritonError:
        return math.inf
    return timer(job.run) if error < TOLERANCE else math.inf


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--small", action="store_true", help="tiny shapes")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("bench.tune times a CUDA GPU, and there is none here.")
    if tuning.trouble() is not None:
        raise SystemExit(tuning.trouble())
    torch.manual_seed(0)
    chip = tuning.chip(torch.device(options.device))
    measured: tuning.Table = {}
    print(f"{'kernel':24} {'size':>6} {'ms':>9} {'before':>9}  parameters")
    for job in jobs(options.device, options.small):
        found, took, before = tune(job, lambda work: seconds(work, options.device))
        if found is not None:
            measured.setdefault(job.kernel, {}).setdefault(chip, {})[str(job.size)] = found
        told = "as before" if found is None else " ".join(f"{k}={v}" for k, v in found.items())
        print(f"{job.kernel:24} {job.size:6} {took * 1e3:9.3f} {before * 1e3:9.3f}  {told}", flush=True)
    print(f"kept in {tuning.keep(measured)}" if chip != "any" else "this is no GPU, nothing is kept")


if __name__ == "__main__":
    main()
