"""What is printed: in any encoding, to a reader that has gone, onto a full disk; no work is lost by it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from sanakit.cli import say as saying
from sanakit.cli.outputs import Report
from sanakit.pipeline import ImageRequest, Record, write_picture
from tests.cli.running import Sana

ENCODINGS = ("ascii", "cp1252", "cp932", "latin-1", "utf-8")
TEXT = "a · b … █▁ 赤 é → 3×4 \udcff"
COMMAND = (sys.executable, "-m", "sanakit.cli")


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch):
    """Puts stdout and stderr of an encoding in place, made ready as the console script does; returns what they took."""

    def open_streams(encoding: str) -> tuple[io.BytesIO, io.BytesIO]:
        taken = io.BytesIO(), io.BytesIO()
        for name, bytes_ in zip(("stdout", "stderr"), taken, strict=True):
            monkeypatch.setattr(sys, name, io.TextIOWrapper(bytes_, encoding=encoding, write_through=True))
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        saying.prepare_streams()
        return taken

    return open_streams


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_takes_every_text(streams, encoding: str):
    out, err = streams(encoding)
    saying.say(TEXT)
    saying.say(TEXT, err=True)
    assert out.getvalue() == err.getvalue()
    shown = out.getvalue().decode(encoding)
    assert shown.startswith("a ")
    assert "\\udcff" in shown
    if encoding == "ascii":
        assert shown.strip() == r"a - b ... ## \u8d64 \xe9 -> 3x4 \udcff".replace(r"\xe9", r"\u00e9")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_last_line_of_a_drawing_in_every_encoding(streams, encoding: str):
    out, _ = streams(encoding)
    report = Report(as_json=False, waiting=False)
    report.add({"start": 0.5, "text": 1.0, "denoise": 2.0})
    report.done()
    assert b"denoise 2.00 s" in out.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp932"])
def test_a_command_in_another_encoding_ends_well(tmp_path: Path, encoding: str):
    request = ImageRequest(
        prompt="ein 赤 Würfel · █\x1b]0;title\x07\nweights: none", seed=1, width=64, height=64
    )
    write_picture(tmp_path / "a.png", Image.new("RGB", (64, 64)), Record(request=request))
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    result = subprocess.run(
        [*COMMAND, "inspect", "a.png"], cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == b""
    lines = result.stdout.decode(encoding).splitlines()
    assert "\x1b" not in "".join(lines)
    assert lines[0].startswith("prompt:")
    assert not any(line.startswith("weights:") for line in lines)


def test_a_reader_that_goes_away_costs_no_picture(sana: Sana, tmp_path: Path):
    command = [*COMMAND, "generate", "a cube", "--model", sana.model, "--count", "1", "--steps", "1"]
    command += ["--size", "64x64", "--device", "cpu", "--dtype", "fp32"]
    process = subprocess.Popen(
        [*command, "--out", "all"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    _, told = process.communicate()
    assert process.returncode == 0, told
    assert told == b""
    assert len(list((tmp_path / "all").iterdir())) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_behind_stdout_is_told(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        saying.say("a")
        saying.say("b")
    assert capfd.readouterr().err.count("stdout can't be written") == 1


def test_closed_streams_are_opened_on_nothing(tmp_path: Path):
    """Else the first file that a command opens would be its stdout."""
    code = (
        "from sanakit.cli.say import prepare_streams, say; prepare_streams();"
        "file = open('picture', 'w'); print('noise'); say('more'); say('words', err=True); file.close()"
    )
    closed = subprocess.run(
        ["/bin/sh", "-c", f'"{sys.executable}" -c "{code}" >&- 2>&-'], cwd=tmp_path, check=False
    )
    assert closed.returncode == 0
    assert (tmp_path / "picture").read_text() == ""


def test_the_traceback_of_debug_is_cleaned(streams):
    _, err = streams("utf-8")
    try:
        raise ValueError("\x1b]0;title\x07")
    except ValueError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    assert b"Traceback" in err.getvalue()
    assert b"\x1b" not in err.getvalue()


def test_errors_quote_no_megabytes(sana: Sana):
    result = sana("generate", "a", "--solver", "x" * 10**6)
    assert result.exit_code == 2
    assert len(result.stderr) < 1000
    assert "choose one of" in result.stderr
