"""Measurements that are repeated with several seeds: kept as JSON, never made twice, side by side in processes."""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread

import torch

from sanakit.base.files import atomic_write

SEEDS = range(10)
RESULT = "result.json"

Found = dict[str, float]
"""What was measured, by name."""


def arguments(description: str | None, variants: Collection[str], steps: int) -> argparse.Namespace:
    """What the command line asks for: variants (all by default), seeds, steps, jobs, or the table alone."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("variants", nargs="*", help=f"of {', '.join(variants)}; default: all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    unknown = [name for name in given.variants if name not in variants]
    if unknown:
        parser.error(f"{unknown[0]!r} is no variant: choose of {', '.join(variants)}")
    given.variants = given.variants or list(variants)
    return given


def keep_result(folder: Path, found: Found) -> Found:
    """Keep what a run's measurement found beside the run, and return it."""
    atomic_write(folder / RESULT, json.dumps(found).encode())
    return found


def kept_results(folder_of: Callable[[int], Path]) -> dict[int, Found]:
    """seed -> what was kept in the folder of its run."""
    paths = {seed: folder_of(seed) / RESULT for seed in SEEDS}
    return {seed: json.loads(path.read_text()) for seed, path in paths.items() if path.exists()}


def missing(
    names: Sequence[str], seeds: int, results: Callable[[str], dict[int, Found]]
) -> list[tuple[str, int]]:
    """The (name, seed) that have no result. Seeds come last: early on every name has one."""
    return [(name, seed) for seed, name in product(range(seeds), names) if seed not in results(name)]


def measure_all(
    measure: Callable[[str, int, int], Found], wanted: Sequence[tuple[str, int]], steps: int, jobs: int
) -> Iterator[tuple[str, int, Found]]:
    """Measure (name, seed, steps), `jobs` at a time, each in a process of its own; yield what is found."""
    threads = max(1, torch.get_num_threads() // jobs)
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), _begin, (threads,), max_tasks_per_child=1)
    with pool:
        waiting = {(name, seed): pool.submit(measure, name, seed, steps) for name, seed in wanted}
        for (name, seed), result in waiting.items():
            yield name, seed, result.result()


def _begin(threads: int) -> None:
    """Prepare a process that measures: it ends when the one that asked for it is gone."""
    torch.set_num_threads(threads)
    parent = parent_process()
    assert parent is not None
    Thread(target=_end_after, args=(parent.join,), daemon=True).start()


def _end_after(wait: Callable[[], object]) -> None:
    """Wait, then end this process as a user would: a run that is under way is saved."""
    wait()
    os.kill(os.getpid(), signal.SIGTERM)


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean and standard deviation."""
    if not values:
        return ""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"
