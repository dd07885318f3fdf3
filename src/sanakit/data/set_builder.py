"""A set of pictures while it is being opened: pictures, captions and faults come in any order."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from sanakit.base.errors import PictureError
from sanakit.data import png
from sanakit.data.image import UnknownFormError, picture_size
from sanakit.data.items import ByteSource, Caption, Fault, Item, PictureSet, merge_captions, printable

_HEAD = 64 * 1024
_PROGRESS_EVERY = 1000


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


def _form(key: str) -> str:
    """Give names that differ only in how accents are encoded (macOS decomposes them) one form."""
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
