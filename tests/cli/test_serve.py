"""`sanakit serve` and `sanakit keys`: a process that tells its address, draws, and ends without losing a job."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from sanakit.server.engine.store import Store
from sanakit.server.settings import data_folder
from tests.cli.running import Sana, hear_interrupts, lines_of

LONG = {"prompt": "a cube", "width": 512, "height": 512, "steps": 200}


@contextmanager
def serving(model: str, data: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server as a process, and its address."""
    command = (sys.executable, "-m", "sanakit.cli", "serve", "--model", model, "--port", "0", "--device", "cpu",
               "--dtype", "fp32", "--data", str(data), *more)  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_interrupts
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"sanakit serves at (http://127\.0\.0\.1:\d+)\n", line)
        assert found, process.communicate()[1]
        yield process, found[1]
    finally:
        process.kill()
        process.communicate()


def test_a_server_ends_with_its_signal_and_keeps_its_jobs(sana: Sana, tmp_path: Path):
    data = tmp_path / "data"
    with serving(sana.model, data, "--drain", "0", "--logs", "json") as (process, address):
        second = sana("serve", "--model", sana.model, "--port", 0, "--data", data)
        assert second.exit_code == 2
        assert re.match(rf"sanakit: .*is in use: process {process.pid} .* serves there", second.stderr)
        jobs = [httpx.post(f"{address}/api/jobs", json={"request": LONG}).json()["id"] for _ in range(2)]
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "2 jobs wait for the next start" in errors
    rows = [json.loads(line) for line in errors.splitlines() if line.startswith("{")]
    assert [(row["message"], row.get("path")) for row in rows] == [
        ("accepted", None),
        ("request", "/api/jobs"),
    ] * 2
    assert [row["job"] for row in rows if "job" in row] == jobs
    assert rows[0]["request"] == rows[1]["request"] != rows[2]["request"]
    kept = Store(data / "jobs.sqlite3")
    assert [job.id for job in kept.unfinished()] == jobs
    kept.close()


def test_a_public_address_needs_a_key(sana: Sana, tmp_path: Path):
    result = sana("serve", "--model", sana.model, "--host", "0.0.0.0", "--data", tmp_path / "none")
    assert result.exit_code == 2
    assert (
        "0.0.0.0 lets other machines draw here, and there is no key: make one by `sanakit keys add"
        in result.stderr
    )
    assert not (tmp_path / "none").exists()


def test_a_port_that_is_taken_is_said(sana: Sana, tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = sana("serve", "--model", sana.model, "--port", port, "--data", tmp_path / "data")
    assert result.exit_code == 2
    assert (
        f"can't listen at 127.0.0.1 port {port}: " in result.stderr
        and "choose another --host or --port" in result.stderr
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [(("--port", 70000), "from 0 to 65535"), (("--logs", "loud"), "text, json, off"),
     (("--rate", "often"), "60/minute"), (("--loras", "nowhere"), "no folder nowhere"),
     (("--model", "nothing-here"), "nothing-here"), (("--decoder", "no-decoder"), "no-decoder"),
     (("--queue", 0), "--queue"), (("--replicas", 2), "--replicas goes with --ray"),
     (("--gpus", 1), "--gpus goes with --ray"), (("--ray", "--replicas", "4:1"), "N or MIN:MAX")],
)  # fmt: skip
def test_bad_options_are_one_sentence(given: tuple, words: str, sana: Sana, tmp_path: Path):
    result = sana("serve", "--port", 0, "--data", tmp_path / "data", *given)
    assert result.exit_code == 2
    assert words in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("missing", "options", "words"),
    [
        ("uvicorn", (), 'needs uvicorn: run `pip install "sanakit[serve]"`'),
        ("ray", ("--ray",), '--ray needs Ray: run `pip install "sanakit[ray]"`'),
    ],
)
def test_a_missing_library_is_one_sentence(
    missing: str, options: tuple, words: str, sana: Sana, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        "sanakit.server.settings.find_spec", lambda name: None if name == missing else object()
    )
    result = sana("serve", *options)
    assert result.exit_code == 2 and words in result.stderr


def test_help_waits_for_no_library():
    code = "import sys, sanakit.cli.app; print(sorted({'torch', 'fastapi', 'pydantic'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_keys_are_made_listed_and_removed(sana: Sana, tmp_path: Path):
    data = ("--data", tmp_path / "data")
    made = sana("keys", "add", "anna", "--scope", "read", "--scope", "draw", "--rate", "60/minute", *data)
    assert made.exit_code == 0, made.stderr
    assert re.fullmatch(r"sk-sana-[\w-]{43}\n", made.stdout)
    (row,) = lines_of(sana("keys", "list", "--json", *data))
    assert (row["name"], row["scopes"], row["rate"]) == ("anna", ["draw", "read"], "60/minute")
    listed = sana("keys", "list", *data).stdout
    assert listed.startswith("anna") and made.stdout.strip() not in listed
    assert sana("keys", "add", "anna", *data).exit_code == 2
    assert sana("keys", "remove", "anna", *data).exit_code == 0
    assert sana("keys", "list", *data).stdout == ""
    assert sana("keys", "remove", "anna", *data).exit_code == 2


def test_data_lie_where_the_user_keeps_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert data_folder() == tmp_path / "sanakit" / "server"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_folder() == tmp_path / ".local" / "share" / "sanakit" / "server"
    assert os.path.isabs(data_folder())
