"""What a set of pictures consists of: items with captions, where their bytes are, and faults that were passed over.

A set knows the size and the captions of every picture and reads the picture itself only on request. While a set is
being opened, a `SetBuilder` takes pictures, captions and faults in any order.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol, overload

from sanakit.base.errors import PictureError
from sanakit.data import png
from sanakit.data.image import UnknownFormError, picture_size
from sanakit.data.regular import open_regular

MOST_BYTES = 2**30
"""Larger files are refused: pictures of the most pixels that are read have fewer bytes."""

_HEAD = 64 * 1024
_PROGRESS_EVERY = 1000


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


class SetBuilder:
    """Collects the contents of a set. on_progress: called with the number of pictures, every thousand.

    Attributes:
        pictures: key -> source, width, height.
        captions: key -> captions, including those of missing pictures.
        faults: what was passed over.
    """

    def __init__(self, on_progress: Callable[[int], object] = lambda count: None) -> None:
        self.faults: list[Fault] = []
        self.pictures: dict[str, tuple[ByteSource, int, int]] = {}
        self.captions: dict[str, list[Caption]] = {}
        self._on_progress = on_progress
        self._others: list[tuple[str, str, str]] = []
        self._broken: set[str] = set()
        self._forms: dict[str, str] = {}

    def add_fault(self, key: str, kind: str, text: str, count: int = 1) -> None:
        """Record something that was passed over."""
        self.faults.append(Fault(printable(key), kind, printable(text), count))

    def reporter(self, key: str) -> Callable[[str, str], object]:
        """Return `add_fault` for one key."""
        return partial(self.add_fault, key)

    def add_picture(self, key: str, source: ByteSource, name: str) -> None:
        """Add a picture, or a fault if its head can't be read or the key is taken. name: for messages."""
        key = printable(key)
        if key in self.pictures:
            self.add_fault(key, "twice", f"{name} has the name of another picture and is not used")
            return
        try:
            self.pictures[key] = (source, *_size(source))
        except PictureError as error:
            self._broken.add(_form(key))
            self.add_fault(key, "corrupt", f"{name}: {error}")
            return
        self._note_form(key)
        self._count(1)

    def add_captions(self, key: str, captions: Iterable[Caption]) -> None:
        """Add captions of a picture that was or will be added."""
        self.captions.setdefault(printable(key), []).extend(captions)

    def add_other(self, key: str, ending: str, name: str) -> None:
        """Add a file of unknown type, which is harmless if it lies beside a picture with its name."""
        self._others.append((printable(key), printable(ending), printable(name)))

    def sum_others(self) -> None:
        """Record one fault for each ending of the unknown files without a picture."""
        found: dict[str, list[str]] = {}
        for key, ending, name in self._others:
            if self.find(key) is None and _form(key) not in self._broken:
                found.setdefault(ending, []).append(name)
        for ending, names in sorted(found.items()):
            what = f".{ending}" if ending else "without an ending"
            text = f"{len(names):,} {'files' if len(names) > 1 else 'file'} {what}, the first is {names[0]}"
            self.add_fault(names[0], "unread", text, len(names))
        self._others.clear()

    def include(self, part: SetBuilder) -> None:
        """Take over all of another builder, whose keys are different."""
        self.pictures |= part.pictures
        self.captions |= part.captions
        self.faults += part.faults
        for key in part.pictures:
            self._note_form(key)
        self._count(len(part.pictures))

    def find(self, key: str) -> str | None:
        """Return the key of a picture, whichever Unicode form its accents are in; None if there is none."""
        key = printable(key)
        if key in self.pictures:
            return key
        form = _form(key)
        return form if form in self.pictures else self._forms.get(form)

    def is_broken(self, key: str) -> bool:
        """Return whether a picture of that name has an unreadable head."""
        return _form(printable(key)) in self._broken

    def _note_form(self, key: str) -> None:
        if not key.isascii():
            self._forms[_form(key)] = key

    def _count(self, added: int) -> None:
        total = len(self.pictures)
        if total // _PROGRESS_EVERY > (total - added) // _PROGRESS_EVERY:
            self._on_progress(total)

    def build(self, path: Path) -> PictureSet:
        """Return the set, in the order of its keys."""
        self.sum_others()
        captions: dict[str, list[Caption]] = {}
        for name, found in self.captions.items():
            captions.setdefault(self.find(name) or name, []).extend(found)
        items, sources = [], []
        for key in sorted(self.pictures):
            source, width, height = self.pictures[key]
            merged = merge_captions(captions.get(key, ()))
            items.append(Item(key=key, width=width, height=height, captions=merged))
            sources.append(source)
        return PictureSet(path, items, sources, self.faults)


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


def _form(key: str) -> str:
    """Names that differ only in how accents are encoded (macOS decomposes them) get one form."""
    return key if key.isascii() else unicodedata.normalize("NFC", key)


def _size(source: ByteSource) -> tuple[int, int]:
    """Read (width, height) from the first bytes, or from all if the head is longer."""
    head = source.read(_HEAD)
    if not head:
        raise PictureError("it is empty")
    if len(head) < _HEAD:
        return picture_size(head)
    tail = source.read_end(png.TAIL) if head.startswith(png.SIGNATURE) else b""
    try:
        return picture_size(head, tail)
    except UnknownFormError:
        raise
    except PictureError:
        return picture_size(source.read())
