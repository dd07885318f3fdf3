"""Tiny sets of pictures, made on the fly."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colours that differ from seed to seed."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    """The bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def png(width: int = 64, height: int = 64, seed: int = 0) -> bytes:
    """The bytes of a PNG."""
    return encoded(picture(width, height, seed))


def jpeg(width: int = 64, height: int = 64, seed: int = 0, orientation: int = 1) -> bytes:
    """The bytes of a JPEG of this stored size, with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture(width, height, seed), "JPEG", quality=95, exif=exif)


def write_files(root: Path, files: Mapping[str, bytes | str]) -> Path:
    """A folder with these files."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def write_tar(path: Path, files: Mapping[str, bytes | str]) -> Path:
    """A shard with these members, in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def write_plain(root: Path, count: int, sizes: tuple[tuple[int, int], ...] = ((64, 64),)) -> Path:
    """`count` different pictures with captions, of these sizes in turn."""
    files: dict[str, bytes | str] = {}
    for number in range(count):
        files[f"{number:03d}.png"] = png(*sizes[number % len(sizes)], seed=number)
        files[f"{number:03d}.txt"] = f"picture number {number}"
    return write_files(root, files)
