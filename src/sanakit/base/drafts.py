"""Temporary files and folders beside their targets, named so that a later command recognises them; atomic renames.

    .NAME.1a2b3c4d.part.png     a file while it is written      .NAME.1a2b3c4d.part     a folder while it is filled
    .NAME.1a2b3c4d.old          a folder while another takes its name
    .NAME.1a2b3c4d.new          a full folder, inside the one whose files its own replace

Whoever writes one holds its lock, which ends with the process. `sweep` removes those that nobody holds.

Two renames are missing in `os`: exchanging two names in one step, and taking a name only if it is free. Linux has both
in one call. Elsewhere, and on file systems that refuse, callers use another way.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
import time
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from sanakit.base.json_text import parse_json
from sanakit.base.locks import is_same_file, try_lock

GONE = ".gone.json"
"""In a folder whose files replace others: the names that the new folder no longer has."""

_DRAFT = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.(?P<kind>part|old|new)(?:\.[^.]+)?")
_NAME_LENGTH = (
    40  # of the target's name that a draft repeats: names end at 255 bytes, and a character has up to four
)
_SUFFIX_LENGTH = 12
_AGE = 24 * 3600.0  # seconds after which a draft counts as abandoned on systems without locks

_AT_FDCWD = -100
_NOREPLACE, _EXCHANGE = 1, 2  # flags of renameat2(2)
# Errors that mean the system or file system lacks the call, not that the names are wrong.
_UNKNOWN = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM)


def draft_name(target: Path, kind: str = "part", suffix: str = "") -> Path:
    """Return a name beside `target` that nothing has yet."""
    name = target.name if kind == "old" else target.name.removesuffix(suffix)[:_NAME_LENGTH]
    return target.with_name(f".{name}.{secrets.token_hex(4)}.{kind}{suffix}")


def is_draft(name: str) -> bool:
    """Return whether a file's or folder's name is that of a draft."""
    return _DRAFT.fullmatch(name) is not None


@contextmanager
def draft_file(target: Path) -> Iterator[Path]:
    """Create an empty file beside `target`, with its suffix, to write into; it is removed at the end unless renamed.

    Raises OSError.
    """
    suffix = target.suffix if len(target.suffix) <= _SUFFIX_LENGTH else ""
    while True:
        draft = draft_name(target, suffix=suffix)
        handle = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        taken = try_lock(handle)
        if taken and is_same_file(handle, draft):  # else a sweep came between making and locking it
            break
        os.close(handle)
        if taken is None:  # nothing to hold; and Windows renames no file that is open
            handle = -1
            break
    try:
        yield draft
    finally:
        with suppress(OSError):
            draft.unlink()
        if handle >= 0:
            os.close(handle)


@contextmanager
def draft_folder(target: Path, inside: bool = False) -> Iterator[Path]:
    """Create an empty folder beside `target` (or in it) to fill; it is removed at the end unless renamed.

    Raises OSError.
    """
    while True:
        draft = draft_name(target / target.name if inside else target)
        draft.mkdir()
        with locked(draft) as taken:
            if not taken:
                continue
            try:
                yield draft
            finally:
                shutil.rmtree(draft, ignore_errors=True)
            return


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder that is there; False if it has gone. Without locks nothing is held."""
    handle = -1
    try:
        handle = os.open(folder, os.O_RDONLY)
        taken = try_lock(handle) is not False and is_same_file(handle, folder)
    except OSError:  # gone, or a system that opens no folders
        taken = os.name != "posix"
    try:
        yield taken
    finally:
        if handle >= 0:
            os.close(handle)


def sweep(folder: Path, kinds: Container[str] = ("part", "old", "new")) -> list[Path]:
    """Remove the drafts in a folder that no process holds, and finish what was being replaced.

    Returns the removed paths. Whatever can't be removed stays; nothing is raised.
    """
    try:
        with os.scandir(folder) as entries:
            found = [
                (Path(entry.path), match) for entry in entries if (match := _DRAFT.fullmatch(entry.name))
            ]
    except OSError:
        return []
    return [
        path
        for path, match in found
        if match["kind"] in kinds and _remove(path, path.with_name(match["name"]), match["kind"])
    ]


def mend(folder: Path) -> None:
    """Restore the name of a folder that was moved aside when its process was killed."""
    if not folder.exists():
        sweep(folder.parent, ("old",))


def move_out(full: Path) -> None:
    """Move the files of a folder into its parent, over those of the same names, and remove those it says are gone.

    May be called again after an interruption. Raises OSError.
    """
    listed, home = full / GONE, full.parent.resolve()
    gone = parse_json(listed.read_text(encoding="utf-8")) if listed.exists() else []
    for place, _, files in os.walk(full):
        for name in sorted(files):
            source = Path(place, name)
            target = full.parent / source.relative_to(full)
            target.parent.mkdir(parents=True, exist_ok=True)
            if source != listed and target.parent.resolve().is_relative_to(home):  # never through a link
                os.replace(source, target)
    for path in (full.parent / str(name) for name in gone):
        if path.parent.resolve().is_relative_to(home):
            path.unlink(missing_ok=True)
    shutil.rmtree(full)


def _remove(draft: Path, target: Path, kind: str) -> bool:
    """Remove one draft if nobody holds it; return whether it was removed."""
    if draft.is_symlink():
        return False
    is_folder = draft.is_dir()
    try:
        handle = os.open(draft, os.O_RDONLY if is_folder else os.O_RDWR)
    except OSError:
        return False
    try:
        held = try_lock(handle)
        if held is False or (held is None and time.time() - draft.stat().st_mtime < _AGE):
            return False
        if is_folder and kind == "old" and not target.exists():
            os.rename(draft, target)
            return False
        if is_folder and kind == "new":
            move_out(draft)
            return True
        shutil.rmtree(draft) if is_folder else draft.unlink()
    except (OSError, ValueError):
        return False
    finally:
        os.close(handle)
    return True


def exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step. False if this system can't. Raises OSError."""
    return _rename(one, other, _EXCHANGE)


def rename_new(source: Path, target: Path) -> bool:
    """Rename a file or folder to an unused name, in one step. False if this system can't.

    Raises FileExistsError if something has the name, and OSError.
    """
    return _rename(source, target, _NOREPLACE)


def _rename(source: Path, target: Path, flag: int) -> bool:
    call = _renameat2()
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flag) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNKNOWN:
        return False
    raise OSError(number, os.strerror(number), str(source), None, str(target))


@cache
def _renameat2() -> Any:
    """Return the C library's function; None if there is none."""
    try:
        return getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    except (OSError, TypeError):
        return None
