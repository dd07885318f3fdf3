"""The text encoder's files: transformers' own names, with or without the `model.` of the causal language model."""

from __future__ import annotations

from collections.abc import Collection

from sanakit.weights.rules import Drop, Rename, Row, Table

__all__ = ["table"]

_PREFIX = "model."
_UNUSED: tuple[Drop, ...] = (
    Drop("lm_head.weight", "tied to the embedding, and SANA reads hidden states, not words"),
)


def table(our_keys: Collection[str], their_keys: Collection[str] = ()) -> Table:
    """Names are equal up to a prefix, which is there when any of `their_keys` has it."""
    prefix = _PREFIX if any(key.startswith(_PREFIX) for key in their_keys) else ""
    rows: list[Row] = [Rename(key, prefix + key) for key in our_keys]
    return Table([*rows, *_UNUSED])
