"""Launch parameters of Triton kernels as data: a table that ships and needs no run, and one measured on this machine.

A table says kernel -> chip -> size -> parameters. Chips are "sm_90" and the like, or "any"; a size is what the kernel's
work is classed by (the width of a head, of a token), and an entry holds for all sizes up to its own. The user's table
comes first; `python -m bench.tune` writes it. Tables are read once in a process.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

import torch

from sanakit.base.errors import ConfigError
from sanakit.base.files import atomic_write, ensure_writable_folder, user_path
from sanakit.base.json_text import read_object
from sanakit.base.locks import hold

SHIPPED = Path(__file__).with_name("tuning.json")
USER = Path("~/.cache/sanakit/tuning.json")
"""Where `python -m bench.tune` keeps what it measured."""

Launch = Mapping[str, int]
Table = dict[str, dict[str, dict[str, dict[str, int]]]]

_ANY = "any"
_RENAMED = {"residual_norm": "rms_norm", "qk_norm.spreads": "qk_norm.rstd"}
"""Former names of kernels, which tables measured with them still have."""

_PATIENCE = 10.0  # seconds to wait while another process writes the table
_COUNTS = ("group", "stages")
"""Parameters that need not be powers of two."""

_tried: ContextVar[tuple[tuple[str, Launch], ...]] = ContextVar("tried", default=())


def launch(kernel: str, size: int, device: torch.device) -> Launch:
    """Return the parameters of a kernel for work of a size on a device: tried, measured, or those that ship."""
    tried = dict(_tried.get()).get(kernel)
    return _found(kernel, size, chip(device)) if tried is None else tried


@contextmanager
def trying(kernel: str, parameters: Launch) -> Iterator[None]:
    """Within the block `kernel` is launched with `parameters`."""
    token = _tried.set((*_tried.get(), (kernel, parameters)))
    try:
        yield
    finally:
        _tried.reset(token)


@cache
def chip(device: torch.device) -> str:
    """Return the name that a GPU's entries are listed under; "any" for the interpreter."""
    if device.type != "cuda":
        return _ANY
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


def keep(measured: Table) -> Path:
    """Add entries to the user's table, over those of the same kernel, chip and size.

    Returns its path. Raises OutputError if it can't be written, ConfigError if an entry, old or new, is not valid.
    """
    path = user_path(USER)
    table: Table = {}
    ensure_writable_folder(path.parent)
    with hold(path.with_name(f".{path.name}.lock"), "writes", wait=_PATIENCE):
        for source in (_read(path), measured):
            _check(source, path)
            for kernel, chips in source.items():
                for name, sizes in chips.items():
                    table.setdefault(kernel, {}).setdefault(name, {}).update(sizes)
        atomic_write(path, (json.dumps(table, indent=1) + "\n").encode())
    forget()
    return path


def trouble() -> str | None:
    """Return what is wrong with the user's table, in one sentence; None if nothing is, or there is no table."""
    path = user_path(USER)
    try:
        _check(_read(path), path)
    except ConfigError as error:
        return f"{error} The defaults that ship are used: delete the file, or run python -m bench.tune after that."
    return None


def describe() -> str:
    """Say where launch parameters come from, for `sanakit doctor`."""
    wrong = trouble()
    if wrong is not None:
        return wrong
    measured = _read(user_path(USER))
    if not measured:
        return "defaults that ship"
    chips = sorted({name for sizes in measured.values() for name in sizes})
    return f"measured for {', '.join(chips)} ({user_path(USER)}), defaults that ship for the rest"


def forget() -> None:
    """Forget the tables, so that they are read again."""
    _tables.cache_clear()
    _found.cache_clear()


@cache
def _found(kernel: str, size: int, name: str) -> Launch:
    user, shipped = _tables()
    for table, key in ((user, name), (shipped, name), (shipped, _ANY)):
        sizes = table.get(kernel, {}).get(key)
        if sizes:
            return _class(sizes, size)
    raise ConfigError(f"no launch parameters of {kernel}; kernels with some are {', '.join(shipped)}")


def _class(sizes: dict[str, dict[str, int]], size: int) -> Launch:
    """Return the entry of the smallest listed size that is not below `size`, else of the largest."""
    listed = sorted(map(int, sizes))
    return sizes[str(next((each for each in listed if each >= size), listed[-1]))]


@cache
def _tables() -> tuple[Table, Table]:
    """Return the user's table and the one that ships. A broken table of the user's is left out with a warning."""
    wrong = trouble()
    if wrong is not None:
        warnings.warn(wrong, stacklevel=2)
    return {} if wrong else _read(user_path(USER)), _read(SHIPPED)


def _read(path: Path) -> Table:
    """Read a table; empty without a file. Raises ConfigError if the file is not a JSON object."""
    if not path.is_file():
        return {}
    try:
        return {_RENAMED.get(kernel, kernel): chips for kernel, chips in read_object(path).items()}
    except (OSError, ValueError) as error:
        raise ConfigError(f"the table of launch parameters {path} can't be read ({error})") from None


def _check(table: Any, path: Path) -> None:
    """Raise ConfigError for the first entry of a user's table that no kernel could use."""
    shipped = _read(SHIPPED)
    for kernel, chips in table.items():
        if kernel not in shipped or not isinstance(chips, dict):
            raise ConfigError(f"the table of launch parameters {path} has {kernel!r}, which isn't a kernel")
        wanted = set(next(iter(shipped[kernel][_ANY].values())))
        for name, sizes in chips.items():
            if not re.fullmatch(r"sm_\d+", name) or not isinstance(sizes, dict):
                raise ConfigError(f"the table of launch parameters {path} has {name!r}, which isn't a chip")
            for size, parameters in sizes.items():
                if not size.isdigit() or not _usable(parameters, wanted):
                    where = f"{kernel}, {name}, {size!r}"
                    raise ConfigError(
                        f"the table of launch parameters {path} has no {', '.join(sorted(wanted))} at {where}"
                    )


def _usable(parameters: Any, wanted: set[str]) -> bool:
    """Return whether these are the parameters of a kernel: whole numbers, and powers of two if they are sizes."""
    if not isinstance(parameters, dict) or set(parameters) != wanted:
        return False
    return all(
        type(value) is int and value > 0 and (name in _COUNTS or value & (value - 1) == 0)
        for name, value in parameters.items()
    )
