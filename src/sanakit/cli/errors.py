"""How a command ends: exit code 0, 2 for bad input, 130 when interrupted, 1 for anything else; never a traceback.

The message goes to stderr as one sentence; `--debug` shows the traceback instead.
"""

from __future__ import annotations

import errno
import functools
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import typer

from sanakit.base.echo import printable, quoted
from sanakit.base.memory import ADVICE, is_shortage
from sanakit.cli.say import notify

INTERRUPTED = 130
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EROFS)


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with every exception turned into a sentence and an exit code, unless it was called with `debug`."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
        except (typer.Exit, typer.Abort):
            raise
        except KeyboardInterrupt:
            notify("sanakit: interrupted.")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            _leave_quietly()
        except Exception as error:
            if options.get("debug"):
                raise
            notify(f"sanakit: {describe(error)}")
            raise typer.Exit(exit_code(error)) from None

    return run


_USERS = frozenset(
    {errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS}
    | {errno.ELOOP, errno.EEXIST, errno.EINVAL, errno.ENOSPC, errno.EDQUOT}
)
"""Reasons of the system to refuse a path that the user can put right."""


def exit_code(error: Exception) -> int:
    """Return an error's own code; 2 for a path that the system refuses and for too little memory or room; else 1."""
    users = _lack(error) or _is_about_a_path(error) or _is_about_a_home(error)
    code = getattr(error, "exit_code", 2 if users else 1)
    return code if isinstance(code, int) else 1


def _is_about_a_path(error: Exception) -> bool:
    return isinstance(error, OSError) and error.filename is not None and error.errno in _USERS


def _is_about_a_home(error: Exception) -> bool:
    """Return whether pathlib raised it because a path names the home of an unknown user."""
    return type(error) is RuntimeError and str(error).startswith("Could not determine home directory")


def describe(error: Exception) -> str:
    """Return one line that says what went wrong and, for unexpected errors, how to see more."""
    text = printable(error) or type(error).__name__
    if isinstance(getattr(error, "exit_code", None), int):
        return text if text.endswith((".", "!", "?")) else f"{text}."
    lack = _lack(error)
    if lack is not None:
        return f"{lack}."
    if _is_about_a_path(error) and isinstance(error, OSError):
        return f"{error.strerror}: {quoted(error.filename, 200)}."
    if _is_about_a_home(error):
        return "a path begins with ~ and a user whom this machine does not know: write the path out."
    return f"unexpected {type(error).__name__}: {text[:300]} (run again with --debug for the traceback)"


def _lack(error: Exception) -> str | None:
    """Return what ran out, memory or disk, and what to do; None for any other error."""
    if is_shortage(error):
        return f"not enough memory: {ADVICE}"
    if isinstance(error, OSError) and error.errno in _FULL:
        where = f" {quoted(error.filename, 200)}" if error.filename else ""
        return f"can't write{where}: {error.strerror}; free some room, or choose another place"
    return None


def _leave_quietly() -> NoReturn:
    """End without a word: nobody reads our output any more, and Python must not try to flush it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise typer.Exit(1)
