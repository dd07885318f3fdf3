"""Writing files so that a crash, a full disk or Ctrl-C leaves either the old file or the new one, never half of one."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sanakit.base.drafts import draft_file, rename_new, sweep
from sanakit.base.errors import OutputError

Content = bytes | Callable[[Path], object]

_FULL = 2**16  # bytes: a disk with less than this free is why a library could not write on


def atomic_write(path: Path | str, content: Content) -> None:
    """Write `path` through a temporary file beside it, fsync, rename.

    content: the bytes, or a function that writes the path it is given (same suffix as `path`). A pipe or a device, such
    as /dev/stdout, is written into. Raises OutputError when the system refuses; whatever happens, an existing file
    stays whole.
    """
    target = Path(path)
    with refusals(target):
        if target.is_dir():
            raise OutputError(f"can't write {target}: it is a folder")
        if _is_stream(target):
            _pour(target, content)
            return
        with _written(target, content) as draft:
            os.replace(draft, target)
            sync(target.parent)


def write_new(paths: Iterable[Path], content: Content) -> Path:
    """Write the first of `paths` that nothing has yet, all in one folder, and return it; nothing is ever replaced.

    Two processes that ask for the same names get different ones. content: as in `atomic_write`. Raises OutputError.
    """
    names = iter(paths)
    path = next(names)
    with refusals(path), _written(path, content) as draft:
        while not _takes_name(draft, path):
            path = next(names)
        sync(path.parent)
    return path


def write_if_new(path: Path, content: Content) -> bool:
    """Write `path` unless something has that name; whether it was written. Raises OutputError."""
    with refusals(path), _written(path, content) as draft:
        return _takes_name(draft, path)


def for_owner(content: bytes) -> Content:
    """Return content for the functions above whose file only its owner may read: it is so before anything is in it."""

    def write(path: Path) -> None:
        path.touch(mode=0o600)
        path.chmod(0o600)
        path.write_bytes(content)

    return write


@contextmanager
def _written(target: Path, content: Content) -> Iterator[Path]:
    """Make a temporary file beside `target` that holds the content, synced."""
    with draft_file(target) as draft:
        if callable(content):
            content(draft)
        else:
            draft.write_bytes(content)
        sync(draft)
        yield draft


def _takes_name(draft: Path, path: Path) -> bool:
    """Give a draft a name, unless something has it. Where no call does that in one step the name is claimed first."""
    try:
        if rename_new(draft, path):
            return True
        with suppress(FileNotFoundError):
            if _is_linked(draft, path):
                return True
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o666))
    except FileExistsError:
        return False
    os.replace(draft, path)
    return True


def _is_linked(draft: Path, path: Path) -> bool:
    """Make a hard link under the new name; False if the file system has none. Raises FileExistsError."""
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except (OSError, AttributeError):
        return False
    return True


@contextmanager
def refusals(target: Path) -> Iterator[None]:
    """Turn what the system (or a library that writes) says into one sentence about `target`, an OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"can't write {target}: {error.strerror or error}") from error
    except RuntimeError as error:
        why = _writer_failed(error, target)
        if why is None:
            raise
        raise OutputError(f"can't write {target}: {why}") from error


def _writer_failed(error: RuntimeError, target: Path) -> str | None:
    """Return why torch's own writer, which knows no OSError, could not go on; None for any other error."""
    if "PytorchStreamWriter" not in str(error) and "write failed" not in str(error):
        return None
    try:
        free = shutil.disk_usage(target.parent).free
    except OSError:
        return "the system refused"
    return "No space left on device" if free < _FULL else "the system refused to write on"


def _is_stream(target: Path) -> bool:
    """Return whether a path is written into and never replaced: that of a pipe or a device, or a name of one."""
    try:
        mode = target.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) or target.absolute().is_relative_to("/dev")


def _pour(target: Path, content: Content) -> None:
    """Write into what can't be replaced."""
    if not callable(content):
        with target.open("wb") as stream:
            stream.write(content)
        return
    with tempfile.TemporaryDirectory(prefix="sanakit-") as folder:
        draft = Path(folder) / f"draft{target.suffix}"
        content(draft)
        with draft.open("rb") as source, target.open("wb") as stream:
            shutil.copyfileobj(source, stream)


def ensure_writable_folder(path: Path | str) -> Path:
    """Create the folder (and its parents) and prove that a file can be made in it.

    Temporary files that a killed process left there are removed. Returns the folder. Raises OutputError when it is a
    file, can't be created or can't be written.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with draft_file(folder / "probe"):
            pass
    except OSError as error:
        raise OutputError(f"can't write into {folder}: {error.strerror or error}") from error
    sweep(folder)
    return folder


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal; reads all of it, a piece at a time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Make a file's content, or a folder's names, durable; systems that can't open a folder (Windows) go without."""
    if path.is_dir() and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def user_path(name: str | Path) -> Path:
    """`~` and `~user` replaced by home folders; unchanged if there is no such user or no home."""
    return Path(os.path.expanduser(name))  # noqa: PTH111  Path.expanduser raises for an unknown user


def is_folder(path: Path) -> bool:
    """Return whether there is a folder; no for every name that can't be one."""
    return os.path.isdir(path)  # noqa: PTH112  Path.is_dir raises for names that are too long


def is_file(path: Path) -> bool:
    """Return whether there is a regular file; no for every name that can't be one."""
    return os.path.isfile(path)  # noqa: PTH113  as above
