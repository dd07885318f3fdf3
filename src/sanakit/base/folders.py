"""Folders that change all at once: filled beside their place, synced, swapped; a reader sees the old or the new one.

Where two names can't be exchanged in one step, the old folder steps aside for a moment; if the process dies in that
moment, the next command that looks for the folder gives it its name back.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from sanakit.base.drafts import GONE, draft_folder, draft_name, exchange, is_draft, locked, move_out, sweep
from sanakit.base.errors import OutputError
from sanakit.base.files import refusals, sync

_FCNTL: Any = import_module("fcntl") if os.name == "posix" else None

_FICLONE = 0x40049409  # ioctl of Linux: share the blocks of another file until one of both is written
_PIECE = 2**20
# What renaming a folder onto one with something in it raises: Linux, others, Windows.
_OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST, errno.EACCES)


@contextmanager
def new_folder(
    path: Path | str, *, replace: bool = False, ours: Callable[[str], bool] = lambda name: True
) -> Iterator[Path]:
    """Make an empty folder to fill, which becomes `path` once the block ends well; a block that fails leaves nothing.

    replace: whether a folder that is there may go; otherwise only an empty one. ours: of a file that is there, by its
    path inside the folder (with /): True if it goes with the old folder, False if it stays, as what the user put there
    does. Needs room for both folders. Raises OutputError.
    """
    given = Path(path)
    with refusals(given):
        target = given.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target.parent)
        sweep(target)
        with draft_folder(target, inside=_must_stay(target)) as draft:
            yield draft
            if not replace and target.is_dir() and any(not is_draft(path.name) for path in target.iterdir()):
                raise OutputError(f"{given} exists already: choose another place, or force to replace it")
            if draft.parent == target:
                _move_in(draft, target, ours)
                return
            _carry(target, draft, ours)
            sync_tree(draft)
            swap(draft, target, replace)


def _must_stay(target: Path) -> bool:
    """Return whether a folder can't be renamed: it is where another disk begins, or what holds it can't be written."""
    return target.is_dir() and (target.is_mount() or not os.access(target.parent, os.W_OK))


def _carry(old: Path, new: Path, ours: Callable[[str], bool]) -> None:
    """Give the new folder what the user has put into the old one: the same files under a second name, or copies."""
    for name in _files(old):
        if not ours(name) and not os.path.lexists(new / name):
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            _double(old / name, new / name)


def _double(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except (OSError, NotImplementedError):
        shutil.copy2(source, target, follow_symlinks=False)


def swap(draft: Path, target: Path, replace: bool) -> None:
    """Put a full folder in the place of another, or of none; what it replaces is removed. Raises OSError."""
    try:
        os.rename(draft, target)
    except OSError as error:
        if error.errno not in _OCCUPIED or not replace:
            raise
        if exchange(draft, target):
            sync(target.parent)
            shutil.rmtree(draft, ignore_errors=True)
            return
        _step_aside(draft, target)
    sync(target.parent)


def _step_aside(draft: Path, target: Path) -> None:
    """In two steps; between them the old folder has a name that `sweep` and `mend` know."""
    old = draft_name(target, "old")
    with locked(target):  # so that nobody gives it its name back just now
        os.rename(target, old)
        try:
            os.rename(draft, target)
        except OSError:
            os.rename(old, target)
            raise
    shutil.rmtree(old, ignore_errors=True)


def _move_in(draft: Path, target: Path, ours: Callable[[str], bool]) -> None:
    """For a folder that must keep its place: its files are exchanged one by one, and a killed move is gone on with."""
    gone = [name for name in _files(target) if ours(name) and not (draft / name).exists()]
    (draft / GONE).write_text(json.dumps(gone), encoding="utf-8")
    sync_tree(draft)
    full = draft_name(target / target.name, "new")
    os.rename(draft, full)
    sync(target)
    move_out(full)
    sync(target)


def _files(folder: Path) -> Iterator[str]:
    """Paths of all files, drafts left out, inside a folder and relative to it."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_draft(name)]
        for name in (*files, *(name for name in folders if Path(place, name).is_symlink())):
            if not is_draft(name):
                yield Path(place, name).relative_to(folder).as_posix()


def sync_tree(folder: Path) -> None:
    """Make everything in a folder durable. Raises OSError."""
    for place, _, files in os.walk(folder):
        for name in files:
            path = Path(place, name)
            if path.is_file() and not path.is_symlink() and os.access(path, os.W_OK):
                sync(path)
        sync(Path(place))


def remove_folder(folder: Path) -> None:
    """Remove a folder so that its name goes first: what is left after a crash is a draft, never half a folder."""
    draft = draft_name(folder)
    try:
        os.rename(folder, draft)
    except OSError:
        return
    shutil.rmtree(draft, ignore_errors=True)


def copy_file(source: Path, target: Path) -> None:
    """Make a copy with bytes of its own, so that writing to one never changes the other. Raises OSError.

    It shares blocks with the source, and so takes no room, where the file system can do that (btrfs, XFS).
    """
    with source.open("rb") as given, target.open("wb") as made:
        if _FCNTL is not None:
            try:
                _FCNTL.ioctl(made.fileno(), _FICLONE, given.fileno())
                return
            except OSError:
                made.seek(0)
        shutil.copyfileobj(given, made, _PIECE)
