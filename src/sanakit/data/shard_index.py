"""What a shard holds, kept in a small file, so that a set of thousands of shards opens again without reading them.

An index counts for one path, size and time of change; a shard that was touched is read anew. Shards that could not be
read whole are never indexed.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from sanakit.base.files import atomic_write
from sanakit.base.json_text import read_object
from sanakit.data.draft import Draft
from sanakit.data.items import Caption, Fault, FilePlace
from sanakit.data.shards import read_shard

_FORMAT = 2


def read_indexed(path: Path, shown: str, draft: Draft, folder: Path) -> None:
    """`read_shard` through the index in `folder`, which exists. Raises OutputError where the index can't be written."""
    try:
        stamp = _stamp(path, shown)
    except OSError:
        read_shard(path, shown, draft)
        return
    file = folder / f"{hashlib.sha256(stamp[0].encode('utf-8', 'replace')).hexdigest()[:32]}.json"
    part = _load(file, stamp, path)
    if part is None:
        part = Draft()
        read_shard(path, shown, part)
        if not any(fault.kind == "shard" for fault in part.faults):
            atomic_write(file, json.dumps({"stamp": stamp, **_content(part)}).encode())
    draft.include(part)


def _stamp(path: Path, shown: str) -> list[Any]:
    stat = path.stat()
    return [str(path.resolve()), shown, stat.st_size, stat.st_mtime_ns, _FORMAT]


def _content(part: Draft) -> dict[str, Any]:
    pictures = [
        [key, place.offset, place.size, width, height]
        for key, (place, width, height) in part.pictures.items()
        if isinstance(place, FilePlace)
    ]
    captions = {
        key: [[one.text, one.score, one.source] for one in found] for key, found in part.captions.items()
    }
    faults = [[fault.key, fault.kind, fault.text, fault.count] for fault in part.faults]
    return {"pictures": pictures, "captions": captions, "faults": faults}


def _load(file: Path, stamp: list[Any], path: Path) -> Draft | None:
    """The draft of an index; None where there is none, it is of another state of the shard, or it can't be read."""
    try:
        content = read_object(file)
        if content["stamp"] != stamp:
            return None
        part = Draft()
        for key, offset, size, width, height in content["pictures"]:
            part.pictures[key] = (FilePlace(path, offset, size), width, height)
        for key, found in content["captions"].items():
            part.captions[key] = [
                Caption(text=text, score=score, source=source) for text, score, source in found
            ]
        part.faults = [Fault(*fault) for fault in content["faults"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return part
