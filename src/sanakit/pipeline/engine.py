"""How a model runs: as built, packed, quantised, compiled, recorded. Decided once, with the reason in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from sanakit.adapt import pack, quantise
from sanakit.adapt.compile import compile_blocks, keeps, why_not
from sanakit.adapt.graphs import record
from sanakit.adapt.quantise import fuse_quantisation, prepare_layers, to_fp8
from sanakit.adapt.runner import exact, plain, widen
from sanakit.base.chip import this_chip
from sanakit.base.errors import RequestError
from sanakit.base.heap import keep_pages
from sanakit.base.precision import Precision
from sanakit.base.units import dtype_name
from sanakit.kernels.choice import Problem, explain, select
from sanakit.kernels.gpu import unavailable as why_no_kernels
from sanakit.kernels.proof import half_slowness

Edit = Callable[[Any], object]
"""Changes a module in place, or returns another in its place."""

SLOW_INT8: dict[str, str] = {"float32": "float32", "reference": "float64"}
"""Rows of int8 products without units for it -> what they multiply in."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """How the parts of a model run.

    Attributes:
        name: goes into the PNG files of a model.
        reason: for `sanakit doctor`.
        quantise: what the transformer's wide layers are quantised to, "int8" or "fp8"; None for nothing.
        pack: weights are packed for the kernels that run, and norms fused with the quantisation behind them.
        compile: the transformer's blocks go through torch.compile.
        graphs: steps and decoding are recorded as CUDA graphs.
        widen: products of half precision are computed in float32; see `adapt.runner`.
        exact: convolutions of float32 are not rounded to TF32; see there.
    """

    name: str
    reason: str = ""
    quantise: str | None = None
    pack: bool = True
    compile: bool = False
    graphs: bool = False
    widen: bool = False
    exact: bool = False


PLAIN = Engine(name="plain", reason="plain torch as asked", pack=False)

ENGINES: dict[str, Engine] = {
    "off": PLAIN,
    "int8": Engine(name="int8", quantise="int8"),
    "compiled": Engine(name="compiled", compile=True),
    "int8-compiled": Engine(name="int8-compiled", quantise="int8", compile=True),
    "graphs": Engine(name="graphs", graphs=True),
    "int8-graphs": Engine(name="int8-graphs", quantise="int8", graphs=True),
    "fp8": Engine(name="fp8", quantise="fp8"),
    "fp8-graphs": Engine(name="fp8-graphs", quantise="fp8", graphs=True),
}
"""Value of `--fast` -> engine; "auto" chooses by the machine (`choose_engine`)."""


def fast_of(name: str) -> str:
    """Return the value of `--fast` that asks for the engine `name` of a PNG file."""
    return next((fast for fast, engine in ENGINES.items() if engine.name == name), "auto")


def choose_engine(fast: str | None, precision: Precision) -> Engine:
    """Return the engine for `fast`, "auto" or a name of `ENGINES`; None is auto.

    Raises RequestError for another name, and if what was asked for can't run on this machine.
    """
    engine = _named(fast, precision)
    full = precision.device.type == "cuda" and precision.dtype == torch.float32
    return replace(engine, exact=True) if full else engine


def _named(fast: str | None, precision: Precision) -> Engine:
    if fast in (None, "auto"):
        return _automatic(precision)
    if fast not in ENGINES:
        raise RequestError(f"unknown engine {fast!r}; use {', '.join(('auto', *ENGINES))}")
    engine = ENGINES[fast]
    return engine if engine is PLAIN else _as_asked(engine, precision)


def _automatic(precision: Precision) -> Engine:
    refusal = _refusal("linear", precision)
    if refusal is None:
        return Engine(name="packed", reason="weights packed for oneDNN, activations inside the products")
    if precision.device.type == "cuda" and why_no_kernels() is None:
        return Engine(
            name="kernels", reason="Triton kernels run where the table has them; upsampling is packed"
        )
    slow = _slow_half(precision)
    if slow is not None:
        reason = f"plain torch with products in float32, because {slow}"
        return Engine(name="widened", reason=reason, pack=False, widen=True)
    return replace(PLAIN, reason=f"plain torch, because the packed form {refusal}")


def _slow_half(precision: Precision) -> str | None:
    """Return why products are slow in the dtype, or None if the CPU has units for it."""
    if precision.device.type != "cpu" or precision.dtype not in (torch.bfloat16, torch.float16):
        return None
    times = half_slowness(precision.dtype, this_chip())
    name = dtype_name(precision.dtype)
    return None if times is None else f"in {name} they take {times:.0f} times as long on this CPU"


def _as_asked(engine: Engine, precision: Precision) -> Engine:
    """Return the engine with its reason. Raises RequestError if it can't run."""
    refusal = _why_not(engine, precision)
    if refusal is not None:
        raise RequestError(f"{engine.name} was asked for, but it {refusal}: choose auto")
    done = [] if engine.quantise is None else [f"the transformer's wide layers in {engine.quantise}"]
    done += ["its blocks compiled at the first step of each size"] if engine.compile else []
    done += ["not kept, for ~/.cache can't be written"] if engine.compile and not keeps() else []
    done += ["steps and decoding recorded as CUDA graphs"] if engine.graphs else []
    packs = precision.device.type == "cpu" and _refusal("linear", precision) is None
    done += ["the rest packed for oneDNN"] if packs else []
    slow, remark = _slow_half(precision), int8_remark(precision) if engine.quantise == "int8" else None
    done += [] if slow is None else [f"other products in float32, because {slow}"]
    reason = ", ".join([*done, "as asked"]) + (f"; {remark.rstrip('.')}" if remark else "")
    return replace(engine, reason=reason, widen=slow is not None)


