"""Device and dtype, decided once, with the reason in words."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sanakit.base.chip import Chip, this_chip
from sanakit.base.errors import RequestError
from sanakit.base.measured import on_one_core, remember

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

ENOUGH = 1.2
"""How many times as fast as fp32 bf16 must be to be chosen: it costs exactness, and only products gain by it."""

_TOKENS, _WIDTH, _ROUNDS = 128, 1024, 5
"""The product that is measured: of a layer's width, some twenty milliseconds in all."""

_ISLANDS = "norms, the sums of linear attention and the solver stay in fp32"


@dataclass(frozen=True)
class Precision:
    """Device and dtype of a model, and the reason."""

    device: torch.device
    dtype: torch.dtype
    reason: str


def decide(device: str | None = None, dtype: str | None = None) -> Precision:
    """Choose device and dtype; None or "auto" means: the best this machine has.

    CPU: bf16 if the processor has a unit for it (AMX or AVX512-BF16) and a product was measured to be faster with it
    on this machine (once, see `base.measured`), else fp32. CUDA: bf16 if supported, else fp32. MPS: fp32. fp16 only
    on request.
    Raises RequestError for an unknown name or a missing device.
    """
    place, why_place = _device(device)
    kind, why_kind = _dtype(place, dtype)
    return Precision(place, kind, f"{why_place}; {why_kind}")


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Return a context in which products are of a dtype; for float32 it changes nothing."""
    enabled = dtype != torch.float32
    return torch.autocast(device.type, dtype if enabled else torch.bfloat16, enabled=enabled)


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
    word, chip = "bf16" if dtype == torch.bfloat16 else "fp16", this_chip()
    slow = device.type == "cpu" and dtype == torch.bfloat16 and chip.x86 and chip.bf16_unit is None
    remark = ", though this CPU has no unit for it and fp32 is faster here" if slow else ""
    return dtype, f"{word} as asked{remark}, with fp32 islands: {_ISLANDS}"


def _best_dtype(device: torch.device) -> tuple[torch.dtype, str]:
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, f"bf16, which this GPU multiplies in hardware; {_ISLANDS}"
        return torch.float32, "fp32, because this GPU has no bf16 units and fp16 is used only on request"
    if device.type == "mps":
        return torch.float32, "fp32, the dtype that is exact on every Apple GPU"
    return _best_on_cpu(this_chip())


def _best_on_cpu(chip: Chip) -> tuple[torch.dtype, str]:
    """bf16 if the CPU has a unit for it and a product was measured to be faster with it, else fp32."""
    if chip.bf16_unit is None:
        return torch.float32, "fp32, because the CPU has neither AMX nor AVX512-BF16"
    if not chip.onednn:
        return (
            torch.float32,
            f"fp32, because oneDNN, which drives {chip.bf16_unit}, is missing or switched off",
        )
    gain, kept = bf16_gain(chip)
    where = f"measured, kept in {kept}" if kept else "measured; it could not be kept"
    remark = f"products with the CPU's {chip.bf16_unit} take {1 / gain:.2f} of the time of fp32 ({where})"
    if gain < ENOUGH:
        return torch.float32, f"fp32, because {remark}"
    return torch.bfloat16, f"bf16, because {remark}; {_ISLANDS}"


def bf16_gain(chip: Chip) -> tuple[float, Path | None]:
    """Speed of a product in bf16 relative to fp32, and the file that stores it: measured once per machine."""
    facts = (str(chip), " ".join(sorted(chip.features)), f"torch {torch.__version__}")
    return remember("bf16", "; ".join(facts), _measured_gain)


def _measured_gain() -> float:
    """Time of oneDNN's product in fp32 over that in bf16, on one core; others on the machine only add to either."""
    return on_one_core(_compare)


def _compare() -> float:
    x, weight = (torch.full((rows, _WIDTH), 0.5, dtype=torch.float32) for rows in (_TOKENS, _WIDTH))
    pairs = [(a, torch.ops.mkldnn._reorder_linear_weight(b, None)) for a, b in _both(x, weight)]
    times: tuple[list[float], list[float]] = ([], [])
    while len(times[0]) < _ROUNDS or (len(times[0]) < 4 * _ROUNDS and any(map(_wavers, times))):
        for seconds, (a, packed) in zip(times, pairs, strict=True):
            begun = time.perf_counter()
            torch.ops.mkldnn._linear_pointwise(a, packed, None, "none", [], "")
            seconds.append(time.perf_counter() - begun)
    return min(times[0]) / min(times[1])


def _both(x: Tensor, weight: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(x, weight), (x.bfloat16(), weight.bfloat16())]


def _wavers(seconds: list[float]) -> bool:
    """Return whether the two best times are so far apart that the best may be chance."""
    best, second = sorted(seconds)[:2]
    return second > 1.1 * best
