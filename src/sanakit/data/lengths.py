"""How many tokens captions have: counted by a model's tokenizer, else estimated from their bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from sanakit.text import load_tokenizer

_BYTES_PER_TOKEN = 4.0

CountTokens = Callable[[Sequence[str]], list[int]]
"""Texts -> the tokens of each, <bos> included."""


def estimate_tokens(texts: Sequence[str]) -> list[int]:
    """About right for English under Gemma's tokenizer: four bytes of UTF-8 a token, and <bos>."""
    return [1 + round(len(text.encode()) / _BYTES_PER_TOKEN) for text in texts]


def token_counter(folder: Path, lowercase: bool) -> CountTokens:
    """Counts by the tokenizer of a folder. lowercase: as the model's dialect does. Raises ConfigError."""
    tokenizer = load_tokenizer(folder)

    def count(texts: Sequence[str]) -> list[int]:
        cleaned = [(text.lower() if lowercase else text).strip() for text in texts]
        return [len(ids) for ids in tokenizer(cleaned)["input_ids"]] if cleaned else []

    return count
