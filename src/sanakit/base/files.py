"""Writing files so that a crash or Ctrl-C leaves either the old file or the new one, never half of one."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from sanakit.base.errors import OutputError

__all__ = ["atomic_write", "ensure_writable_folder", "file_sha256", "sync"]


def atomic_write(path: Path | str, content: bytes | Callable[[Path], object]) -> None:
    """Write `path` through a temporary file beside it, fsync, rename.

    content: the bytes, or a function that writes the path it is given (same suffix as `path`).
    Raises OutputError when the system refuses; whatever happens, an existing file stays whole.
    """
    target = Path(path)
    if target.is_dir():
        raise OutputError(f"can't write {target}: it is a folder")
    draft = target.with_name(f".{target.stem}.{secrets.token_hex(4)}.part{target.suffix}")
    try:
        if callable(content):
            content(draft)
        else:
            draft.write_bytes(content)
        sync(draft)
        os.replace(draft, target)
        sync(target.parent)
    except OSError as error:
        raise OutputError(f"can't write {target}: {error.strerror or error}") from error
    finally:
        _remove(draft)


def ensure_writable_folder(path: Path | str) -> Path:
    """Create the folder (and its parents) and prove that a file can be made in it.

    Returns the folder. Raises OutputError when it is a file, can't be created or can't be written.
    """
    folder = Path(path)
    probe = folder / f".sanakit-{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch(exist_ok=False)
    except OSError as error:
        raise OutputError(f"can't write into {folder}: {error.strerror or error}") from error
    finally:
        _remove(probe)
    return folder


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal; reads all of it, a piece at a time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove(path: Path) -> None:
    """Delete a leftover; it may be absent, and its folder may be no folder at all."""
    try:
        path.unlink()
    except OSError:
        return


def sync(path: Path) -> None:
    """Make a file's content, or a folder's names, durable; systems that can't open a folder (Windows) go without."""
    if path.is_dir() and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
