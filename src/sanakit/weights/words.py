"""The words that a model was trained on, in `words.txt` of its folder: one a line, in lower case.

Only models with a small vocabulary of their own have one: it says which words they know though they read them in
pieces.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sanakit.base.files import atomic_write
from sanakit.weights.model_spec import ModelSpec

__all__ = ["WORDS_FILE", "read_words", "write_words"]

WORDS_FILE = "words.txt"
_MOST = 2**22  # bytes: half a million words


def read_words(spec: ModelSpec) -> frozenset[str]:
    """The words that a model was trained on; empty where its folder does not say, or can't be read."""
    try:
        with (spec.folder / WORDS_FILE).open("rb") as file:
            return frozenset(file.read(_MOST).decode("utf-8", "replace").split())
    except OSError:
        return frozenset()


def write_words(folder: Path, words: Iterable[str]) -> None:
    """Add the file to a model's folder; no words, no file. Raises OutputError."""
    listed = sorted(words)
    if listed:
        atomic_write(folder / WORDS_FILE, ("\n".join(listed) + "\n").encode())
