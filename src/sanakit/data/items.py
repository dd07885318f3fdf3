"""What a set of pictures is made of: items with their captions, where the bytes lie, and what was wrong.

A set knows the size and the captions of every picture and reads the picture itself only when it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, overload

from sanakit.base.errors import PictureError
from sanakit.data.regular import open_regular

MOST_BYTES = 2**30
"""A file of more bytes is no picture: those of the most pixels that are read have less."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Caption:
    """One text that describes a picture.

    Attributes:
        text: never empty.
        score: CLIP score x 100; None where unscored.
        source: who wrote it: "" for the user's own, else a model's name.
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
    """Something that is wrong with a set and was passed over.

    Attributes:
        key: of the item, or the path of the file, relative to the set.
        kind: a word for counting, see `report.KINDS`.
        text: one sentence: what is wrong and where.
        count: how many things it speaks of.
    """

    key: str
    kind: str
    text: str
    count: int = 1


class Place(Protocol):
    """Where an encoded picture lies. It can be sent to another process."""

    def read(self, most: int | None = None) -> bytes:
        """All of it, or the first `most` bytes. Raises PictureError."""

    def read_end(self, most: int) -> bytes:
        """The last `most` bytes. Raises PictureError."""


@dataclass(frozen=True, slots=True)
class FilePlace:
    """`size` bytes of a regular file from `offset`; a size of None means all of the file."""

    path: Path
    offset: int = 0
    size: int | None = None

    def read(self, most: int | None = None) -> bytes:
        """The bytes, or the first `most` of them. Raises PictureError where the file does not hold them."""
        return self._bytes(0, most)

    def read_end(self, most: int) -> bytes:
        """The last `most` bytes. Raises PictureError."""
        return self._bytes(None, most)

    def _bytes(self, start: int | None, most: int | None) -> bytes:
        """start: None for as far from the end as `most` says."""
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
        faults: what opening already saw (unreadable shard, picture without a readable head, caption of wrong encoding).
    """

    def __init__(
        self, path: Path, items: Sequence[Item], places: Sequence[Place], faults: Sequence[Fault] = ()
    ) -> None:
        self.path = path
        self.faults = tuple(faults)
        self._items = tuple(items)
        self._places = tuple(places)

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | Sequence[Item]:
        return self._items[index]

    def only(self, indices: Sequence[int]) -> PictureSet:
        """The set of some of its items, in their order."""
        chosen = sorted(set(indices))
        items, places = [self._items[i] for i in chosen], [self._places[i] for i in chosen]
        return PictureSet(self.path, items, places, self.faults)

    @property
    def captioned(self) -> tuple[int, ...]:
        """The numbers of the items that have a caption, for `BatchOrder(usable=...)`."""
        return tuple(index for index, item in enumerate(self._items) if item.captions)

    def read(self, index: int) -> bytes:
        """The encoded picture of an item. Raises PictureError where it can't be read."""
        data = self._places[index].read()
        if not data:
            raise PictureError(f"{self._items[index].key} is empty")
        return data
