"""Pictures on disk: a PNG carries the request it was made from, twice, and gives it back.

The text chunk `parameters` is for the viewers of the A1111 tradition, the chunk `sanakit` holds the same as exact
JSON: `{"format": 1, "request": {...}, "grid": false, "made": {"model": ..., "weights": ..., "version": ...}}`. A third,
of XMP, says that a model made the picture (`provenance.py`).
Files are written under a temporary name and renamed, so an interrupted run leaves no half picture.
"""

from __future__ import annotations

import io
import itertools
import json
import math
import os
import re
import struct
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from sanakit.base.echo import quoted
from sanakit.base.errors import PictureError, RequestError
from sanakit.base.files import atomic_write, write_new
from sanakit.base.json_text import parse_json
from sanakit.pipeline.parameters import parse_parameters, write_parameters
from sanakit.pipeline.provenance import XMP_CHUNK, read_source_type, source_type, write_xmp
from sanakit.pipeline.request import ImageRequest
from sanakit.pipeline.signing import Signer

FORMAT = 1
_SLUG_LENGTH = 60
_QUICK, _THOROUGH = 1, 6  # levels of zlib; 256 x 256 pixels take 7 and 16 ms
_EXIF, _USER_COMMENT = 0x8769, 0x9286  # tags of EXIF 2.3
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a picture says of itself: its request, whether it is a grid, and what it was made with.

    others: further requests whose pictures are on the same grid. notes: what another program wrote and was passed over;
    no part of what is written. source_type: IPTC's digital source type that a picture states; written from the request.
    """

    request: ImageRequest
    others: tuple[ImageRequest, ...] = ()
    grid: bool = False
    made: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    source_type: str | None = field(default=None, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return the content of the `sanakit` chunk."""
        content: dict[str, Any] = {"format": FORMAT, "request": self.request.to_json()}
        if self.others:
            content["others"] = [request.to_json() for request in self.others]
        return content | {"grid": self.grid, "made": dict(self.made)}


def write_picture(path: Path, image: Image.Image, record: Record, signer: Signer | None = None) -> Path:
    """Write `image` as a PNG with its record; `path` is replaced only once the file is whole. Raises OutputError."""
    atomic_write(path, encode_picture(image, record, signer))
    return path


def write_new_picture(
    paths: Iterable[Path], image: Image.Image, record: Record, signer: Signer | None = None
) -> Path:
    """Write `image` under the first of `paths` that is free, whoever else writes there; return that path.

    Raises OutputError.
    """
    return write_new(paths, encode_picture(image, record, signer))


def encode_picture(
    image: Image.Image, record: Record, signer: Signer | None = None, *, quick: bool = False
) -> bytes:
    """Return the PNG of `image` with its record and its label, signed if there is a signer.

    quick: pack the same pixels less well, in less than half the time.
    """
    texts = PngImagePlugin.PngInfo()
    shown = {name.capitalize(): value for name, value in record.made.items() if name in ("model", "version")}
    texts.add_text("parameters", write_parameters(record.request, shown))
    texts.add_text("sanakit", json.dumps(record.to_json()))
    texts.add_itxt(XMP_CHUNK, write_xmp(record.request, record.made))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=texts, compress_level=_QUICK if quick else _THOROUGH)
    png = buffer.getvalue()
    return png if signer is None else signer.sign(png, source_type(record.request))


def read_picture(path: Path) -> Record:
    """Return the record of a picture; raises `PictureError` if the file is missing, no PNG, or without a request."""
    if not os.path.exists(path):  # noqa: PTH110  Path.exists raises for names that are too long
        raise PictureError(f"there is no picture at {path}")
    if not path.is_file():
        raise PictureError(f"{path} is {'a folder' if path.is_dir() else 'no regular file'}, not a picture")
    return _record(_read_texts(path, path), path)


def decode_record(data: bytes, name: str) -> Record:
    """Return the record in a PNG, JPEG or WebP. name: of the picture, in messages. Raises as `read_picture`."""
    return _record(_read_texts(io.BytesIO(data), name, ("PNG", "JPEG", "WEBP")), name)


def _record(texts: Mapping[str, str], name: Path | str) -> Record:
    """Return the record in the texts of a picture."""
    label = read_source_type(texts.get(XMP_CHUNK, ""))
    try:
        if "sanakit" in texts:
            return replace(_read_record(texts["sanakit"]), source_type=label)
        if "parameters" in texts:
            found = parse_parameters(texts["parameters"])
            made = {name.lower(): value for name, value in found.extra.items()}
            return Record(request=found.request, made=made, notes=found.notes, source_type=label)
    except RequestError as error:
        raise PictureError(f"{name} holds a request that cannot be used: {error}") from None
    raise PictureError(_nothing_in(name, texts))


