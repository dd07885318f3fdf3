"""Measurements in processes of their own end with the program that asked for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import os, sys, time
from pathlib import Path
from recipes.repeats import measure_all

def measure(name, seed, steps):
    Path(name).write_text(str(os.getpid()))
    time.sleep(600)
    return {}

if __name__ == "__main__":
    list(measure_all(measure, [(sys.argv[1], 0)], 1, 1))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the states of processes from /proc")
def test_workers_do_not_outlive_a_program_that_was_killed(tmp_path: Path) -> None:
    program, told = tmp_path / "program.py", tmp_path / "pid"
    program.write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    with subprocess.Popen([sys.executable, str(program), str(told)], env=environment) as process:
        wait_until(lambda: told.exists() and told.read_text() != "")
        process.send_signal(signal.SIGKILL)
    worker = int(told.read_text())
    wait_until(lambda: not is_alive(worker))


def wait_until(happened: Callable[[], bool], seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.1)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody waited for doesn't."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
