"""What `sanakit generate` and `sanakit edit` write and print: pictures into a file or a folder, lines or JSON.

While bars are on the terminal, lines wait, so that they do not run through one another.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from PIL.Image import Image

from sanakit.base.errors import OutputError
from sanakit.base.files import ensure_writable_folder
from sanakit.cli.errors import INTERRUPTED
from sanakit.cli.progress import ProgressBar
from sanakit.cli.say import notify, say, seconds_since_start
from sanakit.evaluation.best_of import Judged
from sanakit.pipeline.events import Done, Event, Note, PictureDone, StageDone, StageStarted, Step
from sanakit.pipeline.model import Model
from sanakit.pipeline.png import Record, free_names, make_grid, write_new_picture, write_picture
from sanakit.pipeline.request import ImageRequest
from sanakit.pipeline.signing import Signer

if TYPE_CHECKING:
    from sanakit.cli.best_of import BestOf

DEFAULT_FOLDER = Path("out")
_OTHER_FORMATS = (".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
_STAGES = ("start", "load", "text", "encode", "denoise", "decode", "judge")
_LABELS = {
    "load": "loading",
    "text": "reading the prompt",
    "encode": "reading the picture",
    "denoise": "drawing",
    "decode": "developing",
}


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where pictures go: to `file` if one file was named, else to files of `folder` that never overwrite another.

    signer: signs each of them.
    """

    folder: Path
    file: Path | None = None
    signer: Signer | None = None

    def write(self, image: Image, record: Record) -> Path:
        """Write a picture, or a grid; returns where. Raises OutputError."""
        if self.file is not None:
            return write_picture(self.file, image, record, self.signer)
        names = free_names(self.folder, record.request, "-grid" if record.grid else "")
        return write_new_picture(names, image, record, self.signer)


def choose_target(out: Path | None, pictures: int, grid: bool, sign: str | None = None) -> Target:
    """Read `--out` and `--sign`, and make sure that pictures can be written and signed before anything slow begins.

    Raises OutputError for a format other than PNG, for one file name and several pictures without a grid, and for a
    place that cannot be written; ConfigError for a certificate or a key that can't sign.
    """
    signer = None if sign is None else Signer.parse(sign)
    if out is not None and out.suffix.lower() in _OTHER_FORMATS:
        raise OutputError(f"pictures are written as PNG: name the file {out.with_suffix('.png')}")
    if out is None or out.suffix.lower() != ".png" or out.is_dir():
        return Target(folder=ensure_writable_folder(out or DEFAULT_FOLDER), signer=signer)
    if pictures > 1 and not grid:
        raise OutputError(
            f"{out} is one file and {pictures} pictures were asked for: give a folder, or add --grid"
        )
    return Target(folder=ensure_writable_folder(out.parent), file=out, signer=signer)


class Report:
    """Print what happened, as text or as one JSON object per line.

    waiting: keep lines back until `flush`.
    """

    def __init__(self, as_json: bool, waiting: bool) -> None:
        self.as_json = as_json
        self.waiting = waiting
        self.heard = True  # False once the reader of stdout has gone
        self.timings: dict[str, float] = {}
        self._kept: list[tuple[str, bool]] = []

    def prompt(self, text: str) -> None:
        """Print the text that the model reads."""
        self._say(text, {"event": "prompt", "text": text})

    def note(self, message: str) -> None:
        """Print a message on stderr."""
        self._say(f"note: {message}", {"event": "note", "message": message}, err=not self.as_json)

    def picture(self, path: Path, event: PictureDone) -> None:
        """Print where a picture is."""
        width, height = event.image.size
        facts = {"path": str(path), "seed": event.seed, "width": width, "height": height}
        score = f", score {event.made['score']} by {event.made['judge']}" if "score" in event.made else ""
        self._say(
            f"{path}  ({width}x{height}, seed {event.seed}{score})",
            {"event": "picture", **facts, **event.made, "request": event.request.to_json()},
        )

    def sheet(self, path: Path, pictures: int) -> None:
        """Print where a grid is."""
        self._say(f"{path}  (grid of {pictures})", {"event": "grid", "path": str(path), "pictures": pictures})

    def add(self, timings: Mapping[str, float]) -> None:
        """Add the seconds of a finished request."""
        for stage, spent in timings.items():
            self.timings[stage] = self.timings.get(stage, 0.0) + spent

    def done(self) -> None:
        """Print the last line: seconds per stage, and of the whole command."""
        known = {stage: self.timings[stage] for stage in _STAGES if stage in self.timings}
        total = seconds_since_start()
        text = " · ".join(f"{stage} {spent:.2f} s" for stage, spent in known.items())
        rounded = {stage: round(spent, 4) for stage, spent in known.items()}
        self._say(
            f"{text} · total {total:.2f} s",
            {"event": "done", "seconds": rounded | {"total": round(total, 4)}},
        )

    def flush(self) -> None:
        """Print what was kept back, and keep nothing back any more."""
        self.waiting = False
        for line, err in self._kept:
            say(line, err=err)
        self._kept.clear()

    def _say(self, text: str, data: dict[str, Any], err: bool = False) -> None:
        line = json.dumps(data) if self.as_json else text
        if self.waiting:
            self._kept.append((line, err))
        else:
            self.heard = say(line, err=err) and self.heard


