"""How a model runs: as built, packed, in few bits, compiled, recorded. Decided once, with the reason in words."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from sanakit.adapt import pack, quantise
from sanakit.adapt.compiled import compile_blocks, keeps, why_not
from sanakit.adapt.fp8 import to_fp8
from sanakit.adapt.graphs import record
from sanakit.adapt.int8 import fuse_quantisation, prepare_layers
from sanakit.adapt.plain import keep_plain
from sanakit.adapt.widened import widen
from sanakit.base.chip import this_chip
from sanakit.base.errors import RequestError
from sanakit.base.heap import keep_pages
from sanakit.base.precision import Precision
from sanakit.kernels.choice import Problem, explain, select
from sanakit.kernels.gpu import why_not as why_no_kernels
from sanakit.kernels.proof import half_slowness
from sanakit.transformer import SanaTransformer

_AS_ASKED = ("int8", "compiled", "int8-compiled", "graphs", "int8-graphs", "fp8", "fp8-graphs")

ASKED_BY: dict[str, str] = {
    "packed": "auto",
    "kernels": "auto",
    "widened": "auto",
    "plain": "off",
    **{name: name for name in _AS_ASKED},
}
"""Name of an engine -> what asks for it; auto falls back to plain where nothing can be packed."""

SLOW_INT8: dict[str, str] = {"float32": "float32", "reference": "float64"}
"""Rows of int8 products that have no units for it -> what they multiply in."""


@dataclass(frozen=True)
class Engine:
    """The form that loaded parts are brought into, and why."""

    name: str
    reason: str
    widened: bool = False
    """Whether products of half precision are computed in float32: see `adapt.widened`."""

    @property
    def int8(self) -> bool:
        """Whether the transformer's wide layers are rounded to int8."""
        return self.name.startswith("int8")

    @property
    def fp8(self) -> bool:
        """Whether the transformer's wide layers are rounded to fp8."""
        return self.name.startswith("fp8")

    @property
    def compiled(self) -> bool:
        """Whether the transformer's blocks go through torch.compile."""
        return self.name.endswith("compiled")

    @property
    def recorded(self) -> bool:
        """Whether steps and decoding are recorded as CUDA graphs."""
        return self.name.endswith("graphs")


def choose_engine(fast: str | None, precision: Precision) -> Engine:
    """The engine for `fast`, a word of `ASKED_BY`; None is auto.

    Raises RequestError for another word, and where int8 or compiling was asked for and can't be had.
    """
    words = tuple(dict.fromkeys(ASKED_BY.values()))
    if fast not in (None, *words):
        raise RequestError(f"unknown engine {fast!r}; use {', '.join(words)}.")
    if fast == "off":
        return Engine("plain", "plain torch as asked")
    if fast in (None, "auto"):
        return _automatic(precision)
    return _as_asked(Engine(fast, ""), precision)


def _automatic(precision: Precision) -> Engine:
    refusal = _refusal("linear", precision)
    if refusal is None:
        return Engine("packed", "weights packed for oneDNN, activations inside the products")
    if precision.device.type == "cuda" and why_no_kernels() is None:
        return Engine("kernels", "Triton kernels run where the table has them; upsampling is packed")
    slow = _slow_half(precision)
    if slow is not None:
        return Engine("widened", f"plain torch with products in float32, because {slow}", widened=True)
    return Engine("plain", f"plain torch, because the packed form {refusal}")


def _slow_half(precision: Precision) -> str | None:
    """Why products are better not computed in the dtype; None where the CPU has units for it."""
    if precision.device.type != "cpu" or precision.dtype not in (torch.bfloat16, torch.float16):
        return None
    times = half_slowness(precision.dtype, this_chip())
    name = str(precision.dtype).removeprefix("torch.")
    return None if times is None else f"in {name} they take {times:.0f} times as long on this CPU"


