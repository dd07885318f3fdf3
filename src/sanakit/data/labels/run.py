"""Labelling a set: pictures go through a labeller in batches, and the results are written beside the set at intervals.

A run is a generator of reports. If it is closed, interrupted or fails, it writes what it has; a crash loses what came
since the last write, and the next run resumes there. Results may come from this process or from others (`ray`).
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

from PIL import Image

from sanakit.base.errors import OutputError, PictureError
from sanakit.data.image import cut_picture
from sanakit.data.items import Caption, Item, PictureSet
from sanakit.data.labels.labellers import Labeller
from sanakit.data.source import write_captions

FLUSH_ITEMS = 512
LARGEST_SIDE = 2048
_SPARE = 20  # write so seldom that writing (a table may have millions of lines) takes at most 5 % of the time
_SILENT = "the model had nothing to say"


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """The result for a picture; `fault` says why there is none."""

    key: str
    captions: tuple[Caption, ...] = ()
    fault: str = ""


@dataclass(frozen=True, kw_only=True)
class LabelReport:
    """Progress: of `total` pictures `done` are labelled, `faults` of them without a label.

    written: how many are on disk. remaining: seconds expected, None at the beginning.
    """

    total: int
    done: int
    written: int
    faults: tuple[Labelled, ...]
    seconds: float
    remaining: float | None


def label_here(
    pictures: PictureSet, indices: Sequence[int], labeller: Labeller, batch: int
) -> Iterator[Labelled]:
    """Label items of a set in this process, `batch` pictures at a time."""
    for start in range(0, len(indices), batch):
        group: list[tuple[Item, Image.Image]] = []
        for index in indices[start : start + batch]:
            try:
                group.append((pictures[index], open_picture(pictures, index)))
            except PictureError as error:
                yield Labelled(key=pictures[index].key, fault=str(error))
        yield from _label_group(group, labeller)


def _label_group(group: list[tuple[Item, Image.Image]], labeller: Labeller) -> Iterator[Labelled]:
    """Label a group at once, or one by one if the model fails, to find the picture at fault."""
    items = [item for item, _ in group]
    if not items:
        return
    try:
        labels = labeller([image for _, image in group], items)
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
        if len(group) > 1:
            for one in group:
                yield from _label_group([one], labeller)
        else:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            yield Labelled(key=items[0].key, fault=f"the model can't take it ({reason})")
        return
    for item, captions in zip(items, labels, strict=True):
        yield Labelled(key=item.key, captions=captions, fault="" if captions else _SILENT)


def open_picture(pictures: PictureSet, index: int) -> Image.Image:
    """Open the whole picture, upright, in RGB, with no side longer than LARGEST_SIDE. Raises PictureError."""
    item = pictures[index]
    share = min(1.0, LARGEST_SIDE / max(item.width, item.height))
    size = (max(1, round(item.width * share)), max(1, round(item.height * share)))
    return cut_picture(pictures.read(index), size, (0, 0, *size))


def write_labelled(
    pictures: PictureSet, results: Iterable[Labelled], total: int, *, every: int = FLUSH_ITEMS
) -> Generator[LabelReport]:
    """Write results beside the set, at least `every` at a time; yield a report after each result.

    Raises OutputError if they can't be written.
    """
    table = _Table(pictures, total)
    try:
        for result in results:
            table.take(result)
            if len(table.added) >= every and table.due():
                table.write()
            yield table.report()
    except OutputError:
        raise
    except BaseException:
        table.write()
        raise
    table.write()
    yield table.report()


class _Table:
    """The labels that are not written yet, and the counts of a run."""

    def __init__(self, pictures: PictureSet, total: int) -> None:
        self.path, self.total = pictures.path, total
        self.added: dict[str, tuple[Caption, ...]] = {}
        self.faults: tuple[Labelled, ...] = ()
        self.done = self.written = 0
        self.began = self.wrote = time.monotonic()
        self.cost = 0.0

    def take(self, result: Labelled) -> None:
        self.done += 1
        if result.captions:
            self.added[result.key] = result.captions
        else:
            self.faults = (*self.faults, result)

    def due(self) -> bool:
        return time.monotonic() - self.wrote >= _SPARE * self.cost

    def write(self) -> None:
        if self.added:
            before = time.monotonic()
            write_captions(self.path, self.added)
            self.written += len(self.added)
            self.added = {}
            self.wrote = time.monotonic()
            self.cost = self.wrote - before

    def report(self) -> LabelReport:
        seconds = time.monotonic() - self.began
        return LabelReport(
            total=self.total, done=self.done, written=self.written, faults=self.faults, seconds=seconds,
            remaining=seconds / self.done * (self.total - self.done) if self.done else None,
        )  # fmt: skip
