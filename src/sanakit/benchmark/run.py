"""The benchmark: stages by engines at one size, side by side in one process, with errors and limits."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from sanakit.base.echo import printable
from sanakit.base.errors import NumericsError, RequestError
from sanakit.base.units import dtype_name
from sanakit.benchmark.cost import operations
from sanakit.benchmark.engines import ENGINES, EngineSpec
from sanakit.benchmark.machine import Machine
from sanakit.benchmark.rounds import Contender, Timing, alternate
from sanakit.benchmark.stages import STAGES, work_of
from sanakit.benchmark.subject import Subject
from sanakit.benchmark.trial import LeftOut, too_slow
from sanakit.pipeline.events import Stage
from sanakit.pipeline.threads import stage_threads

EXACT = ("diffusers-fp32", "sanakit-plain", "diffusers", "sanakit")
"""Whose result the others are held against: the first of these that runs."""

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
    limit: float | None = None,
) -> Iterator[Row | LeftOut]:
    """Time `stages` by `engines` and yield rows; with all three stages, whole pictures as sums at the end.

    limit: seconds for everything. An engine that would take far longer than its share, or can't do a stage, is left out
    with the reason, before others are timed.
    Raises NumericsError where two engines disagree, before any time of that stage is told.
    """
    rows: list[Row] = []
    share = None if limit is None else limit / max(1, len(stages) * len(engines))
    for stage in stages:
        runs = {spec.name: 1 if spec.once else rounds + 1 for spec in engines}
        without = {} if share is None else {
            spec.name: reason for spec in engines
            if (reason := _why_not(stage, subject, spec, runs[spec.name], share)) is not None
        }  # fmt: skip
        yield from (LeftOut(stage=stage, engine=name, reason=reason) for name, reason in without.items())
        chosen = [spec for spec in engines if spec.name not in without]
        if not chosen:
            continue
        tell(f"{stage}: {', '.join(spec.name for spec in chosen)}")
        found = _stage(model, subject, stage, chosen, machine, rounds, tell)
        rows += found
        yield from found
    if set(stages) >= set(STAGES):
        yield from pictures(rows)


def _why_not(stage: str, subject: Subject, spec: EngineSpec, runs: int, share: float) -> str | None:
    """Why an engine is left out of a stage; None where it is timed."""
    try:
        return too_slow(stage, subject, spec, runs, share)
    except RequestError as error:
        return str(error)
    except Exception as error:
        if spec.peer is None:
            raise
        return (
            f"{spec.peer} fails on a small problem: {printable(error, 200)}"  # others may be of any version
        )


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
    told: dict[str, tuple[int, str | None]] = {}
    for spec in engines:
        work = work_of(stage, subject, spec)
        told[spec.name] = (work.size, work.dtype)
        contenders[spec.name] = Contender(
            work=work.run, pages=spec.pages, once=spec.once, threads=_threads(stage, subject, spec)
        )
    timings = alternate(
        contenders, rounds, lambda name, seconds: tell(f"{stage}: {name} {seconds:.2f} s"), subject.device
    )
    contenders.clear()
    subject.shared.clear()
    gc.collect()
    exact = next((name for name in EXACT if name in timings), next(iter(timings)))
    errors = {name: difference(timing.result, timings[exact].result) for name, timing in timings.items()}
    _check(stage, exact, errors, {spec.name: spec.differs for spec in engines})
    needed = operations(stage, subject)
    return [
        _row(model, subject, stage, spec, timings[spec.name], machine, needed, told[spec.name],
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
    told: tuple[int, str | None],
    error: float | None,
) -> Row:
    weights, named = told
    dtype = named or dtype_name(spec.dtype or subject.dtype)
    int8 = spec.int8 and (stage == "step" or spec.peer is not None) and "int8" in machine.products
    dtype = "float32" if dtype == "int8" and not int8 else dtype
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


def _threads(stage: str, subject: Subject, spec: EngineSpec) -> int | None:
    """Ours runs on the threads that a picture would; None for others, which run as they are."""
    if spec.peer is not None:
        return None
    drawing: dict[str, Stage] = {"text": "text", "step": "denoise", "decode": "decode"}
    return stage_threads(subject.shapes, subject.width, subject.height, subject.device)[drawing[stage]].count


def difference(found: Tensor, wanted: Tensor) -> float:
    """Relative distance |found - wanted| / |wanted|."""
    return float(torch.linalg.norm(found.double() - wanted.double()) / torch.linalg.norm(wanted.double()))


def _check(stage: str, exact: str, errors: dict[str, float], bounds: dict[str, float]) -> None:
    for name, error in errors.items():
        if not error <= bounds[name]:
            raise NumericsError(
                f"benchmark of {stage}: {name} differs from {exact} by {error:.1%} of its size, so their times do not "
                "compare"
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
