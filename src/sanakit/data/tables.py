"""Tables of captions: JSON lines and CSV; each record names its picture.

A record names its picture by `key`, or by `file_name` (also `file`, `image`, `path`) relative to its table. A path of
another machine, absolute or with backslashes, is looked for by its end.
"""

from __future__ import annotations

import csv
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from sanakit.data.captions import LABELS, MOST_CAPTION, CaptionError, captions_of, encoding_of, record_of
from sanakit.data.image import SUFFIXES
from sanakit.data.items import printable
from sanakit.data.regular import open_regular
from sanakit.data.set_builder import SetBuilder

NAMES = (
    LABELS,
    *(f"{stem}.{ending}" for stem in ("metadata", "captions") for ending in ("jsonl", "csv", "tsv")),
)
"""The files, in lower case, that are read as tables."""

FILE_FIELDS = ("file_name", "file", "image", "path")
_FOREIGN = re.compile(r"\\|^[/~]|^[A-Za-z]:|://")  # absolute, of Windows, or of the web
_MOST_TRANSCODED = 256 * 1024 * 1024  # bytes
_SEPARATORS = {"csv": ",;\t", "tsv": "\t"}

Record = Mapping[str, Any] | CaptionError


def read_table(path: Path, shown: str, folder: str, builder: SetBuilder, lost: bool = True) -> None:
    """Read the captions of a table into the builder. folder: of the table, relative to the set, or "".

    lost: whether records of pictures that are not there are a fault.
    """
    ending = path.suffix.lower()[1:]
    try:
        with open_regular(path) as file:
            lines = _lines(file, shown)
            records = _jsonl(lines, shown) if ending == "jsonl" else _csv(lines, shown, _SEPARATORS[ending])
            take_records(records, shown, folder, builder, lost)
    except OSError as error:
        builder.add_fault(shown, "record", f"{shown} can't be read: {error.strerror or error}")


def take_records(
    records: Iterable[Record], shown: str, folder: str, builder: SetBuilder, lost: bool = True
) -> None:
    """Read the captions of records into the builder, and what is wrong with them."""
    missing: list[str] = []
    moved: list[str] = []
    for number, record in enumerate(records, 1):
        try:
            if isinstance(record, CaptionError):
                raise record
            name = f"record {number} of {shown}"
            key = _key_of(record, folder, name, builder, moved)
            if builder.find(key) is None and not builder.is_broken(key):
                missing.append(key)
            builder.add_captions(key, captions_of(record, name, builder.reporter(shown)))
        except CaptionError as error:
            builder.add_fault(shown, error.kind, str(error))
    if missing and lost:
        text = f"{len(missing)} records of {shown} speak of pictures that are not there, the first of {missing[0]!r}"
        builder.add_fault(shown, "lost", text, len(missing))
    if moved:
        text = f"{len(moved)} records of {shown} give absolute or foreign paths, the first {moved[0]}"
        builder.add_fault(shown, "moved", text, len(moved))


def names_picture(record: Mapping[str, Any]) -> bool:
    """Return whether a record says which picture it is of."""
    return any(isinstance(record.get(field), str) for field in ("key", *FILE_FIELDS))


def _key_of(record: Mapping[str, Any], folder: str, name: str, builder: SetBuilder, moved: list[str]) -> str:
    """Return the key of the picture that a record speaks of. Raises CaptionError if it names none.

    moved: collects a sentence if the picture was found only by the end of a path.
    """
    if isinstance(record.get("key"), str):
        return builder.find(record["key"]) or printable(record["key"])
    given = next((record[field] for field in FILE_FIELDS if isinstance(record.get(field), str)), "")
    if not posixpath.basename(given.replace("\\", "/").rstrip("/")).strip("."):
        raise CaptionError("record", f"{name} names no picture: it needs 'key' or 'file_name'")
    given = printable(given)
    plain = _keys(folder, given)
    found = next(
        (builder.find(key) for key in plain if builder.find(key) is not None or builder.is_broken(key)), None
    )
    if found is not None or any(builder.is_broken(key) for key in plain):
        return found or plain[0]
    parts = [part for part in given.replace("\\", "/").split("/") if part]
    for start in range(len(parts) if _FOREIGN.search(given) else 0):
        for key in _keys(folder, "/".join(parts[start:])):
            known = builder.find(key)
            if known is not None:
                moved.append(f"{given!r}, taken for {known}")
                return known
    return plain[0]


