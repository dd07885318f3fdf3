"""Webdataset tar shards: pictures and captions of one stem belong together, and are read in place.

    00000.tar   a/0001.jpg  a/0001.txt  a/0002.png  a/0002.json        keys  00000.tar/a/0001, 00000.tar/a/0002

What can be read of a damaged shard is used; the rest is a fault that names the byte.
"""

from __future__ import annotations

import itertools
import re
import tarfile
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from sanakit.training.data.captions import CaptionError, caption_of_text, captions_of, record_of
from sanakit.training.data.draft import Draft
from sanakit.training.data.items import Place
from sanakit.training.data.picture import SUFFIXES

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_BLOCK = 512


def expand_braces(pattern: str) -> list[str]:
    """`a-{000..002}.tar` -> a-000.tar, a-001.tar, a-002.tar; `{x,y}` -> x, y; several multiply. As in shells."""
    parts = _BRACES.split(pattern)
    choices = [[part] if index % 2 == 0 else _choices(part) for index, part in enumerate(parts)]
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def _choices(text: str) -> list[str]:
    span = _RANGE.fullmatch(text)
    if span is None:
        return text.split(",") if "," in text else ["{" + text + "}"]
    first, last = int(span[1]), int(span[2])
    step = 1 if first <= last else -1
    return [str(number).zfill(len(span[1])) for number in range(first, last + step, step)]


def read_shard(path: Path, shown: str, draft: Draft) -> None:
    """Everything of a shard into the draft. shown: its path relative to the set, the beginning of its keys."""
    try:
        with open(path, "rb") as file:
            _read_members(file, path, shown, draft)
    except OSError as error:
        draft.add_fault(shown, "shard", f"{shown} can't be read: {error.strerror or error}")


def _read_members(file: BinaryIO, path: Path, shown: str, draft: Draft) -> None:
    size = path.stat().st_size
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.offset_data + member.size > size:
                    draft.add_fault(
                        shown, "shard", f"{shown} ends at byte {size}, inside {member.name}: it was cut"
                    )
                    return
                if member.isreg():
                    place = Place(path, member.offset_data, member.size)
                    _read_member(PurePosixPath(member.name), place, shown, draft)
            _check_end(file, tar.offset, size, shown, draft)
    except tarfile.TarError as error:
        where = min(file.tell(), size)
        if where <= _BLOCK:
            text = f"{shown} is no tar file ({error})"
        else:
            text = f"{shown} is cut or damaged near byte {where} of {size} ({error}): what stands before it is used"
        draft.add_fault(shown, "shard", text)


def _read_member(name: PurePosixPath, place: Place, shown: str, draft: Draft) -> None:
    stem, _, ending = name.name.partition(".")
    key = str(PurePosixPath(shown, name.parent, stem))
    ending = ending.lower()
    full = f"{shown}/{name}"
    if not stem:
        return
    try:
        if ending in SUFFIXES:
            draft.add_picture(key, place, full)
        elif ending == "txt":
            draft.add_captions(key, caption_of_text(place.read(), full))
        elif ending == "json":
            draft.add_captions(key, captions_of(record_of(place.read(), full), full))
    except CaptionError as error:
        draft.add_fault(key, error.kind, str(error))


def _check_end(file: BinaryIO, offset: int, size: int, shown: str, draft: Draft) -> None:
    """tarfile takes a damaged header for the end: say so where what stands there is not the end."""
    file.seek(offset)
    block = file.read(_BLOCK)
    if block.strip(b"\0"):
        text = f"{shown} is damaged at byte {offset} of {size}: what follows is not read"
        draft.add_fault(shown, "shard", text)
    elif len(block) < _BLOCK:
        draft.add_fault(
            shown, "shard", f"{shown} ends at byte {size} without an end mark: it may have been cut"
        )
