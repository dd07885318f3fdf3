"""The benchmark: stages by engines at one size, side by side in one process, with errors and limits."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import Tensor

from sanakit.autoencoder import AutoencoderConfig
from sanakit.base.echo import printable
from sanakit.base.errors import NumericsError, RequestError
from sanakit.base.units import dtype_name
from sanakit.benchmark.engines import ENGINES, EngineSpec
from sanakit.benchmark.machine import Machine
from sanakit.benchmark.pilot import Skipped, too_slow
from sanakit.benchmark.report import Row
from sanakit.benchmark.stages import STAGES, work_of
from sanakit.benchmark.timing import Contender, Timing, alternate
from sanakit.benchmark.workload import Encoders, Workload, operations
from sanakit.pipeline.events import Stage
from sanakit.pipeline.threads import stage_threads

EXACT = ("diffusers-fp32", "sanakit-plain", "diffusers", "sanakit")
"""The first of these that runs gives the result that the others are compared with."""

Notify = Callable[[str], object]


def bench(
    model: str,
    workload: Workload,
    stages: Sequence[str],
    engines: Sequence[EngineSpec],
    machine: Machine,
    rounds: int = 3,
    notify: Notify = lambda text: None,
    limit: float | None = None,
    decoders: Mapping[str, AutoencoderConfig] = MappingProxyType({}),
) -> Iterator[Row | Skipped]:
    """Time `stages` by `engines` and yield rows; with all three stages, whole images as sums at the end.

    decoders: others, by name, that are timed beside the model's own if decoding is; rows name them (`decode lite`).
    limit: seconds for everything. An engine that would take far longer than its share, or can't do a stage, is left out
    with the reason, before others are timed.
    Raises NumericsError if two engines disagree, before any time of that stage is yielded.
    """
    rows: list[Row] = []
    parts = _parts(workload, stages, decoders)
    share = None if limit is None else limit / max(1, len(parts) * len(engines))
    for label, stage, workload in parts:
        runs = {spec.name: 1 if spec.once else rounds + 1 for spec in engines}
        without = {} if share is None else {
            spec.name: reason for spec in engines
            if (reason := _why_not(stage, workload, spec, runs[spec.name], share)) is not None
        }  # fmt: skip
        yield from (Skipped(stage=label, engine=name, reason=reason) for name, reason in without.items())
        chosen = [spec for spec in engines if spec.name not in without]
        if not chosen:
            continue
        notify(f"{label}: {', '.join(spec.name for spec in chosen)}")
        timed = _stage(model, workload, stage, chosen, machine, rounds, notify)
        found = [replace(row, stage=label) for row in timed]
        rows += found
        yield from found
    if set(stages) >= set(STAGES):
        for name in ("", *decoders):
            yield from images(rows, workload.steps, name)


def _parts(
    workload: Workload, stages: Sequence[str], decoders: Mapping[str, AutoencoderConfig]
) -> list[tuple[str, str, Workload]]:
    """Return what is timed: (label, stage, workload)."""
    parts = [(stage, stage, workload) for stage in stages]
    if "decode" not in stages:
        return parts
    for name, config in decoders.items():
        other = replace(workload, shapes=replace(workload.shapes, autoencoder=config))
        parts.append((_named("decode", name), "decode", other))
    return parts


def _named(stage: str, decoder: str) -> str:
    """`decode lite`; the stage itself for the model's own decoder."""
    return f"{stage} {decoder}" if decoder else stage


def _why_not(stage: str, workload: Workload, spec: EngineSpec, runs: int, share: float) -> str | None:
    """Return why an engine is left out of a stage; None if it is timed."""
    try:
        return too_slow(stage, workload, spec, runs, share)
    except RequestError as error:
        return str(error)
    except Exception as error:
        if spec.peer is None:
            raise
        # Peers may be of any version.
        return f"{spec.peer} fails on a small problem: {printable(error, 200)}"


