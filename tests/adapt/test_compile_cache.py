"""Where compiled blocks are kept: in the home folder, and with the process alone where that can't be written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sanakit.adapt import compile as compiled


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")


def test_a_home_folder_keeps_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compiled.keeps()
    assert Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]) == tmp_path / ".cache/sanakit/compiled"


@pytest.mark.parametrize("home", ["file", "/proc/nothing", "relative"])
def test_without_one_they_go_with_the_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "file") if home == "file" else home)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert not compiled.keeps()
    made = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    assert made.parent == tmp_path
    assert made.stat().st_mode & 0o077 == 0
    assert not (tmp_path / "relative").exists()


def test_what_was_set_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    assert compiled.keeps()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path)
