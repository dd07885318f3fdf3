"""The files of a data folder: finished pictures by id, and inputs of jobs by what they hold.

    jobs.sqlite3            jobs and pictures, see `store.py`
    pictures/1f/1f...png    a finished picture with its record
    inputs/9c/9c...png      a source, mask or control picture; the name is the sha256 that requests know it by
    previews/FINGERPRINT.json   see `previews.py`

A name from outside is a place only if it is an id: hexadecimal digits of the right number.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from sanakit.base.errors import PictureError, RequestError
from sanakit.base.files import atomic_write, ensure_writable_folder, refusals
from sanakit.pipeline.control import Control
from sanakit.pipeline.inputs import InputImage
from sanakit.pipeline.request import ImageRequest
from sanakit.server.engine.errors import PictureNotFoundError

_ID = re.compile("[0-9a-f]{32}")
_SHA256 = re.compile("[0-9a-f]{64}")


class Files:
    """The pictures and inputs under a data folder. Raises OutputError if it can't be written."""

    def __init__(self, data: Path) -> None:
        self.pictures, self.inputs = (ensure_writable_folder(data / name) for name in ("pictures", "inputs"))

    def picture(self, picture_id: str) -> Path:
        """Return the place of a picture. Raises PictureNotFoundError for what is no id."""
        if not _ID.fullmatch(picture_id):
            raise PictureNotFoundError("there is no picture with this id")
        return _place(self.pictures, picture_id)

    def write_picture(self, picture_id: str, png: bytes) -> None:
        """Write a picture: it is there as a whole or not at all. Raises OutputError."""
        place = self.picture(picture_id)
        with refusals(place):
            place.parent.mkdir(exist_ok=True)
        atomic_write(place, png)

    def read_picture(self, picture_id: str) -> bytes:
        """Return a picture's PNG. Raises PictureNotFoundError."""
        try:
            return self.picture(picture_id).read_bytes()
        except OSError:
            raise PictureNotFoundError(f"there is no picture {picture_id}") from None

    def remove_picture(self, picture_id: str) -> None:
        """Remove a picture if it is there. Raises OutputError."""
        _remove(self.picture(picture_id))

    def write_input(self, image: InputImage) -> None:
        """Keep the pixels of an input, without loss. Raises OutputError."""
        place = self._input(image.sha256)
        if not place.exists():
            buffer = io.BytesIO()
            image.image.save(buffer, format="PNG", compress_level=1)
            place.parent.mkdir(exist_ok=True)
            atomic_write(place, buffer.getvalue())

    def read_input(self, image: InputImage) -> InputImage:
        """Return an input with its pixels. Raises PictureError if they are not here any more."""
        try:
            with Image.open(self._input(image.sha256), formats=("PNG",)) as pixels:
                pixels.load()
                return replace(image, pixels=pixels.copy())
        except (OSError, ValueError) as error:
            raise PictureError(f"the input {image.shown} is not in the data folder any more") from error

    def input_png(self, sha256: str) -> bytes:
        """Return an input as PNG. Raises PictureNotFoundError."""
        try:
            return self._input(sha256).read_bytes()
        except OSError:
            raise PictureNotFoundError("the input is not in the data folder any more") from None

    def remove_input(self, sha256: str) -> None:
        """Remove an input if it is there. Raises OutputError."""
        _remove(self._input(sha256))

    def all_inputs(self) -> Iterator[str]:
        """Yield the sha256 of every input that is kept."""
        for place in self.inputs.glob("??/*.png"):
            if _SHA256.fullmatch(place.stem):
                yield place.stem

    def all_pictures(self) -> Iterator[str]:
        """Yield the id of every picture that is here."""
        for place in self.pictures.glob("??/*.png"):
            if _ID.fullmatch(place.stem):
                yield place.stem

    def _input(self, sha256: str) -> Path:
        if not _SHA256.fullmatch(sha256):
            raise RequestError("the sha256 of an input has 64 hexadecimal digits")
        return _place(self.inputs, sha256)


def input_images(request: ImageRequest) -> list[InputImage]:
    """Return the pictures that a request needs: source, mask, and those of its controls."""
    alone = [image for image in (request.source, request.mask) if image is not None]
    return [*alone, *(control.picture for control in request.controls)]


def with_inputs(request: ImageRequest, files: Files) -> ImageRequest:
    """Return a request with the pixels of its pictures. Raises PictureError."""
    if not input_images(request):
        return request
    changes: dict[str, Any] = {
        name: files.read_input(image)
        for name in ("source", "mask")
        if (image := getattr(request, name)) is not None
    }

    def filled(control: Control) -> Control:
        return replace(control, picture=files.read_input(control.picture))

    return replace(request, **changes, controls=tuple(map(filled, request.controls)))


def _place(folder: Path, name: str) -> Path:
    """Return the file of a name, in a folder of its first two digits: a folder with a million names is slow."""
    return folder / name[:2] / f"{name}.png"


def _remove(place: Path) -> None:
    with refusals(place):
        if os.path.lexists(place):
            place.unlink(missing_ok=True)
