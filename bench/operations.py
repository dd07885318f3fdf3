"""Processes that are killed, or told that the disk is full, at one file operation of many: what `bench.faults` counts.

A command runs in a fork of this process, so that torch is imported once. Operations that change files below a folder
are counted by Python's audit events, by `os.fsync`, and by the renames that `os` does not have.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sanakit.base import drafts
from sanakit.base.errors import InputError

Command = Callable[[Path], object]

_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")
_FREES = ("os.remove", "os.rmdir")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Ended:
    """How a command ended: well, refused in words, killed, or otherwise, which is a fault of ours.

    operations: file operations that were counted. text: the words.
    """

    how: Literal["well", "refused", "killed", "broken"]
    operations: int = 0
    text: str = ""


class _Fault:
    """Counts operations, and acts at the one numbered `at`; "full" acts at every later one that needs room, too."""

    def __init__(self, kind: str, at: int, home: Path) -> None:
        self.kind, self.at, self.home, self.count = kind, at, str(home), 0

    def hit(self, frees: bool = False) -> None:
        self.count += 1
        if self.kind == "kill" and self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "full" and self.count >= self.at and not frees:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def hear(self, event: str, given: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = given
            if isinstance(path, str | bytes) and flags & _WRITES and self._is_ours(path):
                self.hit()
        elif event in _CHANGES and (given[-1] not in (-1, None) or self._is_ours(given[0])):
            self.hit(frees=event in _FREES)

    def _is_ours(self, path: str | bytes) -> bool:
        return os.path.abspath(os.fsdecode(path)).startswith(self.home)

    def install(self) -> None:
        """For good: this process ends with its command."""
        sync, rename = os.fsync, drafts._rename

        def counted_sync(handle: int) -> None:
            self.hit()
            sync(handle)

        def counted_rename(source: Path, target: Path, flag: int) -> bool:
            self.hit()
            return rename(source, target, flag)

        os.fsync = counted_sync  # type: ignore[assignment]  # files are given by their numbers here
        drafts._rename = counted_rename
        sys.addaudithook(self.hear)


def begin(command: Command, home: Path, kind: str = "none", at: int = 0) -> tuple[int, int]:
    """Start a command in a fork; its process and the pipe that it reports to."""
    reader, writer = os.pipe()
    process = os.fork()
    if process:
        os.close(writer)
        return process, reader
    os.close(reader)
    code = 1
    try:
        code = _act(command, home, _Fault(kind, at, home), writer)
    finally:
        os._exit(code)


def _act(command: Command, home: Path, fault: _Fault, writer: int) -> int:
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(null, stream)
    how, text = "well", ""
    try:
        fault.install()
        command(home)
    except InputError as error:
        how, text = "refused", str(error)
    except BaseException:
        how, text = "broken", traceback.format_exc()[-3000:]
    fault.kind = "none"
    os.write(writer, json.dumps({"how": how, "operations": fault.count, "text": text}).encode())
    return 0


def end(process: int, reader: int) -> Ended:
    """Wait for a command."""
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status):
        return Ended("killed" if os.WTERMSIG(status) == signal.SIGKILL else "broken")
    return Ended(**json.loads(told)) if told else Ended("broken", text="it ended without a word")


def run(command: Command, home: Path, kind: str = "none", at: int = 0) -> Ended:
    """A command to its end."""
    return end(*begin(command, home, kind, at))


def together(commands: Sequence[Command], home: Path) -> list[Ended]:
    """Several commands at once in one place."""
    return [end(*begun) for begun in [begin(command, home) for command in commands]]


if sys.platform == "win32":
    raise SystemExit("this needs fork, which Windows has not")
