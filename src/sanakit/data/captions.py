"""Captions as they are stored: text files and records, and labels written beside a set.

A record gives `captions`, `caption`, `text` or `prompt`: a text, or a list of texts or of {"text", "score", "source"}.
What is wrong with a record is a CaptionError, or is reported if the rest of the record can be used. Text is UTF-8, or
UTF-16 or UTF-32 if a byte-order mark or the pattern of zero bytes says so.
"""

from __future__ import annotations

import codecs
import json
import math
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sanakit.base.errors import OutputError
from sanakit.base.files import atomic_write
from sanakit.base.json_text import parse_json
from sanakit.base.locks import hold
from sanakit.data.items import Caption, merge_captions, printable
from sanakit.data.regular import open_regular

LABELS = "captions.jsonl"
CAPTION_ENDINGS = ("txt", "caption", "json")
TEXT_FIELDS = ("captions", "caption", "text", "prompt")

MOST_CAPTION = 4 * 1024 * 1024
"""Bytes of a caption or record beside a picture, and of a line of a table."""

_PATIENCE = 60.0  # seconds that one who writes a table waits for another
_BEST_SCORE = 100.0  # 100 x a cosine
_LONGEST_SOURCE = 200

Reporter = Callable[[str, str], object]
"""Takes the kind of a fault and a sentence."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_HEAD = 4096


class CaptionError(ValueError):
    """A caption or record that can't be used; kind is that of the fault to report."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def text_of(data: bytes, name: str, start: int = 0) -> str:
    """Bytes as text, a byte-order mark left out. Raises CaptionError that names the byte, counted from `start`."""
    try:
        return decoded(data)
    except UnicodeDecodeError as error:
        raise CaptionError("encoding", f"{name} is not UTF-8 at byte {start + error.start}") from None


def captions_beside(data: bytes, name: str, ending: str, report: Reporter) -> list[Caption]:
    """Return captions in a file beside a picture: a record in .json, else all of it, white space as single spaces."""
    if ending == "json":
        return captions_of(record_of(data, name), name, report)
    return _captions(text_of(data, name), None, "")


def record_of(data: bytes, name: str, start: int = 0) -> dict[str, Any]:
    """Return a JSON object. Raises CaptionError."""
    text = text_of(data, name, start)
    try:
        record = parse_json(text)
    except json.JSONDecodeError as error:
        raise CaptionError("record", f"{name} is not JSON ({error.msg} at character {error.pos})") from None
    except ValueError as error:  # nested too deep, or a whole number of more than 4,300 digits
        raise CaptionError("record", f"{name} can't be read as JSON: {str(error).split(';')[0]}") from None
    if not isinstance(record, dict):
        raise CaptionError("record", f"{name} isn't a JSON object")
    return record


def captions_of(record: Mapping[str, Any], name: str, report: Reporter) -> list[Caption]:
    """Return the captions of a record; none if it has no field for them. Raises CaptionError if it has a wrong one.

    A score that can't be one is reported, and its caption counts as unscored.
    """
    field = next((field for field in TEXT_FIELDS if record.get(field) is not None), None)
    if field is None:
        return []
    given = record[field]
    found: list[Caption] = []
    for entry in given if isinstance(given, list) else [given]:
        whole = entry if isinstance(entry, dict) else {"text": entry}
        if not isinstance(given, list):
            whole = {"score": record.get("score"), "source": record.get("source"), **whole}
        if not isinstance(whole.get("text"), str):
            raise CaptionError("record", f"the field {field!r} of {name} holds something other than text")
        found += _captions(
            whole["text"], _score(whole.get("score"), name, report), _source(whole.get("source"))
        )
    return found


def write_labels(path: Path, added: Mapping[str, Sequence[Caption]]) -> None:
    """Add captions to a table in JSONL, in one step. What is there stays.

    Lines of the form {"key", "captions": [...]} for the keys of `added` are merged with it; every other line is kept
    byte by byte, even if it can't be parsed. Raises OutputError.
    """
    with hold(path.with_name(f".{path.name}.lock"), "writes captions", wait=_PATIENCE):
        kept: list[bytes] = []
        merged: dict[str, list[Caption]] = {}
        for line in _lines_there(path):
            known = _label(line)
            if known is not None and known[0] in added:
                merged.setdefault(known[0], []).extend(known[1])
            elif line.strip():
                kept.append(line)
        for key, captions in added.items():
            merged.setdefault(key, []).extend(captions)
        lines = (_line(key, merge_captions(captions)) for key, captions in merged.items())
        atomic_write(path, b"".join(line + b"\n" for line in (*kept, *lines)))


def _lines_there(path: Path) -> list[bytes]:
    if not path.exists():
        return []
    try:
        with open_regular(path) as file:
            return file.read().splitlines()
    except OSError as error:
        raise OutputError(f"can't add to {path}: {error.strerror or error}") from None


def _label(line: bytes) -> tuple[str, list[Caption]] | None:
    """Key and captions of a line that `write_labels` wrote; None for any other."""
    try:
        record = record_of(line, "")
        if record.keys() == {"key", "captions"} and isinstance(record["key"], str):
            return record["key"], captions_of(record, "", lambda kind, text: None)
    except CaptionError:
        pass
    return None


def _line(key: str, captions: Iterable[Caption]) -> bytes:
    entries = [{"text": one.text, "score": one.score, "source": one.source} for one in captions]
    return json.dumps({"key": key, "captions": entries}, ensure_ascii=False).encode()


def _captions(text: str, score: float | None, source: str) -> list[Caption]:
    """One caption, without control characters; none if nothing is left."""
    plain = "".join(" " if unicodedata.category(letter) == "Cc" else letter for letter in printable(text))
    clean = " ".join(plain.split())
    return [Caption(text=clean, score=score, source=source)] if clean else []


def _source(value: object) -> str:
    return " ".join(printable(value).split())[:_LONGEST_SOURCE] if isinstance(value, str) else ""


def _score(value: Any, name: str, report: Reporter) -> float | None:
    """Return a finite number of at most 100 either way, also as text, as CSV has it; None if there is none."""
    if value is None or value == "":
        return None
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if abs(found) <= _BEST_SCORE:
        return found
    report("score", f"the score of {name} isn't a number from -100 to 100: its caption counts as unscored")
    return None


def encoding_of(head: bytes) -> tuple[str, int]:
    """Return the encoding of a file by its first bytes, and how many of them are a byte-order mark.

    Without a mark it is UTF-8, unless there are zero bytes, which no text in UTF-8 has: on odd places alone they are
    those of UTF-16 with the lower byte first, on even places alone with the higher one first.
    """
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name, len(mark)
    even, odd = head[:_HEAD:2].count(0), head[1:_HEAD:2].count(0)
    if odd and not even:
        return "utf-16-le", 0
    if even and not odd:
        return "utf-16-be", 0
    return "utf-8", 0


def decoded(data: bytes) -> str:
    """Return all of a text. Raises UnicodeDecodeError, with the byte counted from the beginning of `data`."""
    name, mark = encoding_of(data[:_HEAD])
    try:
        return data[mark:].decode(name)
    except UnicodeDecodeError as error:
        raise UnicodeDecodeError(
            "utf-8", data, error.start + mark, min(error.end + mark, len(data)), error.reason
        ) from None
