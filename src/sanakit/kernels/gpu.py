"""Support for Triton rows: why they do not run, in words, importing kernels late, and cutting work into pieces."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from sanakit.base.units import dtype_name
from sanakit.kernels.problem import Problem

OLDEST = (8, 0)
"""The oldest compute capability with bf16 products on tensor cores (Ampere)."""

PROGRAMS_PER_UNIT = 4
"""Programs that keep a multiprocessor busy while others wait for memory."""


def unsupported(problem: Problem) -> str | None:
    """Return why no Triton kernel runs a problem, or None."""
    if problem.device != "cuda":
        return "runs on CUDA GPUs only"
    if problem.dtype not in (torch.bfloat16, torch.float16, torch.float32):
        return f"has no kernel for {dtype_name(problem.dtype)}"
    return unavailable()


@cache
def unavailable() -> str | None:
    """Return why Triton's kernels can't run on this machine's GPU, or None."""
    if find_spec("triton") is None:
        return "needs the package triton, which is not installed"
    return unsupported_chip(OLDEST)


def unsupported_chip(oldest: tuple[int, int]) -> str | None:
    """Return why there is no GPU of a compute capability or a newer one, or None."""
    if not torch.cuda.is_available():
        return _why_no_cuda()
    found = torch.cuda.get_device_capability()
    if found < oldest:
        wanted, have = (".".join(map(str, pair)) for pair in (oldest, found))
        return f"needs a GPU of compute capability {wanted} or newer, and this one has {have}"
    return None


def _why_no_cuda() -> str:
    """Say which of the things that torch needs for a CUDA GPU is missing."""
    built = torch.version.cuda
    if built is None:
        return f"needs a torch built for CUDA, and this one is {torch.__version__}"
    served = _driver()
    # Within a major version, older drivers serve newer builds.
    if 0 < served[0] < int(built.partition(".")[0]):
        have = ".".join(map(str, served))
        return f"needs a newer NVIDIA driver: this one serves CUDA {have}, and torch was built for {built}"
    return "needs a CUDA GPU and its driver"


def _driver() -> tuple[int, int]:
    """Return the newest CUDA that the driver serves; (0, 0) without a driver."""
    try:
        version = int(torch._C._cuda_getDriverVersion())  # type: ignore[attr-defined]
    except (AttributeError, RuntimeError):  # a torch without CUDA; no driver
        return 0, 0
    return version // 1000, version % 1000 // 10


def describe() -> str:
    """Describe the GPU that Triton kernels run on, or say why none runs, for `sanakit doctor`."""
    reason = unavailable()
    if reason is not None:
        return f"no Triton kernel runs, which {reason}"
    major, minor = torch.cuda.get_device_capability()
    return f"{torch.cuda.get_device_name()}, compute capability {major}.{minor}: Triton kernels run"


class LazyModule:
    """A module of kernels, imported when first used: importing Triton takes a second, and few machines have it.

    Its functions launch on the GPU of their first tensor, which need not be the current one.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        launch = getattr(import_module(self._name), name)

        def guarded(first: Tensor, *rest: object) -> Any:
            with torch.cuda.device_of(first):
                return launch(first, *rest)

        return guarded


def dense_last(x: Tensor) -> Tensor:
    """Return `x`, copied only if values along its last axis do not lie side by side in memory."""
    return x if x.stride(-1) == 1 else x.contiguous()


def pieces(length: int, tile: int, programs: int, device: torch.device) -> tuple[int, int]:
    """Cut `length` so that `programs` times the number of pieces fill the chip.

    Returns:
        The number of pieces and the length of one, a multiple of `tile`; none is empty.
    """
    tiles = -(-length // tile)
    wanted = max(1, -(-units(device) * PROGRAMS_PER_UNIT // programs))
    each = -(-tiles // min(wanted, tiles))
    return -(-tiles // each), each * tile


@cache
def units(device: torch.device) -> int:
    """Return the number of multiprocessors of a GPU; two for the interpreter, which runs kernels on CPUs for tests."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


def operand(x: Tensor) -> object:
    """Return the dtype, as Triton names it, in which values of `x` enter tensor cores: their own.

    The interpreter can't multiply bf16; it gets the same values in float32.
    """
    import triton
    import triton.language as tl

    names = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
    return tl.float32 if triton.knobs.runtime.interpret else names.get(x.dtype, tl.float32)
