"""Validation says when a run forgets what it knew, even if the mean loss falls."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sanakit.training import Message, read_journal
from sanakit.training.session import Session
from sanakit.training.validation import risen
from tests.training.sets import config

Measured = dict[str, float]

GOOD = [
    {"loss": 0.415, "loss_0.0": 0.083, "loss_0.7": 2.013, "loss_0.9": 0.381},
    {"loss": 0.368, "loss_0.0": 0.131, "loss_0.7": 1.421, "loss_0.9": 0.333},
]
"""Of a distillation that drew well."""
COLLAPSED = {"loss": 0.364, "loss_0.0": 0.899, "loss_0.7": 0.066, "loss_0.9": 0.018}
"""Of the same one when it drew the same for every prompt: its mean is the least of all."""


def test_the_level_that_is_forgotten_is_named() -> None:
    told = risen(COLLAPSED, GOOD)
    assert told.startswith("loss_0.0 was 0.08300 before and is 10.8 times that"), told


@pytest.mark.parametrize(
    ("values", "earlier"),
    [(COLLAPSED, []), (COLLAPSED, [COLLAPSED]), (GOOD[1], GOOD[:1]), ({"loss": 9.0, "loss_0.0": 0.1}, GOOD)],
    ids=["first", "no worse", "scatter", "mean alone"],
)
def test_a_first_measurement_and_scatter_say_nothing(values: Measured, earlier: list[Measured]) -> None:
    assert risen(values, earlier) == ""


def test_a_run_tells_it_beside_the_figures(tmp_path: Path) -> None:
    session = Session(config(tmp_path, validate=3), device="cpu")
    told = []
    for event in session.events():
        if isinstance(event, Message) and event.text.startswith("validation"):
            told.append(event.text)
            # As if the figures had been a tenth of these.
            journal = read_journal(tmp_path, kind="validation").items()
            entries = [
                {"step": s, "kind": "validation"} | {k: v / 10 for k, v in e.items()} for s, e in journal
            ]
            (tmp_path / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    assert len(told) == 2 and "times that" not in told[0] and "times that" in told[1]
