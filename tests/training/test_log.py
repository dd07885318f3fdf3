"""Figures reach the trackers that a run asked for, and a run that goes on is one run there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from sanakit.base import ConfigError
from sanakit.training import events
from sanakit.training.events import Message, Progress
from sanakit.training.log import Monitor
from sanakit.training.preview import save_sheet
from tests.training.sets import config


class Service:
    """Takes the calls that trackio and W&B share."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.module = SimpleNamespace(
            init=lambda **given: self.calls.append(("init", given)),
            log=lambda values, step: self.calls.append(("log", (step, values))),
            finish=lambda: self.calls.append(("finish", None)),
        )


def followed(service: Service, folder: Path, library: str, step: int) -> dict[str, Any]:
    """What `init` was given by a run that begins at `step` and reports one validation."""
    service.calls.clear()
    settings = config(folder, tracker=library)
    folder.mkdir(exist_ok=True)
    with Monitor(settings, step, leads=True) as monitor:
        monitor.see(Message(step=3, text="validation", values={"loss": 0.5}))
        monitor.see(Message(step=4, text="a sentence without figures"))
    assert service.calls[1:] == [("log", (3, {"validation/loss": 0.5})), ("finish", None)]
    given: dict[str, Any] = service.calls[0][1]
    return given


@pytest.mark.parametrize("library", ["trackio", "wandb"])
def test_a_run_that_goes_on_is_one_run(library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service()
    monkeypatch.setitem(sys.modules, library, service.module)  # type: ignore[arg-type]
    begun, resumed = (followed(service, tmp_path / "run", library, step) for step in (0, 3))
    assert (begun["name"], begun["resume"], resumed["resume"]) == ("run", "never", "allow")
    assert begun.get("id") == resumed.get("id")
    other = followed(service, tmp_path / "other", library, 0)
    assert ("id" in begun) == (library == "wandb")
    assert library == "trackio" or other["id"] != begun["id"]


def test_only_the_first_process_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service()
    monkeypatch.setitem(sys.modules, "trackio", service.module)  # type: ignore[arg-type]
    with Monitor(config(tmp_path, tracker="trackio"), 0, leads=False) as monitor:
        monitor.see(Message(step=3, text="validation", values={"loss": 0.5}))
    assert not service.calls


def test_the_sheet_of_a_preview_lies_in_the_event_files(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sheet = Image.new("RGB", (20, 10), "red")
    save_sheet(tmp_path / "previews" / "a.png", sheet, ["one", "zwölf"])
    with Monitor(config(tmp_path), 0, leads=True) as monitor:
        monitor.see(Message(step=0, text="preview", picture=tmp_path / "previews" / "a.png"))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    (shown,) = events.Images("preview")
    assert (shown.step, shown.width, shown.height) == (0, 20, 10)
    with Image.open(tmp_path / "previews" / "a.png") as written:
        assert written.text["prompts"] == "one\nzwölf"


def test_a_missing_library_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r'need wandb: run `pip install "sanakit\[wandb\]"`'):
        Monitor(config(tmp_path, tracker="wandb"), 0, leads=True)


def test_a_log_hears_every_ten_seconds_how_much_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(events, "time", SimpleNamespace(monotonic=lambda: now))

    def walk() -> Iterator[Progress]:
        nonlocal now
        for done, second in enumerate((0.0, 4.0, 11.0, 15.0, 22.0)):
            now = second
            yield Progress(
                label="encoding", done=done, total=4, remaining=60.0 * (4 - done) if done else None
            )

    told = list(events.with_messages(walk()))
    assert [each.done for each in told if isinstance(each, Progress)] == [0, 1, 2, 3, 4]
    assert [each.text for each in told if isinstance(each, Message)] == [
        "encoding: 2 of 4, 2.0 min left",
        "encoding: 4 of 4, 0.0 min left",
    ]
