"""What a run said of itself, kept beside its checkpoint: `log.jsonl`, one report a line, for learning curves.

A run that is stopped between checkpoints does some steps again and reports them again: the later line counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

_NAME = "log.jsonl"


def write_entry(folder: Path, step: int, values: Mapping[str, float], kind: str = "") -> None:
    """Append the values reported at a step. kind: "" for the training itself, else what they are of."""
    folder.mkdir(parents=True, exist_ok=True)
    named = {"step": step, "kind": kind} if kind else {"step": step}
    with (folder / _NAME).open("a", encoding="utf-8") as file:
        file.write(json.dumps({**named, **values}) + "\n")


def read_journal(folder: Path, kind: str = "") -> dict[int, dict[str, float]]:
    """step -> values of a kind, in the order of steps; empty where nothing was kept.

    A line that was cut by a crash is passed over.
    """
    path = folder / _NAME
    entries: dict[int, dict[str, float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
            if entry.pop("kind", "") == kind:
                entries[int(entry.pop("step"))] = entry
        except (ValueError, KeyError, AttributeError):
            continue
    return dict(sorted(entries.items()))
