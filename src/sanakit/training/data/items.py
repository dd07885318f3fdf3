"""What a set of pictures is made of: items with their captions, where the bytes lie, and what was wrong.

A set knows the size and the captions of every picture and reads the picture itself only when it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from sanakit.base.errors import PictureError


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
        kind: a word for counting: of opening "corrupt", "shard", "encoding", "record", "lost", "twice", "ignored".
        text: one sentence: what is wrong and where.
    """

    key: str
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where an encoded picture lies: `size` bytes of a file from `offset`; a size of None means all of the file."""

    path: Path
    offset: int = 0
    size: int | None = None

    def read(self, most: int | None = None) -> bytes:
        """The bytes, or the first `most` of them. Raises PictureError where the file does not hold them."""
        wanted = -1 if self.size is None else self.size
        if most is not None:
            wanted = most if wanted < 0 else min(wanted, most)
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                data = file.read(wanted)
        except OSError as error:
            raise PictureError(f"{self.path} can't be read: {error.strerror or error}") from None
        if self.size is not None and len(data) < wanted:
            raise PictureError(f"{self.path} ends at byte {self.offset + len(data)}, inside a picture")
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
