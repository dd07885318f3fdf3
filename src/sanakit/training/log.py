"""Where the figures of a run go: its journal and TensorBoard's event files always, trackio or W&B when asked.

RUN/log.jsonl holds one report a line, for learning curves. A run that is stopped between checkpoints does some steps
again and reports them again: the later line counts.

tensorboard --logdir RUN/tensorboard
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Protocol

import numpy as np
from PIL import Image

from sanakit.base.errors import ConfigError
from sanakit.base.files import atomic_write, refusals
from sanakit.base.json_text import parse_json
from sanakit.training.config import TrainConfig
from sanakit.training.events import Event, Progress, StepReport

_NAME = "log.jsonl"


def write_entry(folder: Path, step: int, values: Mapping[str, float], kind: str = "") -> None:
    """Append the values reported at a step. kind: "" for training itself, else what they measure.

    Raises OutputError.
    """
    named = {"step": step, "kind": kind} if kind else {"step": step}
    with refusals(folder / _NAME):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / _NAME).open("ab+") as file:
            begun = "\n" if _ends_in_a_line(file) else ""  # left by a crash, and must not spoil this entry
            file.write(f"{begun}{json.dumps({**named, **values})}\n".encode())


def _ends_in_a_line(file: BinaryIO) -> bool:
    """Return whether the last line lacks its end."""
    if file.seek(0, os.SEEK_END) == 0:
        return False
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"


def read_journal(folder: Path, kind: str = "") -> dict[int, dict[str, float]]:
    """step -> values of a kind, in the order of steps; empty if nothing was kept.

    A line that was cut by a crash is passed over.
    """
    path = folder / _NAME
    entries: dict[int, dict[str, float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            entry = parse_json(line)
            if entry.pop("kind", "") == kind:
                entries[int(entry.pop("step"))] = entry
        except (ValueError, KeyError, AttributeError):
            continue
    return dict(sorted(entries.items()))


class Tracker(Protocol):
    """Takes named figures of a step."""

    def log(self, values: dict[str, float], step: int) -> None:
        """Keep figures."""

    def show(self, name: str, picture: Path, step: int) -> None:
        """Keep a picture, if there is a place for it."""

    def close(self) -> None:
        """Write what is not written yet."""


class TensorBoard:
    """Event files in RUN/tensorboard; a run that goes on hides what it had written beyond the step it goes on from."""

    def __init__(self, folder: Path, step: int) -> None:
        writer = _library("torch.utils.tensorboard", "tensorboard").SummaryWriter
        self._writer: Any = writer(str(folder / "tensorboard"), purge_step=step or None)

    def log(self, values: dict[str, float], step: int) -> None:
        """Keep figures."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def show(self, name: str, picture: Path, step: int) -> None:
        """Keep a picture under IMAGES."""
        with Image.open(picture) as image:
            self._writer.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        """Write what is not written yet."""
        self._writer.close()


class Remote:
    """trackio or W&B, which have the same three calls; a run that goes on is one run there, too."""

    def __init__(self, library: Literal["trackio", "wandb"], config: TrainConfig, step: int) -> None:
        self._library: Any = _library(library, library)
        # trackio knows runs by their names
        same = {"id": run_id(config.folder)} if library == "wandb" else {}
        self._library.init(
            project="sanakit", name=config.folder.name, config=config.identity,
            resume="allow" if step else "never", **same,
        )  # fmt: skip

    def log(self, values: dict[str, float], step: int) -> None:
        """Send figures."""
        self._library.log(values, step=step)

    def show(self, name: str, picture: Path, step: int) -> None:
        """Pictures stay on this machine."""

    def close(self) -> None:
        """Send what is not sent yet."""
        self._library.finish()


class Monitor:
    """All trackers of a run as one; the first process alone has any."""

    def __init__(self, config: TrainConfig, step: int, leads: bool) -> None:
        self._trackers: list[Tracker] = []
        if not leads:
            return
        self._trackers.append(TensorBoard(config.folder, step))
        if config.tracker != "none":
            self._trackers.append(Remote(config.tracker, config, step))

    def see(self, event: Event) -> None:
        """Keep the figures of a report, or those of a validation under its name, and the sheet of a preview."""
        if isinstance(event, Progress):
            return
        values = event.values
        if not isinstance(event, StepReport):
            values = {f"validation/{name}": value for name, value in values.items()}
            if event.picture is not None:
                for tracker in self._trackers:
                    tracker.show("preview", event.picture, event.step)
        for tracker in self._trackers if values else ():
            tracker.log(dict(values), event.step)

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for tracker in self._trackers:
            tracker.close()


def require_trackers(config: TrainConfig) -> None:
    """Raise ConfigError for a tracker that is not installed; imports none, for that takes seconds."""
    wanted = ["tensorboard", *([] if config.tracker == "none" else [config.tracker])]
    for package in wanted:
        if find_spec(package) is None:
            raise _missing(package)


def run_id(folder: Path) -> str:
    """Return a name that no other run has, kept in RUN/wandb-id."""
    path = folder / "wandb-id"
    if not path.exists():
        atomic_write(path, secrets.token_hex(8).encode())
    return path.read_text(encoding="ascii")


def _library(module: str, package: str) -> Any:
    """Raise ConfigError if a library is missing."""
    try:
        return import_module(module)
    except ImportError:
        raise _missing(package) from None


def _missing(package: str) -> ConfigError:
    extra = "train" if package == "tensorboard" else package
    return ConfigError(f'the figures of a run need {package}: run `pip install "sanakit[{extra}]"`')
