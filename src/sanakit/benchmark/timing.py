"""Timing: of one call, and of several contenders in turn, so that changes of the machine's speed fall on all alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sanakit.base.heap import give_back, keep_no_pages, keep_pages
from sanakit.base.memory import process_status
from sanakit.base.precision import CPU
from sanakit.base.threads import use_threads

Run = Callable[[], Tensor]


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to compute something.

    run: returns the result. pages: whether the C library keeps its pages meanwhile. once: the first run is the only
    one, and counts. threads: of the CPU; None for torch's own number.
    """

    run: Run
    pages: bool = False
    once: bool = False
    threads: int | None = None


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of all rounds, bytes of memory that the run added (None if unknown), and the result."""

    seconds: tuple[float, ...]
    added: int | None
    result: Tensor

    @property
    def median(self) -> float:
        """The median of the rounds, in seconds."""
        return statistics.median(self.seconds)


def alternate(
    contenders: Mapping[str, Contender],
    rounds: int,
    on_time: Callable[[str, float], object] = lambda name, seconds: None,
    device: torch.device = CPU,
) -> dict[str, Timing]:
    """Run everyone once unmeasured (compilation, caches), then `rounds` times in turn.

    on_time: called with each measured duration. device: where the work is done, and whose memory counts.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    results: dict[str, Tensor] = {}
    added: dict[str, int | None] = {}
    for number in range(rounds + 1):
        for name, contender in contenders.items():
            if contender.once and number > 0:
                continue
            (keep_pages if contender.pages else keep_no_pages)()
            with use_threads(contender.threads or torch.get_num_threads()):
                duration, memory, result = _measured(contender.run, device)
            if number == 0:
                added[name], results[name] = memory, result.float().cpu().clone()
            if number == 0 and not contender.once:
                continue
            seconds[name].append(duration)
            on_time(name, duration)
    keep_no_pages()
    return {
        name: Timing(seconds=tuple(seconds[name]), added=added[name], result=results[name])
        for name in contenders
    }


def median_seconds(work: Callable[[], object], rounds: int = 7, device: torch.device = CPU) -> float:
    """Return the median duration of `work` after one call that doesn't count."""
    wait: Callable[[], object] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    work()
    seconds = []
    for _ in range(rounds):
        wait()
        start = time.perf_counter()
        work()
        wait()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


@torch.no_grad()
def _measured(run: Run, device: torch.device) -> tuple[float, int | None, Tensor]:
    gc.collect()
    give_back()
    before = _held(device)
    start = time.perf_counter()
    result = run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    duration = time.perf_counter() - start
    peak = _peak(device)
    return duration, None if peak is None or before is None else max(0, peak - before), result


def _held(device: torch.device) -> int | None:
    """Bytes held now, from which the peak is counted anew; None if the system has no such thing."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    return process_status("VmRSS") if _reset_peak() else None


def _peak(device: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else process_status("VmHWM")


def _reset_peak() -> bool:
    """Set the peak of this process's memory to what it holds now; False if the system has no such thing."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True
