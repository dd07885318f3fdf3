"""Pilot runs: an engine that would take hours is found on small problems first and left out.

A library may compute correctly by a loop that takes five hundred times as long, and a product that has start can't be
interrupted. So every engine first does its stage at a small size with one block, then at larger ones, as long as the
operations still to be done look bearable at the speed seen so far.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from sanakit.autoencoder import AutoencoderConfig
from sanakit.benchmark.engines import EngineSpec
from sanakit.benchmark.stages import work_of
from sanakit.benchmark.workload import Encoders, Workload, operations
from sanakit.text import TextConfig

FRACTIONS = (32, 8, 4, 2)
"""Sides of the small problems: this part of the full one."""

FAR = 3.0
"""An engine that would take this many times its share is left out."""

_BEARABLE = 0.25  # of the share: the next small problem is tried if it looks shorter than this


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """An engine that isn't timed in a stage, and why."""

    stage: str
    engine: str
    reason: str

    def __str__(self) -> str:
        return f"{self.stage}: {self.engine} is left out: {self.reason}"

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


def too_slow(stage: str, workload: Workload, spec: EngineSpec, runs: int, share: float) -> str | None:
    """Return why an engine should not be timed in a stage; None if its runs take no more than `FAR` shares.

    share: seconds. The form that isn't compiled is measured: it says enough, and compiling takes longer than that.
    """
    spec = replace(spec, compiled=False, fast=spec.fast and spec.fast.replace("-compiled", ""))
    if spec.fast == "compiled":
        spec = replace(spec, fast="auto")
    whole, need = operations(stage, workload), float("inf")
    problems = [small(workload, fraction) for fraction in FRACTIONS]
    costs = [operations(stage, problem) for problem in problems]
    for problem, cost, following in zip(problems, costs, [*costs[1:], float("inf")], strict=True):
        seconds = _seconds(stage, problem, spec)
        need = seconds * whole / cost * runs
        if need <= FAR * share:
            return None
        if seconds * following / cost > _BEARABLE * share:
            break
    return (
        f"by a small problem it would take about {span(need)}, and its share of the time is {span(share)}; "
        f"more --minutes give it more"
    )


def small(workload: Workload, fraction: int) -> Workload:
    """Return one with sides of 1 / `fraction` (at least a patch), one block per network or stage, a narrow text."""
    shapes = workload.shapes
    step = shapes.autoencoder.ratio * shapes.transformer.patch_size
    width, height = (max(step, side // fraction // step * step) for side in (workload.width, workload.height))
    shapes = replace(
        shapes,
        transformer=replace(shapes.transformer, depth=1),
        autoencoder=_shallow(shapes.autoencoder),
        text=_narrow(shapes.text, fraction),
    )
    return replace(workload, shapes=shapes, width=width, height=height)


def _shallow(config: AutoencoderConfig) -> AutoencoderConfig:
    """One block per stage."""
    encoder, decoder = (
        tuple(replace(stage, depth=min(stage.depth, 1)) for stage in stages)
        for stages in (config.encoder, config.decoder)
    )
    return replace(config, encoder=encoder, decoder=decoder)


def _narrow(config: TextConfig, fraction: int) -> TextConfig:
    """One layer of few words, its FFN narrower by the square of the fraction, as the image's area."""
    inner = max(32, int(config["intermediate_size"]) // fraction)
    kept = {name: value for name, value in config.items() if name != "layer_types"}  # one entry per layer
    return {**kept, "num_hidden_layers": 1, "vocab_size": 256, "intermediate_size": inner}


@torch.no_grad()
def _seconds(stage: str, workload: Workload, spec: EngineSpec) -> float:
    """Seconds of a second run; on a CPU of the first if that was long already.

    On a GPU a long first run has compiled kernels.
    """
    encoders: Encoders = {}
    work = work_of(stage, workload, spec, encoders)
    first = _timed(work.run, workload)
    crawls = first > 1.0 and workload.device.type == "cpu"
    seconds = first if crawls else min(first, _timed(work.run, workload))
    del work, encoders
    gc.collect()
    return seconds


def _timed(run: Callable[[], object], workload: Workload) -> float:
    start = time.perf_counter()
    run()
    if workload.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def span(seconds: float) -> str:
    """Return seconds in words: `45 seconds`, `12 minutes`, `3.4 hours`."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
