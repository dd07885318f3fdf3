"""A folder with all that is below it: pictures with their neighbours, shards, and tables, which may speak of all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from sanakit.data import tables
from sanakit.data.captions import (
    CAPTION_ENDINGS,
    LABELS,
    MOST_CAPTION,
    CaptionError,
    captions_beside,
)
from sanakit.data.draft import Draft
from sanakit.data.items import FilePlace
from sanakit.data.parquet import read_parquet
from sanakit.data.picture import SUFFIXES
from sanakit.data.regular import kind_of, open_regular
from sanakit.data.shards import COMPRESSED, read_packed

_TABLE_ENDINGS = ("jsonl", "csv", "tsv")
_HARMLESS = ("md", "rst", "html", "yaml", "yml", "toml", "log", "py", "sh", "lnk", "url", "sha256", "md5")
_HARMLESS_NAMES = ("thumbs.db", "desktop.ini", "readme", "license", "licence", "notice", "copying", "authors")
_DEEPEST = 100  # folders in folders: no set has so many, a loop of mounts has

ReadShard = Callable[[Path, str, Draft], None]


def read_folder(root: Path, draft: Draft, read: ReadShard) -> None:
    """Everything below a folder into the draft; what beside a picture of its name it may be is decided at the end."""
    beside: list[tuple[Path, str]] = []
    late: list[tuple[Path, str]] = []
    for path, shown in _files(root, draft):
        ending = path.suffix.lower()[1:]
        name = path.name.lower()
        if ending in SUFFIXES:
            draft.add_picture(_key(shown), FilePlace(path), shown)
        elif name.endswith((".tar", *COMPRESSED)):
            read_packed(path, shown, draft, read)
        elif name in tables.NAMES or ending == "parquet":
            late.append((path, shown))
        elif ending in CAPTION_ENDINGS:
            beside.append((path, shown))
        elif ending in _TABLE_ENDINGS:
            draft.add_fault(shown, "ignored", f"{shown} is not read: name it {LABELS} if it holds captions")
        elif (
            ending not in _HARMLESS
            and path.stem.lower() not in _HARMLESS_NAMES
            and name not in _HARMLESS_NAMES
        ):
            draft.add_other(_key(shown), ending, shown)
    _read_neighbours(beside, draft)
    for path, shown in sorted(late, key=lambda table: table[1] == LABELS):
        folder = str(PurePosixPath(shown).parent)
        reader = read_parquet if path.suffix.lower() == ".parquet" else tables.read_table
        reader(path, shown, "" if folder == "." else folder, draft)


def _read_neighbours(beside: list[tuple[Path, str]], draft: Draft) -> None:
    """The texts and records of the pictures they lie beside; `a.jpg.txt` belongs to `a.jpg`, too."""
    lonely = []
    for path, shown in beside:
        keys = [_key(shown)]
        if PurePosixPath(keys[0]).suffix.lower()[1:] in SUFFIXES:
            keys.append(_key(keys[0]))
        key = next((found for name in keys if (found := draft.find(name)) is not None), None)
        if key is not None:
            _read_neighbour(path, shown, key, draft)
        elif path.stem.lower() not in _HARMLESS_NAMES and not any(draft.is_broken(name) for name in keys):
            lonely.append(shown)
    if lonely:
        text = f"{len(lonely)} texts or records lie beside no picture of their name, the first is {lonely[0]}"
        draft.add_fault(lonely[0], "lost", text, len(lonely))


def _read_neighbour(path: Path, shown: str, key: str, draft: Draft) -> None:
    try:
        with open_regular(path) as file:
            data = file.read(MOST_CAPTION + 1)
        if len(data) > MOST_CAPTION:
            raise CaptionError("record", f"{shown} has more than the {MOST_CAPTION:,} bytes of a caption")
        draft.add_captions(key, captions_beside(data, shown, path.suffix.lower()[1:], draft.reporter(key)))
    except OSError as error:
        draft.add_fault(key, "encoding", f"{shown} can't be read: {error.strerror or error}")
    except CaptionError as error:
        draft.add_fault(key, error.kind, str(error))


def _key(shown: str) -> str:
    return PurePosixPath(shown).with_suffix("").as_posix()


def _files(root: Path, draft: Draft) -> Iterator[tuple[Path, str]]:
    """Every regular file below `root`, sorted, with its path relative to it.

    Links are followed, to each folder once, and to none that the set itself lies in.
    """
    above = {os.path.realpath(parent) for parent in root.resolve().parents}
    seen = {os.path.realpath(root)}
    waiting = [(root, "")]
    while waiting:
        folder, prefix = waiting.pop()
        below = []
        for name in _names(folder, prefix, draft):
            path, shown = folder / name, f"{prefix}{name}"
            try:
                facts = os.stat(path)
            except OSError as error:
                _refuse(shown, f"{shown} can't be read: {error.strerror or error}", draft)
                continue
            kind = kind_of(facts)
            if kind is None:
                yield path, shown
            elif kind != "a folder":
                _refuse(shown, f"{shown} is {kind} and not read", draft)
            else:
                below.append((path, f"{shown}/"))
        waiting += reversed(list(_new(below, seen, above, draft)))


def _new(
    below: list[tuple[Path, str]], seen: set[str], above: set[str], draft: Draft
) -> Iterator[tuple[Path, str]]:
    """Those of some folders that were not seen yet."""
    for path, prefix in below:
        real = os.path.realpath(path)
        if real in above:
            draft.add_fault(prefix, "ignored", f"{prefix} leads to {real}, which the set itself lies in")
        elif prefix.count("/") > _DEEPEST:
            draft.add_fault(prefix, "ignored", f"{prefix[:200]} lies more than {_DEEPEST} folders deep")
        elif real not in seen:
            seen.add(real)
            yield path, prefix


def _names(folder: Path, prefix: str, draft: Draft) -> list[str]:
    """What a folder holds, sorted, but for names that begin with a dot."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        shown = prefix or str(folder)
        draft.add_fault(shown, "ignored", f"{shown} can't be read: {error.strerror or error}")
        return []


def _refuse(shown: str, text: str, draft: Draft) -> None:
    """A fault of a picture where the name is one; else of a thing that is not read."""
    kind = "corrupt" if PurePosixPath(shown).suffix.lower()[1:] in SUFFIXES else "special"
    draft.add_fault(_key(shown) if kind == "corrupt" else shown, kind, text)