def _stage(
    model: str,
    workload: Workload,
    stage: str,
    engines: Sequence[EngineSpec],
    machine: Machine,
    rounds: int,
    notify: Notify,
) -> list[Row]:
    contenders: dict[str, Contender] = {}
    weights: dict[str, tuple[int, str | None]] = {}
    encoders: Encoders = {}
    for spec in engines:
        work = work_of(stage, workload, spec, encoders)
        weights[spec.name] = (work.size, work.dtype)
        contenders[spec.name] = Contender(
            run=work.run, pages=spec.pages, once=spec.once, threads=_threads(stage, workload, spec)
        )
    timings = alternate(
        contenders, rounds, lambda name, seconds: notify(f"{stage}: {name} {seconds:.2f} s"), workload.device
    )
    contenders.clear()
    encoders.clear()
    gc.collect()
    exact = next((name for name in EXACT if name in timings), next(iter(timings)))
    errors = {name: difference(timing.result, timings[exact].result) for name, timing in timings.items()}
    _check(stage, exact, errors, {spec.name: spec.differs for spec in engines})
    needed = operations(stage, workload)
    return [
        _row(model, workload, stage, spec, timings[spec.name], machine, needed, weights[spec.name],
             None if spec.name == exact else errors[spec.name])
        for spec in engines
    ]  # fmt: skip


def _row(
    model: str,
    workload: Workload,
    stage: str,
    spec: EngineSpec,
    timing: Timing,
    machine: Machine,
    needed: float,
    weights: tuple[int, str | None],
    error: float | None,
) -> Row:
    size, named = weights
    dtype = named or dtype_name(spec.dtype or workload.dtype)
    int8 = spec.int8 and (stage == "step" or spec.peer is not None) and "int8" in machine.products
    dtype = "float32" if dtype == "int8" and not int8 else dtype
    limit = machine.limit(needed, "int8" if int8 else dtype)
    return Row(
        stage=stage,
        model=model,
        size=f"{workload.width}x{workload.height}",
        dtype="int8" if int8 else dtype,
        engine=spec.name,
        seconds=timing.median,
        low=min(timing.seconds),
        high=max(timing.seconds),
        limit_seconds=limit,
        share_of_limit=limit / timing.median,
        peak_gb=None if timing.added is None else (timing.added + size) / 1e9,
        error=error,
    )


def _threads(stage: str, workload: Workload, spec: EngineSpec) -> int | None:
    """Return the threads of an image for our engines; None for others, which run as they are."""
    if spec.peer is not None:
        return None
    pipeline_stage: dict[str, Stage] = {"text": "text", "step": "denoise", "decode": "decode"}
    return stage_threads(workload.shapes, workload.width, workload.height, workload.device)[
        pipeline_stage[stage]
    ].count


def difference(found: Tensor, wanted: Tensor) -> float:
    """Return the relative distance |found - wanted| / |wanted|."""
    return float(torch.linalg.norm(found.double() - wanted.double()) / torch.linalg.norm(wanted.double()))


def _check(stage: str, exact: str, errors: dict[str, float], bounds: dict[str, float]) -> None:
    for name, error in errors.items():
        if not error <= bounds[name]:
            raise NumericsError(
                f"benchmark of {stage}: {name} differs from {exact} by {error:.1%} of its size, so their times can't "
                "be compared"
            )


def images(rows: Sequence[Row], steps: int, decoder: str = "") -> Iterator[Row]:
    """Yield a row for a whole image per engine: text + steps + decode, as a sum of measured rows.

    decoder: the name of another one; "" for the model's own.
    """
    shares = {"text": 1, "step": steps, _named("decode", decoder): 1}
    for name in ENGINES:
        parts = {row.stage: row for row in rows if row.engine == name}
        if not set(parts) >= set(shares):
            continue
        used = [parts[stage] for stage in shares]
        peaks = [row.peak_gb for row in used if row.peak_gb is not None]

        def total(field: str, used: Sequence[Row] = used) -> float:
            counts = shares.values()
            return sum(n * float(getattr(row, field)) for n, row in zip(counts, used, strict=True))

        yield Row(
            stage=_named("picture", decoder),
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
