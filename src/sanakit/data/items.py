"""What a set of pictures consists of: items with captions, where their bytes are, and faults that were passed over.

A set knows the size and the captions of every picture and reads the picture itself only on request.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, overload

from sanakit.base.errors import PictureError
from sanakit.data.regular import open_regular

MOST_BYTES = 2**30
"""Larger files are refused: pictures of the most pixels that are read have fewer bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Caption:
    """One text that describes a picture.

    Attributes:
        text: never empty.
        score: CLIP score x 100; None if unscored.
        source: who wrote it: "" for the user, else a model's name.
    """

    text: str
    score: float | None = None
    source: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One picture of a set.

    Attributes:
        key: stable and unique inside the set: the relative path without suffix, or "shard.tar/stem".
        width, height: pixels of the stored picture, after its EXIF rotation.
        captions: may be empty.
    """

    key: str
    width: int
    height: int
    captions: tuple[Caption, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """A defect of a set that was passed over.

    Attributes:
        key: of the item, or the path of the file, relative to the set.
        kind: a key of `check_report.KINDS`, for counting.
        text: one sentence: what is wrong and where.
        count: how many things it describes.
    """

    key: str
    kind: str
    text: str
    count: int = 1


class ByteSource(Protocol):
    """Where the bytes of an encoded picture are. It can be sent to another process."""

    def read(self, most: int | None = None) -> bytes:
        """Return all bytes, or the first `most`. Raises PictureError."""

    def read_end(self, most: int) -> bytes:
        """Return the last `most` bytes. Raises PictureError."""


@dataclass(frozen=True, slots=True)
class ByteRange:
    """`size` bytes of a regular file from `offset`; a size of None means all of the file."""

    path: Path
    offset: int = 0
    size: int | None = None

    def read(self, most: int | None = None) -> bytes:
        """Return the bytes, or the first `most` of them. Raises PictureError if the file does not hold them."""
        return self._bytes(0, most)

    def read_end(self, most: int) -> bytes:
        """Return the last `most` bytes. Raises PictureError."""
        return self._bytes(None, most)

    def _bytes(self, start: int | None, most: int | None) -> bytes:
        """Read `most` bytes from `start`, or the last `most` if start is None."""
        try:
            with open_regular(self.path) as file:
                size = file.seek(0, 2) - self.offset if self.size is None else self.size
                wanted = size if most is None else min(size, most)
                if wanted > MOST_BYTES:
                    raise PictureError(f"it has {size:,} bytes, more than {MOST_BYTES:,}")
                first = self.offset + (size - wanted if start is None else start)
                file.seek(first)
                data = file.read(wanted)
        except OSError as error:
            raise PictureError(f"{self.path} can't be read: {error.strerror or error}") from None
        if self.size is not None and len(data) < wanted:
            raise PictureError(f"{self.path} ends at byte {first + len(data)}, inside a picture")
        return data


class PictureSet(Sequence[Item]):
    """The items of a set in the order of their keys, and the bytes of each. It can be sent to another process.

    Attributes:
        path: what was opened: a folder, a tar shard, or a brace pattern.
        faults: found while opening (unreadable shard, picture without a readable head, caption in a wrong encoding).
    """

    def __init__(
        self, path: Path, items: Sequence[Item], sources: Sequence[ByteSource], faults: Sequence[Fault] = ()
    ) -> None:
        self.path = path
        self.faults = tuple(faults)
        self._items = tuple(items)
        self._sources = tuple(sources)

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | Sequence[Item]:
        return self._items[index]

    def only(self, indices: Sequence[int]) -> PictureSet:
        """Return the set of the given items, in the order of this set."""
        chosen = sorted(set(indices))
        items, sources = [self._items[i] for i in chosen], [self._sources[i] for i in chosen]
        return PictureSet(self.path, items, sources, self.faults)

    def captioning(self, text: str) -> PictureSet:
        """Return the set with a caption for every item that has none."""
        caption = (Caption(text=text),)
        items = [item if item.captions else replace(item, captions=caption) for item in self._items]
        return PictureSet(self.path, items, self._sources, self.faults)

    @property
    def captioned(self) -> tuple[int, ...]:
        """The numbers of the items that have a caption, for `BatchOrder(usable=...)`."""
        return tuple(index for index, item in enumerate(self._items) if item.captions)

    def source(self, index: int) -> ByteSource:
        """Where the bytes of an item's picture are."""
        return self._sources[index]

    def read(self, index: int) -> bytes:
        """Return the encoded picture of an item. Raises PictureError if it can't be read."""
        data = self._sources[index].read()
        if not data:
            raise PictureError(f"{self._items[index].key} is empty")
        return data


def printable(text: str) -> str:
    """Replace what can't be written as UTF-8 (odd bytes of file names, lone surrogates) by `?`."""
    return text.encode("utf-8", "replace").decode()


def merge_captions(captions: Iterable[Caption]) -> tuple[Caption, ...]:
    """Return each text of each source once, in order of first occurrence; the last one with a score counts."""
    merged: dict[tuple[str, str], Caption] = {}
    for caption in captions:
        known = merged.get((caption.text, caption.source))
        if known is None or caption.score is not None:
            merged[caption.text, caption.source] = caption
    return tuple(merged.values())