@dataclass(kw_only=True)
class Drawing:
    """Draw requests with a model; each picture is written as soon as it is ready.

    pictures: how many there will be. finished: those so far.
    """

    model: Model
    requests: Sequence[ImageRequest]
    pictures: int
    target: Target
    grid: bool
    report: Report
    bar: ProgressBar
    finished: list[Image] = field(default_factory=list)

    def run(self, generations: Sequence[Iterator[Event | Judged]]) -> None:
        """Draw all; `generations` are the events of each request. Raises BrokenPipeError if nobody reads stdout."""
        self.report.add({"start": seconds_since_start()})
        if self.pictures > 1:
            self.bar.update("pictures", 0, self.pictures)
        for events in generations:
            for event in events:
                self._see(event)
        if self.grid:
            self._write_grid()
        self.report.done()

    def _see(self, event: Event | Judged) -> None:
        if isinstance(event, StageStarted):
            if not self.report.heard:
                raise BrokenPipeError  # `| head -1`: what is drawn stays, and no more is begun
            self.bar.update(_LABELS[event.stage], 0, event.total)
        elif isinstance(event, Step):
            self.bar.update(_LABELS[event.stage], event.index + 1, event.total)
        elif isinstance(event, StageDone):
            self.bar.remove(_LABELS[event.stage])
        elif isinstance(event, Note):
            self.report.note(event.message)
        elif isinstance(event, Judged):
            figures = {"best": f"best {event.best:.1f}"}
            self.bar.update("candidates", event.index + 1, event.total, figures=figures)
        elif isinstance(event, PictureDone):
            self._keep(event)
        elif isinstance(event, Done):
            self.report.add(event.timings)

    def _keep(self, event: PictureDone) -> None:
        """Write a picture at once; with a grid that goes to one named file, keep it for the grid only."""
        self.finished.append(event.image)
        if self.pictures > 1:
            self.bar.update("pictures", len(self.finished), self.pictures)
        if self.grid and self.target.file is not None:
            return
        record = Record(request=event.request, made={**self.model.provenance, **event.made})
        self.report.picture(self.target.write(event.image, record), event)

    def _write_grid(self) -> None:
        first, *others = (request.complete(self.model.defaults) for request in self.requests)
        record = Record(request=first, others=tuple(others), grid=True, made=self.model.provenance)
        path = self.target.write(make_grid(self.finished), record)
        self.report.sheet(path, len(self.finished))

    def notify_interrupted(self) -> None:
        """Say how many pictures there are."""
        kept = bool(self.finished) and not (self.grid and self.target.file)
        done = f", {len(self.finished)} of {self.pictures} pictures are finished" if kept else ""
        notify(f"sanakit: interrupted{done}.")


def draw(
    model: Model,
    requests: Sequence[ImageRequest],
    target: Target,
    *,
    grid: bool,
    notes: Sequence[str],
    show_prompt: bool,
    as_json: bool,
    best: BestOf | None = None,
) -> None:
    """Draw `requests` into `target`; `notes` are printed first. Raises RequestError before anything is drawn.

    best: how candidates are judged, if the best of several are kept.
    """
    pictures = (
        sum(request.count for request in requests) if best is None else best.choice.keep * len(requests)
    )
    if best is None and pictures == 1:
        model.frugal = True  # no part is needed twice
    generations = [model.generate(one) if best is None else best.generate(model, one) for one in requests]
    with ProgressBar(quiet=as_json, sentences=False) as bar:
        report = Report(as_json, waiting=bar.shown)
        drawing = Drawing(
            model=model,
            requests=requests,
            pictures=pictures,
            target=target,
            grid=grid,
            report=report,
            bar=bar,
        )
        try:
            for request in requests if show_prompt else ():
                report.prompt(model.final_prompt(request))
            for note in notes:
                report.note(note)
            drawing.run(generations)
            interrupted = False
        except KeyboardInterrupt:
            interrupted = True
    report.flush()
    if interrupted:
        drawing.notify_interrupted()
        raise typer.Exit(INTERRUPTED)
