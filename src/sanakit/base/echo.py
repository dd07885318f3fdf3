"""Text that others wrote, made safe to show: prompts, captions, file names, what configuration files hold.

Escape sequences in it could rename a terminal's window, fill the clipboard or hide what follows; overrides of the
reading direction could turn a name round; a value of a megabyte could bury the sentence that quotes it.
"""

from __future__ import annotations

import re

LIMIT = 600
"""Characters of a one-line message: some eight lines of a terminal."""

# C0 and C1 controls, line and paragraph separators, marks and overrides of the reading direction (Unicode TR 9), a
# byte-order mark inside a text, interlinear marks, and lone surrogates, which no terminal can be sent. Joiners that
# emoji and many scripts are spelt with stay.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_UNSAFE_IN_LINE = re.compile(_UNSAFE.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f"))


def printable(text: object, limit: int | None = LIMIT) -> str:
    r"""`text` as one line: white space as single blanks, what a terminal would obey as `\x1b`, cut to `limit`."""
    found = str(text)
    if limit is not None and len(found) > 64 * limit:  # no megabytes are searched for what is then cut
        found = shorten(found, 64 * limit)
    line = _UNSAFE.sub(_escape, " ".join(found.split()))
    return line if limit is None else shorten(line, limit)


def printable_lines(text: object) -> str:
    r"""`text` with its line breaks and tabs, and what else a terminal would obey as `\x1b`."""
    return _UNSAFE_IN_LINE.sub(_escape, str(text).replace("\r\n", "\n"))


def quoted(value: object, limit: int = 80) -> str:
    """Return a value in the quotes of Python, at most about `limit` characters of it: for messages."""
    if isinstance(value, str | bytes) and len(value) > limit:
        value = value[: limit + 1]
    elif isinstance(value, int) and not -(2**64) < value < 2**64:
        return f"a number of {value.bit_length()} bits"  # Python refuses to write the longest ones
    return shorten(printable(repr(value), None), limit + 2)


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters: the beginning and, after an ellipsis, the end, where messages say what to do."""
    if len(text) <= limit:
        return text
    tail = limit // 3
    return f"{text[: limit - tail - 1]}…{text[len(text) - tail :]}"


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def as_utf8(text: str) -> str:
    """Return the text with a question mark for every byte that was none, such as in a file's name."""
    return text.encode("utf-8", "replace").decode("utf-8")
