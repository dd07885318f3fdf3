"""A file of prompts or requests, one per line, or standard input."""

from __future__ import annotations

import codecs
import re
import sys
from pathlib import Path

from sanakit.base.errors import RequestError

_MAX_BYTES = 64 << 20  # of a file of prompts
_ENCODINGS = {  # by byte-order mark; the longer ones first: that of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_prompts(file: Path) -> list[str]:
    """Return the prompts of a file, one per line; - is standard input. Raises RequestError if there are none."""
    lines = [line.strip() for line in read_lines(file)]
    if not any(lines):
        raise RequestError(f"{file} holds no prompt")
    return [line for line in lines if line]


def read_lines(file: Path) -> list[str]:
    """Return the lines of a file, with empty ones; - is standard input. Raises RequestError."""
    # Only line breaks of files part prompts: str.splitlines would cut at U+2028 and form feeds inside a prompt, too.
    return re.split(r"\r\n|\r|\n", _read(file))


def _read(path: Path) -> str:
    """Return the text of a prompt file: UTF-8, or what its byte-order mark says. Raises RequestError."""
    try:
        if str(path) == "-":
            content = sys.stdin.buffer.read(_MAX_BYTES + 1) if sys.stdin is not None else b""
        else:
            with path.open("rb") as file:
                content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise RequestError(f"the prompt file {path} cannot be read: {error.strerror or error}") from None
    if len(content) > _MAX_BYTES:
        raise RequestError(f"the prompt file {path} holds more than {_MAX_BYTES >> 20} MiB")
    encoding = next((name for mark, name in _ENCODINGS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        raise RequestError(f"the prompt file {path} is not UTF-8 text") from None
    if "\0" in text:
        raise RequestError(f"the prompt file {path} is not UTF-8 text: it holds zero bytes")
    return text
