"""Controls of a request: a ControlNet, the picture that it reads, and how much and how long it steers.

On the command line `FOLDER:PICTURE[:scale=0.8,start=0,end=0.6,fit=crop]`, in Python `Control` or the same text.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sanakit.base.echo import as_utf8, quoted
from sanakit.base.errors import RequestError
from sanakit.base.files import file_sha256, is_file
from sanakit.pipeline.inputs import InputFile, InputImage, flattened, recorded

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_CONTROLS = 8
MOST_SCALE = 10.0
FITS = ("crop", "pad", "resize")
"""How a control picture of another shape gets the shape that is drawn: cut, laid on black, or stretched."""

_NUMBERS = ("scale", "start", "end")
_FORM = "FOLDER:PICTURE, or FOLDER:PICTURE:scale=0.8,start=0,end=0.6,fit=crop"


@dataclass(frozen=True, kw_only=True)
class ControlFile(InputFile):
    """A ControlNet handed in. sha256: of its files, one after the other. path: None if only a record of it is known."""

    path: Path | None = field(default=None, compare=False, repr=False)

    @property
    def given(self) -> bool:
        """Whether it is here."""
        return self.path is not None

    @classmethod
    def take(cls, value: object) -> Self:
        """Return a `ControlFile` of itself, a folder, a file or a hub id. Raises ModelNotFoundError or RequestError."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, str | Path):
            raise RequestError(f"a ControlNet is named by a folder, a file or a hub id, not {quoted(value)}")
        from sanakit.weights import resolve_control  # brings torch

        path = resolve_control(value)
        return cls(name=as_utf8(path.absolute().name), sha256=_content(path), path=path)

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Inverse of `to_json`, without the path. Raises RequestError."""
        name, sha256 = recorded(data, "a ControlNet")
        return cls(name=name, sha256=sha256)


@dataclass(frozen=True, kw_only=True)
class Control:
    """One control.

    network: the ControlNet. picture: what it reads. scale: of its residuals. start, end: the part of the steps in which
    it steers, 0 the first and 1 the last. fit: one of `FITS`. Raises RequestError.
    """

    network: ControlFile
    picture: InputImage
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0
    fit: str = "crop"

    def __post_init__(self) -> None:
        object.__setattr__(self, "network", ControlFile.take(self.network))
        object.__setattr__(self, "picture", InputImage.take(self.picture))
        for name in _NUMBERS:
            value, most = getattr(self, name), MOST_SCALE if name == "scale" else 1.0
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
                raise RequestError(f"{name} of a control is a number from 0 to {most:g}, not {quoted(value)}")
        if not self.start < self.end:
            raise RequestError(f"a control starts before it ends, not at {self.start:g} and {self.end:g}")
        if self.fit not in FITS:
            raise RequestError(f"fit of a control is {', '.join(FITS)}, not {quoted(self.fit)}")

    def steps(self, count: int) -> range:
        """Return steps of `count` in which it steers: those that lie wholly between start and end, as in diffusers."""
        inside = [
            step for step in range(count) if step / count >= self.start and (step + 1) / count <= self.end
        ]
        return range(inside[0], inside[-1] + 1) if inside else range(0)

    def fitted(self, width: int, height: int) -> Image:
        """Return the picture in RGB at a size; what is transparent is black."""
        from PIL import Image, ImageOps

        picture, size = flattened(self.picture.image, "black").convert("RGB"), (width, height)
        if self.fit == "resize" or picture.size == size:
            return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)
        change = ImageOps.fit if self.fit == "crop" else ImageOps.pad
        return change(picture, size, Image.Resampling.LANCZOS)

    def to_json(self) -> dict[str, Any]:
        """Names and hashes, and the settings."""
        files = {"network": self.network.to_json(), "picture": self.picture.to_json()}
        return files | {name: getattr(self, name) for name in (*_NUMBERS, "fit")}

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Inverse of `to_json`, without the files. Raises RequestError."""
        known = {each.name for each in dataclasses.fields(cls)}
        if not isinstance(data, Mapping) or not {"network", "picture"} <= set(data) <= known:
            raise RequestError(f"a control in a record has a network and a picture, not {quoted(data)}")
        network, picture = ControlFile.from_json(data["network"]), InputImage.from_json(data["picture"])
        return cls(**{**data, "network": network, "picture": picture})

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text of an option. Raises RequestError, ModelNotFoundError or PictureError."""
        parts = text.split(":")
        settings = _settings(parts.pop()) if len(parts) > 2 and "=" in parts[-1] else {}
        places = [(":".join(parts[:at]), ":".join(parts[at:])) for at in range(1, len(parts))]
        # Names may have colons: the picture is there, wherever it begins.
        chosen = [pair for pair in places if is_file(Path(pair[1]))] or places[:1]
        if not chosen or not all(chosen[0]):
            raise RequestError(f"a control is {_FORM}, not {quoted(text)}")
        network, picture = chosen[0]
        return cls(network=ControlFile.take(network), picture=InputImage.take(picture), **settings)


def take_controls(value: object) -> tuple[Control, ...]:
    """Return a tuple of controls of texts, mappings of the fields of `Control`, or controls. Raises RequestError."""
    values = value if isinstance(value, list | tuple) else (value,)
    return tuple(_taken(each) for each in values)


def _taken(value: object) -> Control:
    if isinstance(value, Control):
        return value
    if isinstance(value, str):
        return Control.parse(value)
    raise RequestError(f"a control is a Control or the text {_FORM}, not {quoted(value)}")


def check_controls(name: str, value: tuple[Control, ...]) -> None:
    """Refuse too many."""
    if len(value) > MOST_CONTROLS:
        raise RequestError(f"{name} are at most {MOST_CONTROLS}, not {len(value)}")


def encode_controls(value: tuple[Control, ...]) -> list[dict[str, Any]]:
    """As JSON holds them."""
    return [control.to_json() for control in value]


def decode_controls(value: object) -> tuple[Control, ...]:
    """Inverse of `encode_controls`, without files. Raises RequestError."""
    if not isinstance(value, list):
        raise RequestError(f"controls in a record are a list, not {quoted(value)}")
    return tuple(Control.from_json(each) for each in value)


def _settings(text: str) -> dict[str, Any]:
    """`scale=0.8,fit=pad` -> {"scale": 0.8, "fit": "pad"}."""
    found: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        if name not in (*_NUMBERS, "fit") or name in found:
            raise RequestError(
                f"a control has the settings {', '.join(_NUMBERS)} and fit, each once, not {quoted(part)}"
            )
        try:
            found[name] = value if name == "fit" else float(value)
        except ValueError:
            raise RequestError(f"{name} of a control is a number, not {quoted(value)}") from None
    return found


def _content(path: Path) -> str:
    """Return the sha256 of a file, or of the names and contents of the files that make a ControlNet's folder."""
    if path.is_file():
        return file_sha256(path)
    inside = path / "controlnet" if (path / "controlnet" / "config.json").is_file() else path
    files = sorted(
        each for each in inside.glob("*") if each.suffix in (".json", ".safetensors") and each.is_file()
    )
    digest = hashlib.sha256()
    for each in files:
        digest.update(f"{each.name} {file_sha256(each)}\n".encode())
    return digest.hexdigest()
