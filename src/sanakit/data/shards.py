"""Webdataset tar shards: pictures and captions of one stem belong together, and are read in place.

    00000.tar   a/0001.jpg  a/0001.txt  a/0002.png  a/0002.json        keys  00000.tar/a/0001, 00000.tar/a/0002

What can be read of a damaged shard is used; the rest is a fault that names the byte.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from sanakit.base.errors import DataError, PictureError
from sanakit.data.captions import CAPTION_ENDINGS, MOST_CAPTION, CaptionError, captions_beside
from sanakit.data.draft import Draft
from sanakit.data.items import FilePlace
from sanakit.data.picture import SUFFIXES
from sanakit.data.regular import open_regular
from sanakit.data.tar import Member, TarError, members

COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")

MOST_NAMES = 100_000
"""A pattern that stands for more names is a slip of the pen."""

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})", re.ASCII)


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


def read_packed(path: Path, shown: str, draft: Draft, read: Callable[[Path, str, Draft], None]) -> None:
    """A shard, by `read`; a compressed one is a fault."""
    if path.name.lower().endswith(".tar"):
        read(path, shown, draft)
    else:
        text = f"{shown} is compressed, so that pictures in it can't be reached one by one: unpack it to .tar"
        draft.add_fault(shown, "shard", text)


def read_shard(path: Path, shown: str, draft: Draft) -> None:
    """Everything of a shard into the draft. shown: its path relative to the set, the beginning of its keys."""
    try:
        with open_regular(path) as file:
            size = file.seek(0, 2)
            for member in members(file, size):
                _read_member(member, path, shown, draft)
    except OSError as error:
        draft.add_fault(shown, "shard", f"{shown} can't be read: {error.strerror or error}")
    except TarError as error:
        draft.add_fault(shown, "shard", f"{shown} {error}")
    draft.sum_others()


def _read_member(member: Member, path: Path, shown: str, draft: Draft) -> None:
    name = PurePosixPath(*(part for part in PurePosixPath(member.name).parts if part not in ("/", "..")))
    stem, _, ending = name.name.partition(".")
    if member.kind == "folder" or not stem:
        return
    key, full = str(PurePosixPath(shown, name.parent, stem)), f"{shown}/{name}"
    if member.kind != "file":
        draft.add_fault(key, "special", f"{full} is {member.kind} and not read")
        return
    place = FilePlace(path, member.offset, member.size)
    ending = ending.lower()
    if ending in SUFFIXES:
        draft.add_picture(key, place, full)
    elif ending in CAPTION_ENDINGS:
        _read_caption(key, place, full, ending, draft)
    else:
        draft.add_other(key, ending.rpartition(".")[2], full)


def _read_caption(key: str, place: FilePlace, full: str, ending: str, draft: Draft) -> None:
    try:
        if place.size is not None and place.size > MOST_CAPTION:
            raise CaptionError(
                "record", f"{full} has {place.size:,} bytes, more than a caption's {MOST_CAPTION:,}"
            )
        draft.add_captions(key, captions_beside(place.read(), full, ending, draft.reporter(key)))
    except CaptionError as error:
        draft.add_fault(key, error.kind, str(error))
    except PictureError as error:
        draft.add_fault(key, "record", f"{full}: {error}")
