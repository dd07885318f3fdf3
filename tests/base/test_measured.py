"""Measurements are made once per machine, whoever comes first, and their place may be missing, full or damaged."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from sanakit.base import measured
from sanakit.base.measured import folder, remember


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "sanakit/measured"


def never() -> float:
    raise AssertionError("it is known already")


def test_the_first_answer_stays(home: Path) -> None:
    value, path = remember("bf16", "a chip", lambda: 1.5)
    assert value == 1.5
    assert path is not None
    assert path.parent == home
    assert remember("bf16", "a chip", never) == (1.5, path)
    assert [p.suffix for p in home.iterdir()] == [".json"]  # no drafts


def test_another_machine_or_question_is_measured_anew() -> None:
    answers = [
        remember(q, m, lambda v=v: v)[0] for v, (q, m) in enumerate([("a", "x"), ("a", "y"), ("b", "x")], 1)
    ]
    assert answers == [1, 2, 3]


def test_of_processes_at_once_the_first_decides_for_all() -> None:
    """Both measure before either has written; the second takes what the first wrote."""
    inner: list[float] = []

    def measure() -> float:
        inner.append(remember("bf16", "a chip", lambda: 2.0)[0])
        return 3.0

    assert remember("bf16", "a chip", measure)[0] == 2.0
    assert inner == [2.0]


def test_many_threads_agree() -> None:
    gate, found = threading.Barrier(8), []

    def ask(mine: float) -> None:
        def measure() -> float:
            gate.wait(10)
            return mine

        found.append(remember("bf16", "a chip", measure)[0])

    threads = [threading.Thread(target=ask, args=(float(k + 1),)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"value": 2}', b'{"value": "x", "machine": "a chip"}',
     b'{"value": NaN, "machine": "a chip"}', b'{"value": -1, "machine": "a chip"}',
     b'{"value": 9, "machine": "another"}', b"[" * 100_000],
)  # fmt: skip
def test_damaged_files_are_replaced(content: bytes) -> None:
    path = remember("bf16", "a chip", lambda: 1.5)[1]
    assert path is not None
    path.write_bytes(content)
    assert remember("bf16", "a chip", lambda: 2.5) == (2.5, path)
    assert json.loads(path.read_text())["value"] == 2.5


def test_where_nothing_can_be_written_it_is_measured_all_the_same(home: Path) -> None:
    home.parent.mkdir()
    home.write_text("a file in the place of the folder")
    assert remember("bf16", "a chip", lambda: 1.5) == (1.5, None)
    assert home.read_text() == "a file in the place of the folder"


def test_without_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    monkeypatch.setattr(measured.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(Path, "home", homeless)
    assert folder().is_relative_to(tmp_path)
