"""What a run said of itself, kept beside its checkpoint: `log.jsonl`, one report a line, for learning curves.

A run that is stopped between checkpoints does some steps again and reports them again: the later line counts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from sanakit.base.files import refusals
from sanakit.base.json_text import parse_json

_NAME = "log.jsonl"


def write_entry(folder: Path, step: int, values: Mapping[str, float], kind: str = "") -> None:
    """Append the values reported at a step. kind: "" for the training itself, else what they are of.

    Raises OutputError.
    """
    named = {"step": step, "kind": kind} if kind else {"step": step}
    with refusals(folder / _NAME):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / _NAME).open("ab+") as file:
            begun = "\n" if _ends_in_a_line(file) else ""  # left by a crash, and must not spoil this entry
            file.write(f"{begun}{json.dumps({**named, **values})}\n".encode())


def _ends_in_a_line(file: BinaryIO) -> bool:
    """Whether the last line has no end."""
    if file.seek(0, os.SEEK_END) == 0:
        return False
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"


def read_journal(folder: Path, kind: str = "") -> dict[int, dict[str, float]]:
    """step -> values of a kind, in the order of steps; empty where nothing was kept.

    A line that was cut by a crash is passed over.
    """
    path = folder / _NAME
    entries: dict[int, dict[str, float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            entry = parse_json(line)
            if entry.pop("kind", "") == kind:
                entries[int(entry.pop("step"))] = entry
        except (ValueError, KeyError, AttributeError):
            continue
    return dict(sorted(entries.items()))
