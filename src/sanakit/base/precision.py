"""Device and dtype, decided once, with the reason in words."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from sanakit.base.errors import RequestError

__all__ = ["CPU", "DTYPES", "Precision", "decide"]

CPU = torch.device("cpu")

DTYPES: dict[str, torch.dtype] = {
    "fp32": torch.float32,
    "float32": torch.float32,
    "bf16": torch.bfloat16,
    "bfloat16": torch.bfloat16,
    "fp16": torch.float16,
    "float16": torch.float16,
}
"""Names accepted for a dtype."""

_ISLANDS = "norms, the sums of linear attention and the solver stay in fp32"


@dataclass(frozen=True)
class Precision:
    """Where the model runs and in what, and why."""

    device: torch.device
    dtype: torch.dtype
    reason: str


def decide(device: str | None = None, dtype: str | None = None) -> Precision:
    """Choose device and dtype; None or "auto" means: the best this machine has.

    CPU: bf16 where the processor multiplies it in hardware (AMX or AVX512-BF16), else fp32. CUDA: bf16
    where supported, else fp32. MPS: fp32. fp16 only on request.
    Raises RequestError for an unknown name or a device that is not there.
    """
    place, why_place = _device(device)
    kind, why_kind = _dtype(place, dtype)
    return Precision(place, kind, f"{why_place}; {why_kind}")


def _device(name: str | None) -> tuple[torch.device, str]:
    if name is None or name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda"), f"a CUDA GPU is here ({torch.cuda.get_device_name()})"
        if torch.backends.mps.is_available():
            return torch.device("mps"), "an Apple GPU is here"
        return torch.device("cpu"), "no GPU is here, so the CPU"
    try:
        place = torch.device(name)
    except RuntimeError:
        place = torch.device("meta")
    if place.type not in ("cpu", "cuda", "mps"):
        raise RequestError(f"unknown device {name!r}; use cpu, cuda, cuda:N, mps or auto")
    if (place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count()) or (
        place.type == "mps" and not torch.backends.mps.is_available()
    ):
        raise RequestError(f"the device {name!r} is not on this machine; use cpu or auto")
    return place, f"{place} as asked"


def _dtype(device: torch.device, name: str | None) -> tuple[torch.dtype, str]:
    if name is None or name == "auto":
        return _best_dtype(device)
    if name not in DTYPES:
        raise RequestError(f"unknown dtype {name!r}; use fp32, bf16, fp16 or auto")
    dtype = DTYPES[name]
    if dtype == torch.float32:
        return dtype, "fp32 as asked"
    return dtype, f"{'bf16' if dtype == torch.bfloat16 else 'fp16'} as asked, with fp32 islands: {_ISLANDS}"


def _best_dtype(device: torch.device) -> tuple[torch.dtype, str]:
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, f"bf16, which this GPU multiplies in hardware; {_ISLANDS}"
        return torch.float32, "fp32, because this GPU has no bf16 units and fp16 is used only on request"
    if device.type == "mps":
        return torch.float32, "fp32, the dtype that is exact on every Apple GPU"
    unit = _bf16_unit(_cpu_flags())
    if unit:
        return torch.bfloat16, f"bf16, because the CPU has {unit}; {_ISLANDS}"
    return torch.float32, "fp32, because the CPU has neither AMX nor AVX512-BF16"


def _bf16_unit(flags: frozenset[str]) -> str | None:
    """The CPU's bf16 matrix unit by its flags, or None."""
    if "amx_bf16" in flags:
        return "AMX-BF16"
    if "avx512_bf16" in flags:
        return "AVX512-BF16"
    return None


@cache
def _cpu_flags(source: str = "/proc/cpuinfo") -> frozenset[str]:
    """Feature flags of the first CPU; empty where the system does not list them (then fp32 is safe)."""
    try:
        text = Path(source).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()
