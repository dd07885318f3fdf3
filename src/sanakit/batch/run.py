"""A batch from its items to its folder: what is there stays, what is missing is drawn, what fails is written down.

FOLDER/KEY.png          a picture with its request
FOLDER/failures.jsonl   {"key", "prompt", "fault"} for each item without a picture, if there are any
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sanakit.base.errors import RequestError
from sanakit.base.files import atomic_write, ensure_writable_folder
from sanakit.base.locks import hold
from sanakit.batch.draw import Drawn, Loading, check_there
from sanakit.batch.items import Item
from sanakit.batch.workers import Workers, draw_here
from sanakit.pipeline.model import Model
from sanakit.pipeline.plan import make_plan

FAILURES = "failures.jsonl"


@dataclass(frozen=True, kw_only=True)
class BatchReport:
    """Progress: of `total` items `done` are over, `there` of them were before this run; `last` is the one just over.

    remaining: seconds expected, None until a picture is drawn. made: how all are made, `Model.provenance`.
    """

    total: int
    done: int
    there: int
    faults: tuple[Drawn, ...] = ()
    last: Drawn | None = None
    remaining: float | None = None
    made: Mapping[str, str] = field(default_factory=dict)


def run_batch(
    items: Sequence[Item],
    folder: Path,
    loading: Loading,
    workers: Workers = draw_here,
    announce: Callable[[str], object] = lambda text: None,
) -> Iterator[BatchReport]:
    """Draw what is missing into `folder`; yield a report at once and after each item. Run again, it goes on.

    Raises RequestError for an item that the model can't draw, and OutputError for a file of its name that shows
    something else, or a folder that another batch draws into, before anything is drawn.
    """
    ensure_writable_folder(folder)
    with hold(folder / ".batch.lock", "draws a batch"):
        model = loading.load(announce)
        missing = missing_items(items, folder, model)
        there = len(items) - len(missing)
        report = BatchReport(total=len(items), done=there, there=there, made=model.provenance)
        yield report
        begun = time.monotonic()
        try:
            for drawn in workers(folder, loading, missing):
                report = _after(report, drawn, time.monotonic() - begun)
                yield report
        finally:
            _write_failures(folder, items, report.faults)


def missing_items(items: Sequence[Item], folder: Path, model: Model) -> list[Item]:
    """Return the items whose pictures aren't there. Raises as `run_batch`."""
    missing = [item for item in items if not check_there(folder / item.file, item.request, model)]
    for item in missing:
        try:
            make_plan(model.spec, item.request)
        except RequestError as error:
            raise RequestError(f"{item.key}: {error}") from None
    return missing


def _after(report: BatchReport, drawn: Drawn, seconds: float) -> BatchReport:
    done = report.done + 1
    return replace(
        report,
        done=done,
        faults=(*report.faults, drawn) if drawn.fault else report.faults,
        last=drawn,
        remaining=seconds / (done - report.there) * (report.total - done),
    )


def _write_failures(folder: Path, items: Sequence[Item], faults: Sequence[Drawn]) -> None:
    prompts = {item.key: item.request.prompt for item in items}
    lines = [json.dumps({"key": one.key, "prompt": prompts[one.key], "fault": one.fault}) for one in faults]
    path = folder / FAILURES
    if lines:
        atomic_write(path, ("\n".join(lines) + "\n").encode())
    else:
        path.unlink(missing_ok=True)
