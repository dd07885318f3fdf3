"""The text encoder's files: transformers' own names, with or without the `model.` of the causal language model.

Its config.json holds far more than what is computed: fields of other releases, of generation, of training.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sanakit.base.errors import ConfigError
from sanakit.text import BOOKKEEPING, FIELDS, TextConfig, check_text_config
from sanakit.weights.formats.fields import STRICT, UnknownFields, known_fields
from sanakit.weights.rules import Drop, Rename, Row, Table

_KNOWN = BOOKKEEPING | frozenset(FIELDS)
_PREFIX = "model."
_UNUSED: tuple[Drop, ...] = (
    Drop("lm_head.weight", "tied to the embedding, and SANA reads hidden states, not words"),
)


def table(our_keys: Collection[str], their_keys: Collection[str] = ()) -> Table:
    """Names are equal up to a prefix, which is there when any of `their_keys` has it."""
    prefix = _PREFIX if any(key.startswith(_PREFIX) for key in their_keys) else ""
    rows: list[Row] = [Rename(key, prefix + key) for key in our_keys]
    return Table([*rows, *_UNUSED])


def from_config(
    data: Mapping[str, Any], where: str = "text_encoder/config.json", unknown: UnknownFields = STRICT
) -> TextConfig:
    """Their config.json, as it is but for fields to ignore. Raises ConfigError for unknown or unfit fields."""
    config = known_fields(data, _KNOWN, where, unknown)
    try:
        check_text_config(config)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return config
