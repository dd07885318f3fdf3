"""Folders that change all at once: the old one or the new one, what the user put there stays, and nothing is left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sanakit.base import drafts, files, folders
from sanakit.base.drafts import draft_file, draft_folder, draft_name, is_draft, mend, sweep
from sanakit.base.errors import OutputError
from sanakit.base.files import atomic_write, write_new
from sanakit.base.folders import copy_file, new_folder, remove_folder


@pytest.fixture(params=["exchanged", "two steps", "in its place"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The three ways in which a folder is replaced."""
    if request.param == "two steps":
        monkeypatch.setattr(folders, "exchange", lambda one, other: False)
    if request.param == "in its place":
        monkeypatch.setattr(folders, "_must_stay", lambda target: target.is_dir())
    return str(request.param)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def old_folder(target: Path) -> None:
    (target / "part").mkdir(parents=True)
    (target / "config.json").write_text("old")
    (target / "part" / "weights").write_text("old")
    (target / "part" / "notes.txt").write_text("mine")
    (target / "link").symlink_to("part/notes.txt")


def is_ours(name: str) -> bool:
    return name in ("config.json", "part/weights", "part/more")


def fill(draft: Path) -> None:
    (draft / "part").mkdir()
    atomic_write(draft / "config.json", b"new")
    atomic_write(draft / "part" / "more", b"new")


def test_a_folder_is_replaced_and_the_users_files_stay(tmp_path: Path, way: str) -> None:
    target = tmp_path / "v1.5"
    old_folder(target)
    with new_folder(target, replace=True, ours=is_ours) as draft:
        fill(draft)
        assert (target / "config.json").read_text() == "old"
    assert tree(target) == {
        "config.json": b"new", "part/more": b"new", "part/notes.txt": b"mine", "link": b"mine",
    }  # fmt: skip
    assert (target / "link").is_symlink()
    assert list(tmp_path.iterdir()) == [target]


def test_a_block_that_fails_leaves_the_old_folder_and_no_draft(tmp_path: Path, way: str) -> None:
    target = tmp_path / "model"
    old_folder(target)
    before = tree(target)
    for failure in (ValueError("no"), OSError(28, "No space left on device"), KeyboardInterrupt()):
        with (
            pytest.raises((ValueError, OutputError, KeyboardInterrupt)),
            new_folder(target, replace=True, ours=is_ours) as draft,
        ):
            fill(draft)
            raise failure
        assert tree(target) == before
        assert list(tmp_path.iterdir()) == [target]


