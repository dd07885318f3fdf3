"""Kernels on a GPU, right first and then fast: `python -m bench.gpu [--json FILE]`, under ten minutes.

Every Triton kernel is held against its reference on this GPU, with poisoned memory, and then timed: CUDA events,
medians, the cache flushed between runs. Printed beside each time: the plain torch that it replaces, and its share of
the copy rate (for products: of the best bf16 rate) that this GPU reached a moment before. Then whole stages, by
`sanakit bench --device cuda`.

`--device cpu --small` walks the same way through Triton's interpreter (TRITON_INTERPRET=1) and times nothing of use.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sanakit.adapt.graphs import record_cuda
from sanakit.base.text_states import TextStates
from sanakit.benchmark.run import difference
from sanakit.benchmark.timing import median_seconds
from sanakit.benchmark.workload import random_transformer
from sanakit.kernels import QKNorm
from sanakit.kernels.conv import quarters, split_taps, upsample_conv
from sanakit.kernels.linear_attention import gpu as attention
from sanakit.kernels.linear_attention import reference as attention_reference
from sanakit.kernels.mix_ffn import gpu as mix
from sanakit.kernels.mix_ffn import reference as mix_reference
from sanakit.kernels.modulated_norm import gpu as norm
from sanakit.kernels.modulated_norm import reference as norm_reference
from sanakit.kernels.quant_matmul import gpu as quant
from sanakit.kernels.quant_matmul.reference import quantise_rows
from sanakit.kernels.rms_norm import fused
from sanakit.kernels.rms_norm import gpu as rms
from sanakit.kernels.rms_norm import reference as rms_reference
from sanakit.transformer import PRESETS

ROUNDS = 20
TEXT = 64
TOLERANCE = 0.02
"""Relative error in bf16 beyond which a kernel is wrong, and nothing is timed."""

STAGES = (
    ("sana-0.6b-1024", ("512x512", "1024x1024", "2048x2048", "4096x4096")),
    ("sana-1.6b-1024", ("1024x1024", "4096x4096")),
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One kernel at one shape: ours, plain torch, and the least that has to be done (bytes moved, or operations)."""

    name: str
    ours: Callable[..., Tensor]
    plain: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]
    bytes: float = 0.0
    operations: float = 0.0
    backward: bool = True


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was measured; share: of the copy rate or of the rate of products."""

    kernel: str
    way: str
    seconds: float
    plain: float
    share: float
    error: float


def cases(device: str, small: bool) -> Iterator[Case]:
    """The shapes of Sana-0.6B at 1024 px and above, and the table of attention that the official code gives."""
    dtype = torch.bfloat16

    def normal(*size: int) -> Tensor:
        return torch.randn(size, device=device).to(dtype)

    lengths, heads = ((40,), 2) if small else ((4096, 16384, 65536), 16)
    for tokens in lengths:
        joined = normal(1 if small else 4, tokens, heads, 3 * 64)
        yield Case(
            name=f"linear attention, {len(joined)} x {tokens} x {heads} x 64",
            ours=lambda x: attention.linear_attention(*x.chunk(3, dim=-1)),
            plain=lambda x: attention_reference.linear_attention(*x.chunk(3, dim=-1)),
            inputs=(joined,), bytes=joined.nbytes * (3 + 1) / 3,
        )  # fmt: skip
    batch, hidden, side, width = (1, 32, 3, 32) if small else (2, 2880, 32, 1152)
    joined, norms = normal(batch, side * side * (1 if small else 4), 3 * width), normal(2, width)
    yield Case(
        name=f"qk-norm and attention, {batch} x {joined.shape[1]} x {width // 32} x 32",
        ours=lambda x, w: normed(attention.qk_norm_linear_attention, x, w),
        plain=lambda x, w: normed(attention_reference.qk_norm_linear_attention, x, w),
        inputs=(joined, norms), bytes=joined.nbytes * (3 + 1) / 3,
    )  # fmt: skip
    for scale in (1,) if small else (1, 4):
        x = normal(batch, 2 * hidden, side * scale, side * scale).contiguous(
            memory_format=torch.channels_last
        )
        yield Case(
            name=f"Mix-FFN, {batch} x {2 * hidden} x {side * scale}^2",
            ours=mix.gated_depthwise, plain=mix_reference.gated_depthwise,
            inputs=(x, normal(2 * hidden, 1, 3, 3), normal(2 * hidden)), bytes=1.5 * x.nbytes,
        )  # fmt: skip
    x = normal(batch, side * side * (1 if small else 16), width)
    yield Case(
        name=f"modulated norm, {' x '.join(map(str, x.shape))}",
        ours=norm.modulated_norm, plain=norm_reference.modulated_norm,
        inputs=(x, normal(batch, 1, width), normal(batch, 1, width)), bytes=2 * x.nbytes,
    )  # fmt: skip
    more, gate, shift, scale = normal(*x.shape), *normal(3, batch, 1, width)
    yield Case(
        name=f"sum and modulated norm, {' x '.join(map(str, x.shape))}",
        ours=lambda *given: norm.add_norm_modulate(*given, 1e-6)[1],
        plain=lambda *given: norm_reference.add_norm_modulate(*given, 1e-6)[1],
        inputs=(x, more, gate, shift, scale), bytes=4 * x.nbytes,
    )  # fmt: skip
    rows = x.flatten(0, 1)
    weight, scales = quantise_rows(normal(5 * width, width))
    wide = {cast: (weight * scales[:, None]).to(cast) for cast in (dtype, torch.float32)}
    yield Case(
        name=f"int8 product, {len(rows)} x {width} x {5 * width}",
        ours=lambda x: quant.int8_matmul(x, weight, scales, None),
        plain=lambda x: F.linear(x, wide[x.dtype]),
        inputs=(rows,), operations=2.0 * rows.numel() * 5 * width, backward=False,
    )  # fmt: skip
    yield Case(
        name=f"norm that rounds and int8 product, {len(rows)} x {width} x {5 * width}",
        ours=lambda x: quant.int8_matmul(
            norm.add_norm_modulate_quant(x, None, None, shift, scale, 1e-6)[1], weight, scales, None
        ),
        plain=lambda x: F.linear(
            norm_reference.modulated_norm(x, shift.to(x.dtype), scale.to(x.dtype)), wide[x.dtype]
        ),
        inputs=(x,), operations=2.0 * rows.numel() * 5 * width, backward=False,
    )  # fmt: skip
    channels, pixels = (16, 8) if small else (128, 1024)
    x = normal(1, channels, pixels // 2, pixels // 2).contiguous(memory_format=torch.channels_last)
    yield Case(
        name=f"residual norm that is trained, {channels} x {pixels // 2}^2",
        ours=lambda x, r, w, b: fused.rms_norm(x, r, w, b, 1e-5),
        plain=lambda x, r, w, b: rms_reference.rms_norm(x, r, w, b, 1e-5),
        inputs=(x, normal(*x.shape), normal(channels), normal(channels)), bytes=3 * x.nbytes,
    )  # fmt: skip
    x = normal(1, channels, pixels, pixels).contiguous(memory_format=torch.channels_last)
    yield Case(
        name=f"residual norm, {channels} x {pixels}^2",
        ours=lambda x, r, w, b: rms.rms_norm(x, r, w, b, 1e-5),
        plain=lambda x, r, w, b: rms_reference.rms_norm(x, r, w, b, 1e-5),
        inputs=(x, normal(*x.shape), normal(channels), normal(channels)), bytes=3 * x.nbytes, backward=False,
    )  # fmt: skip
    small_map = normal(1, 2 * channels, pixels // 2, pixels // 2).contiguous(
        memory_format=torch.channels_last
    )
    filters = normal(channels, 2 * channels, 3, 3) / (18 * channels) ** 0.5
    four = split_taps(filters)
    yield Case(
        name=f"upsampling, {2 * channels} to {channels} x {pixels}^2",
        ours=lambda x: quarters(x, four, None, True),
        plain=lambda x: upsample_conv(x, filters.to(x.dtype), None, True),
        inputs=(small_map,), operations=2.0 * 4 * 2 * channels * channels * pixels**2, backward=False,
    )  # fmt: skip


def normed(attend: Callable[..., Tensor], joined: Tensor, weights: Tensor) -> Tensor:
    """Attention of heads of 32, queries and keys normalised: [B, N, 3D], weights [2, D]."""
    query, key, value = (part.unflatten(-1, (-1, 32)) for part in joined.chunk(3, dim=-1))
    return attend(query, key, value, 1e-15, None, None, None, QKNorm(weights[0], weights[1], 1e-5))


def check(case: Case) -> float:
    """The largest relative error of values and gradients. Raises SystemExit where it is no rounding error."""
    results, grad = [], None
    for run, cast in ((case.ours, torch.Tensor.clone), (case.plain, torch.Tensor.float)):
        leaves = [cast(x.detach()).requires_grad_(case.backward) for x in case.inputs]
        poison = [torch.full((1 << n,), float("nan"), device=leaves[0].device) for n in range(10, 24, 2)]
        del poison
        out = run(*leaves)
        if case.backward:
            # Both get the same rounded gradient: sums of it over all tokens cancel, and would be of the rounding alone.
            if grad is None:
                grad = torch.cos(torch.arange(out.numel(), device=out.device)).view(out.shape).to(out.dtype)
            out.backward(grad.to(out.dtype))
        results.append([out.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)])
    found = max(difference(mine, wanted) for mine, wanted in zip(*results, strict=True))
    if not found < TOLERANCE:
        raise SystemExit(f"{case.name}: differs from the reference by {found:.1%}; nothing is timed")
    return found


def time_case(case: Case, error: float, copy: float, products: float, device: str) -> Iterator[Row]:
    """Forward, and backward alone where there is one."""
    least = case.bytes / copy + case.operations / products
    with torch.no_grad():
        ours, plain = (seconds(lambda r=r: r(*case.inputs), device) for r in (case.ours, case.plain))
    yield Row(kernel=case.name, way="forward", seconds=ours, plain=plain, share=least / ours, error=error)
    if case.backward:
        ours, plain = (_backward_seconds(run, case.inputs, device) for run in (case.ours, case.plain))
        # Reads what the forward pass read and its gradient, writes as much as it read.
        yield Row(
            kernel=case.name, way="backward", seconds=ours, plain=plain, share=2 * least / ours, error=error
        )


def _backward_seconds(run: Callable[..., Tensor], inputs: tuple[Tensor, ...], device: str) -> float:
    leaves = [x.detach().clone().requires_grad_() for x in inputs]

    def both() -> object:
        out = run(*leaves)
        return torch.autograd.grad(out, leaves, torch.ones_like(out))

    # Backward kernels run in the stream of their forward pass, so a recording holds both.
    return seconds(both, device) - seconds(lambda: run(*leaves), device)


def seconds(work: Callable[[], Any], device: str) -> float:
    """Median over rounds by CUDA events, the second-level cache overwritten in between.

    The work is recorded as a CUDA graph and replayed: launching takes Python longer than small kernels take to run.
    """
    if device != "cuda":
        return median_seconds(work, 1)
    _, work = record_cuda(work)
    flush = torch.empty(256 << 20, dtype=torch.uint8, device=device)
    found: list[float] = []
    for _ in range(ROUNDS + 3):
        flush.zero_()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        found.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(found[3:])


def rates(device: str, small: bool) -> tuple[float, float]:
    """Bytes per second of a copy and operations per second of bf16 products, the best that this device does."""
    size, side = (1 << 16, 64) if small else (1 << 30, 8192)
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    matrix = torch.randn(side, side, device=device).to(torch.bfloat16)
    copy = 2 * size / seconds(lambda: target.copy_(source), device)
    return copy, 2 * side**3 / seconds(lambda: matrix @ matrix, device)


def training(device: str, small: bool, products: float) -> str:
    """A flow-matching step, forward and backward, in bf16 autocast: pictures per second, share of the rate of products.

    Counted are the products and convolutions of torch; what runs in Triton kernels is a hundredth of them.
    """
    name, batch = ("toybox", 2) if small else ("sana-0.6b-1024", 16)
    config = PRESETS[name]
    model = random_transformer(config, torch.float32).to(device).train().requires_grad_(True)
    side = 4 if small else config.sample_size
    noise = torch.randn(batch, config.latent_channels, side, side, device=device)
    target = torch.randn_like(noise)
    states = torch.randn(batch, TEXT, config.text_width, device=device)
    text = TextStates(states, torch.ones(batch, TEXT, dtype=torch.bool, device=device))
    moment = torch.full((batch,), 500.0, device=device)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16):
            loss = F.mse_loss(model(noise, moment, text).float(), target)
        loss.backward()

    took = seconds(step, device)
    with FlopCounterMode(display=False) as counter:
        step()
    share = counter.get_total_flops() / took / products
    return (
        f"training {name}, batch {batch}: {batch / took:.1f} pictures/s, {share:.0%} of the rate of products"
    )


def softmax_row(tokens: int) -> str:
    """What softmax attention takes at the same size."""
    q, k, v = torch.randn(3, 4, 16, tokens, 64, device="cuda", dtype=torch.bfloat16)
    took = seconds(lambda: F.scaled_dot_product_attention(q, k, v), "cuda")
    return f"softmax attention, 4 x {tokens} x 16 x 64: {took * 1e3:.3f} ms"


def main() -> None:
    """Check, time, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--small", action="store_true", help="tiny shapes, no stages")
    parser.add_argument(
        "--check", action="store_true", help="hold kernels against their references, time nothing"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("bench.gpu times a CUDA GPU, and there is none here.")
    torch.manual_seed(0)
    errors = {case.name: check(case) for case in cases(options.device, options.small)}
    print(f"{len(errors)} kernels agree with their references", flush=True)
    if options.check:
        return
    copy, products = rates(options.device, options.small)
    print(f"copy {copy / 1e9:.0f} GB/s, bf16 products {products / 1e12:.0f} T operations/s")
    print(f"{'kernel':44} {'way':9} {'ms':>9} {'plain':>9} {'ratio':>6} {'share':>6} {'error':>7}")
    rows = []
    for case in cases(options.device, options.small):
        for row in time_case(case, errors[case.name], copy, products, options.device):
            rows.append(row)
            times = f"{row.seconds * 1e3:9.3f} {row.plain * 1e3:9.3f} {row.plain / row.seconds:5.1f}x"
            print(f"{row.kernel:44} {row.way:9} {times} {row.share:6.0%} {row.error:7.2%}", flush=True)
    print(training(options.device, options.small, products), flush=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows]), encoding="utf-8")
    if not options.small:
        print("\n".join(softmax_row(tokens) for tokens in (4096, 16384)), flush=True)
        stages()


def stages() -> None:
    """Whole stages beside diffusers, eager and compiled, one process for each size."""
    program = Path(sys.executable).with_name("sanakit")
    for model, sizes in STAGES:
        for size in sizes:
            engines = "sanakit,sanakit-graphs,sanakit-int8-graphs,sanakit-fp8-graphs,diffusers"
            engines += ",diffusers-compiled" if size == "1024x1024" else ""
            subprocess.run(
                [
                    program,
                    "bench",
                    "--device",
                    "cuda",
                    "--model",
                    model,
                    "--size",
                    size,
                    "--engines",
                    engines,
                ],
                check=True,
            )


if __name__ == "__main__":
    main()
