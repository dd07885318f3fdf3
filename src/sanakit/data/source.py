"""From a path to a set: a folder of pictures, webdataset shards, or both, with the captions that lie beside them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from sanakit.base.errors import DataError
from sanakit.base.files import ensure_writable_folder
from sanakit.data import tables
from sanakit.data.captions import LABELS, write_labels
from sanakit.data.draft import Draft
from sanakit.data.folder import read_folder
from sanakit.data.items import Caption, PictureSet
from sanakit.data.parquet import read_parquet
from sanakit.data.shard_index import read_indexed
from sanakit.data.shards import COMPRESSED, expand_braces, read_packed, read_shard


def open_set(
    path: Path | str,
    *,
    announce: Callable[[int], object] = lambda count: None,
    index: Path | str | None = None,
) -> PictureSet:
    """The set at `path`: a folder, one tar shard or Parquet file, or a pattern of them such as `a-{000..010}.tar`.

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
        read_folder(path, draft, read)
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


def _read_shards(pattern: Path, draft: Draft, read: Callable[[Path, str, Draft], None]) -> None:
    """One shard or Parquet file, or those of a pattern, and the labels in their folder."""
    names = expand_braces(pattern.name)
    folder = pattern.parent
    if not any(os.path.lexists(folder / name) for name in names):
        raise DataError(
            f"there is nothing at {pattern}: a set is a folder, a tar shard, or a{{000..010}}.tar"
        )
    if any(not name.lower().endswith((".tar", ".parquet", *COMPRESSED)) for name in names):
        raise DataError(f"{pattern} is neither a folder nor a tar shard")
    for name in names:
        if name.lower().endswith(".parquet"):
            read_parquet(folder / name, name, "", draft)
        else:
            read_packed(folder / name, name, draft, read)
    if (folder / LABELS).is_file():
        tables.read_table(folder / LABELS, LABELS, "", draft, lost=False)