def test_without_permission_only_an_empty_folder_is_filled(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for prepare in (lambda: None, target.mkdir):
        prepare()
        with new_folder(target) as draft:
            fill(draft)
        assert (target / "config.json").read_text() == "new"
        with pytest.raises(OutputError, match="exists already"), new_folder(target) as draft:
            fill(draft)
        (target / "config.json").unlink()
        (target / "part" / "more").unlink()
        (target / "part").rmdir()
        target.rmdir()


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    old_folder(tmp_path / "real")
    (tmp_path / "name").symlink_to("real")
    with new_folder(tmp_path / "name", replace=True) as draft:
        fill(draft)
    assert (tmp_path / "name").is_symlink()
    assert (tmp_path / "real" / "config.json").read_text() == "new"


def test_of_two_writers_in_one_new_place_one_wins_whole(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with pytest.raises(OutputError), new_folder(target) as late:
        (late / "late").write_text("late")
        with new_folder(target) as early:
            (early / "early").write_text("early")
    assert tree(target) == {"early": b"early"}
    assert list(tmp_path.iterdir()) == [target]


def killed_between(tmp_path: Path, calls: int) -> Path:
    """A replacement in two steps that ends after so many renames, as a killed process would."""
    target = tmp_path / "model"
    old_folder(target)
    draft = draft_name(target)
    draft.mkdir()
    (draft / "config.json").write_text("new")
    os.rename(target, draft_name(target, "old"))
    if calls == 2:
        os.rename(draft, target)
    return target


def test_a_folder_that_had_stepped_aside_gets_its_name_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = killed_between(tmp_path, 1)
    assert not target.exists()
    mend(target)
    assert (target / "config.json").read_text() == "old"
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [target]


def test_one_that_was_replaced_goes(tmp_path: Path) -> None:
    target = killed_between(tmp_path, 2)
    mend(target)
    sweep(tmp_path)
    assert (target / "config.json").read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_move_into_place_that_was_killed_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "model"
    old_folder(target)
    monkeypatch.setattr(folders, "_must_stay", lambda path: True)
    moved: list[object] = []

    def replace(source: Path, aim: Path) -> None:
        if moved and draft_is_full(source):
            raise KeyboardInterrupt
        moved.append(source)
        os.rename(source, aim)

    def draft_is_full(path: Path) -> bool:
        return ".new" in str(path)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(drafts.os, "replace", replace)
        with new_folder(target, replace=True, ours=is_ours) as draft:
            (draft / "config.json").write_text("new")
            (draft / "part").mkdir()
            (draft / "part" / "more").write_text("new")
    sweep(target)
    assert tree(target) == {
        "config.json": b"new", "part/more": b"new", "part/notes.txt": b"mine", "link": b"mine",
    }  # fmt: skip


def test_a_strangers_draft_moves_and_removes_nothing_outside(tmp_path: Path) -> None:
    folder, outside = tmp_path / "model", tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    full = folder / ".model.12345678.new"
    (full / "vae").mkdir(parents=True)
    (folder / "vae").symlink_to(outside)
    (full / "vae" / "kept").write_text("hostile")
    (full / drafts.GONE).write_text('["../outside/kept", "vae/kept"]')
    sweep(folder)
    assert tree(outside) == {"kept": b"kept"}


def test_drafts_that_nobody_holds_are_swept_and_others_stay(tmp_path: Path) -> None:
    with draft_file(tmp_path / "a.png") as file, draft_folder(tmp_path / "model") as folder:
        left = tmp_path / ".b.0123abcd.part.png"
        left.write_bytes(b"half")
        (tmp_path / ".m.0123abcd.part").mkdir()
        (tmp_path / ".m.0123abcd.part" / "x").write_text("half")
        others = [tmp_path / name for name in ("photo.part", ".hidden.part", "a.0123abcd.part.png", ".part")]
        for other in others:
            other.write_text("the user's")
        removed = sweep(tmp_path)
        assert {path.name for path in removed} == {".b.0123abcd.part.png", ".m.0123abcd.part"}
        assert file.exists()
        assert folder.is_dir()
        assert all(other.exists() for other in others)
    assert not file.exists()
    assert not folder.exists()


def test_without_locks_only_old_drafts_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafts, "try_lock", lambda handle: None)
    young, old = tmp_path / ".a.0123abcd.part", tmp_path / ".b.0123abcd.part"
    for path in (young, old):
        path.write_text("half")
    os.utime(old, (0, 0))
    assert sweep(tmp_path) == [old]
    assert young.exists()


@pytest.mark.parametrize("name", ["x" * 250 + ".png", "ü" * 120 + ".png", "a." + "b" * 200])
def test_long_names_can_be_written(tmp_path: Path, name: str) -> None:
    atomic_write(tmp_path / name, b"x")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert is_draft(draft_name(tmp_path / name).name)


@pytest.fixture(params=["renamed", "linked", "claimed"])
def naming(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The three ways in which a new file gets its name."""
    if request.param != "renamed":
        monkeypatch.setattr(files, "rename_new", lambda source, target: False)
    if request.param == "claimed":

        def refuse(*given: object) -> None:
            raise PermissionError(1, "no links here")

        monkeypatch.setattr(files.os, "link", refuse)


def test_a_new_name_is_never_taken_from_another(tmp_path: Path, naming: None) -> None:
    (tmp_path / "a-2.png").symlink_to("nowhere")
    paths = [tmp_path / name for name in ("a.png", "a-2.png", "a-3.png")]
    assert write_new(paths, b"one") == paths[0]

    def write(draft: Path) -> None:
        draft.write_bytes(b"two")

    assert write_new(paths, write) == paths[2]
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "a-2.png", "a-3.png"}
    assert (paths[0].read_bytes(), paths[2].read_bytes()) == (b"one", b"two")


def test_a_removed_folder_loses_its_name_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old_folder(tmp_path / "step")
    monkeypatch.setattr(folders.shutil, "rmtree", lambda *given, **options: None)
    remove_folder(tmp_path / "step")
    (left,) = tmp_path.iterdir()
    assert is_draft(left.name)
    monkeypatch.undo()
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_copy_is_no_second_name(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"x" * 5_000_000)
    copy_file(source, target)
    assert target.read_bytes() == source.read_bytes()
    target.write_bytes(b"changed")
    assert source.read_bytes() == b"x" * 5_000_000


@pytest.mark.skipif(drafts._renameat2() is None, reason="this C library has no renameat2")
def test_exchange(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.write_text("file")
    if not drafts.exchange(one, other):
        pytest.skip("this file system exchanges no names")
    assert other.is_dir()
    assert one.read_text() == "file"
    with pytest.raises(FileNotFoundError):
        drafts.exchange(one, tmp_path / "absent")
    with pytest.raises(FileExistsError):
        drafts.rename_new(one, other)


def test_a_pipe_or_device_is_written_into(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    atomic_write(fifo, b"bytes")
    atomic_write(fifo, lambda draft: draft.write_bytes(b" more"))
    assert os.read(reader, 100) == b"bytes more"
    os.close(reader)
    assert fifo.is_fifo()