def _as_asked(engine: Engine, precision: Precision) -> Engine:
    """The engine with its reason, or RequestError with the refusal."""
    refusal = _why_not(engine, precision)
    if refusal is not None:
        raise RequestError(f"{engine.name} was asked for, but it {refusal}: choose auto.")
    rounded = "int8" if engine.int8 else "fp8" if engine.fp8 else None
    done = [] if rounded is None else [f"the transformer's wide layers in {rounded}"]
    done += ["its blocks compiled at the first step of each size"] if engine.compiled else []
    done += ["not kept, for ~/.cache can't be written"] if engine.compiled and not keeps() else []
    done += ["steps and decoding recorded as CUDA graphs"] if engine.recorded else []
    packs = precision.device.type == "cpu" and _refusal("linear", precision) is None
    done += ["the rest packed for oneDNN"] if packs else []
    slow, remark = _slow_half(precision), int8_remark(precision) if engine.int8 else None
    done += [] if slow is None else [f"other products in float32, because {slow}"]
    reason = ", ".join([*done, "as asked"]) + (f"; {remark.rstrip('.')}" if remark else "")
    return Engine(engine.name, reason, widened=slow is not None)


def _why_not(engine: Engine, precision: Precision) -> str | None:
    if engine.recorded and precision.device.type != "cuda":
        return f"records CUDA graphs, and this runs on {precision.device.type}"
    needed = {"int8_matmul": engine.int8, "fp8_matmul": engine.fp8, "linear": engine.compiled}
    refusals = (_refusal(op, precision) for op, wanted in needed.items() if wanted)
    first = next((refusal for refusal in refusals if refusal is not None), None)
    return first or (why_not() if engine.compiled else None)


def _refusal(op: str, precision: Precision) -> str | None:
    """Why no fast row of an operator runs here; None where one does."""
    problem = Problem(op, precision.device.type, precision.dtype)
    if select(op, problem).name != "reference":
        return None
    return _refusals(problem) or "was switched off"


def _refusals(problem: Problem, without: tuple[str, ...] = ()) -> str:
    """What rows of an operator say, each reason once with the rows that give it; `without`: rows passed over."""
    rows: dict[str, list[str]] = {}
    for line in explain(problem):
        _, row, verdict = line.split(": ", 2)
        if verdict.startswith("refuses: ") and row not in without:
            rows.setdefault(verdict.removeprefix("refuses: "), []).append(row)
    return "; ".join(f"{reason} ({', '.join(names)})" for reason, names in rows.items())


def int8_remark(precision: Precision) -> str | None:
    """A sentence where int8 saves memory only, and why; None where its products are faster."""
    problem = Problem("int8_matmul", precision.device.type, precision.dtype)
    row = select("int8_matmul", problem).name
    if row not in SLOW_INT8:
        return None
    why = _refusals(problem, without=("triton",) if problem.device == "cpu" else ())
    return f"int8 saves memory but no time here, its layers are multiplied as {SLOW_INT8[row]}: {why}."


def int8_told(precision: Precision) -> str:
    """What int8 would be here, for `sanakit doctor`."""
    row = select("int8_matmul", Problem("int8_matmul", precision.device.type, precision.dtype)).name
    return int8_remark(precision) or f"its products have units of their own here ({row})"


def apply_engine(engine: Engine, part: str, module: nn.Module) -> None:
    """Bring a loaded part into the form of the engine, in place.

    The text encoder is widened at most: it runs once per picture, and packing costs as long as that.
    """
    if engine.widened:
        widen(module)
    if engine.name in ("plain", "widened"):
        keep_plain(module)
        return
    if engine.name != "kernels":
        keep_pages()
    if part == "text":
        return
    if engine.int8 and part == "transformer":
        quantise(module)
    if engine.fp8 and part == "transformer":
        to_fp8(module)
    fuse_quantisation(module)
    pack(module)
    if engine.compiled and isinstance(module, SanaTransformer):
        prepare_layers(module)
        compile_blocks(module)
    if engine.recorded:
        record(module)