def _keys(folder: str, given: str) -> list[str]:
    """Return the keys that a path relative to a folder may mean: without its ending, and with it if that is part."""
    path = posixpath.normpath(posixpath.join(folder, given))
    stem, ending = posixpath.splitext(path)
    return [stem, path] if ending[1:].lower() not in SUFFIXES else [stem]


def _lines(file: BinaryIO, shown: str) -> Iterator[tuple[bytes, int] | CaptionError]:
    """Yield each line as UTF-8 and the byte it begins at; one that is too long is a fault and passed over."""
    name, mark = encoding_of(file.read(4096))
    file.seek(mark)
    if name != "utf-8":
        yield from _transcoded(file, name, shown)
        return
    start = mark
    while line := file.readline(MOST_CAPTION + 1):
        if len(line) > MOST_CAPTION:
            yield CaptionError(
                "record", f"{shown} has a line of more than {MOST_CAPTION:,} bytes at byte {start}"
            )
            if not _skip_line(file):
                return
        else:
            yield line, start
        start = file.tell()


def _transcoded(file: BinaryIO, name: str, shown: str) -> Iterator[tuple[bytes, int] | CaptionError]:
    """Yield the lines of a table in UTF-16 or UTF-32; bytes that are none become question marks."""
    content = file.read(_MOST_TRANSCODED + 1)
    if len(content) > _MOST_TRANSCODED:
        yield CaptionError("record", f"{shown} is too long for {name.upper()}: save it as UTF-8")
        return
    for line in content.decode(name, "replace").split("\n"):
        yield line.encode("utf-8", "replace") + b"\n", 0


def _skip_line(file: BinaryIO) -> bool:
    """Go to the next line; False if none comes within what a table may spend on a line."""
    for _ in range(64):
        rest = file.readline(MOST_CAPTION)
        if not rest or rest.endswith(b"\n"):
            return bool(rest)
    return False


def _jsonl(lines: Iterable[tuple[bytes, int] | CaptionError], shown: str) -> Iterator[Record]:
    """Yield each line's record, or what is wrong with it."""
    for number, line in enumerate(lines, 1):
        if isinstance(line, CaptionError):
            yield line
        elif line[0].strip():
            try:
                yield record_of(line[0], f"line {number} of {shown}", line[1])
            except CaptionError as error:
                yield error


def _csv(lines: Iterable[tuple[bytes, int] | CaptionError], shown: str, separators: str) -> Iterator[Record]:
    """Yield each row by the names in the first one. A cell of several lines is one text."""
    faults: list[CaptionError] = []
    texts = _texts(lines, faults)
    head = next(texts, "")
    separator = max(separators, key=head.count)
    fields = [field.strip() for field in next(csv.reader([head], delimiter=separator), [])]
    rows = csv.reader(texts, delimiter=separator)
    number = 1
    while True:
        number += 1
        try:
            row = next(rows)
        except StopIteration:
            break
        except csv.Error as error:
            yield CaptionError("record", f"record {number - 1} of {shown} isn't CSV ({error})")
            continue
        yield from faults
        faults.clear()
        broken = next((cell for cell in row if not _is_text(cell)), None)
        if broken is not None:
            yield CaptionError("encoding", f"record {number - 1} of {shown} is not UTF-8")
        elif row:
            yield {field: cell for field, cell in zip(fields, row, strict=False) if cell}
    yield from faults


def _texts(lines: Iterable[tuple[bytes, int] | CaptionError], faults: list[CaptionError]) -> Iterator[str]:
    for line in lines:
        if isinstance(line, CaptionError):
            faults.append(line)
        else:
            yield line[0].decode("utf-8", "surrogateescape")


def _is_text(cell: str) -> bool:
    return not any("\udc80" <= letter <= "\udcff" for letter in cell)
