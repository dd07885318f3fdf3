"""Learning curves: `python -m recipes.curves RUN` prints a table of means over parts of a run; with --plot, a picture.

    python -m recipes.curves runs/toybox/transformer
    python -m recipes.curves runs/ablations/1000-steps/{sana,CAME}-? --kind validation --plot out/curves.png

In a picture runs whose folders differ in a last number only, as seeds do, have one colour.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from sanakit.base.files import atomic_write
from sanakit.training import read_journal

HIDDEN = ("steps_per_second",)
Journal = dict[int, dict[str, float]]


def table(journal: Journal, parts: int) -> str:
    """Markdown: a row per part of the run, the mean of what was reported in it."""
    last = max(journal)
    names = [name for name in journal[last] if name not in HIDDEN]
    lines = ["| steps | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for part in range(parts):
        low, high = last * part // parts, last * (part + 1) // parts
        rows = [entry for step, entry in journal.items() if low < step <= high]
        if rows:
            means = (_mean([row[name] for row in rows if name in row]) for name in names)
            lines.append(f"| {low} to {high} | " + " | ".join(means) + " |")
    return "\n".join(lines)


def _mean(values: list[float]) -> str:
    """Empty for a loss that this part of the run did not have yet."""
    return f"{mean(values):.3g}" if values else ""


def kinds_of_run(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """Folders by their names without a last number."""
    found: dict[str, list[Path]] = {}
    for folder in folders:
        found.setdefault(re.sub(r"-\d+$", "", folder.name), []).append(folder)
    return found


def plot(path: Path, folders: Sequence[Path], kind: str, value: str) -> None:
    """One line per run, both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for number, (name, runs) in enumerate(kinds_of_run(folders).items()):
        for seed, folder in enumerate(runs):
            journal = read_journal(folder, kind=kind)
            heights = [entry[value] for entry in journal.values()]
            axes.loglog(list(journal), heights, color=f"C{number}", linewidth=1, label=None if seed else name)
    axes.set_xlabel("steps")
    axes.set_ylabel(f"{value}, {kind or 'training'}")
    axes.grid(which="both", alpha=0.3)
    axes.legend()
    atomic_write(path, lambda draft: figure.savefig(draft, format="png", dpi=120))


def main() -> None:
    """Print the tables of runs, or draw them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--parts", type=int, default=10)
    parser.add_argument("--kind", default="", help="of the figures: empty for the training's, or validation")
    parser.add_argument("--value", default="loss")
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    for folder in given.folders:
        journal = read_journal(folder, kind=given.kind)
        if not journal:
            raise SystemExit(f"no {given.kind or 'training'} figures in {folder}: train there first.")
        if given.plot is None:
            print(f"{folder}\n\n{table(journal, given.parts)}\n")
    if given.plot is not None:
        plot(given.plot, given.folders, given.kind, given.value)


if __name__ == "__main__":
    main()
