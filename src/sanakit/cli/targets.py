"""Where pictures go: the one file that was named, or files in a folder that never overwrite another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sanakit.base.errors import OutputError
from sanakit.base.files import ensure_writable_folder
from sanakit.pipeline.output import free_name
from sanakit.pipeline.request import ImageRequest

DEFAULT_FOLDER = Path("out")
_OTHER_FORMATS = (".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")


@dataclass(frozen=True, kw_only=True)
class Target:
    """`file` when one file was named, and always the folder it or the named files go to."""

    folder: Path
    file: Path | None = None

    def picture(self, request: ImageRequest) -> Path:
        """The path of a picture."""
        return self.file or free_name(self.folder, request)

    def sheet(self, request: ImageRequest) -> Path:
        """The path of a grid."""
        return self.file or free_name(self.folder, request, "-grid")


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
