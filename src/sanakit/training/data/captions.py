"""Captions as they are stored: text files, JSON records, tables in JSONL and Parquet, and labels written beside a set.

A record names its picture by `key`, or by `file_name` (also `file`, `image`, `path`) relative to its table, and gives
`captions`, `caption`, `text` or `prompt`: a text, or a list of texts or of {"text", "score", "source"}.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sanakit.base.errors import DataError
from sanakit.base.files import atomic_write
from sanakit.training.data.draft import merge_captions, printable
from sanakit.training.data.items import Caption

LABELS = "captions.jsonl"
TABLES = (LABELS, "metadata.jsonl")

_TEXTS = ("captions", "caption", "text", "prompt")
_FILES = ("file_name", "file", "image", "path")


class CaptionError(ValueError):
    """A caption or record that can't be used; kind is that of the fault to report."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def text_of(data: bytes, name: str, start: int = 0) -> str:
    """Bytes as UTF-8, a byte-order mark left out. Raises CaptionError that names the byte, counted from `start`."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CaptionError("encoding", f"{name} is not UTF-8 at byte {start + error.start}") from None


def caption_of_text(data: bytes, name: str) -> list[Caption]:
    """The caption of a .txt file, all of it, with each run of white space as one space; none where it is blank."""
    return _captions(text_of(data, name), None, "")


def record_of(data: bytes, name: str, start: int = 0) -> dict[str, Any]:
    """A JSON object. Raises CaptionError."""
    try:
        record = json.loads(text_of(data, name, start))
    except RecursionError:
        raise CaptionError("record", f"{name} is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise CaptionError("record", f"{name} is no JSON ({error.msg} at character {error.pos})") from None
    if not isinstance(record, dict):
        raise CaptionError("record", f"{name} is no JSON object")
    return record


def captions_of(record: Mapping[str, Any], name: str) -> list[Caption]:
    """The captions of a record; none where it has no field for them. Raises CaptionError where it has a wrong one."""
    field = next((field for field in _TEXTS if record.get(field) is not None), None)
    if field is None:
        return []
    given = record[field]
    found: list[Caption] = []
    for entry in given if isinstance(given, list) else [given]:
        whole = entry if isinstance(entry, dict) else {"text": entry}
        if not isinstance(given, list):
            whole = {"score": record.get("score"), "source": record.get("source"), **whole}
        if not isinstance(whole.get("text"), str):
            raise CaptionError("record", f"the field {field!r} of {name} holds something that is no text")
        found += _captions(whole["text"], _score(whole.get("score"), name), str(whole.get("source") or ""))
    return found


def key_of(record: Mapping[str, Any], folder: str, name: str) -> str:
    """The key of the picture that a record of a table speaks of. folder: of the table, relative to the set, or "".

    Raises CaptionError where it names none.
    """
    if isinstance(record.get("key"), str):
        return str(record["key"])
    for field in _FILES:
        if isinstance(record.get(field), str) and Path(record[field]).name:
            return Path(folder, record[field]).with_suffix("").as_posix()
    raise CaptionError("record", f"{name} names no picture: it needs 'key' or 'file_name'")


def read_jsonl(path: Path, shown: str) -> Iterator[dict[str, Any] | CaptionError]:
    """Each line's record, or what is wrong with it. shown: the path for messages."""
    start = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield record_of(line, f"line {number} of {shown}", start)
                except CaptionError as error:
                    yield error
            start += len(line)


def read_parquet(path: Path, shown: str) -> Iterator[dict[str, Any] | CaptionError]:
    """Each row's record, or what is wrong with the file. Raises DataError where pyarrow is missing."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(f'{shown} needs pyarrow to be read: pip install "sanakit[data]"') from None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = _columns(file.schema_arrow, shown)
            for batch in file.iter_batches(columns=columns):
                yield from batch.to_pylist()
    except CaptionError as error:
        yield error
    except UnicodeDecodeError as error:
        yield CaptionError("encoding", f"a text of {shown} is not UTF-8 at its byte {error.start}")
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        yield CaptionError("record", f"{shown} is no Parquet file that can be read: {reason}")


def _columns(schema: Any, shown: str) -> list[str]:
    """The columns to read, none that hold whole pictures. Raises CaptionError where no text names a picture."""
    plain = [field.name for field in schema if "binary" not in str(field.type)]
    if not set(plain) & {"key", *_FILES}:
        advice = "pictures inside a Parquet file are not read, write them as tar shards"
        raise CaptionError(
            "record", f"{shown} has no column 'key' or 'file_name' that names pictures; {advice}"
        )
    return [name for name in plain if name in ("key", "score", "source", *_FILES, *_TEXTS)]


def write_labels(path: Path, added: Mapping[str, Sequence[Caption]]) -> None:
    """Add captions to a table in JSONL, in one step. What is there stays.

    Lines of the form {"key", "captions": [...]} for the keys of `added` are merged with it; every other line is kept
    as it is, byte by byte, even where it can't be read. Raises OutputError.
    """
    kept: list[bytes] = []
    merged: dict[str, list[Caption]] = {}
    for line in path.read_bytes().splitlines() if path.exists() else ():
        known = _label(line)
        if known is not None and known[0] in added:
            merged.setdefault(known[0], []).extend(known[1])
        elif line.strip():
            kept.append(line)
    for key, captions in added.items():
        merged.setdefault(key, []).extend(captions)
    lines = (_line(key, merge_captions(captions)) for key, captions in merged.items())
    atomic_write(path, b"".join(line + b"\n" for line in (*kept, *lines)))


def _label(line: bytes) -> tuple[str, list[Caption]] | None:
    """Key and captions of a line that `write_labels` wrote; None for any other."""
    try:
        record = record_of(line, "")
        if record.keys() == {"key", "captions"} and isinstance(record["key"], str):
            return record["key"], captions_of(record, "")
    except CaptionError:
        pass
    return None


def _line(key: str, captions: Iterable[Caption]) -> bytes:
    entries = [{"text": one.text, "score": one.score, "source": one.source} for one in captions]
    return json.dumps({"key": key, "captions": entries}, ensure_ascii=False).encode()


def _captions(text: str, score: float | None, source: str) -> list[Caption]:
    clean = " ".join(printable(text).split())
    return [Caption(text=clean, score=score, source=source)] if clean else []


def _score(value: object, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CaptionError("record", f"the score of {name} is no number")
    return float(value)