def _why_not(engine: Engine, precision: Precision) -> str | None:
    if engine.graphs and precision.device.type != "cuda":
        return f"records CUDA graphs, and this runs on {precision.device.type}"
    needed = [] if engine.quantise is None else [f"{engine.quantise}_matmul"]
    needed += ["linear"] if engine.compile else []
    refusals = (_refusal(op, precision) for op in needed)
    first = next((refusal for refusal in refusals if refusal is not None), None)
    return first or (why_not() if engine.compile else None)


def _refusal(op: str, precision: Precision) -> str | None:
    """Return why no fast row of an operator runs here, or None if one does."""
    problem = Problem(op, precision.device.type, precision.dtype)
    if select(op, problem).name != "reference":
        return None
    return _refusals(problem) or "was switched off"


def _refusals(problem: Problem, without: tuple[str, ...] = ()) -> str:
    """Return the refusals of an operator's rows, each reason once with the rows that give it, except rows `without`."""
    rows: dict[str, list[str]] = {}
    for line in explain(problem):
        _, row, verdict = line.split(": ", 2)
        if verdict.startswith("refuses: ") and row not in without:
            rows.setdefault(verdict.removeprefix("refuses: "), []).append(row)
    return "; ".join(f"{reason} ({', '.join(names)})" for reason, names in rows.items())


def int8_remark(precision: Precision) -> str | None:
    """Return a sentence on why int8 only saves memory here, or None if its products are faster."""
    problem = Problem("int8_matmul", precision.device.type, precision.dtype)
    row = select("int8_matmul", problem).name
    if row not in SLOW_INT8:
        return None
    why = _refusals(problem, without=("triton",) if problem.device == "cpu" else ())
    return f"int8 saves memory but no time here, its layers are multiplied as {SLOW_INT8[row]}: {why}."


def describe_int8(precision: Precision) -> str:
    """Return what int8 gains on this machine, for `sanakit doctor`."""
    row = select("int8_matmul", Problem("int8_matmul", precision.device.type, precision.dtype)).name
    return int8_remark(precision) or f"its products have units of their own here ({row})"


def edit(module: nn.Module, part: str, engine: Engine) -> nn.Module:
    """Bring a loaded part into the form of the engine, in place; return it, inside a `Runner` if need be.

    part: "text", "transformer", "control", "encoder" or "decoder".
    """
    for change in edits(part, engine):
        changed = change(module)
        module = changed if isinstance(changed, nn.Module) else module
    return module


def edits(part: str, engine: Engine) -> list[Edit]:
    """Return the edits of a part in the order in which they are made.

    The text encoder and that of the autoencoder are widened at most: they run once per image, and packing costs as long
    as that.
    """
    network, once = part in ("transformer", "control"), part in ("text", "encoder")
    rows: list[tuple[bool, Edit]] = [
        # The heap is told to keep its pages before anything large is allocated.
        (engine.pack and not once, _keep_pages),
        # Quantising comes before packing, which lays out what is left in floating point.
        (engine.quantise == "int8" and network, quantise),
        (engine.quantise == "fp8" and network, to_fp8),
        # Norms that quantise for the layer behind them look for it by its class, which packing would hide.
        (engine.pack and not once, fuse_quantisation),
        (engine.pack and not once, pack),
        # A compiler traces what it finds, so no module is replaced after it, and int8 weights are prepared before.
        (engine.compile and network, prepare_layers),
        (engine.compile and network, compile_blocks),
        # A recording holds the kernels that everything before it launches.
        (engine.graphs and not once, record),
        # Contexts are entered at each call, around all that it runs.
        (engine.widen, widen),
        (engine.exact and part != "text", exact),
        (not engine.pack and part != "text", plain),
    ]
    return [change for wanted, change in rows if wanted]


def _keep_pages(module: nn.Module) -> None:
    if next(module.parameters()).device.type == "cpu":
        keep_pages()
