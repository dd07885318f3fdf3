"""The time of a run: training apart from looks, what is left counted honestly, a share of the machine never above 1."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import sanakit.training.meter as meter_module
from sanakit.training import Hook, Progress, StepReport, Trainer
from sanakit.training.cost import train_operations, transformer_operations, transformer_pass
from sanakit.training.meter import Meter, Pace, Speed, times_due
from sanakit.transformer import PRESETS
from tests.training.small import batches_of, loss_of, start


class Clock:
    """Stands in for `time.monotonic`: moves when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def followed(run: Trainer, clock: Clock, step: float = 2.0, look: float = 50.0, every: int = 4) -> list[Any]:
    """The events of a run whose steps and looks take so many seconds."""
    clean = loss_of(run)

    def loss(batch: Any, generator: torch.Generator) -> dict[str, torch.Tensor]:
        clock.now += step
        return clean(batch, generator)

    def glance(run: Trainer) -> Mapping[str, float]:
        clock.now += look
        return {}

    hooks = [Hook(name="preview", every=every, run=glance, expected=10.0)]
    return list(run.train(loss, batches_of(run), hooks))


def test_looks_are_no_part_of_the_rate_and_a_part_of_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    events = followed(start(tmp_path, 12, report=2), clock)
    reports = [event for event in events if isinstance(event, StepReport)]
    assert [report.seconds for report in reports] == pytest.approx([2.0] * 6)
    assert {round(report.images, 6) for report in reports} == {2.0}
    # Before a look was measured it counts as it is expected to: 10 steps. The one at the end is counted, too.
    assert [report.eta for report in reports] == pytest.approx(
        [10 * 2 + 3 * 20, 8 * 2 + 3 * 20, 6 * 2 + 2 * 50, 4 * 2 + 2 * 50, 2 * 2 + 50, 50]
    )
    steps = [event for event in events if isinstance(event, Progress)]
    assert [(event.done, event.total) for event in steps] == [(step, 12) for step in range(1, 13)]
    assert all(event.remaining is not None and event.remaining >= 0 for event in steps)


def test_a_resumed_run_knows_the_pace_of_this_process_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    followed(start(tmp_path, 40, report=5), clock, step=100.0, every=0)
    clock.now += 1e6  # the machine was off
    events = followed(start(tmp_path, 50, report=5), clock, step=3.0, every=0)
    reports = [event for event in events if isinstance(event, StepReport)]
    assert [(report.step, report.seconds) for report in reports] == [(45, 3.0), (50, 3.0)]
    assert [report.eta for report in reports] == pytest.approx([15.0, 0.0])
    assert not followed(start(tmp_path, 20), clock, every=0)  # nothing is left to do, and nothing is negative


@pytest.mark.parametrize(
    ("step", "steps", "every", "count"),
    [
        (0, 10, 5, 2),
        (3, 10, 5, 2),
        (5, 10, 5, 2),
        (6, 10, 5, 1),
        (10, 10, 5, 1),
        (0, 4, 5, 0),
        (11, 10, 5, 0),
    ],
)
def test_what_is_due_is_counted_with_this_step(step: int, steps: int, every: int, count: int) -> None:
    assert times_due(step, steps, every) == count


def test_nothing_is_known_before_the_first_step() -> None:
    assert Pace().left(0, 10, {}) is None
    assert (Meter().seconds, Meter().norm) == (0.0, 0.0)


def test_the_share_of_the_machine_is_never_above_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that was busy when its rate was measured is measured again, and what was reached counts as a rate."""
    clock, asked = Clock(monkeypatch), []
    monkeypatch.setattr(meter_module, "product_rate", lambda *given: asked.append(given) or 100.0)
    run = start(tmp_path, 6, report=2, speed=Speed(lambda batch: 400.0, 50.0))
    shares = [event.mfu for event in followed(run, clock) if isinstance(event, StepReport)]
    assert shares == [1.0] * 3  # 200 operations a second
    assert (run.speed.rate, len(asked)) == (200.0, 1)
    run = start(tmp_path / "free", 2, report=2, speed=Speed(lambda batch: 400.0, 800.0))
    assert [event.mfu for event in followed(run, clock) if isinstance(event, StepReport)] == [0.25]


@pytest.mark.parametrize("preset", ["toybox", "sana-0.6b-512"])
@pytest.mark.parametrize(("side", "words"), [(2, 1), (16, 77), (6, 300)])
def test_operations_are_those_of_the_positions_and_words_that_are_there(
    preset: str, side: int, words: int
) -> None:
    shape = PRESETS[preset]
    counted = train_operations(lambda: transformer_pass(shape, side * shape.patch_size, words))
    operations = transformer_operations(shape)
    assert operations((side * shape.patch_size) ** 2, words) == pytest.approx(counted, rel=1e-6)
    assert operations(256, 40) < 0.9 * operations(256, 300)
