"""How a model runs: as built, packed for a CPU, or packed in int8. Decided once, with the reason in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from sanakit.adapt import pack, quantise
from sanakit.base.errors import RequestError
from sanakit.base.heap import keep_pages
from sanakit.base.precision import Precision
from sanakit.kernels.choice import Problem, explain, select

EngineName = Literal["plain", "packed", "int8"]
FAST = ("auto", "off", "int8")
"""What a user may ask for."""

ASKED_BY: dict[str, str] = {"plain": "off", "packed": "auto", "int8": "int8"}
"""Name of an engine -> what asks for it."""


@dataclass(frozen=True)
class Engine:
    """The form that loaded parts are brought into, and why."""

    name: EngineName
    reason: str


def choose_engine(fast: str | None, precision: Precision) -> Engine:
    """The engine for `fast`, one of auto (None), off and int8.

    Raises RequestError for another word, and where int8 was asked for and can't run.
    """
    if fast not in (None, *FAST):
        raise RequestError(f"unknown engine {fast!r}; use {', '.join(FAST)}.")
    if fast == "off":
        return Engine("plain", "plain torch as asked")
    if fast == "int8":
        return _int8(precision)
    refusal = _refusal("linear", precision)
    if refusal is not None:
        return Engine("plain", f"plain torch, because the packed form {refusal}")
    return Engine("packed", "weights packed for oneDNN, activations inside the products")


def _int8(precision: Precision) -> Engine:
    refusal = _refusal("int8_matmul", precision) or _refusal("linear", precision)
    if refusal is not None:
        raise RequestError(f"int8 was asked for, but it {refusal}: choose auto.")
    return Engine("int8", "the transformer's wide layers in int8 as asked, the rest packed for oneDNN")


def _refusal(op: str, precision: Precision) -> str | None:
    """Why the fast row of an operator does not run here; None where it does."""
    problem = Problem(op, precision.device.type, precision.dtype)
    if select(op, problem).name != "reference":
        return None
    return explain(problem)[0].partition("refuses: ")[2] or "was switched off"


def apply_engine(engine: Engine, part: str, module: nn.Module) -> None:
    """Bring a loaded part into the form of the engine, in place.

    The text encoder stays as it is: it runs once per picture, and packing costs as long as that.
    """
    if engine.name == "plain":
        return
    keep_pages()
    if engine.name == "int8" and part == "transformer":
        quantise(module)
    if part != "text":
        pack(module)
