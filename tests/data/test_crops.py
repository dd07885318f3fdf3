"""Pixels of pictures: crops against a plain resize and cut, EXIF rotation, modes, and what is refused."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sanakit.base.errors import PictureError, RequestError
from sanakit.data import Item, crop_for, picture_tensor
from sanakit.data import image as room
from sanakit.data.buckets import Crop
from tests.data.pictures import encoded, jpeg, picture, png

WHOLE = Crop(height=32, width=32, resized_height=32, resized_width=32, top=0, left=0)


def item(width: int, height: int) -> Item:
    return Item(key="a", width=width, height=height, captions=())


@given(
    st.integers(1, 300), st.integers(1, 300), st.sampled_from([(32, 32), (32, 64), (96, 32)]), st.floats(0, 1)
)
def test_a_crop_covers_its_bucket_and_cuts_one_side(
    width: int, height: int, bucket: tuple, where: float
) -> None:
    crop = crop_for(item(width, height), bucket, where)
    assert (crop.height, crop.width) == bucket
    assert 0 <= crop.top <= crop.resized_height - crop.height
    assert 0 <= crop.left <= crop.resized_width - crop.width
    assert crop.resized_height == crop.height or crop.resized_width == crop.width
    assert abs(crop.resized_width - width * crop.resized_height / height) <= 0.5 * max(
        1, width / height, height / width
    )


@pytest.mark.parametrize(("where", "left"), [(0.0, 0), ("centre", 16), (0.5, 16), (1.0, 32)])
def test_where_moves_the_cut(where, left: int) -> None:
    crop = crop_for(item(100, 50), (32, 32), where)
    assert (crop.resized_width, crop.resized_height, crop.left, crop.top) == (64, 32, left, 0)


@pytest.mark.parametrize("where", [-0.1, 1.5, float("nan")])
def test_a_cut_outside_is_refused(where: float) -> None:
    with pytest.raises(RequestError, match="from 0 to 1"):
        crop_for(item(10, 10), (32, 32), where)


@pytest.mark.parametrize("size", [(150, 90), (90, 150), (64, 64), (40, 33)])
@pytest.mark.parametrize("where", [0.0, 0.3, 1.0])
def test_pixels_are_those_of_a_plain_resize_and_cut(size: tuple, where: float) -> None:
    image = picture(*size)
    crop = crop_for(item(*size), (64, 64), where)
    plain = image.resize((crop.resized_width, crop.resized_height), Image.Resampling.BICUBIC)
    plain = plain.crop((crop.left, crop.top, crop.left + 64, crop.top + 64))
    found = picture_tensor(encoded(image), crop)
    assert (found.shape, found.dtype) == ((3, 64, 64), torch.uint8)
    difference = np.abs(np.asarray(plain, dtype=int) - found.permute(1, 2, 0).numpy())
    assert difference.max() <= 2
    assert difference.mean() < 0.1


def test_a_large_jpeg_decoded_small_looks_the_same() -> None:
    data = encoded(picture(1024, 512), "JPEG", quality=95)
    crop = crop_for(item(1024, 512), (64, 64))
    with Image.open(io.BytesIO(data)) as image:
        plain = image.resize((128, 64), Image.Resampling.BICUBIC).crop((32, 0, 96, 64))
    found = picture_tensor(data, crop).permute(1, 2, 0).numpy()
    assert np.abs(np.asarray(plain, dtype=int) - found).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(orientation: int) -> None:
    stored = picture(96, 64)
    turns = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud}
    turns |= {5: lambda a: a.transpose(1, 0, 2), 6: lambda a: np.rot90(a, -1)}
    turns |= {7: lambda a: np.rot90(a.transpose(1, 0, 2), 2), 8: np.rot90}
    upright = turns[orientation](np.asarray(stored, dtype=int))
    height, width = upright.shape[:2]
    data = jpeg(96, 64, orientation=orientation)
    assert room.picture_size(data) == (width, height)
    crop = Crop(height=height, width=width, resized_height=height, resized_width=width, top=0, left=0)
    found = picture_tensor(data, crop).permute(1, 2, 0).numpy()
    assert np.abs(upright - found).mean() < 3


def test_exif_of_a_png_and_exif_that_is_rubbish() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert room.picture_size(encoded(picture(96, 64), exif=exif)) == (64, 96)
    assert room.picture_size(encoded(picture(96, 64), "JPEG", exif=b"Exif\0\0rubbish")) == (96, 64)
    exif[0x0112] = 77
    assert room.picture_size(encoded(picture(96, 64), "JPEG", exif=exif)) == (96, 64)


def pixel(image: Image.Image, form: str = "PNG", **options: object) -> list[int]:
    return picture_tensor(encoded(image, form, **options), WHOLE)[:, 16, 16].tolist()


def test_modes_become_rgb() -> None:
    def flat(mode: str, colour: object) -> Image.Image:
        return Image.new(mode, (32, 32), colour)

    assert pixel(flat("RGBA", (255, 0, 0, 0))) == [255, 255, 255]
    assert pixel(flat("RGBA", (255, 0, 0, 255))) == [255, 0, 0]
    assert pixel(flat("LA", (0, 0))) == [255, 255, 255]
    assert pixel(flat("L", 77)) == [77, 77, 77]
    assert pixel(flat("1", 1)) == [255, 255, 255]
    assert pixel(flat("RGB", (9, 200, 30)).convert("P", palette=Image.Palette.ADAPTIVE)) == [9, 200, 30]
    assert pixel(flat("RGB", (9, 200, 30)).quantize(2), transparency=0) == [255, 255, 255]
    assert pixel(flat("RGB", (9, 200, 30)), transparency=(9, 200, 30)) == [255, 255, 255]
    assert pixel(flat("I;16", 65535)) == [255, 255, 255]
    assert pixel(flat("I;16", 128 * 257)) == [128, 128, 128]
    cmyk = pixel(flat("CMYK", (0, 255, 255, 0)), "JPEG", quality=95)
    assert cmyk[0] > 240
    assert max(cmyk[1:]) < 15


def test_the_first_frame_counts() -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    assert pixel(frames[0], "GIF", save_all=True, append_images=frames[1:]) == [255, 0, 0]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no picture",
        png()[:200],
        jpeg(200, 200)[:900],
        png()[:60] + bytes(40) + png()[100:],
        b"%!PS-Adobe-3.0",
    ],
    ids=["empty", "text", "cut png", "cut jpeg", "damaged", "postscript"],
)
def test_broken_files_are_picture_errors(data: bytes) -> None:
    with pytest.raises(PictureError):
        picture_tensor(data, WHOLE)


def claiming(width: int, height: int) -> bytes:
    """A PNG whose head claims this size."""
    data = png(8, 8)
    head = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST_PIXELS", 1000)
    with pytest.raises(PictureError, match="64 x 64 pixels, more than 1,000"):
        room.picture_size(png())
    monkeypatch.undo()
    with pytest.raises(PictureError, match="20000 x 20000 pixels, more than 178,956,970"):
        room.picture_size(claiming(20000, 20000))


def test_a_large_picture_below_the_limit_gives_no_warning() -> None:
    assert room.picture_size(claiming(10000, 9500)) == (10000, 9500)


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(PictureError, match="floating-point"):
        pixel(Image.new("F", (32, 32)), "TIFF")
