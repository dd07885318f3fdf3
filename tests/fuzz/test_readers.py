"""A bounded sample of `make fuzz`: every reader answers damaged files by typed errors, one sentence each."""

from __future__ import annotations

import json
import random

import pytest

from tests.fuzz.mutate import damage_bytes, damage_json, damage_lines
from tests.fuzz.readers import READERS, Reader
from tests.fuzz.run import fuzz

_SAMPLE = 20


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_only_typed_errors(reader: Reader) -> None:
    found = fuzz(reader, _SAMPLE, seed=0)
    assert found.untyped == []
    assert found.accepted + found.refused == found.inputs == _SAMPLE


def test_an_untyped_error_is_counted() -> None:
    """The tool would see what it is there to see."""
    careless = Reader(
        name="careless", file="a.json", damage=damage_json,
        make=lambda folder: (folder / "a.json").write_text('{"a": {"b": [1, 2]}}'),
        read=lambda folder: json.loads((folder / "a.json").read_bytes())["a"]["b"][0] + 1,
    )  # fmt: skip
    found = fuzz(careless, 50, seed=0)
    assert len(found.untyped) > 10 and found.accepted + len(found.untyped) == 50
    assert any("KeyError" in line for line in found.untyped)


@pytest.mark.parametrize("damage", [damage_bytes, damage_json, damage_lines])
def test_damage_is_repeated_by_its_seed(damage: object) -> None:
    content = b'{"a": [1, 2, {"b": "c"}]}\n{"d": null}'
    first, second = (
        [damage(content, rng) for _ in range(50)] for rng in (random.Random(3), random.Random(3))
    )  # type: ignore[operator]
    assert first == second and len(set(first)) > 25  # two lines can be moved in few ways
