"""Pixels of strangers: upright in every format, every mode as it looks, and only sentences where that can't be."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from sanakit.base.errors import PictureError
from sanakit.data.image import cut_picture, picture_size, thumbnail
from sanakit.data.items import ByteRange
from sanakit.data.set_builder import _size
from tests.data.pictures import encoded, png

WIDTH, HEIGHT = 24, 16
CORNERS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0))


def four_corners() -> Image.Image:
    """Red, green above blue, yellow: no two of its eight turns are alike."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    for number, colour in enumerate(CORNERS):
        rows = slice(0, HEIGHT // 2) if number < 2 else slice(HEIGHT // 2, HEIGHT)
        pixels[rows, slice(0, WIDTH // 2) if number % 2 == 0 else slice(WIDTH // 2, WIDTH)] = colour
    return Image.fromarray(pixels)


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """What a reader shows of a picture that is stored so."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    copy = image.copy()
    copy.info["exif"] = exif.tobytes()
    return ImageOps.exif_transpose(copy)


def whole(data: bytes) -> np.ndarray:
    """All pixels of a picture at its own size."""
    size = picture_size(data)
    return np.asarray(cut_picture(data, size, (0, 0, *size)))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunk(data: bytes, kind: bytes, content: bytes, before: bytes = b"IDAT") -> bytes:
    """A PNG with one more chunk in front of the first of another kind."""
    place = data.index(before) - 4
    return data[:place] + chunk(kind, content) + data[place:]


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def xmp_of(orientation: int) -> bytes:
    return f'<x:xmpmeta><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()


def late_png(orientation: int) -> bytes:
    """EXIF behind the pixels, where exiftool puts it."""
    return with_chunk(encoded(four_corners()), b"eXIf", exif_of(orientation)[6:], before=b"IEND")


def xmp_png(orientation: int) -> bytes:
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp_of(orientation).decode())
    return encoded(four_corners(), pnginfo=info)


def tiff(orientation: int, **options: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(four_corners(), "TIFF", exif=exif, **options)


STORED = {
    "jpeg": lambda n: encoded(four_corners(), "JPEG", exif=exif_of(n), quality=100, subsampling=0),
    "progressive jpeg": lambda n: encoded(
        four_corners(), "JPEG", exif=exif_of(n), quality=100, subsampling=0, progressive=True
    ),
    "mpo": lambda n: encoded(
        four_corners(), "MPO", exif=exif_of(n), quality=100, subsampling=0, save_all=True,
        append_images=[four_corners()],
    ),
    "png": lambda n: encoded(four_corners(), exif=exif_of(n)),
    "png, exif behind the pixels": late_png,
    "png, xmp": xmp_png,
    "webp": lambda n: encoded(four_corners(), "WEBP", exif=exif_of(n), lossless=True),
    "avif": lambda n: encoded(four_corners(), "AVIF", exif=exif_of(n), quality=100, subsampling="4:4:4"),
    "tiff": tiff,
    "tiff, lzw": lambda n: tiff(n, compression="tiff_lzw"),
    "tiff, deflate": lambda n: tiff(n, compression="tiff_adobe_deflate"),
    "tiff, packbits": lambda n: tiff(n, compression="packbits"),
}  # fmt: skip


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", STORED)
def test_a_picture_stands_upright(form: str, orientation: int, tmp_path) -> None:
    data = STORED[form](orientation)
    expected = turned(four_corners(), orientation)
    assert picture_size(data) == expected.size
    (tmp_path / "x").write_bytes(data)
    assert _size(ByteRange(tmp_path / "x")) == expected.size
    difference = np.abs(whole(data).astype(int) - np.asarray(expected).astype(int))
    assert difference.max() <= 12, (form, orientation)
    small = np.asarray(thumbnail(data, (2, 2))).astype(int)
    assert np.abs(small - np.asarray(expected.resize((2, 2), Image.Resampling.BOX)).astype(int)).max() <= 12


def test_the_orientation_behind_many_pixels_is_seen_from_the_file_alone(tmp_path) -> None:
    """The head of a file is read, then its end: both agree with what decoding all of it shows."""
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    data = with_chunk(encoded(Image.fromarray(noise)), b"eXIf", exif_of(6)[6:], before=b"IEND")
    (tmp_path / "x.png").write_bytes(data)
    assert len(data) > 128 * 1024
    assert _size(ByteRange(tmp_path / "x.png")) == (200, 300) == picture_size(data)
    assert np.array_equal(whole(data), np.rot90(noise, -1))


def test_letters_inside_pixels_are_no_orientation() -> None:
    data = with_chunk(
        encoded(four_corners()), b"teSt", chunk(b"eXIf", exif_of(6)[6:])[:-4] + b"bad!", b"IEND"
    )
    assert picture_size(data) == (WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (b"iCCP", b"profile\0\0" + zlib.compress(bytes(range(256)) * 6000)),
        (b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 3_000_000)),
        (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\0" * 30_000_000)),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"\0" * 30_000_000)),
        (b"tEXt", b"Comment\0" + b"x" * 3_000_000),
        (b"iTXt", b"parameters\0\0\0\0\0" + b"x" * 3_000_000),
        (b"tEXt", b"no end of the keyword"),
        (b"iCCP", b"\0\0rubbish"),
        (b"acTL", b"\0"),
        (b"eXIf", b"\xff" * 100_000),
        (b"gAMA", b""),
    ],
)
@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
def test_what_a_png_holds_besides_its_pixels_does_no_harm(
    kind: bytes, content: bytes, before: bytes, tmp_path
) -> None:
    data = with_chunk(encoded(four_corners()), kind, content, before)
    (tmp_path / "x.png").write_bytes(data)
    assert _size(ByteRange(tmp_path / "x.png")) == (WIDTH, HEIGHT)
    assert np.array_equal(whole(data), np.asarray(four_corners()))


def test_many_texts_together_do_no_harm() -> None:
    data = encoded(four_corners())
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 1_000_000)) * 80
    place = data.index(b"IDAT") - 4
    assert np.array_equal(whole(data[:place] + text + data[place:]), np.asarray(four_corners()))


GREY = np.array([[0, 85, 170, 255]] * 2, dtype=np.uint8)
GREY16 = GREY.astype(np.uint16) * 257


def raw_png(
    width: int, height: int, bits: int, colour: int, rows: bytes, *chunks: tuple[bytes, bytes]
) -> bytes:
    """A PNG of these scan lines, each with its filter byte."""
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, content) for kind, content in parts)


def _grey16_png(*chunks: tuple[bytes, bytes]) -> bytes:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in GREY16)
    return raw_png(4, 2, 16, 0, rows, *chunks)


def _rgb16_png(*chunks: tuple[bytes, bytes]) -> bytes:
    pixels = np.repeat(GREY16[..., None], 3, axis=2)
    return raw_png(4, 2, 16, 2, b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels), *chunks)


def _white_at(value: int) -> np.ndarray:
    return np.where(value == GREY, 255, GREY)


def _palette(transparency: object, form: str = "PNG") -> bytes:
    image = Image.fromarray(np.array([[0, 1, 2, 3]] * 2, dtype=np.uint8))
    image = image.convert("P")
    image.putdata([0, 1, 2, 3] * 2)
    image.putpalette([0, 0, 0, 85, 85, 85, 170, 170, 170, 255, 255, 255])
    return encoded(image, form, transparency=transparency)


def _with_alpha(mode: str, form: str, **options: object) -> bytes:
    alpha = Image.fromarray(np.where(GREY == 85, 0, 255).astype(np.uint8))
    image = Image.fromarray(GREY).convert(mode)
    image.putalpha(alpha)
    return encoded(image, form, **options)


def _frames(form: str, **options: object) -> bytes:
    first, second = Image.fromarray(GREY), Image.fromarray(255 - GREY)
    if form in ("WEBP", "AVIF"):
        first, second = first.convert("RGB"), second.convert("RGB")
    return encoded(first, form, save_all=True, append_images=[second], **options)


def _lab() -> bytes:
    lab = np.zeros((2, 4, 3), dtype=np.uint8)
    lab[..., 0] = 255
    return encoded(Image.frombytes("LAB", (4, 2), lab.tobytes()), "TIFF")


MODES = {
    "grey": (lambda: encoded(Image.fromarray(GREY)), GREY),
    "grey 16": (_grey16_png, GREY),
    "grey 16, one value transparent": (lambda: _grey16_png((b"tRNS", struct.pack(">H", 85 * 257))), _white_at(85)),
    "grey 16, no such value": (lambda: _grey16_png((b"tRNS", struct.pack(">H", 85 * 257 + 1))), GREY),
    "grey 8, one value transparent": (lambda: encoded(Image.fromarray(GREY), transparency=85), _white_at(85)),
    "grey 4, one value transparent": (
        lambda: raw_png(4, 2, 4, 0, b"\0\x05\xaf" * 2, (b"tRNS", b"\0\x05")), _white_at(85),
    ),
    "grey 2, one value transparent": (
        lambda: raw_png(4, 2, 2, 0, b"\0\x1b" * 2, (b"tRNS", b"\0\x01")), _white_at(85),
    ),
    "1 bit, black transparent": (
        lambda: raw_png(4, 2, 1, 0, b"\0\x50" * 2, (b"tRNS", b"\0\0")), np.full((2, 4), 255),
    ),
    "1 bit": (lambda: raw_png(4, 2, 1, 0, b"\0\x50" * 2), np.array([[0, 255, 0, 255]] * 2)),
    "rgb 16": (_rgb16_png, GREY),
    "rgb 16, one colour transparent": (
        lambda: _rgb16_png((b"tRNS", struct.pack(">HHH", *[85 * 257] * 3))), _white_at(85),
    ),
    "rgb 8, one colour transparent": (
        lambda: encoded(Image.fromarray(GREY).convert("RGB"), transparency=(85, 85, 85)), _white_at(85),
    ),
    "LA": (lambda: _with_alpha("L", "PNG"), _white_at(85)),
    "LA, TIFF": (lambda: _with_alpha("L", "TIFF"), _white_at(85)),
    "RGBA": (lambda: _with_alpha("RGB", "PNG"), _white_at(85)),
    "RGBA, WebP": (lambda: _with_alpha("RGB", "WEBP", lossless=True), _white_at(85)),
    "RGBA, TIFF": (lambda: _with_alpha("RGB", "TIFF"), _white_at(85)),
    "palette": (lambda: _palette(None), GREY),
    "palette, one entry transparent": (lambda: _palette(1), _white_at(85)),
    "palette, a byte for each": (lambda: _palette(b"\xff\x00\xff\xff"), _white_at(85)),
    "palette, GIF": (lambda: _palette(1, "GIF"), _white_at(85)),
    "CMYK, TIFF": (lambda: encoded(Image.fromarray(GREY).convert("CMYK"), "TIFF"), GREY),
    "CMYK, JPEG": (lambda: encoded(Image.fromarray(GREY).convert("CMYK"), "JPEG", quality=100), GREY),
    "L*a*b*, TIFF": (_lab, np.full((2, 4), 255)),
    "grey 16, TIFF": (lambda: encoded(Image.fromarray(GREY16), "TIFF"), GREY),
    "grey 16, TIFF, white is zero": (lambda: encoded(Image.fromarray(GREY16), "TIFF", tiffinfo={262: 0}), 255 - GREY),
    "grey 16, TIFF, other order": (
        lambda: encoded(Image.frombytes("I;16B", (4, 2), GREY16.astype(">u2").tobytes()), "TIFF"), GREY,
    ),
    "grey 16, JPEG 2000": (lambda: encoded(Image.fromarray(GREY16), "JPEG2000"), GREY),
    "grey 16, PGM": (lambda: b"P5 4 2 65535 " + GREY16.astype(">u2").tobytes(), GREY),
    "1 bit, TIFF": (
        lambda: encoded(Image.fromarray(GREY > 100), "TIFF", compression="group4"),
        np.where(GREY > 100, 255, 0),
    ),
    "moving GIF": (lambda: _frames("GIF"), GREY),
    "moving PNG": (lambda: _frames("PNG"), GREY),
    "moving PNG, default apart": (lambda: _frames("PNG", default_image=True), GREY),
    "moving WebP": (lambda: _frames("WEBP", lossless=True), GREY),
    "moving AVIF": (lambda: _frames("AVIF", quality=100), GREY),
    "pages of TIFF": (lambda: _frames("TIFF"), GREY),
}  # fmt: skip


@pytest.mark.parametrize("name", MODES)
@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
def test_every_mode_becomes_rgb_on_white(name: str) -> None:
    make, expected = MODES[name]
    pixels = whole(make()).astype(int)
    assert pixels.shape == (2, 4, 3)
    assert np.abs(pixels - np.asarray(expected)[..., None].astype(int)).max() <= 3, pixels[..., 0]


def _bomb_png(side: int) -> bytes:
    """One row of pixels, of which the head says that there are many."""
    return raw_png(side, side, 8, 2, b"\0" * 100)


def _float_tiff() -> bytes:
    return encoded(Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)), "TIFF")


def _wide_tiff() -> bytes:
    return encoded(Image.fromarray(np.arange(64, dtype=np.int32).reshape(8, 8) * 10_000_000), "TIFF")


def _gif_of(width: int, height: int) -> bytes:
    data = bytearray(encoded(Image.new("P", (4, 4)), "GIF"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


REFUSED = {
    "float TIFF": (_float_tiff, "floating-point numbers"),
    "32-bit TIFF": (_wide_tiff, "32-bit numbers"),
    "PNG bomb": (lambda: _bomb_png(60_000), "60000 x 60000 pixels, more than"),
    "GIF bomb": (lambda: _gif_of(65_535, 65_535), "65535 x 65535 pixels, more than"),
    "PPM bomb": (lambda: b"P6 90000 90000 255 ", "90000 x 90000 pixels"),
    "empty picture": (lambda: b"P6 0 4 255 ", "it"),
    "no picture": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>" * 3000, "a picture of a known form"),
    "zeros": (lambda: bytes(100_000), "a picture of a known form"),
    "cut PNG": (lambda: png(64, 64)[:-40], "broken"),
    "cut JPEG": (lambda: encoded(four_corners().resize((400, 400)), "JPEG")[:-600], "broken"),
    "cut WebP": (lambda: encoded(four_corners().resize((400, 400)), "WEBP")[:-60], "it"),
    "cut AVIF": (lambda: encoded(four_corners().resize((400, 400)), "AVIF")[:-60], "it"),
    "cut TIFF": (lambda: encoded(four_corners().resize((400, 400)), "TIFF")[:-600], "it"),
    "cut GIF": (lambda: encoded(four_corners().resize((400, 400)).convert("P"), "GIF")[:-400], "it"),
    "head only": (lambda: b"\xff\xd8\xff\xe0", "it"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_shown_is_a_sentence(name: str) -> None:
    make, words = REFUSED[name]
    with pytest.raises(PictureError, match=words) as refused:
        thumbnail(make(), (8, 8))
    assert len(str(refused.value)) < 200 and "\n" not in str(refused.value)


def test_too_little_memory_is_a_fault_of_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", full)
    with pytest.raises(PictureError, match="not enough memory"):
        thumbnail(encoded(Image.fromarray(GREY)), (8, 8))


def test_noise_ends_in_pixels_or_a_sentence() -> None:
    """Bytes of every format are changed at random places."""
    draw = np.random.default_rng(7)
    buffer = io.BytesIO()
    for form, make in {**STORED, "gif": lambda n: encoded(four_corners(), "GIF")}.items():
        data = make(6)
        for _ in range(30):
            harmed = bytearray(data)
            for place in draw.integers(0, len(data), 4):
                harmed[place] = int(draw.integers(0, 256))
            try:
                thumbnail(bytes(harmed), (8, 8)).save(buffer, "PNG")
            except PictureError as error:
                assert str(error), form
