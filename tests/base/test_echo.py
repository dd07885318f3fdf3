"""Strangers' text before it is shown: one line, nothing that a terminal obeys, no megabytes."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanakit.base.echo import printable, printable_lines, quoted, shorten

HOSTILE = {
    "a window's title": "\x1b]0;pwned\x07",
    "the clipboard": "\x1b]52;c;cm0gLXJm\x1b\\",
    "colours and moves": "\x1b[31m\x1b[2A\x1b[K",
    "C1 controls": "\x9b31m\x9d0;x\x9c\x85",
    "backspaces and returns": "safe\x08\x08\x08\x08evil\rover",
    "the other reading direction": "a\u202egnp.exe\u2066\u2069\u200f\u061c",
    "separators of lines": "a\u2028b\u2029c\x0bd\x0ce",
    "half a character": "\ud83d and \udcff",
    "a byte-order mark": "\ufeffa",
}
DIRECTIONS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def obeyed(text: str, allowed: str = "") -> list[str]:
    """What of a text no terminal should be sent."""
    kinds = ("Cc", "Cs", "Zl", "Zp")
    return [c for c in text if c not in allowed and (unicodedata.category(c) in kinds or c in DIRECTIONS)]


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_is_left_that_a_terminal_obeys(name: str):
    assert obeyed(printable(HOSTILE[name])) == []
    assert obeyed(printable_lines(HOSTILE[name] + "\n\tb"), "\n\t") == []
    assert obeyed(quoted(HOSTILE[name])) == []
    printable(HOSTILE[name]).encode()


@given(st.text(st.characters(), max_size=200), st.integers(4, 100))
def test_any_text_becomes_one_short_line(text: str, limit: int):
    line = printable(text, limit)
    assert len(line) <= limit
    assert obeyed(line) == []


def test_what_is_harmless_stays():
    for text in ("ein Würfel", "赤い球 🟥", "👩\u200d🚀", "naïve café", "می\u200cخواهم", "C:\\new"):
        assert printable(text) == text
        assert printable_lines(text) == text
    assert printable(" two\n\twords ") == "two words"
    assert printable_lines("two\n\twords\r\n") == "two\n\twords\n"


def test_a_controlled_character_is_shown():
    assert printable("a\x1bb\u202e") == r"a\x1bb\u202e"


def test_a_long_message_keeps_what_to_do():
    message = f"no model {'x' * 10**7!r}: it is no folder; choose another"
    short = printable(message)
    assert len(short) == 600
    assert short.startswith("no model 'xxx")
    assert short.endswith("it is no folder; choose another")
    assert "…" in short
    assert shorten("abcdefghij", 10) == "abcdefghij"


def test_quoted_values_are_short_whatever_they_are():
    assert quoted("a") == "'a'"
    assert quoted(7) == "7"
    assert quoted(-0.5) == "-0.5"
    for value in ("x" * 10**7, b"x" * 10**7, [1] * 1000, 10**5000, {"a": "b" * 500}):
        assert len(quoted(value)) <= 82
