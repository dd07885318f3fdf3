"""A long walk is told of where there is no terminal, too."""

from __future__ import annotations

import pytest

from sanakit.cli import walks
from sanakit.cli.walks import Bar


def test_off_terminals_a_line_comes_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 8))
    monkeypatch.setattr(walks.time, "monotonic", lambda: next(clock))
    with Bar() as bar:
        things = list(bar.follow("drawing", "abcdefgh", 8))
    assert things == list("abcdefgh")
    lines = capsys.readouterr().err.splitlines()
    assert 0 < len(lines) < 8
    done = [int(line.removeprefix("drawing: ").split(" of 8, left ")[0]) for line in lines]
    assert done == sorted(done)
    assert lines[-1].startswith("drawing: ") and "left 0:0" in lines[-1]


def test_a_pace_is_guessed_from_what_was_done_here(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(walks.time, "monotonic", lambda: now[0])
    with Bar() as bar:
        for second, done in ((0.0, 900), (40.0, 950)):  # 900 were there before
            now[0] = second
            bar.count("encoding", done, 1000)
    assert capsys.readouterr().err == "encoding: 950 of 1000, left 0:00:40\n"
