"""Locks: one holder at a time, told by name, and gone with the process however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sanakit.base import locks
from sanakit.base.errors import OutputError
from sanakit.base.locks import hold

HOLDER = """
import sys, time
from pathlib import Path
from sanakit.base.locks import hold
with hold(Path(sys.argv[1]), "trains"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["locks", "no locks"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the locks of this system, and as where there are none."""
    if request.param == "no locks":
        monkeypatch.setattr(locks, "try_lock", lambda handle: None)
    return str(request.param)


def test_one_holder_at_a_time_who_is_told(tmp_path: Path, system: str) -> None:
    lock = tmp_path / ".lock"
    with hold(lock, "trains"):
        with (
            pytest.raises(
                OutputError, match=rf"is in use: process {os.getpid()} on .* trains there since \d"
            ),
            hold(lock, "trains, too"),
        ):
            raise AssertionError("two hold it")
        with pytest.raises(OutputError, match="is in use"), hold(lock, "waits", wait=0.1):
            raise AssertionError("two hold it")
    assert list(tmp_path.iterdir()) == []
    with hold(lock, "trains again"):
        assert lock.exists()


def test_a_lock_ends_with_its_process(tmp_path: Path, system: str) -> None:
    lock = tmp_path / ".lock"
    code = (
        HOLDER
        if system == "locks"
        else HOLDER.replace(
            "with hold", "from sanakit.base import locks\nlocks.try_lock = lambda handle: None\nwith hold"
        )
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(OutputError, match=f"process {process.pid} "), hold(lock, "trains"):
        raise AssertionError("two hold it")
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert lock.exists()
    with hold(lock, "trains"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="can't lock"), hold(tmp_path / "absent" / ".lock", "trains"):
        raise AssertionError("held in no folder")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="can't lock"), hold(tmp_path / "link", "trains"):
        raise AssertionError("a link was followed")
    assert not (tmp_path / "elsewhere").exists()


def test_what_a_stranger_wrote_into_a_lock_file_is_no_holder(tmp_path: Path, system: str) -> None:
    lock = tmp_path / ".lock"
    for text in ("", "[]", '{"pid": "x"}', "{"):
        lock.write_text(text)
        with hold(lock, "trains"):
            pass
