"""YAML as configs use it, from files that anybody may have written: what is wrong is a sentence with its line.

Only plain values are made: no tag can name a class, a date stays the text that it is, aliases can't unfold into
millions of values, and a key that is given twice is refused instead of the first one being forgotten.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from sanakit.base.errors import ConfigError

__all__ = ["library", "parse_yaml", "read_yaml"]

MOST_BYTES = 2**18
"""A config has a few hundred lines."""

_MOST_VALUES = 100_000  # once aliases are unfolded
_DEEPEST = 50
_LONGEST_REASON = 200  # characters
_LONGEST_SHOWN = 60
_DATES = "tag:yaml.org,2002:timestamp"
_MERGE = "tag:yaml.org,2002:merge"


def read_yaml(path: Path) -> Any:
    """Read the value of a YAML file or pipe in UTF-8. Raises ConfigError."""
    where = f"the config {path}"
    try:
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where} can't be read: it is not UTF-8 at byte {error.start}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{where} can't be read: {getattr(error, 'strerror', None) or error}") from None
    if len(content) > MOST_BYTES:
        raise ConfigError(f"{where} is too long: a config has at most {MOST_BYTES:,} bytes")
    return parse_yaml(text, where)


def parse_yaml(text: str, where: str) -> Any:
    """Return the value that a YAML text stands for. where: for messages. Raises ConfigError."""
    yaml = library("yaml")
    loader = None
    try:
        loader = _loader()(text)  # reads the first characters, and refuses those that no YAML holds
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node, where)
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = _line(error.problem_mark or error.context_mark)
        raise ConfigError(f"{where} is not YAML{line}: {_reason(error)}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not YAML: {_short(str(error))}") from None
    except RecursionError:
        raise ConfigError(f"{where} is nested too deeply") from None
    finally:
        if loader is not None:
            loader.dispose()


@cache
def _loader() -> Any:
    """PyYAML's safe loader without dates, whose constructors say the line at which they fail."""
    yaml = library("yaml")

    class Loader(yaml.SafeLoader):  # type: ignore[misc, name-defined, unused-ignore]
        """Makes plain values only."""

        def construct_object(self, node: Any, deep: bool = False) -> Any:
            """Raise ConstructorError, whatever the constructor of a tag trips over."""
            try:
                return super().construct_object(node, deep=deep)
            except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
                shown = f" {_short(node.value[:_LONGEST_SHOWN])!r}" if isinstance(node.value, str) else ""
                reason = f"{_tag(node)}{shown} can't be read ({_short(str(error))})"
                raise yaml.constructor.ConstructorError(None, None, reason, node.start_mark) from None

    resolvers = yaml.SafeLoader.yaml_implicit_resolvers
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in known if tag != _DATES]
        for first, known in resolvers.items()
    }
    return Loader


def _check(root: Any, where: str) -> None:
    """Refuse keys that are given twice, values inside themselves, and what unfolds without end. Raises ConfigError."""
    known: dict[int, tuple[int, int]] = {}
    open_nodes: set[int] = set()

    def measure(node: Any) -> tuple[int, int]:
        """Return how many values a node unfolds into, and how deep they are nested."""
        if id(node) in open_nodes:
            raise ConfigError(f"{where} holds a value inside itself{_line(node.start_mark)}")
        if id(node) not in known:
            open_nodes.add(id(node))
            parts = [measure(part) for part in _parts(node, where)]
            open_nodes.discard(id(node))
            count = 1 + sum(part[0] for part in parts)
            depth = 1 + max((part[1] for part in parts), default=0)
            if count > _MOST_VALUES or depth > _DEEPEST:
                limit = f"{_MOST_VALUES:,} values" if count > _MOST_VALUES else f"{_DEEPEST} levels"
                raise ConfigError(f"{where} unfolds into more than {limit}{_line(node.start_mark)}")
            known[id(node)] = count, depth
        return known[id(node)]

    measure(root)


def _parts(node: Any, where: str) -> list[Any]:
    """Return the nodes inside a node. Raises ConfigError if a mapping has a key twice."""
    if isinstance(node.value, str):
        return []
    if node.id != "mapping":
        return list(node.value)
    seen: dict[tuple[str, str], Any] = {}
    for key, _ in node.value:
        if isinstance(key.value, str) and key.tag != _MERGE:
            first = seen.setdefault((key.tag, key.value), key)
            if first is not key:
                lines = f"lines {first.start_mark.line + 1} and {key.start_mark.line + 1}"
                raise ConfigError(f"{where} says {_short(key.value)} twice, in {lines}: leave one out")
    return [part for pair in node.value for part in pair]


def _reason(error: Any) -> str:
    reason = _short(error.problem or error.context or str(error))
    return f"{reason}; indent by spaces" if "'\\t'" in reason else reason


def _line(mark: Any) -> str:
    return "" if mark is None else f", line {mark.line + 1}"


def _tag(node: Any) -> str:
    return str(node.tag).replace("tag:yaml.org,2002:", "!!")


def _short(text: str) -> str:
    plain = " ".join("".join(c if c.isprintable() else " " for c in text[: 2 * _LONGEST_REASON]).split())
    return plain if len(plain) <= _LONGEST_REASON else f"{plain[:_LONGEST_REASON]}..."


def library(name: str) -> Any:
    """Return a library of the extra `train`. Raises ConfigError if it is missing."""
    try:
        return import_module(name)
    except ImportError:
        raise ConfigError(f'training needs {name}: run `pip install "sanakit[train]"`') from None
