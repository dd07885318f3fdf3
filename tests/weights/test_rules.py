"""The rows and the table: inverse, strict, lazy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
import torch
from torch import Tensor

from sanakit.base.errors import WeightsError
from sanakit.weights.rules import Drop, Join, Rename, Row, Squeeze, Table, affine, expand, listed, under

ROWS: tuple[Row, ...] = (
    Rename("a", "x.a"),
    Join("qkv", ("x.q", "x.k", "x.v")),
    Squeeze("linear", "x.conv"),
    Drop("x.buffer", "made anew"),
)


def theirs() -> dict[str, Tensor]:
    q, k, v = torch.randn(3, 2, 4)
    return {"x.a": torch.randn(3), "x.q": q, "x.k": k, "x.v": v, "x.conv": torch.randn(5, 4, 1, 1)}


def test_theirs_ours_theirs_is_bit_equal() -> None:
    table, before = Table(ROWS), theirs()
    ours = table.to_ours(before)
    assert ours["qkv"].shape == (6, 4) and ours["linear"].shape == (5, 4)
    after = table.to_theirs(ours)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_dropped_keys_may_be_there_but_are_never_written() -> None:
    table = Table(ROWS)
    ours = table.to_ours({**theirs(), "x.buffer": torch.zeros(1)})
    assert "x.buffer" not in table.to_theirs(ours)
    assert table.dropped == {"x.buffer": "made anew"}


def test_missing_and_unexpected_keys_are_listed_briefly() -> None:
    found = theirs()
    del found["x.q"], found["x.k"]
    found |= {f"new.{i}": torch.zeros(1) for i in range(9)}
    words = r"file .*lacks x\.q, x\.k and has unexpected new\.0, new\.1, new\.2 and 6 more"
    with pytest.raises(WeightsError, match=words):
        Table(ROWS).to_ours(found, "file")
    with pytest.raises(WeightsError, match="lacks a, qkv, linear"):
        Table(ROWS).to_theirs({})


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("x.q", torch.zeros(3, 4), "must be alike"),
        ("x.q", torch.zeros(2, 4, dtype=torch.float16), "must be alike"),
        ("x.conv", torch.zeros(5, 4, 3, 3), "1x1 convolution"),
        ("x.conv", torch.zeros(5, 4), "1x1 convolution"),
    ],
)
def test_ill_shaped_parts_are_refused(key: str, value: Tensor, words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        Table(ROWS).to_ours({**theirs(), key: value})


def test_ours_that_can_not_be_cut_is_refused() -> None:
    ours = Table(ROWS).to_ours(theirs())
    with pytest.raises(WeightsError, match="can't be cut into 3"):
        Table(ROWS).to_theirs({**ours, "qkv": torch.zeros(7, 4)})
    with pytest.raises(WeightsError, match="matrix"):
        Table(ROWS).to_theirs({**ours, "linear": torch.zeros(7)})


@pytest.mark.parametrize("twice", [Rename("a", "new"), Rename("new", "x.a"), Drop("x.q", "no")])
def test_a_key_named_twice_is_a_mistake_of_the_table(twice: Row) -> None:
    with pytest.raises(ValueError, match="named twice"):
        Table((*ROWS, twice))


def test_expansion_fills_both_sides() -> None:
    rows = expand(under("blocks.{i}", "b.{i}", (*affine("up", "u"), Join("kv", ("k", "v")))), i=range(2))
    assert Table(rows).our_keys == tuple(
        f"blocks.{i}.{k}" for i in (0, 1) for k in ("up.weight", "up.bias", "kv")
    )
    assert Table(rows).their_keys[-2:] == ("b.1.k", "b.1.v")
    pairs = expand((Rename("{s}.{b}", "{b}.{s}"),), s=range(2), b=(7, 8))
    assert [(row.ours, row.theirs) for row in pairs if isinstance(row, Rename)][1] == ("0.8", "8.0")


class Counting(Mapping[str, Tensor]):
    """Tells which tensors were fetched."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors
        self.fetched: list[str] = []

    def __getitem__(self, key: str) -> Tensor:
        self.fetched.append(key)
        return self.tensors[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def test_tensors_are_fetched_when_their_row_is_due() -> None:
    source = Counting(theirs())
    stream = Table(ROWS).stream_ours(source)
    assert next(stream)[0] == "a" and source.fetched == ["x.a"]
    assert next(stream)[0] == "qkv" and source.fetched == ["x.a", "x.q", "x.k", "x.v"]
    broken = Counting({"x.a": torch.zeros(1)})
    with pytest.raises(WeightsError):
        next(Table(ROWS).stream_ours(broken))
    assert not broken.fetched


def test_listed() -> None:
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c", "d"]) == "a, b, c and 1 more"
