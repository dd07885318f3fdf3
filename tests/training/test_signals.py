"""A run obeys signals and files, and hooks that fail do not end it."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from sanakit.training import Hook, StepReport, Trainer, read_journal
from sanakit.training.signals import SignalHandler, interruptible
from tests.training.small import batches_of, loss_of, start, train


def test_files_are_signals_and_are_taken_once(tmp_path: Path) -> None:
    handler = SignalHandler(tmp_path)
    (tmp_path / "save").touch()
    (tmp_path / "preview").touch()
    assert handler.take() == {"save", "preview"}
    assert handler.take() == frozenset()
    assert not list(tmp_path.iterdir())


def test_signals_are_heard_only_while_a_run_listens(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with SignalHandler(tmp_path) as handler:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR2)
        assert handler.take() == {"save", "preview"}
    assert signal.getsignal(signal.SIGUSR1) is before


def test_the_second_ctrl_c_acts_as_before(tmp_path: Path) -> None:
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with SignalHandler(tmp_path) as handler:
            os.kill(os.getpid(), signal.SIGINT)
            assert handler.take() == {"stop"}
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, usual)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_run_saves_and_stops_on_every_signal_that_ends_programs(tmp_path: Path, name: str) -> None:
    number = getattr(signal, name)
    usual = signal.signal(number, signal.default_int_handler)
    run = start(tmp_path, 50)
    try:
        with pytest.raises(KeyboardInterrupt):
            for event in run.train(loss_of(run), batches_of(run)):
                if isinstance(event, StepReport) and event.step == 3:
                    os.kill(os.getpid(), number)
    finally:
        signal.signal(number, usual)
    assert run.checkpoints.steps() == [3]


def test_a_signal_that_the_parent_ignores_is_ignored(tmp_path: Path) -> None:
    """As under `nohup`."""
    usual = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with SignalHandler(tmp_path) as handler, interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
            assert handler.take() == frozenset()
    finally:
        signal.signal(signal.SIGHUP, usual)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_signals_interrupt_what_is_written_on_ctrl_c(name: str) -> None:
    number = getattr(signal, name)
    usual = signal.signal(number, signal.SIG_DFL)  # the tests themselves may run under `nohup`
    try:
        with pytest.raises(KeyboardInterrupt), interruptible():
            os.kill(os.getpid(), number)
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, usual)


def test_a_run_saves_and_stops_when_files_ask_for_it(tmp_path: Path) -> None:
    run = start(tmp_path, 50)
    loss = loss_of(run)
    told = []
    with pytest.raises(KeyboardInterrupt):
        for event in run.train(loss, batches_of(run)):
            told.append(str(event))
            if isinstance(event, StepReport) and event.step == 3:
                (tmp_path / "save").touch()
            if isinstance(event, StepReport) and event.step == 6:
                (tmp_path / "stop").touch()
    assert "step 3: saving" in told
    assert run.checkpoints.steps() == [3, 6]


def test_a_preview_that_fails_is_a_message_and_a_validation_that_fails_is_an_error(tmp_path: Path) -> None:
    def broken(run: Trainer) -> Mapping[str, float]:
        raise ValueError("no fonts")

    events = train(start(tmp_path, 4), [Hook(name="preview", every=2, run=broken, required=False)])
    assert [str(e) for e in events if "preview" in str(e)] == [
        "step 2: preview failed, the run goes on: no fonts",
        "step 4: preview failed, the run goes on: no fonts",
    ]
    with pytest.raises(ValueError, match="no fonts"):
        train(start(tmp_path / "b", 4), [Hook(name="validation", every=2, run=broken)])


def test_hooks_are_done_when_due_and_when_asked_and_their_figures_kept(tmp_path: Path) -> None:
    run = start(tmp_path, 9)
    seen: list[int] = []

    def look(run: Trainer) -> Mapping[str, float]:
        seen.append(run.step)
        return {"size": float(run.step)}

    for event in run.train(loss_of(run), batches_of(run), [Hook(name="preview", every=4, run=look)]):
        if isinstance(event, StepReport) and event.step == 6:
            (tmp_path / "preview").touch()
    assert seen == [4, 6, 8]
    assert read_journal(tmp_path, kind="preview") == {step: {"size": float(step)} for step in seen}
    assert list(read_journal(tmp_path)) == [3, 6, 9]
