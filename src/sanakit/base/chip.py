"""The CPU and its usable features, as one value: all decisions that depend on the machine use it.

`detect` is the one function that tests replace to act as another machine.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

_X86 = ("x86_64", "amd64", "i386", "i686")
_BF16 = {"amx_bf16": "AMX-BF16", "avx512_bf16": "AVX512-BF16"}
_INT8 = {"amx_int8": "AMX-INT8", "avx512_vnni": "AVX512-VNNI", "avx_vnni": "AVX-VNNI"}

_LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
"""Variables that keep torch and what it is built on from instructions that the chip has."""


_INSTRUCTIONS = {
    "avx2": "AVX2", "avx512f": "AVX-512", "avx512_vnni": "AVX512-VNNI", "avx_vnni": "AVX-VNNI",
    "avx512_bf16": "AVX512-BF16", "amx_bf16": "AMX-BF16", "amx_int8": "AMX-INT8",
    "asimd": "NEON", "asimddp": "dot product", "i8mm": "I8MM", "bf16": "BF16", "sve": "SVE",
}  # fmt: skip
"""Features that speed networks up: Linux's name -> the common name."""


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One machine's CPU.

    name: as the system gives it. arch: as `platform.machine`. features: lower-case names of instruction sets, as Linux
    writes them. onednn: whether torch has oneDNN and it is switched on. limits: what the environment forbids torch and
    oneDNN to use, such as ("ONEDNN_MAX_CPU_ISA=AVX2",).
    """

    name: str = "unknown"
    arch: str = "x86_64"
    features: frozenset[str] = frozenset()
    onednn: bool = True
    limits: tuple[str, ...] = ()

    @property
    def x86(self) -> bool:
        """Whether it is an x86, which oneDNN's packed layouts are made for."""
        return self.arch.lower() in _X86

    @property
    def instructions(self) -> tuple[str, ...]:
        """The instruction sets that networks gain by, in words."""
        return tuple(name for feature, name in _INSTRUCTIONS.items() if feature in self.features)

    @property
    def bf16_unit(self) -> str | None:
        """The name of the unit that multiplies bf16; None if there is none."""
        return next((name for feature, name in _BF16.items() if feature in self.features), None)

    @property
    def int8_unit(self) -> str | None:
        """The name of the unit that multiplies int8 into int32 sums; None if there is none."""
        return next((name for feature, name in _INT8.items() if feature in self.features), None)

    @property
    def amx_int8(self) -> bool:
        """Whether AMX multiplies int8, and oneDNN may use it."""
        limits = [limit.upper() for limit in self.limits if "ONEDNN" in limit or "DNNL" in limit]
        allowed = all(limit.endswith(("AMX", "AMX_FP16", "AMX_2", "ALL", "DEFAULT")) for limit in limits)
        return "amx_int8" in self.features and allowed

    def __str__(self) -> str:
        """Return the name, with what the environment forbids."""
        return f"{self.name} ({', '.join(self.limits)})" if self.limits else self.name


def this_chip() -> Chip:
    """Return the CPU of this process."""
    chip = detect()
    return replace(chip, onednn=False) if chip.onednn and not torch._C._get_mkldnn_enabled() else chip


@cache
def detect() -> Chip:
    """Return the facts that don't change while a process runs; only oneDNN may be switched off."""
    listing = read_listing()
    # Not in every torch, but where it is, on every system.
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    features = {name.lower() for name, there in capabilities.items() if there is True}
    name = str(capabilities.get("cpu_name") or listing.get("name") or platform.processor() or "unknown")
    return Chip(
        name=" ".join(name.split()),
        arch=platform.machine(),
        features=frozenset(features | set(listing.get("features", ()))),
        onednn=torch.backends.mkldnn.is_available(),
        limits=tuple(f"{name}={os.environ[name]}" for name in _LIMITS if os.environ.get(name)),
    )


def read_listing(source: str = "/proc/cpuinfo") -> dict[str, frozenset[str] | str]:
    """Name and features of the first CPU as Linux lists them; nothing if the system does not."""
    try:
        text = Path(source).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    found: dict[str, frozenset[str] | str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            found.setdefault("features", frozenset(value.lower().split()))
        elif key.strip() == "model name":
            found.setdefault("name", value.strip())
    return found
