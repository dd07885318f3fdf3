"""Pictures by score, and the lists of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sanakit.base.errors import DataError
from sanakit.data.items import Caption, Item
from sanakit.data.labels.select import best_score, indices_of, keys_above, read_keys, write_keys
from sanakit.data.source import open_set, write_captions
from tests.data.pictures import write_plain


def item(key: str, *scores: float | None) -> Item:
    captions = tuple(Caption(text=str(k), score=score) for k, score in enumerate(scores))
    return Item(key=key, width=1, height=1, captions=captions)


def test_the_best_caption_decides_and_must_be_above() -> None:
    items = [item("a", 20.0, 25.1), item("b", 25.0), item("c", None), item("d"), item("e", None, 30.0)]
    assert keys_above(items, 25) == (["a", "e"], 2)
    assert best_score(item("x", float("nan"))) is None


def test_a_list_comes_back_in_the_order_of_the_set(tmp_path: Path) -> None:
    write_plain(tmp_path / "set", 4)
    write_captions(tmp_path / "set", {"003": [Caption(text="x", score=26.0)]})
    pictures = open_set(tmp_path / "set")
    keys = ["003", "001", " #odd name "]
    write_keys(tmp_path / "list", keys)
    assert read_keys(tmp_path / "list") == keys
    assert indices_of(pictures, ["003", "001"]) == (1, 3)
    assert indices_of(pictures, keys_above(pictures, 25)[0]) == (3,)


def test_lists_that_are_of_no_use(tmp_path: Path) -> None:
    write_plain(tmp_path / "set", 1)
    pictures = open_set(tmp_path / "set")
    with pytest.raises(DataError, match="can't be read: No such file"):
        read_keys(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"names 1 pictures \('gone' first\) that are not in"):
        indices_of(pictures, ["000", "gone"], "good.txt")
    with pytest.raises(DataError, match="names no picture of"):
        indices_of(pictures, [])
    assert not (tmp_path / "list").exists()
