"""From a path to a set: a folder of pictures, webdataset shards, or both, with the captions that lie beside them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from sanakit.base.errors import DataError
from sanakit.base.files import ensure_writable_folder
from sanakit.training.data.captions import (
    LABELS,
    TABLES,
    CaptionError,
    caption_of_text,
    captions_of,
    key_of,
    read_jsonl,
    read_parquet,
    record_of,
    write_labels,
)
from sanakit.training.data.draft import Draft
from sanakit.training.data.items import Caption, PictureSet, Place
from sanakit.training.data.picture import SUFFIXES
from sanakit.training.data.shard_index import read_indexed
from sanakit.training.data.shards import expand_braces, read_shard

ReadShard = Callable[[Path, str, Draft], None]

_COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")


def open_set(
    path: Path | str,
    *,
    announce: Callable[[int], object] = lambda count: None,
    index: Path | str | None = None,
) -> PictureSet:
    """The set at `path`: a folder, one tar shard, or a brace pattern of shards such as `shards-{000..010}.tar`.

    Reads the heads of all pictures (for their sizes) and all captions. Files and folders whose names begin with a dot
    are passed over. announce: called with the number of pictures found so far, every thousand. index: a folder where
    the contents of shards are kept, so that unchanged ones need not be read again; nothing is kept without it.
    Raises DataError where there is no such path, it holds no picture that can be used, or a library is missing;
    OutputError where the index can't be written.
    """
    path = Path(path).expanduser()
    draft = Draft(announce)
    read = read_shard if index is None else partial(read_indexed, folder=ensure_writable_folder(index))
    if path.is_dir():
        _read_folder(path, draft, read)
    else:
        _read_shards(path, draft, read)
    found = draft.finish(path)
    if not found:
        raise DataError(_nothing(path, draft))
    return found


def write_captions(path: Path | str, added: Mapping[str, Sequence[Caption]]) -> None:
    """Label a set: adds captions, by the keys of its items, to the table `captions.jsonl` beside it; in one step.

    The table lies in the folder of the set, or in that of its shards. Nothing that is there is lost, and `open_set`
    merges it: the same text of the same source takes the new score. Raises OutputError.
    """
    write_labels(_home(Path(path).expanduser()) / LABELS, added)


def _home(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _nothing(path: Path, draft: Draft) -> str:
    sentence = f"there is no picture in {path} that can be used"
    return (
        f"{sentence}; first fault of {len(draft.faults)}: {draft.faults[0].text}"
        if draft.faults
        else sentence
    )


def _read_shards(pattern: Path, draft: Draft, read: ReadShard) -> None:
    """One shard, or those of a pattern, and the labels in their folder."""
    names = expand_braces(pattern.name)
    folder = pattern.parent
    shards = [folder / name for name in names]
    if not any(shard.exists() for shard in shards):
        raise DataError(
            f"there is nothing at {pattern}: a set is a folder, a tar shard, or a{{000..010}}.tar"
        )
    if any(not name.lower().endswith((".tar", *_COMPRESSED)) for name in names):
        raise DataError(f"{pattern} is neither a folder nor a tar shard")
    for shard in shards:
        _read_tar(shard, shard.name, draft, read)
    if (folder / LABELS).is_file():
        _read_table(folder / LABELS, LABELS, "", draft, lost=False)


def _read_tar(path: Path, shown: str, draft: Draft, read: ReadShard) -> None:
    if path.name.lower().endswith(".tar"):
        read(path, shown, draft)
    else:
        text = f"{shown} is compressed, so that pictures in it can't be reached one by one: unpack it to .tar"
        draft.add_fault(shown, "shard", text)


def _read_folder(root: Path, draft: Draft, read: ReadShard) -> None:
    """Pictures with their neighbours, shards, and at last the tables, which may speak of all of them."""
    tables: list[tuple[Path, str]] = []
    for path, shown in _files(root, draft):
        ending = path.suffix.lower()
        if ending[1:] in SUFFIXES:
            _read_picture(path, shown, draft)
        elif path.name.lower().endswith((".tar", *_COMPRESSED)):
            _read_tar(path, shown, draft, read)
        elif path.name in TABLES or ending == ".parquet":
            tables.append((path, shown))
        elif ending == ".jsonl":
            draft.add_fault(shown, "ignored", f"{shown} is not read: name it {LABELS} if it holds captions")
    for path, shown in sorted(tables, key=lambda table: table[1] == LABELS):
        folder = Path(shown).parent.as_posix()
        _read_table(path, shown, "" if folder == "." else folder, draft, lost=True)


def _files(root: Path, draft: Draft) -> Iterator[tuple[Path, str]]:
    """Every file below `root`, sorted, with its path relative to it. Links are followed, to each folder once."""

    def refuse(error: OSError) -> None:
        draft.add_fault(str(error.filename), "ignored", f"{error.filename} can't be read: {error.strerror}")

    seen: set[str] = set()
    for folder, below, files in os.walk(root, onerror=refuse, followlinks=True):
        seen.add(os.path.realpath(folder))
        below[:] = sorted(name for name in below if not name.startswith("."))
        below[:] = [name for name in below if os.path.realpath(Path(folder, name)) not in seen]
        for name in sorted(files):
            if not name.startswith("."):
                path = Path(folder, name)
                yield path, path.relative_to(root).as_posix()


def _read_picture(path: Path, shown: str, draft: Draft) -> None:
    """A picture of a folder with the .txt and .json of its name."""
    key = Path(shown).with_suffix("").as_posix()
    known = draft.holds(key)
    draft.add_picture(key, Place(path), shown)
    if known:
        return
    for ending, read in ((".txt", _from_text), (".json", _from_json)):
        beside = path.with_suffix(ending)
        if beside.is_file():
            try:
                draft.add_captions(key, read(beside, Path(shown).with_suffix(ending).as_posix()))
            except CaptionError as error:
                draft.add_fault(key, error.kind, str(error))


def _from_text(path: Path, shown: str) -> list[Caption]:
    return caption_of_text(_bytes(path, shown), shown)


def _from_json(path: Path, shown: str) -> list[Caption]:
    return captions_of(record_of(_bytes(path, shown), shown), shown)


def _bytes(path: Path, shown: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CaptionError("encoding", f"{shown} can't be read: {error.strerror or error}") from None


def _read_table(path: Path, shown: str, folder: str, draft: Draft, lost: bool) -> None:
    """The captions of a table. lost: whether records of pictures that are not there are a fault."""
    missing: list[str] = []
    read = read_parquet if path.suffix.lower() == ".parquet" else read_jsonl
    try:
        for number, record in enumerate(read(path, shown), 1):
            try:
                if isinstance(record, CaptionError):
                    raise record
                name = f"record {number} of {shown}"
                key = key_of(record, folder, name)
                if not draft.holds(key):
                    missing.append(key)
                draft.add_captions(key, captions_of(record, name))
            except CaptionError as error:
                draft.add_fault(shown, error.kind, str(error))
    except OSError as error:
        draft.add_fault(shown, "record", f"{shown} can't be read: {error.strerror or error}")
    if missing and lost:
        text = f"{len(missing)} records of {shown} speak of pictures that are not there, the first of {missing[0]!r}"
        draft.add_fault(shown, "lost", text)
