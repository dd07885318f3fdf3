"""From a path to a set: a folder of pictures, webdataset shards, or both, with captions beside them and in tables."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from sanakit.base.errors import DataError
from sanakit.base.files import ensure_writable_folder
from sanakit.data import tables
from sanakit.data.captions import (
    CAPTION_ENDINGS,
    LABELS,
    MOST_CAPTION,
    CaptionError,
    captions_beside,
    write_labels,
)
from sanakit.data.image import SUFFIXES
from sanakit.data.items import ByteRange, Caption, PictureSet
from sanakit.data.parquet import read_parquet
from sanakit.data.regular import kind_of, open_regular
from sanakit.data.set_builder import SetBuilder
from sanakit.data.shards import COMPRESSED, expand_braces, read_indexed, read_packed, read_shard

_TABLE_ENDINGS = ("jsonl", "csv", "tsv")
_HARMLESS = ("md", "rst", "html", "yaml", "yml", "toml", "log", "py", "sh", "lnk", "url", "sha256", "md5")
_HARMLESS_NAMES = ("thumbs.db", "desktop.ini", "readme", "license", "licence", "notice", "copying", "authors")
_DEEPEST = 100  # nested folders: no set has so many, but a loop of mounts does

ReadShard = Callable[[Path, str, SetBuilder], None]


def open_set(
    path: Path | str,
    *,
    on_progress: Callable[[int], object] = lambda count: None,
    index: Path | str | None = None,
) -> PictureSet:
    """Open the set at `path`: a folder, one tar shard or Parquet file, or a pattern of them such as `a-{000..010}.tar`.

    Reads the heads of all pictures (for their sizes) and all captions. Files and folders whose names begin with a dot
    are ignored. on_progress: called with the number of pictures found so far, every thousand. index: a folder for the
    contents of shards, so that unchanged ones need not be read again; nothing is kept without it.
    Raises DataError if there is no such path, it holds no usable picture, or a library is missing; OutputError if the
    index can't be written.
    """
    path = Path(path).expanduser()
    builder = SetBuilder(on_progress)
    read = read_shard if index is None else partial(read_indexed, folder=ensure_writable_folder(index))
    if path.is_dir():
        read_folder(path, builder, read)
    else:
        _read_shards(path, builder, read)
    found = builder.build(path)
    if not found:
        raise DataError(_nothing(path, builder))
    return found


def write_captions(path: Path | str, added: Mapping[str, Sequence[Caption]]) -> None:
    """Label a set: add captions, by the keys of its items, to the table `captions.jsonl` beside it, in one step.

    The table is in the folder of the set, or in that of its shards. Existing lines are kept, and `open_set` merges
    them: the same text from the same source takes the new score. Raises OutputError.
    """
    write_labels(_home(Path(path).expanduser()) / LABELS, added)


def _home(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _nothing(path: Path, builder: SetBuilder) -> str:
    sentence = f"there is no picture in {path} that can be used"
    return (
        f"{sentence}; first fault of {len(builder.faults)}: {builder.faults[0].text}"
        if builder.faults
        else sentence
    )


def _read_shards(pattern: Path, builder: SetBuilder, read: Callable[[Path, str, SetBuilder], None]) -> None:
    """Read one shard or Parquet file, or those of a pattern, and the labels in their folder."""
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
            read_parquet(folder / name, name, "", builder)
        else:
            read_packed(folder / name, name, builder, read)
    if (folder / LABELS).is_file():
        tables.read_table(folder / LABELS, LABELS, "", builder, lost=False)


def read_folder(root: Path, builder: SetBuilder, read: ReadShard) -> None:
    """Add everything below a folder to the builder; files beside a picture of the same name are decided at the end."""
    beside: list[tuple[Path, str]] = []
    late: list[tuple[Path, str]] = []
    for path, shown in _files(root, builder):
        ending = path.suffix.lower()[1:]
        name = path.name.lower()
        if ending in SUFFIXES:
            builder.add_picture(_key(shown), ByteRange(path), shown)
        elif name.endswith((".tar", *COMPRESSED)):
            read_packed(path, shown, builder, read)
        elif name in tables.NAMES or ending == "parquet":
            late.append((path, shown))
        elif ending in CAPTION_ENDINGS:
            beside.append((path, shown))
        elif ending in _TABLE_ENDINGS:
            builder.add_fault(shown, "ignored", f"{shown} is not read: name it {LABELS} if it holds captions")
        elif (
            ending not in _HARMLESS
            and path.stem.lower() not in _HARMLESS_NAMES
            and name not in _HARMLESS_NAMES
        ):
            builder.add_other(_key(shown), ending, shown)
    _read_neighbours(beside, builder)
    for path, shown in sorted(late, key=lambda table: table[1] == LABELS):
        folder = str(PurePosixPath(shown).parent)
        reader = read_parquet if path.suffix.lower() == ".parquet" else tables.read_table
        reader(path, shown, "" if folder == "." else folder, builder)


def _read_neighbours(beside: list[tuple[Path, str]], builder: SetBuilder) -> None:
    """Add the texts and records beside pictures; `a.jpg.txt` belongs to `a.jpg`, too."""
    lonely = []
    for path, shown in beside:
        keys = [_key(shown)]
        if PurePosixPath(keys[0]).suffix.lower()[1:] in SUFFIXES:
            keys.append(_key(keys[0]))
        key = next((found for name in keys if (found := builder.find(name)) is not None), None)
        if key is not None:
            _read_neighbour(path, shown, key, builder)
        elif path.stem.lower() not in _HARMLESS_NAMES and not any(builder.is_broken(name) for name in keys):
            lonely.append(shown)
    if lonely:
        text = f"{len(lonely)} texts or records lie beside no picture of their name, the first is {lonely[0]}"
        builder.add_fault(lonely[0], "lost", text, len(lonely))


def _read_neighbour(path: Path, shown: str, key: str, builder: SetBuilder) -> None:
    try:
        with open_regular(path) as file:
            data = file.read(MOST_CAPTION + 1)
        if len(data) > MOST_CAPTION:
            raise CaptionError("record", f"{shown} has more than the {MOST_CAPTION:,} bytes of a caption")
        builder.add_captions(
            key, captions_beside(data, shown, path.suffix.lower()[1:], builder.reporter(key))
        )
    except OSError as error:
        builder.add_fault(key, "encoding", f"{shown} can't be read: {error.strerror or error}")
    except CaptionError as error:
        builder.add_fault(key, error.kind, str(error))


def _key(shown: str) -> str:
    return PurePosixPath(shown).with_suffix("").as_posix()


def _files(root: Path, builder: SetBuilder) -> Iterator[tuple[Path, str]]:
    """Yield every regular file below `root`, sorted, with its path relative to it.

    Links are followed, once to each folder, and never to a folder that contains the set.
    """
    above = {os.path.realpath(parent) for parent in root.resolve().parents}
    seen = {os.path.realpath(root)}
    waiting = [(root, "")]
    while waiting:
        folder, prefix = waiting.pop()
        below = []
        for name in _names(folder, prefix, builder):
            path, shown = folder / name, f"{prefix}{name}"
            try:
                facts = os.stat(path)
            except OSError as error:
                _refuse(shown, f"{shown} can't be read: {error.strerror or error}", builder)
                continue
            kind = kind_of(facts)
            if kind is None:
                yield path, shown
            elif kind != "a folder":
                _refuse(shown, f"{shown} is {kind} and not read", builder)
            else:
                below.append((path, f"{shown}/"))
        waiting += reversed(list(_new(below, seen, above, builder)))


def _new(
    below: list[tuple[Path, str]], seen: set[str], above: set[str], builder: SetBuilder
) -> Iterator[tuple[Path, str]]:
    """Yield the folders that were not visited yet."""
    for path, prefix in below:
        real = os.path.realpath(path)
        if real in above:
            builder.add_fault(prefix, "ignored", f"{prefix} leads to {real}, which contains the set itself")
        elif prefix.count("/") > _DEEPEST:
            builder.add_fault(prefix, "ignored", f"{prefix[:200]} lies more than {_DEEPEST} folders deep")
        elif real not in seen:
            seen.add(real)
            yield path, prefix


def _names(folder: Path, prefix: str, builder: SetBuilder) -> list[str]:
    """Return the sorted names in a folder, without those that begin with a dot."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        shown = prefix or str(folder)
        builder.add_fault(shown, "ignored", f"{shown} can't be read: {error.strerror or error}")
        return []


def _refuse(shown: str, text: str, builder: SetBuilder) -> None:
    """Record a corrupt picture if the name is that of one, else something that is not read."""
    kind = "corrupt" if PurePosixPath(shown).suffix.lower()[1:] in SUFFIXES else "special"
    builder.add_fault(_key(shown) if kind == "corrupt" else shown, kind, text)
