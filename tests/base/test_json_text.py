"""JSON of any origin ends in a value or a ValueError."""

from __future__ import annotations

from pathlib import Path

import pytest

from sanakit.base.json_text import parse_json, read_object


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "{", "7" * 5000, b"\xff\xfe{"])
def test_what_is_wrong_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        parse_json(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1]", "x.json is not a JSON object"),
        (b"[" * 100_000, "nested too deep"),
        (b"\xff", "x.json is not JSON"),
    ],
)
def test_a_file_is_named_with_its_fault(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_object(path)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is missing"):
        read_object(tmp_path / "none.json")
    with pytest.raises(ValueError, match="is not a file"):
        read_object(tmp_path)


def test_a_file_may_have_any_size_unless_its_reader_says_how_many_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"a": 1}')
    assert read_object(path) == read_object(path, 8) == {"a": 1}
    with pytest.raises(ValueError, match="x.json has 8 bytes"):
        read_object(path, 7)
