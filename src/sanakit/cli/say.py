"""The only place that prints: no character, closed pipe or full disk behind stdout stops the work of a command.

Lines are cleaned of what a terminal would obey (`base.echo`). Characters that the terminal's encoding lacks (`·` and
bars on cp932 and cp1252) are written in ASCII.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
import time
import traceback
from types import TracebackType
from typing import TextIO

from sanakit.base.echo import printable_lines

__all__ = ["ERRORS", "note", "notify", "prepare_streams", "say", "seconds_since_start"]

_STARTED = time.perf_counter()  # this file is imported first, so that the time spent on imports counts

ERRORS = "sanakit.plain"
"""The name of the error handler for what an encoding lacks."""

_PLAIN = {
    "·": "-", "…": "...", "×": "x", "→": "->", "←": "<-", "±": "+-", "µ": "u", "≈": "~", "≤": "<=", "≥": ">=",
    "–": "-", "—": "-", "−": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "•": "*", "│": "|", "─": "-",
}  # fmt: skip
_BLOCKS = range(0x2580, 0x25A0)  # block elements: the parts of bars and sparklines


def say(text: object, err: bool = False) -> bool:
    """Print `text` on stdout, or stderr; return False, without an error, if the stream can't be written any more."""
    try:
        print(printable_lines(text), file=sys.stderr if err else sys.stdout, flush=True)
    except (OSError, ValueError) as error:  # ValueError: the file object was closed
        _silence("stderr" if err else "stdout", error)
        return False
    return True


def notify(message: object) -> None:
    """Print a message on stderr."""
    say(message, err=True)


def note(message: object) -> None:
    """Print something that stops nothing on stderr."""
    notify(f"note: {message}")


def seconds_since_start() -> float:
    """Seconds since the command line was imported."""
    return time.perf_counter() - _STARTED


def prepare_streams() -> None:
    """Make stdout and stderr of this process able to take any text. Called once, by the console script."""
    codecs.register_error(ERRORS, _in_plain)
    for number, name in enumerate(("stdout", "stderr"), start=1):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell (>&-): the next file to be opened would get its number
            setattr(sys, name, _nowhere(number))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ERRORS)
    sys.excepthook = _tell_traceback


def _in_plain(error: UnicodeError) -> tuple[str, int]:
    """Return the error handler: each character by its likeness in ASCII, else as an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_likeness, error.object[error.start : error.end])), error.end


def _likeness(character: str) -> str:
    code = ord(character)
    if code in _BLOCKS:
        return "#"
    return _PLAIN.get(character) or (f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")


def _silence(name: str, error: OSError | ValueError) -> None:
    """From now on the stream leads nowhere; what was lost is said on stderr, but not for a pipe that was closed."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), getattr(sys, name).fileno())
    except (OSError, ValueError):
        setattr(sys, name, io.StringIO())
    if name == "stdout" and isinstance(error, OSError) and error.errno != errno.EPIPE:
        say(f"sanakit: stdout can't be written any more ({error.strerror}); the work goes on.", err=True)


def _nowhere(number: int) -> TextIO:
    """Return a stream to the null device on a file number of its own."""
    handle = os.open(os.devnull, os.O_WRONLY)
    if handle != number:
        os.dup2(handle, number)
        os.close(handle)
    return os.fdopen(number, "w", encoding="utf-8", errors=ERRORS)


def _tell_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the traceback of `--debug`, cleaned: it quotes strangers' text as well."""
    say("".join(traceback.format_exception(kind, error, trace)).rstrip("\n"), err=True)
