"""Where pictures go: the one file that was named, or files in a folder that never overwrite another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL.Image import Image

from sanakit.base.errors import OutputError
from sanakit.base.files import ensure_writable_folder
from sanakit.pipeline.output import Record, free_names, write_new_picture, write_picture

DEFAULT_FOLDER = Path("out")
_OTHER_FORMATS = (".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")


@dataclass(frozen=True, kw_only=True)
class Target:
    """`file` when one file was named, and always the folder it or the named files go to."""

    folder: Path
    file: Path | None = None

    def keep(self, image: Image, record: Record) -> Path:
        """Write a picture, or a grid; returns where. Raises OutputError."""
        if self.file is not None:
            return write_picture(self.file, image, record)
        names = free_names(self.folder, record.request, "-grid" if record.grid else "")
        return write_new_picture(names, image, record)


def choose_target(out: Path | None, pictures: int, grid: bool) -> Target:
    """Reads `--out` and proves that the place can be written before anything slow begins.

    Raises OutputError for a format other than PNG, for one file name and several pictures without a grid, and for a
    place that cannot be written.
    """
    if out is not None and out.suffix.lower() in _OTHER_FORMATS:
        raise OutputError(f"pictures are written as PNG: name the file {out.with_suffix('.png')}.")
    if out is None or out.suffix.lower() != ".png" or out.is_dir():
        return Target(folder=ensure_writable_folder(out or DEFAULT_FOLDER))
    if pictures > 1 and not grid:
        raise OutputError(
            f"{out} is one file and {pictures} pictures were asked for: give a folder, or add --grid."
        )
    return Target(folder=ensure_writable_folder(out.parent), file=out)
