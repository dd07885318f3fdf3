"""A set while it is being read: pictures, captions and faults come in any order and become a PictureSet at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from sanakit.base.errors import PictureError
from sanakit.training.data.items import Caption, Fault, Item, PictureSet, Place
from sanakit.training.data.picture import picture_size

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

    def add_fault(self, key: str, kind: str, text: str) -> None:
        """Something was passed over."""
        self.faults.append(Fault(printable(key), kind, printable(text)))

    def add_picture(self, key: str, place: Place, name: str) -> None:
        """A picture; where its head can't be read, or the key is taken, a fault instead. name: for messages."""
        key = printable(key)
        if key in self.pictures:
            self.add_fault(key, "twice", f"{name} has the name of another picture and is not used")
            return
        try:
            self.pictures[key] = (place, *_size(place))
        except PictureError as error:
            self.add_fault(key, "corrupt", f"{name}: {error}")
            return
        self._count(1)

    def add_captions(self, key: str, captions: Iterable[Caption]) -> None:
        """Captions of a picture that was or will be added."""
        self.captions.setdefault(printable(key), []).extend(captions)

    def include(self, part: Draft) -> None:
        """All of another draft, whose keys are not ours."""
        self.pictures |= part.pictures
        self.captions |= part.captions
        self.faults += part.faults
        self._count(len(part.pictures))

    def holds(self, key: str) -> bool:
        """Whether there is a picture of that key."""
        return printable(key) in self.pictures

    def _count(self, added: int) -> None:
        total = len(self.pictures)
        if total // _ANNOUNCE_EVERY > (total - added) // _ANNOUNCE_EVERY:
            self._announce(total)

    def finish(self, path: Path) -> PictureSet:
        """The set, in the order of its keys."""
        items, places = [], []
        for key in sorted(self.pictures):
            place, width, height = self.pictures[key]
            captions = merge_captions(self.captions.get(key, ()))
            items.append(Item(key=key, width=width, height=height, captions=captions))
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


def _size(place: Place) -> tuple[int, int]:
    """(width, height) from the first bytes; a head that is longer than they are takes all."""
    head = place.read(_HEAD)
    if not head:
        raise PictureError("it is empty")
    try:
        return picture_size(head)
    except PictureError:
        if len(head) < _HEAD:
            raise
        return picture_size(place.read())
