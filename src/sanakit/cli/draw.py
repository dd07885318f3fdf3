"""The work of `sanakit generate`: check everything, then draw, and write each picture as soon as it is ready."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import typer
from PIL.Image import Image

from sanakit.base.errors import RequestError
from sanakit.cli.clock import seconds
from sanakit.cli.errors import INTERRUPTED, tell
from sanakit.cli.options import parse_fields
from sanakit.cli.orders import Orders, requests_of
from sanakit.cli.progress import Display, Silent, open_display
from sanakit.cli.report import Report
from sanakit.cli.targets import Target, choose_target
from sanakit.pipeline.engine import ASKED_BY
from sanakit.pipeline.events import Done, Event, Note, PictureDone, StageStarted
from sanakit.pipeline.generate import Model, load
from sanakit.pipeline.output import Record, make_grid, read_picture
from sanakit.pipeline.request import ImageRequest
from sanakit.weights import Hints

_MATTERS = {
    "weights": "other weights",
    "version": "another version of sanakit",
    "torch": "another version of torch",
    "dtype": "another dtype",
    "engine": "another engine",
}
"""What a picture can only be recreated with, by its name in `Model.provenance`."""


@dataclass(kw_only=True)
class Job:
    """All that is decided before the first picture, and the pictures so far."""

    model: Model
    requests: list[ImageRequest]
    target: Target
    grid: bool
    report: Report
    finished: list[Image] = field(default_factory=list)


def draw(orders: Orders) -> None:
    """Draws what was ordered. Bad input is refused before weights are loaded and before a file is touched."""
    record = None if orders.like is None else read_picture(orders.like)
    requests = requests_of(orders, record)
    pictures = sum(request.count for request in requests)
    grid = orders.grid if orders.grid is not None else record is not None and record.grid
    target = choose_target(orders.out, pictures, grid)
    model = _load(orders, record)
    if pictures == 1:
        model.frugal = True  # no part is needed twice
    runs = [model.generate(request) for request in requests]
    with open_display(pictures, quiet=orders.as_json) as display:
        report = Report(orders.as_json, waiting=not isinstance(display, Silent))
        job = Job(model=model, requests=requests, target=target, grid=grid, report=report)
        try:
            _remark(job, orders, record)
            _run(job, runs, display)
        except KeyboardInterrupt:
            interrupted = True
        else:
            interrupted = False
    report.flush()
    if interrupted:
        _tell_interrupted(job, pictures)
        raise typer.Exit(INTERRUPTED)


def _load(orders: Orders, record: Record | None) -> Model:
    """The model that was named, else that of the picture to recreate, run as it was there, else toybox."""
    made = {} if record is None else record.made
    name = made.get("model", "toybox") if orders.model is None else orders.model
    same = (
        made if orders.model is None else {}
    )  # how the weights of another model are named, the picture can't tell
    hints = orders.hints if orders.hints.given else Hints.from_texts(same)
    dtype = orders.dtype or made.get("dtype")
    how: dict[str, Any] = {
        "parts": orders.parts or same.get("parts"),
        "hints": hints,
        "decoder": orders.decoder or same.get("decoder"),
        "variant": orders.variant or same.get("variant"),
        "ignore_config_fields": orders.ignored or parse_fields(same.get("ignore_config_fields")),
        "fast": orders.fast or _engine_of(record),
        "threads": orders.threads,
        "announce": tell,
    }
    if orders.device is not None or "device" not in made:
        return load(name, orders.device, dtype, **how)
    try:
        return load(name, made["device"], dtype, **how)
    except RequestError:
        tell(f"note: the picture was drawn on {made['device']}, which is not here: it will differ a little.")
        return load(name, None, dtype, **how)


def _engine_of(record: Record | None) -> str | None:
    """What asks for the engine of a picture; pictures of ours that name none were drawn in plain torch."""
    return ASKED_BY.get(record.made.get("engine", "plain")) if record is not None and record.made else None


def _remark(job: Job, orders: Orders, record: Record | None) -> None:
    """Says what should be known first: the final prompts, and why a picture cannot come out the same."""
    if orders.show_prompt:
        for request in job.requests:
            job.report.prompt(job.model.final_prompt(request))
    if record is None:
        return
    for note in record.notes:
        job.report.note(f"{orders.like}: {note}")
    here = job.model.provenance
    for name, what in _MATTERS.items():
        if record.made.get(name, here[name]) != here[name]:
            job.report.note(
                f"the picture was drawn with {what} ({record.made[name]}) and may come out different."
            )


def _run(job: Job, runs: list[Iterator[Event]], display: Display) -> None:
    job.report.add({"start": seconds()})
    for run in runs:
        for event in run:
            display.see(event)
            if isinstance(event, StageStarted) and not job.report.heard:
                raise BrokenPipeError  # `| head -1`: what is drawn stays, and no more is begun
            if isinstance(event, Note):
                job.report.note(event.message)
            elif isinstance(event, PictureDone):
                _keep(job, event)
            elif isinstance(event, Done):
                job.report.add(event.timings)
    if job.grid:
        _write_sheet(job)
    job.report.done()


def _keep(job: Job, event: PictureDone) -> None:
    """Writes a picture at once; with a grid that goes to one named file, keeps it for the sheet only."""
    job.finished.append(event.image)
    if job.grid and job.target.file is not None:
        return
    record = Record(request=event.request, made=job.model.provenance)
    path = job.target.keep(event.image, record)
    job.report.picture(path, event)


def _write_sheet(job: Job) -> None:
    first, *others = (request.complete(job.model.defaults) for request in job.requests)
    record = Record(request=first, others=tuple(others), grid=True, made=job.model.provenance)
    path = job.target.keep(make_grid(job.finished), record)
    job.report.sheet(path, len(job.finished))


def _tell_interrupted(job: Job, pictures: int) -> None:
    done = len(job.finished)
    kept = (
        "" if not done or (job.grid and job.target.file) else f", {done} of {pictures} pictures are finished"
    )
    tell(f"sanakit: interrupted{kept}.")
