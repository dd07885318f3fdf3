"""Atomic writes: the old file or the new one, never half of one, and no litter."""

from __future__ import annotations

from pathlib import Path

import pytest

from sanakit.base.errors import OutputError
from sanakit.base.files import atomic_write, ensure_writable_folder


def test_bytes_and_writers(tmp_path: Path) -> None:
    target = tmp_path / "picture.png"
    atomic_write(target, b"one")
    assert target.read_bytes() == b"one"
    seen: list[Path] = []

    def writer(draft: Path) -> None:
        seen.append(draft)
        draft.write_bytes(b"two")

    atomic_write(str(target), writer)
    assert target.read_bytes() == b"two"
    assert seen[0].suffix == ".png"
    assert seen[0].parent == tmp_path
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path, stop: type[BaseException]) -> None:
    target = tmp_path / "picture.png"
    target.write_bytes(b"old")

    def writer(draft: Path) -> None:
        draft.write_bytes(b"half")
        raise stop

    with pytest.raises(stop):
        atomic_write(target, writer)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_refusal_of_the_system_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for target in (tmp_path / "absent" / "x.png", tmp_path / "file" / "x.png", tmp_path):
        with pytest.raises(OutputError, match="can't write"):
            atomic_write(target, b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_ensure_writable_folder(tmp_path: Path) -> None:
    folder = ensure_writable_folder(str(tmp_path / "a" / "b"))
    assert folder.is_dir()
    assert list(folder.iterdir()) == []
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file" / "below", "/proc/sanakit"):
        with pytest.raises(OutputError, match="can't write into"):
            ensure_writable_folder(path)
