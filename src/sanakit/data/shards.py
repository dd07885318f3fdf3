"""Webdataset tar shards: pictures and captions with the same stem belong together, and are read in place.

    00000.tar   a/0001.jpg  a/0001.txt  a/0002.png  a/0002.json        keys  00000.tar/a/0001, 00000.tar/a/0002

Whatever can be read of a damaged shard is used; the rest is a fault that names the byte.

An index (a small JSON file per shard) lets a set of thousands of shards open again without reading them. It is valid
for one path, size and modification time; a shard that was touched is read again. Shards that could not be read to
their end are never indexed.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from sanakit.base.errors import DataError, PictureError
from sanakit.base.files import atomic_write
from sanakit.base.json_text import read_object
from sanakit.data.captions import CAPTION_ENDINGS, MOST_CAPTION, CaptionError, captions_beside
from sanakit.data.image import SUFFIXES
from sanakit.data.items import ByteRange, Caption, Fault
from sanakit.data.regular import open_regular
from sanakit.data.set_builder import SetBuilder
from sanakit.data.tar import Member, TarError, members

COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")

MOST_NAMES = 100_000
"""A pattern that stands for more names is taken for a typing error."""

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})", re.ASCII)

_FORMAT = 2


def expand_braces(pattern: str) -> list[str]:
    """`a-{000..002}.tar` -> a-000.tar, a-001.tar, a-002.tar; `{x,y}` -> x, y; several multiply. As in shells.

    Raises DataError for more than `MOST_NAMES` names.
    """
    parts = _BRACES.split(pattern)
    counts = [1 if index % 2 == 0 else _count(part) for index, part in enumerate(parts)]
    if math.prod(counts) > MOST_NAMES:
        raise DataError(f"{pattern[:200]} stands for more than {MOST_NAMES:,} shards")
    choices = [[part] if index % 2 == 0 else _choices(part) for index, part in enumerate(parts)]
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def _count(text: str) -> int:
    span = _RANGE.fullmatch(text)
    return text.count(",") + 1 if span is None else abs(int(span[2]) - int(span[1])) + 1


def _choices(text: str) -> list[str]:
    span = _RANGE.fullmatch(text)
    if span is None:
        return text.split(",") if "," in text else ["{" + text + "}"]
    first, last = int(span[1]), int(span[2])
    step = 1 if first <= last else -1
    return [str(number).zfill(len(span[1])) for number in range(first, last + step, step)]


def read_packed(
    path: Path, shown: str, builder: SetBuilder, read: Callable[[Path, str, SetBuilder], None]
) -> None:
    """Read a shard with `read`; report a compressed one as a fault."""
    if path.name.lower().endswith(".tar"):
        read(path, shown, builder)
    else:
        text = f"{shown} is compressed, so that pictures in it can't be reached one by one: unpack it to .tar"
        builder.add_fault(shown, "shard", text)


def read_shard(path: Path, shown: str, builder: SetBuilder) -> None:
    """Add everything in a shard to the builder. shown: its path relative to the set, with which its keys begin."""
    try:
        with open_regular(path) as file:
            size = file.seek(0, 2)
            for member in members(file, size):
                _read_member(member, path, shown, builder)
    except OSError as error:
        builder.add_fault(shown, "shard", f"{shown} can't be read: {error.strerror or error}")
    except TarError as error:
        builder.add_fault(shown, "shard", f"{shown} {error}")
    builder.sum_others()


def _read_member(member: Member, path: Path, shown: str, builder: SetBuilder) -> None:
    name = PurePosixPath(*(part for part in PurePosixPath(member.name).parts if part not in ("/", "..")))
    stem, _, ending = name.name.partition(".")
    if member.kind == "folder" or not stem:
        return
    key, full = str(PurePosixPath(shown, name.parent, stem)), f"{shown}/{name}"
    if member.kind != "file":
        builder.add_fault(key, "special", f"{full} is {member.kind} and not read")
        return
    source = ByteRange(path, member.offset, member.size)
    ending = ending.lower()
    if ending in SUFFIXES:
        builder.add_picture(key, source, full)
    elif ending in CAPTION_ENDINGS:
        _read_caption(key, source, full, ending, builder)
    else:
        builder.add_other(key, ending.rpartition(".")[2], full)


def _read_caption(key: str, source: ByteRange, full: str, ending: str, builder: SetBuilder) -> None:
    try:
        if source.size is not None and source.size > MOST_CAPTION:
            raise CaptionError(
                "record", f"{full} has {source.size:,} bytes, more than a caption's {MOST_CAPTION:,}"
            )
        builder.add_captions(key, captions_beside(source.read(), full, ending, builder.reporter(key)))
    except CaptionError as error:
        builder.add_fault(key, error.kind, str(error))
    except PictureError as error:
        builder.add_fault(key, "record", f"{full}: {error}")


def read_indexed(path: Path, shown: str, builder: SetBuilder, folder: Path) -> None:
    """`read_shard` through the index in `folder`, which exists. Raises OutputError if the index can't be written."""
    try:
        stamp = _stamp(path, shown)
    except OSError:
        read_shard(path, shown, builder)
        return
    file = folder / f"{hashlib.sha256(stamp[0].encode('utf-8', 'replace')).hexdigest()[:32]}.json"
    part = _load(file, stamp, path)
    if part is None:
        part = SetBuilder()
        read_shard(path, shown, part)
        if not any(fault.kind == "shard" for fault in part.faults):
            atomic_write(file, json.dumps({"stamp": stamp, **_content(part)}).encode())
    builder.include(part)


def _stamp(path: Path, shown: str) -> list[Any]:
    stat = path.stat()
    return [str(path.resolve()), shown, stat.st_size, stat.st_mtime_ns, _FORMAT]


def _content(part: SetBuilder) -> dict[str, Any]:
    pictures = [
        [key, source.offset, source.size, width, height]
        for key, (source, width, height) in part.pictures.items()
        if isinstance(source, ByteRange)
    ]
    captions = {
        key: [[one.text, one.score, one.source] for one in found] for key, found in part.captions.items()
    }
    faults = [[fault.key, fault.kind, fault.text, fault.count] for fault in part.faults]
    return {"pictures": pictures, "captions": captions, "faults": faults}


def _load(file: Path, stamp: list[Any], path: Path) -> SetBuilder | None:
    """Load an index; None if it is missing, belongs to another state of the shard, or can't be read."""
    try:
        content = read_object(file)
        if content["stamp"] != stamp:
            return None
        part = SetBuilder()
        for key, offset, size, width, height in content["pictures"]:
            part.pictures[key] = (ByteRange(path, offset, size), width, height)
        for key, found in content["captions"].items():
            part.captions[key] = [
                Caption(text=text, score=score, source=source) for text, score, source in found
            ]
        part.faults = [Fault(*fault) for fault in content["faults"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return part
