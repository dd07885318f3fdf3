"""The benchmark: stages by engines at one size, side by side in one process, with errors and limits."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from sanakit.base.errors import NumericsError
from sanakit.benchmark.cost import operations
from sanakit.benchmark.engines import ENGINES, EngineSpec
from sanakit.benchmark.machine import Machine
from sanakit.benchmark.rounds import Contender, Timing, alternate
from sanakit.benchmark.stages import STAGES, Subject

EXACT = ("diffusers-fp32", "sanakit-plain", "diffusers", "sanakit")
"""Whose result the others are held against: the first of these that runs."""

AGREES = 0.1
"""Relative difference beyond which two engines do not compute the same thing, and times mean nothing."""

STEPS = 20


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the benchmark.

    seconds: median; low, high: of all rounds. limit_seconds: operations at the rate of the machine's products in this
    dtype (int8 for int8). peak_gb: weights and what the run added, in 10^9 bytes; None where the system does not tell.
    error: relative to the engine that is named first in `EXACT`; None for itself.
    """

    stage: str
    model: str
    size: str
    dtype: str
    engine: str
    seconds: float
    low: float
    high: float
    limit_seconds: float
    share_of_limit: float
    peak_gb: float | None
    error: float | None

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


Tell = Callable[[str], object]


def bench(
    model: str,
    subject: Subject,
    stages: Sequence[str],
    engines: Sequence[EngineSpec],
    machine: Machine,
    rounds: int = 3,
    tell: Tell = lambda text: None,
) -> Iterator[Row]:
    """Time `stages` by `engines` and yield rows; with all three stages, whole pictures as sums at the end.

    Raises NumericsError where two engines disagree, before any time of that stage is told.
    """
    rows: list[Row] = []
    for stage in stages:
        tell(f"{stage}: {', '.join(spec.name for spec in engines)}")
        found = _stage(model, subject, stage, engines, machine, rounds, tell)
        rows += found
        yield from found
    if set(stages) >= set(STAGES):
        yield from pictures(rows)


def _stage(
    model: str,
    subject: Subject,
    stage: str,
    engines: Sequence[EngineSpec],
    machine: Machine,
    rounds: int,
    tell: Tell,
) -> list[Row]:
    contenders: dict[str, Contender] = {}
    weights: dict[str, int] = {}
    for spec in engines:
        work, weights[spec.name] = STAGES[stage](subject, spec)
        contenders[spec.name] = Contender(work=work, pages=spec.pages, once=spec.once)
    timings = alternate(
        contenders, rounds, lambda name, seconds: tell(f"{stage}: {name} {seconds:.2f} s"), subject.device
    )
    contenders.clear()
    subject.shared.clear()
    gc.collect()
    exact = next((name for name in EXACT if name in timings), next(iter(timings)))
    errors = {name: difference(timing.result, timings[exact].result) for name, timing in timings.items()}
    _check(stage, exact, errors)
    needed = operations(stage, subject)
    return [
        _row(model, subject, stage, spec, timings[spec.name], machine, needed, weights[spec.name],
             None if spec.name == exact else errors[spec.name])
        for spec in engines
    ]  # fmt: skip


def _row(
    model: str,
    subject: Subject,
    stage: str,
    spec: EngineSpec,
    timing: Timing,
    machine: Machine,
    needed: float,
    weights: int,
    error: float | None,
) -> Row:
    dtype = str(spec.dtype or subject.dtype).removeprefix("torch.")
    int8 = (spec.fast or "").startswith("int8") and stage == "step" and "int8" in machine.products
    limit = machine.limit(needed, "int8" if int8 else dtype)
    return Row(
        stage=stage,
        model=model,
        size=f"{subject.width}x{subject.height}",
        dtype="int8" if int8 else dtype,
        engine=spec.name,
        seconds=timing.median,
        low=min(timing.seconds),
        high=max(timing.seconds),
        limit_seconds=limit,
        share_of_limit=limit / timing.median,
        peak_gb=None if timing.added is None else (timing.added + weights) / 1e9,
        error=error,
    )


def difference(found: Tensor, wanted: Tensor) -> float:
    """Relative distance |found - wanted| / |wanted|."""
    return float(torch.linalg.norm(found.double() - wanted.double()) / torch.linalg.norm(wanted.double()))


def _check(stage: str, exact: str, errors: dict[str, float]) -> None:
    for name, error in errors.items():
        if not error <= AGREES:
            raise NumericsError(
                f"benchmark of {stage}: {name} differs from {exact} by {error:.1%} of its size, so their times do not "
                "compare."
            )


def pictures(rows: Sequence[Row]) -> Iterator[Row]:
    """A whole picture of `STEPS` steps per engine: text + steps + decode, as a sum of the rows that were measured."""
    for name in ENGINES:
        parts = {row.stage: row for row in rows if row.engine == name}
        if set(parts) < set(STAGES):
            continue
        shares = {"text": 1, "step": STEPS, "decode": 1}
        peaks = [row.peak_gb for row in parts.values() if row.peak_gb is not None]

        def total(field: str, parts: dict[str, Row] = parts, shares: dict[str, int] = shares) -> float:
            return sum(count * float(getattr(parts[stage], field)) for stage, count in shares.items())

        yield Row(
            stage="picture",
            model=parts["step"].model,
            size=parts["step"].size,
            dtype=parts["step"].dtype,
            engine=name,
            seconds=total("seconds"),
            low=total("low"),
            high=total("high"),
            limit_seconds=total("limit_seconds"),
            share_of_limit=total("limit_seconds") / total("seconds"),
            peak_gb=max(peaks) if len(peaks) == len(shares) else None,
            error=None,
        )
