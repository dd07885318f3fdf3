"""A rendered set is the same after an interruption."""

from __future__ import annotations

import json
from pathlib import Path

from sanakit.data import open_set
from sanakit.toybox.folder import write_pictures


def test_a_set_to_try_with_is_the_same_after_an_interruption(tmp_path: Path) -> None:
    list(write_pictures(tmp_path / "whole", 5, size=32, captions=2))
    walk = write_pictures(tmp_path / "parts", 5, size=32, captions=2)
    assert [next(walk) for _ in range(3)] == [0, 1, 2]
    walk.close()
    assert list(write_pictures(tmp_path / "parts", 5, size=32, captions=2)) == [2, 3, 4, 5]
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "parts" / path.name).read_bytes()
    found = open_set(tmp_path / "whole")
    assert (len(found), found.faults) == (5, ())
    assert all(1 <= len(item.captions) <= 2 for item in found)
    line = json.loads((tmp_path / "whole/captions.jsonl").read_text().splitlines()[0])
    assert line["key"] == "000000"
