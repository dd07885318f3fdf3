"""Pictures handed in: upright, with their alpha, known by their hash; records name them and never hold them."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sanakit.base.errors import PictureError, RequestError
from sanakit.pipeline.fields import option, read_fields
from sanakit.pipeline.inputs import InputImage, changed_inputs, input_files, require_inputs
from sanakit.pipeline.parameters import _read, _shown_field

ORIENTATION = 0x0112


def ramp(width: int = 6, height: int = 4, channels: int = 3) -> Image.Image:
    values = np.arange(width * height * channels, dtype=np.uint8).reshape(height, width, channels)
    return Image.fromarray(values)


def test_a_file_is_known_by_the_hash_of_its_bytes_and_its_bare_name(tmp_path: Path):
    path = tmp_path / "a.png"
    ramp().save(path)
    found = InputImage.read(path)
    assert found.to_json() == {"name": "a.png", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert found.image.tobytes() == ramp().tobytes()


def test_exif_turns_and_alpha_stays(tmp_path: Path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    ramp(channels=4).save(tmp_path / "a.png", exif=exif)
    found = InputImage.read(tmp_path / "a.png").image
    assert (found.mode, found.size) == ("RGBA", (4, 6))
    assert found.tobytes() == ramp(channels=4).transpose(Image.Transpose.ROTATE_270).tobytes()


@pytest.mark.parametrize(
    ("image", "pixel"),
    [(Image.new("L", (2, 2), 7), (7, 7, 7)), (Image.new("LA", (2, 2), (7, 9)), (7, 7, 7, 9)),
     (Image.fromarray(np.full((2, 2), 0x0701, np.uint16)), (6, 6, 6)), (Image.new("1", (2, 2), 1), (255,) * 3),
     (torch.full((3, 2, 2), 0.5), (128,) * 3), (torch.full((4, 2, 2), 9, dtype=torch.uint8), (9,) * 4)],
    ids=["grey", "grey with alpha", "16 bits", "bits", "floats", "bytes"],
)  # fmt: skip
def test_every_form_becomes_rgb_or_rgba_in_8_bits(image: Any, pixel: tuple[int, ...]):
    assert InputImage.of(image).image.getpixel((1, 1)) == pixel


def test_images_in_memory_are_known_by_size_and_pixels():
    one, same, turned = InputImage.of(ramp(6, 4)), InputImage.of(ramp(6, 4)), InputImage.of(ramp(4, 6))
    assert one == same != turned


@pytest.mark.parametrize("content", [None, b"", b"no picture", b"\x89PNG\r\n\x1a\n" + b"x" * 30])
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes | None):
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    for bad in (path, tmp_path, "\0"):
        with pytest.raises(PictureError) as caught:
            InputImage.read(bad)
        assert "\n" not in str(caught.value)


def test_a_truncated_picture_is_refused(tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:6000])
    with pytest.raises(PictureError, match="broken"):
        InputImage.read(tmp_path / "a.png")


@pytest.mark.parametrize("bad", ["text", 3, torch.zeros(2, 4, 4), torch.full((3, 2, 2), float("nan"))])
def test_other_values_are_no_pictures(bad: Any):
    with pytest.raises(PictureError):
        InputImage.take(bad)


@dataclasses.dataclass(frozen=True)
class Pair:
    """A part with a picture in it."""

    image: InputImage
    scale: float


@dataclasses.dataclass(frozen=True)
class Request:
    """A request with one field that is made of parts."""

    pairs: tuple[Pair, ...] = option(
        (), "Pairs.", lambda name, value: None, png="Pairs", flag="--pair", many=True, later=True,
        encode=lambda pairs: [pair.image.to_json() | {"scale": pair.scale} for pair in pairs],
        decode=lambda rows: tuple(Pair(InputImage.from_json(row), row["scale"]) for row in rows),
    )  # fmt: skip


def test_a_value_made_of_parts_survives_json_and_text_without_its_pixels():
    (entry,) = read_fields(Request)
    pairs = (Pair(InputImage.of(ramp(), "a, b: c.png"), 0.5), Pair(InputImage.of(ramp(4, 4)), 1.0))
    for back in (entry.from_plain(entry.to_plain(pairs)), _read(entry, _shown_field(entry, pairs) or "")):
        assert back == pairs
        assert [file.given for file in input_files(back)] == [False, False]
    with pytest.raises(RequestError, match="must be JSON"):
        _read(entry, "[1")
    for bad in ({}, {"name": "a"}, {"name": "a", "sha256": "b"}, "a", None):
        with pytest.raises(RequestError):
            InputImage.from_json(bad)


def test_what_is_missing_is_asked_for_and_what_is_another_file_is_told():
    given = InputImage.of(ramp(), "cat.png")
    known = InputImage.from_json(given.to_json())
    with pytest.raises(RequestError, match=f"cat.png.*{given.sha256[:16]}.*give that file as --pair"):
        require_inputs(Request(pairs=(Pair(known, 1.0),)))
    record, other = Request(pairs=(Pair(known, 1.0),)), InputImage.of(ramp(4, 4), "dog.png")
    assert changed_inputs(record, Request(pairs=(Pair(given, 2.0),))) == []
    (note,) = changed_inputs(record, Request(pairs=(Pair(other, 1.0),)))
    assert "cat.png" in note and "dog.png" in note


def test_a_field_that_takes_other_values_reads_records_by_a_decoder_of_its_own():
    @dataclasses.dataclass(frozen=True)
    class Careless:
        """A record could name any path."""

        source: InputImage | None = option(None, "A.", lambda name, value: None, take=InputImage.take)

    with pytest.raises(ValueError, match="no decode"):
        read_fields(Careless)
