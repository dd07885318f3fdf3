"""Results of a benchmark: rows, a table with ratios to every peer, JSON, and a plot with the limit drawn in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sanakit.base.errors import RequestError
from sanakit.base.files import atomic_write
from sanakit.benchmark.machine import Machine
from sanakit.benchmark.pilot import Skipped


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the benchmark.

    seconds: median; low, high: of all rounds. limit_seconds: operations at the rate of the machine's products in this
    dtype (int8 for int8). peak_gb: weights and what the run added, in 10^9 bytes; None if unknown.
    error: relative to the first engine of `run.EXACT` that runs; None for itself.
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
        """Return the fields as plain values."""
        return asdict(self)


HEADER = (
    f"{'stage':<12} {'engine':<19} {'dtype':<9} {'seconds':>8} {'spread':>17} {'limit':>7} {'share':>6} "
    f"{'GB':>6} {'error':>8}"
)


def line(row: Row) -> str:
    """Return a row as text."""
    spread = f"{row.low:.3f} to {row.high:.3f}"
    memory = "" if row.peak_gb is None else f"{row.peak_gb:.2f}"
    error = "" if row.error is None else f"{row.error:.2%}"
    return (
        f"{row.stage:<12} {row.engine:<19} {row.dtype:<9} {row.seconds:>8.3f} {spread:>17} "
        f"{row.limit_seconds:>7.3f} {row.share_of_limit:>6.0%} {memory:>6} {error:>8}"
    )


def ratios(rows: Sequence[Row]) -> list[str]:
    """Return how many times as long every other engine takes, for each of ours."""
    lines = []
    for stage in dict.fromkeys(row.stage for row in rows):
        here = [row for row in rows if row.stage == stage]
        for ours in (row for row in here if row.engine.startswith("sanakit")):
            others = [f"{row.engine} {row.seconds / ours.seconds:.2f}x" for row in here if row is not ours]
            if others:
                lines.append(f"{stage}: against {ours.engine}: {', '.join(others)}")
    return lines


def write_json(path: Path, machine: Machine, rows: Sequence[Row], skipped: Sequence[Skipped] = ()) -> None:
    """Write the machine and its rates, all rows, and which engines were left out of which stage."""
    rates = {
        "machine": machine.description, "chip": machine.name, "cores": machine.cores, "threads": machine.threads,
        "instructions": machine.instructions, "products": machine.products, "copy": machine.copy,
    }  # fmt: skip
    data = {
        "machine": rates,
        "rows": [row.to_json() for row in rows],
        "left_out": [one.to_json() for one in skipped],
    }
    atomic_write(path, (json.dumps(data, indent=1) + "\n").encode())


def write_plot(path: Path, rows: Sequence[Row], title: str) -> None:
    """Draw bars per stage, engines side by side, a mark at each one's limit. Raises RequestError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise RequestError("a plot needs matplotlib: pip install matplotlib, or leave --plot out") from None
    stages = list(dict.fromkeys(row.stage for row in rows))
    figure = Figure(figsize=(3.2 * len(stages), 3.6), layout="constrained")
    for axes, stage in zip(figure.subplots(1, len(stages), squeeze=False)[0], stages, strict=True):
        here = [row for row in rows if row.stage == stage]
        positions = range(len(here))
        axes.bar(positions, [row.seconds for row in here], color=[_colour(row) for row in here])
        for at, row in zip(positions, here, strict=True):
            axes.plot([at - 0.4, at + 0.4], [row.limit_seconds] * 2, color="black", linewidth=2)
        axes.set_xticks(positions, [row.engine for row in here], rotation=35, ha="right", fontsize=8)
        axes.set_title(f"{stage}, seconds", fontsize=10)
    figure.suptitle(f"{title} (black: limit of this machine's matrix products)", fontsize=10)
    atomic_write(path, lambda draft: figure.savefig(draft, format="png", dpi=120))


def _colour(row: Row) -> str:
    return "tab:green" if row.engine.startswith("sanakit") else "tab:gray"
