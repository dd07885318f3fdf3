"""A set while it is being read: pictures, captions and faults come in any order and become a PictureSet at the end."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from sanakit.base.errors import PictureError
from sanakit.data import png
from sanakit.data.items import Caption, Fault, Item, PictureSet, Place
from sanakit.data.picture import UnknownFormError, picture_size

_HEAD = 64 * 1024
_ANNOUNCE_EVERY = 1000


class Draft:
    """Collects what a set holds. announce: called with the number of pictures, now and then.

    Attributes:
        pictures: key -> where it lies, width, height.
        captions: key -> captions; also of pictures that are not there.
        faults: what was passed over.
    """

    def __init__(self, announce: Callable[[int], object] = lambda count: None) -> None:
        self.faults: list[Fault] = []
        self.pictures: dict[str, tuple[Place, int, int]] = {}
        self.captions: dict[str, list[Caption]] = {}
        self._announce = announce
        self._others: list[tuple[str, str, str]] = []
        self._broken: set[str] = set()
        self._forms: dict[str, str] = {}

    def add_fault(self, key: str, kind: str, text: str, count: int = 1) -> None:
        """Something was passed over."""
        self.faults.append(Fault(printable(key), kind, printable(text), count))

    def reporter(self, key: str) -> Callable[[str, str], object]:
        """`add_fault` for one key."""
        return partial(self.add_fault, key)

    def add_picture(self, key: str, place: Place, name: str) -> None:
        """A picture; where its head can't be read, or the key is taken, a fault instead. name: for messages."""
        key = printable(key)
        if key in self.pictures:
            self.add_fault(key, "twice", f"{name} has the name of another picture and is not used")
            return
        try:
            self.pictures[key] = (place, *_size(place))
        except PictureError as error:
            self._broken.add(_form(key))
            self.add_fault(key, "corrupt", f"{name}: {error}")
            return
        self._note_form(key)
        self._count(1)

    def add_captions(self, key: str, captions: Iterable[Caption]) -> None:
        """Captions of a picture that was or will be added."""
        self.captions.setdefault(printable(key), []).extend(captions)

    def add_other(self, key: str, ending: str, name: str) -> None:
        """A file that no rule claims. It is harmless where it lies beside a picture of its name."""
        self._others.append((printable(key), printable(ending), printable(name)))

    def sum_others(self) -> None:
        """One fault for each ending of the files that lie beside no picture."""
        found: dict[str, list[str]] = {}
        for key, ending, name in self._others:
            if self.find(key) is None and _form(key) not in self._broken:
                found.setdefault(ending, []).append(name)
        for ending, names in sorted(found.items()):
            what = f".{ending}" if ending else "without an ending"
            text = f"{len(names):,} {'files' if len(names) > 1 else 'file'} {what}, the first is {names[0]}"
            self.add_fault(names[0], "unread", text, len(names))
        self._others.clear()

    def include(self, part: Draft) -> None:
        """All of another draft, whose keys are not ours."""
        self.pictures |= part.pictures
        self.captions |= part.captions
        self.faults += part.faults
        for key in part.pictures:
            self._note_form(key)
        self._count(len(part.pictures))

    def find(self, key: str) -> str | None:
        """The key of a picture, whichever form of Unicode its accents are in; None where there is none."""
        key = printable(key)
        if key in self.pictures:
            return key
        form = _form(key)
        return form if form in self.pictures else self._forms.get(form)

    def is_broken(self, key: str) -> bool:
        """Whether there is a picture of that name whose head can't be read."""
        return _form(printable(key)) in self._broken

    def _note_form(self, key: str) -> None:
        if not key.isascii():
            self._forms[_form(key)] = key

    def _count(self, added: int) -> None:
        total = len(self.pictures)
        if total // _ANNOUNCE_EVERY > (total - added) // _ANNOUNCE_EVERY:
            self._announce(total)

    def finish(self, path: Path) -> PictureSet:
        """The set, in the order of its keys."""
        self.sum_others()
        captions: dict[str, list[Caption]] = {}
        for name, found in self.captions.items():
            captions.setdefault(self.find(name) or name, []).extend(found)
        items, places = [], []
        for key in sorted(self.pictures):
            place, width, height = self.pictures[key]
            merged = merge_captions(captions.get(key, ()))
            items.append(Item(key=key, width=width, height=height, captions=merged))
            places.append(place)
        return PictureSet(path, items, places, self.faults)


def printable(text: str) -> str:
    """Text that can be written as UTF-8: odd bytes of file names and halves of surrogate pairs become `?`."""
    return text.encode("utf-8", "replace").decode()


def merge_captions(captions: Iterable[Caption]) -> tuple[Caption, ...]:
    """Each text of each source once, in the order of the first: the last one that has a score counts."""
    merged: dict[tuple[str, str], Caption] = {}
    for caption in captions:
        known = merged.get((caption.text, caption.source))
        if known is None or caption.score is not None:
            merged[caption.text, caption.source] = caption
    return tuple(merged.values())


def _form(key: str) -> str:
    """Of names that differ only in how accents are written (macOS takes them apart) there is one."""
    return key if key.isascii() else unicodedata.normalize("NFC", key)


def _size(place: Place) -> tuple[int, int]:
    """(width, height) from the first bytes; a head that is longer than they are takes all."""
    head = place.read(_HEAD)
    if not head:
        raise PictureError("it is empty")
    if len(head) < _HEAD:
        return picture_size(head)
    tail = place.read_end(png.TAIL) if head.startswith(png.SIGNATURE) else b""
    try:
        return picture_size(head, tail)
    except UnknownFormError:
        raise
    except PictureError:
        return picture_size(place.read())
