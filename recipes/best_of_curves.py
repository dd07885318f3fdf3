"""Curves of the best of N: shares of right pictures from the readings of two judges, their intervals, table and plot.

See recipes/best_of.py, which draws and reads the candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path

import torch
from torch import Tensor

from sanakit.base.files import atomic_write
from sanakit.evaluation import Share

SAMPLES = 10_000
"""Of the bootstrap."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Candidates in the order of their seeds, and what judges read in them.

    scores, right: judge -> a row for each prompt, as long as candidates were drawn. seconds: stage -> of one candidate.
    """

    scores: Mapping[str, list[list[float]]]
    right: Mapping[str, list[list[bool]]]
    seconds: Mapping[str, float]

    @property
    def each(self) -> float:
        """Seconds of a candidate: denoising, decoding and judging."""
        return sum(self.seconds.values())


def common(rows: Sequence[Sequence[float]]) -> Tensor:
    """[prompts, M] float64: the first candidates of each, as many as all prompts have."""
    many = min(len(row) for row in rows)
    return torch.tensor([list(row[:many]) for row in rows], dtype=torch.float64)


def best_of(scores: Tensor, values: Tensor, n: int) -> Tensor:
    """[prompts]: the mean value of the candidate with the highest score, over all choices of n of the M candidates.

    scores, values: [prompts, M]. The candidate of rank r (from 0) is the best of C(M-1-r, n-1) of the C(M, n) choices.
    """
    many = scores.shape[1]
    order = scores.argsort(dim=1, descending=True, stable=True)
    share = torch.tensor(
        [comb(many - 1 - rank, n - 1) / comb(many, n) for rank in range(many)], dtype=torch.float64
    )
    return (values.gather(1, order).double() * share).sum(1)


def interval(values: Tensor) -> tuple[float, float, float]:
    """Return the mean of [prompts] with its 95 % interval: percentiles of means of prompts drawn with replacement.

    Where all are right, or none, that says nothing, and Wilson's interval is taken.
    """
    values = values.round(decimals=9)  # means over choices of what is always right are 1 up to rounding
    if float(values.min()) == float(values.max()) in (0.0, 1.0):
        return (float(values[0]), *Share(hits=int(values.sum()), n=len(values)).interval)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(values), (SAMPLES, len(values)), generator=generator)
    low, high = values[drawn].mean(1).quantile(torch.tensor([0.025, 0.975], dtype=values.dtype)).tolist()
    mean = float(values.mean())
    return mean, min(low, mean), max(high, mean)  # of equal values they differ by rounding


def sizes(many: int) -> list[int]:
    """1, 2, 4 ... up to the number of candidates."""
    return [2**power for power in range(many.bit_length()) if 2**power <= many]


Curve = list[tuple[int, float, tuple[float, float, float]]]
"""(N, seconds, (mean, low, high))."""


def curve(found: Drawn, chooser: str, scorer: str) -> Curve:
    """Shares of right pictures by one judge if the other chooses."""
    scores, right = common(found.scores[chooser]), common(found.right[scorer])
    return [(n, n * found.each, interval(best_of(scores, right, n))) for n in sizes(scores.shape[1])]


def draft_curve(drafts: Drawn, full: Drawn, chooser: str, scorer: str) -> Curve:
    """The same if drafts are judged and only the chosen one is drawn in all steps."""
    scores, right = common(drafts.scores[chooser]), common(full.right[scorer])
    many = min(scores.shape[1], right.shape[1])
    return [
        (n, n * drafts.each + full.each, interval(best_of(scores[:, :many], right[:, :many], n)))
        for n in sizes(many)
    ]


def until_curve(found: Drawn, chooser: str, scorer: str, most: int) -> Curve:
    """Shares of right pictures if candidates are drawn one by one, N at most, until the chooser finds one right.

    Prompts may have fewer than N candidates if one of them is right. The seconds are the mean of what was drawn.
    """
    rows = list(zip(found.scores[chooser], found.right[chooser], found.right[scorer], strict=True))
    points = []
    for n in sizes(most):
        chosen = [chosen_until(scores[:n], right[:n]) for scores, right, _ in rows]
        values = torch.tensor([row[2][at] for row, (at, _) in zip(rows, chosen, strict=True)])
        drawn = sum(count for _, count in chosen) / len(chosen)
        points.append((n, drawn * found.each, interval(values.double())))
    return points


def chosen_until(scores: Sequence[float], right: Sequence[bool]) -> tuple[int, int]:
    """(which candidate is kept, how many were drawn): the first right one, else the best of all."""
    if any(right):
        first = list(right).index(True)
        return first, first + 1
    return max(range(len(scores)), key=lambda k: scores[k]), len(scores)


def table(curves: Mapping[str, Curve]) -> str:
    """Markdown: a row for each N, a column for each curve."""
    numbers = sorted({n for one in curves.values() for n, _, _ in one})
    rows = ["| N | " + " | ".join(curves) + " |", "|---" * (len(curves) + 1) + "|"]
    for number in numbers:
        cells = [
            next((told(seconds, share) for n, seconds, share in one if n == number), "")
            for one in curves.values()
        ]
        rows.append(f"| {number} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def told(seconds: float, share: tuple[float, float, float]) -> str:
    """A cell: the share with its interval, and the time."""
    mean, low, high = share
    return f"{mean:.1%} ({low:.1%} to {high:.1%}), {seconds:.1f} s"


def plot(path: Path, curves: Mapping[str, Curve]) -> None:
    """Shares over seconds, N beside each point."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axes = figure.subplots()
    for name, one in curves.items():
        seconds, means = [row[1] for row in one], [row[2][0] for row in one]
        bars = [[row[2][0] - row[2][1] for row in one], [row[2][2] - row[2][0] for row in one]]
        axes.errorbar(
            seconds, means, yerr=bars, marker="o", markersize=4, capsize=2, linewidth=1.2, label=name
        )
        for n, at, (mean, _, _) in one:
            axes.annotate(str(n), (at, mean), textcoords="offset points", xytext=(4, -9), fontsize=7)
    axes.set_xscale("log")
    axes.set_xlabel("seconds on one core")
    axes.set_ylabel("right")
    axes.grid(alpha=0.3)
    figure.legend(fontsize=7, loc="outside lower center")
    atomic_write(path, lambda draft: figure.savefig(draft, format="png", dpi=120))
