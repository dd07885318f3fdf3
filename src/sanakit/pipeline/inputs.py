"""What a request needs beside itself: files, known by name and hash, and pictures with their pixels.

A record holds names and hashes only. What is read back from one is an input that isn't given: `require_inputs` asks for
it in one sentence, and `changed_inputs` reports a file that isn't the one of the record.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sanakit.base.echo import as_utf8, quoted
from sanakit.base.errors import PictureError, RequestError

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_BYTES = 1 << 30
"""Larger files are refused unread."""

MOST_PIXELS = 178_956_970
"""Larger pictures are refused before they are decoded; Pillow suspects a decompression bomb at the same size."""

_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM")
_WITH_ALPHA = ("RGBA", "LA", "La", "PA", "RGBa")
_SHOWN_DIGITS = 16  # of a hash in a sentence


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """A file that a request needs. name: without its folder. sha256: of its bytes, 64 hexadecimal digits."""

    name: str
    sha256: str

    @property
    def given(self) -> bool:
        """Whether its content is here, not only its name and hash from a record."""
        return True

    @property
    def shown(self) -> str:
        """Name and hash for a sentence."""
        return f"{quoted(self.name)} (sha256 {self.sha256[:_SHOWN_DIGITS]}...)"

    def to_json(self) -> dict[str, str]:
        """Name and hash."""
        return {"name": self.name, "sha256": self.sha256}


@dataclass(frozen=True, kw_only=True)
class InputImage(InputFile):
    """A picture handed in, upright as its EXIF says, in 8 bits.

    sha256: of the file's bytes, or of mode, size and pixels if it came as an image.
    pixels: mode RGB, or RGBA if it has an alpha channel; None if only a record of it is known.
    """

    pixels: Image | None = field(default=None, compare=False, repr=False)

    @property
    def given(self) -> bool:
        """Whether the pixels are here."""
        return self.pixels is not None

    @property
    def image(self) -> Image:
        """The pixels. Raises RequestError if only name and hash are known."""
        if self.pixels is None:
            raise RequestError(f"the pixels of {self.shown} are needed: give that file")
        return self.pixels

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a file. Raises PictureError if it is missing, too large, or not a picture."""
        path = Path(path)
        return cls.decode(_read_bytes(path), path)

    @classmethod
    def decode(cls, data: bytes, name: str | Path, most_pixels: int = MOST_PIXELS) -> Self:
        """Decode a file's bytes. name: of the file. Raises PictureError if it is too large, or not a picture."""
        pixels = _decode(data, name, most_pixels)
        return cls(name=as_utf8(Path(name).name), sha256=hashlib.sha256(data).hexdigest(), pixels=pixels)

    @classmethod
    def of(cls, image: Any, name: str = "image") -> Self:
        """Take a PIL image, or a tensor [C, H, W] of 1, 3 or 4 channels: uint8, or floating point in 0..1.

        Raises PictureError for anything else.
        """
        pixels = _plain(image if hasattr(image, "convert") else _from_tensor(image))
        digest = hashlib.sha256(f"{pixels.mode} {pixels.width}x{pixels.height}\n".encode())
        digest.update(pixels.tobytes())
        return cls(name=name, sha256=digest.hexdigest(), pixels=pixels)

    @classmethod
    def take(cls, value: object) -> Self:
        """Return an `InputImage` of itself, a path, a PIL image or a tensor. Raises PictureError."""
        if isinstance(value, cls):
            return value
        return cls.read(value) if isinstance(value, str | Path) else cls.of(value)

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Inverse of `to_json`, without the pixels. Raises RequestError."""
        name, sha256 = recorded(data, "an input file")
        return cls(name=name, sha256=sha256)


def flattened(image: Image, colour: str) -> Image:
    """Lay a picture of mode RGBA on a colour, such as "white"; one of another mode is returned as it is."""
    from PIL import Image

    if image.mode != "RGBA":
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, colour), image)


def input_files(value: object) -> Iterator[InputFile]:
    """Yield the files in the value of a field: itself, those of a tuple, or those of the parts of a dataclass."""
    if isinstance(value, InputFile):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from input_files(part)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for part in dataclasses.fields(value):
            yield from input_files(getattr(value, part.name))


def require_inputs(request: Any) -> None:
    """Raise RequestError for the first file of a request that is known by name and hash only."""
    for one in dataclasses.fields(request):
        for file in input_files(getattr(request, one.name)):
            if not file.given:
                how = one.metadata.get("argument") or one.metadata.get("flag") or f"--{one.name}"
                raise RequestError(
                    f"the picture was made with the file {file.shown}, which its record does not hold: "
                    f"give that file as {how}"
                )


def changed_inputs(record: Any, request: Any) -> list[str]:
    """Return a sentence for each file of a request that isn't the one that stood there in the record's request."""
    notes = []
    for one in dataclasses.fields(request):
        before, after = (list(input_files(getattr(owner, one.name))) for owner in (record, request))
        notes += [
            f"the picture was made with {old.shown}, and {new.shown} is another file: it will differ."
            for old, new in zip(before, after, strict=False)
            if old.sha256 != new.sha256
        ]
    return notes


def _read_bytes(path: Path) -> bytes:
    try:
        if not path.is_file():
            what = "is a folder, not a picture" if path.is_dir() else "is not there"
            raise PictureError(f"the picture {path} {what}")
        if path.stat().st_size > MOST_BYTES:
            raise PictureError(f"the picture {path} has more than {MOST_BYTES >> 20} MiB")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise PictureError(f"the picture {path} can't be read: {_reason(error)}") from None


def _decode(data: bytes, path: str | Path, most_pixels: int) -> Image:
    """Return the upright picture of a file's bytes, its first frame."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    Image.init()
    formats = tuple(name for name in _FORMATS if name in Image.OPEN)  # not every build of Pillow has all
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd EXIF data; what is too large is refused below
            image = Image.open(io.BytesIO(data), formats=formats)
            if image.width * image.height > most_pixels:
                raise PictureError(
                    f"the picture {path} has {image.width} x {image.height} pixels, more than {most_pixels:,}"
                )
            image.load()
            return _plain(ImageOps.exif_transpose(image))
    except PictureError as error:
        raise PictureError(str(error)) from None
    except UnidentifiedImageError:
        raise PictureError(f"{path} isn't a picture of a known form") from None
    except Exception as error:  # Pillow's plug-ins raise whatever a broken file makes them trip over
        raise PictureError(f"the picture {path} is broken ({_reason(error)})") from None


