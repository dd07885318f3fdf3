"""Learning curves as a table of means over parts of a run: `python -m recipes.curves runs/toybox/transformer`."""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean

from sanakit.training import read_journal

HIDDEN = ("steps_per_second",)


def table(journal: dict[int, dict[str, float]], parts: int) -> str:
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


def main() -> None:
    """Print the table of a run's folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parts", type=int, default=10)
    arguments = parser.parse_args()
    journal = read_journal(arguments.folder)
    if not journal:
        raise SystemExit(f"no journal in {arguments.folder}: train there first.")
    print(table(journal, arguments.parts))


if __name__ == "__main__":
    main()
