"""Every key of a config with its type, default, bounds and meaning, read off the classes themselves.

`sanakit train --keys` prints them; docs/training-keys.md is `python -m sanakit.training.keys`.
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
import types
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from sanakit.base.bounds import bounds_of
from sanakit.training.config import TrainConfig

_TYPES: dict[Any, str] = {
    int: "whole number", float: "number", str: "text", bool: "true or false", Path: "path", Any: "any value",
}  # fmt: skip

_ABSURD = 10**6

_HEAD = """# Keys of a training config

Every key of `sanakit train CONFIG`, as `sanakit train --keys` prints them. In YAML a dot is a level
(`optimizer.lr` is `optimizer: {lr: 1.0e-4}`), on the command line it is written out: `--set optimizer.lr=1e-4`.
This page is made from the code: `python -m sanakit.training.keys > docs/training-keys.md`.
"""


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key.

    Attributes:
        name: with dots; `phases[].steps` stands for that of every phase.
        kind: its type in words. bounds: in words, "" if it has none.
        default: as YAML has it; "" if the key must be given.
        meaning: a phrase.
        hint: its type, with bounds.
    """

    name: str
    kind: str
    bounds: str
    default: str
    meaning: str
    hint: Any

    @property
    def group(self) -> str:
        """The part of the name before its last dot."""
        return self.name.rpartition(".")[0]

    @property
    def facts(self) -> str:
        """Type, bounds and default in a phrase."""
        default = f"default {self.default}" if self.default else "must be given"
        return f"{', '.join(part for part in (self.kind, self.bounds) if part)}; {default}"


def config_keys(kind: type = TrainConfig, prefix: str = "", usual: Any = None) -> Iterator[Key]:
    """Yield keys of a config class: its own first, then those of its groups. usual: an instance with the defaults."""
    hints, texts = get_type_hints(kind, include_extras=True), meanings(kind)
    groups: list[tuple[type, str, Any]] = []
    for field in fields(kind):
        inner, suffix = _group(hints[field.name])
        if inner is not None:
            groups.append((inner, f"{prefix}{field.name}{suffix}.", _value(field, usual)))
        if inner is not None and not _words(hints[field.name]):
            continue
        yield Key(
            name=prefix + field.name, kind=_words(hints[field.name]), default=_default(_value(field, usual)),
            bounds=_bounds(hints[field.name]), meaning=re.sub(r"\bNone\b", "null", texts.get(field.name, "")),
            hint=hints[field.name],
        )  # fmt: skip
    for inner, name, values in groups:
        yield from config_keys(inner, name, values)


def meanings(kind: type) -> dict[str, str]:
    """Field -> what the class's docstring says of it, in its section "Attributes"."""
    _, _, section = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    for entry in re.findall(r"^    (\S.*(?:\n {8}.*)*)", section.split("\n\n")[0], re.MULTILINE):
        names, _, text = " ".join(entry.split()).partition(": ")
        found |= dict.fromkeys((name.strip() for name in names.split(",")), text)
    return found


def lines(width: int = 100) -> Iterator[str]:
    """Return all keys as text, grouped, in lines of about `width` characters."""
    room = max(40, width - 1)
    for group, members in groupby(config_keys(), key=lambda key: key.group):
        yield from ("", f"{group}:") if group else ()
        for key in members:
            for text in (f"{key.name}: {key.facts}", f"    {key.meaning}"):
                yield from textwrap.wrap(text.replace("`", ""), room, subsequent_indent="    ")


def markdown() -> str:
    """Return all keys as the page of the documentation."""
    rows = [_HEAD]
    for group, members in groupby(config_keys(), key=lambda key: key.group):
        rows += [f"## {group or 'the run'}", "", "| key | type | default | meaning |", "|---|---|---|---|"]
        for key in members:
            kind = f"{key.kind}, {key.bounds}" if key.bounds else key.kind
            default = f"`{key.default}`" if key.default else "must be given"
            rows.append(f"| `{key.name}` | {kind} | {default} | {key.meaning} |")
        rows.append("")
    return "\n".join(rows)


def _group(hint: Any) -> tuple[type | None, str]:
    """Return the class of a group of keys, and "[]" for a list of them."""
    for option in _options(hint):
        item = get_args(option)[0] if get_origin(option) is tuple else option
        if isinstance(item, type) and is_dataclass(item):
            return item, "" if item is option else "[]"
    return None, ""


def _words(hint: Any) -> str:
    """Return the type of a value in words; "" for a group of keys, unless a name may stand for it."""
    if _group(hint)[1]:
        return ""
    words = [
        _option_words(option)
        for option in _options(hint)
        if option is not type(None) and not is_dataclass(option)
    ]
    if words and type(None) in _options(hint):
        words.append("null")
    return " or ".join(words)


def _option_words(option: Any) -> str:
    if get_origin(option) is Annotated:
        return _words(get_args(option)[0])
    if get_origin(option) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(option))
    if get_origin(option) is tuple:
        return f"list of {_words(get_args(option)[0])}s"
    return "mapping" if get_origin(option) is dict else _TYPES[option]


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _bounds(hint: Any) -> str:
    """Bounds in words, without those that only keep absurd values out."""
    bounds = bounds_of(hint)
    if bounds is None:
        return ""
    return (replace(bounds, most=None) if (bounds.most or 0) >= _ABSURD else bounds).words


def _value(field: Any, usual: Any) -> Any:
    """Return the default of a field; MISSING for one that must be given."""
    if is_dataclass(usual):
        return getattr(usual, field.name)
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _default(value: Any) -> str:
    if value is MISSING:
        return ""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return "[]" if value == () else f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.stdout.write(markdown())