def _plain(image: Image) -> Image:
    """RGB, or RGBA if anything in it is transparent by its form; samples of 16 bits keep the upper 8."""
    import numpy as np
    from PIL import Image

    if image.mode == "F":
        raise PictureError("pixels that are floating-point numbers have no known range: give 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.int64).clip(0, 65535) // 257
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    alpha = image.mode in _WITH_ALPHA or "transparency" in image.info
    if image.mode == "La":  # which Pillow turns into RGBA by way of LA alone
        image = image.convert("LA")
    plain = image.convert("RGBA" if alpha else "RGB")
    plain.info.clear()
    return plain


def _from_tensor(value: Any) -> Image:
    import numpy as np
    from PIL import Image

    pixels = np.asarray(value.detach().cpu().float() if hasattr(value, "detach") else value)
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3, 4) or not pixels.size:
        raise PictureError(
            f"a picture is a file, a PIL image or a tensor [1|3|4, H, W], not {quoted(type(value).__name__)} "
            f"of shape {list(pixels.shape)}"
        )
    levels = pixels if str(getattr(value, "dtype", "")).endswith("uint8") else pixels * 255
    if not np.isfinite(levels).all():
        raise PictureError("the pixels of a picture must be finite numbers")
    whole = levels.round().clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(whole[..., 0] if whole.shape[2] == 1 else whole))


def recorded(data: object, what: str) -> tuple[str, str]:
    """Name and hash of a file in a record. what: such a file is called, in an error. Raises RequestError."""
    name, sha256 = (data.get(key) if isinstance(data, Mapping) else None for key in ("name", "sha256"))
    if not isinstance(name, str) or not re.fullmatch("[0-9a-f]{64}", str(sha256)):
        raise RequestError(f"{what} in a record has a name and a sha256, not {quoted(data)}")
    return as_utf8(name), str(sha256)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:120] or type(error).__name__