def _nothing_in(name: Path | str, texts: Mapping[str, str]) -> str:
    """Return why a picture can't be recreated, with the program if it says."""
    graph = "workflow" in texts or texts.get("prompt", "").startswith("{")
    program = "ComfyUI (a graph)" if graph else "InvokeAI" if "invokeai_metadata" in texts else None
    wrote = f"{program} wrote it, and" if program else "only"
    what = "its form is not read here" if program else "pictures written by sanakit can be recreated"
    return f"{name} holds no request: {wrote} {what}."


def _read_texts(
    file: Path | io.BytesIO, name: Path | str, formats: tuple[str, ...] | None = None
) -> dict[str, str]:
    try:
        with Image.open(file, formats=formats) as image:
            texts = {str(name): value for name, value in image.info.items() if isinstance(value, str)}
            comment = {} if "parameters" in texts else _user_comment(image)
            if not isinstance(image, PngImagePlugin.PngImageFile) and not comment:
                raise PictureError(f"{name} is a {image.format} file, and only PNG files carry a request")
            return comment | texts if isinstance(image, PngImagePlugin.PngImageFile) else comment
    except PermissionError:
        raise PictureError(f"{name} cannot be read: permission denied") from None
    except (*_BROKEN, Image.DecompressionBombError):
        raise PictureError(f"{name} is not a readable PNG file") from None


def _user_comment(image: Image.Image) -> dict[str, str]:
    """Return the EXIF comment, where programs like A1111 put their text in JPEG and WebP, and some in PNG."""
    comment = image.getexif().get_ifd(_EXIF).get(_USER_COMMENT)
    if isinstance(comment, bytes):
        kind, rest = comment[:8], comment[8:]
        encoding = "utf-8"
        if (
            kind == b"UNICODE\0"
        ):  # the standard leaves the byte order open; the text begins with an ASCII letter
            encoding = "utf-16-be" if rest[:1] == b"\0" else "utf-16-le"
        comment = rest.decode(encoding, "replace").rstrip("\0")
    return {"parameters": comment} if isinstance(comment, str) and "Steps:" in comment else {}


def _read_record(text: str) -> Record:
    try:
        data = parse_json(text)
    except ValueError:
        raise RequestError("its sanakit chunk is not JSON") from None
    if not isinstance(data, dict) or "request" not in data:
        raise RequestError("its sanakit chunk has no request")
    if data.get("format") != FORMAT:
        raise RequestError(
            f"its format is {quoted(data.get('format'))}, and this version reads format {FORMAT}"
        )
    made = data.get("made", {})
    if not isinstance(made, dict) or not all(isinstance(value, str) for value in made.values()):
        raise RequestError("its part 'made' must map names to texts")
    others = data.get("others", [])
    if not isinstance(others, list):
        raise RequestError("its part 'others' must be a list of requests")
    return Record(
        request=ImageRequest.from_json(data["request"]),
        others=tuple(ImageRequest.from_json(other) for other in others),
        grid=data.get("grid") is True,
        made=made,
    )


def slug(prompt: str) -> str:
    """Return a short ASCII file name stem for a prompt; `picture` if nothing of it can be spelt in ASCII."""
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    return words[:_SLUG_LENGTH].rstrip("-") or "picture"


def free_names(folder: Path, request: ImageRequest, suffix: str = "") -> Iterator[Path]:
    """Paths in `folder` for the picture of `request` that no file has yet: `slug-seed.png`, then `-2`, `-3`, ..."""
    stem = f"{slug(request.prompt)}-{request.seed}{suffix}"
    for number in itertools.count(1):
        path = folder / (f"{stem}.png" if number == 1 else f"{stem}-{number}.png")
        if not os.path.lexists(path):
            yield path


def free_name(folder: Path, request: ImageRequest, suffix: str = "") -> Path:
    """Return the first of `free_names`; another process may take it meanwhile, see `write_new_picture`."""
    return next(free_names(folder, request, suffix))


def make_grid(images: Sequence[Image.Image], columns: int | None = None, gap: int = 0) -> Image.Image:
    """Pictures of one size in rows of `columns` (default: as square as it gets), `gap` pixels of white between."""
    if not images:
        raise ValueError("a grid needs at least one picture")
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    width, height = images[0].size
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        sheet.paste(image, (column * (width + gap), row * (height + gap)))
    return sheet
