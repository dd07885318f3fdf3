"""From what a user writes to a typed config: YAML, Python recipes and `--set key=value`, checked key by key.

A key that does not exist is an error that names the nearest one; so is a value of another type. Nothing is loaded.
"""

from __future__ import annotations

import difflib
import runpy
import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from sanakit.base.bounds import check_value
from sanakit.base.echo import printable, quoted
from sanakit.base.errors import ConfigError
from sanakit.training.aliases import other_name
from sanakit.training.config import TrainConfig, plain_values
from sanakit.training.yaml_text import library, parse_yaml, read_yaml
from sanakit.transformer import TransformerConfig

T = TypeVar("T")
_LONGEST_SHOWN = 100


def read_config(source: Path, changes: Iterable[str] = ()) -> TrainConfig:
    """The config in a YAML file, or that a Python recipe's `config()` returns, with `key=value` changes.

    Raises ConfigError where something can't be read, is unknown, missing, or of another type.
    """
    values = _from_recipe(source) if source.suffix == ".py" else _from_yaml(source)
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise ConfigError(f"--set {_cut(change)}: write it as key=value, e.g. --set optimizer.lr=1e-4")
        if isinstance(values.get("base"), str):
            values["base"] = {"model": values["base"]}  # so that base.autoencoder can be set beside it
        put(values, key.strip(), parse_yaml(text, f"--set {_cut(change)}"))
    config = build(TrainConfig, values)
    shape = typed_values(TransformerConfig, config.model.changes, "model.changes.")
    return replace(config, model=replace(config.model, changes=shape))


def build(kind: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """A config of this class from nested mappings. Raises ConfigError, naming the key."""
    typed = typed_values(kind, values, where)
    needed = (f for f in fields(kind) if f.init and f.default is MISSING and f.default_factory is MISSING)  # type: ignore[arg-type]
    missing = [field.name for field in needed if field.name not in values]
    if missing:
        raise ConfigError(f"{where}{missing[0]} is missing")
    return kind(**typed)


def typed_values(kind: type, values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Some fields of a config class, each of the type that the class wants. Raises ConfigError, naming the key."""
    hints = get_type_hints(kind)
    known = [field.name for field in fields(kind) if field.init]
    for name in values:
        if name not in known:
            raise ConfigError(f"unknown key {where}{printable(name, 80)}{_nearest(str(name), known)}")
    bounded = get_type_hints(kind, include_extras=True)
    for name, value in values.items():
        if value == "":  # a path would read it as the folder one is in
            check_value(bounded[name], value, where + name)
    made = {name: _convert(hints[name], value, where + name) for name, value in values.items()}
    for name, value in made.items():
        check_value(bounded[name], value, where + name)
    return made


def put(values: dict[str, Any], key: str, value: Any) -> None:
    """Set `a.b` or `a[0].b` in nested mappings and lists. Raises ConfigError for a place that is not there."""
    *path, last = key.replace("[", ".").replace("]", "").split(".")
    place: Any = values
    for name in path:
        listed = isinstance(place, list)
        place = place[_index(place, name, key)] if listed else place.setdefault(name, {})
        if not isinstance(place, dict | list):
            raise ConfigError(f"--set {_cut(key)}: {_cut(name)} is {quoted(place)}, which holds no keys")
    if isinstance(place, list):
        place[_index(place, last, key)] = value
    else:
        place[last] = value


def to_yaml(config: TrainConfig) -> str:
    """The config as a YAML file that `read_config` reads."""
    return str(
        library("yaml").safe_dump(
            plain_values(asdict(config)), sort_keys=False, allow_unicode=True, width=110
        )
    )


def _index(place: list[Any], name: str, key: str) -> int:
    if name not in map(str, range(len(place))):
        raise ConfigError(
            f"--set {_cut(key)}: there are {len(place)} entries, numbered from 0; {_cut(name)} is none of them"
        )
    return int(name)


def _cut(text: str) -> str:
    return printable(text, _LONGEST_SHOWN)


def _convert(hint: Any, value: Any, where: str) -> Any:
    """A value as its field wants it: nested configs by `build`, the rest by pydantic."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    if isinstance(value, str) and str in options:  # a name that stands for a group, as `base: toybox`
        return value
    for option in options:
        if is_dataclass(option) and isinstance(option, type):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{where} is {quoted(value)}; {_holds(option, value, where)}")
            return build(option, value, f"{where}.")
    item = get_args(hint)[0] if get_origin(hint) is tuple else None
    if is_dataclass(item) and isinstance(item, type):
        if not isinstance(value, list | tuple) or not all(isinstance(each, Mapping) for each in value):
            raise ConfigError(f"{where} is a list of mappings, e.g. [{{{fields(item)[0].name}: ...}}]")
        return tuple(build(item, each, f"{where}[{number}].") for number, each in enumerate(value))
    return _leaf(hint, value, where)


def _leaf(hint: Any, value: Any, where: str) -> Any:
    pydantic = library("pydantic")
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, bool) and not _takes_bool(hint):  # pydantic would read true as 1
            raise ConfigError(f"{where} is {str(each).lower()}; it is no switch")
    if isinstance(value, str) and "\0" in value:
        raise ConfigError(f"{where} holds a NUL character")
    try:
        # YAML reads 1e-4 as text; pydantic reads such text as the number that is meant.
        return pydantic.TypeAdapter(hint).validate_python(value)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"{where} is {quoted(value)}: {first['msg'][:1].lower()}{first['msg'][1:]}"
        ) from None


def _takes_bool(hint: Any) -> bool:
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return bool in options or Any in options or any(get_origin(option) is dict for option in options)


def _holds(kind: type, value: Any, where: str) -> str:
    """What to write in place of a single value for a group of keys."""
    hints = get_type_hints(kind)
    for name, hint in hints.items():
        if get_origin(hint) is Literal and value in get_args(hint):
            return f"write {where}.{name}={value}"
    first = next((name for name, hint in hints.items() if get_origin(hint) is Literal), None)
    choices = "" if first is None else f", e.g. {where}.{first}={get_args(hints[first])[0]}"
    return f"it is a group of keys: {', '.join(f'{where}.{name}' for name in hints)}{choices}"


def _from_yaml(source: Path) -> dict[str, Any]:
    found = read_yaml(source)
    if not isinstance(found, dict):
        raise ConfigError(f"the config {source} holds no keys")
    return found


def _from_recipe(source: Path) -> dict[str, Any]:
    if not source.is_file():
        raise ConfigError(f"the recipe {source} can't be read: there is no such file")
    config = runpy.run_path(str(source)).get("config")
    made = config() if callable(config) else config
    if not isinstance(made, TrainConfig):
        raise ConfigError(f"the recipe {source} must define config() -> sanakit.training.TrainConfig")
    values: dict[str, Any] = plain_values(asdict(made))
    return values


def _nearest(name: str, known: Iterable[str]) -> str:
    elsewhere = other_name(name)
    if elsewhere is not None:
        return elsewhere
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return (
        f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)} (sanakit train --keys)"
    )
