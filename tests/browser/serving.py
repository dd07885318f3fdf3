"""`sanakit serve` as a process of its own, and Debian's Chromium to look at it; what tests and screenshots share."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

FLAGS = [
    "--no-sandbox",  # in containers the browser runs as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def browser_path() -> str | None:
    """The Chromium of this machine."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


@contextmanager
def serve(data: Path, port: int = 0, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server on a data folder: its address, and its process, which may be ended early."""
    command = [
        sys.executable, "-m", "sanakit.cli", "serve", "--data", str(data), "--port", str(port), "--device", "cpu",
        "--drain", "0", *options,
    ]  # fmt: skip
    # Nobody reads its logs while it runs, and a full pipe would stop it.
    with (
        TemporaryFile("w+") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            yield _address(process, log), process
        finally:
            process.terminate()
            process.wait(60)


def _address(process: subprocess.Popen[str], log: IO[str]) -> str:
    """What the server prints once it is ready."""
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"serves at (http://\S+)", line)
    if found is None:
        log.seek(0)
        raise AssertionError(f"the server ended: {line}{log.read()}")
    return found[1]
