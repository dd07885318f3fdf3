"""Bytes of strangers as text: UTF-8, and UTF-16 and UTF-32 where a mark, or zeros at every other place, say so."""

from __future__ import annotations

import codecs

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_HEAD = 4096


def encoding_of(head: bytes) -> tuple[str, int]:
    """The encoding of a file by its first bytes, and how many of them are a byte-order mark.

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
    """All of a text. Raises UnicodeDecodeError, with the byte counted from the beginning of `data`."""
    name, mark = encoding_of(data[:_HEAD])
    try:
        return data[mark:].decode(name)
    except UnicodeDecodeError as error:
        raise UnicodeDecodeError(
            "utf-8", data, error.start + mark, min(error.end + mark, len(data)), error.reason
        ) from None
