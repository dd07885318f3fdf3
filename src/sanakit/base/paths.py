"""Names that users give for files and folders: `~`, names that are too long, names that no system allows.

`pathlib` raises for some of them where a plain "there is no such file" is meant.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["is_file", "is_folder", "user_path"]


def user_path(name: str | Path) -> Path:
    """`~` and `~user` replaced by home folders; as it is where there is no such user or no home."""
    return Path(os.path.expanduser(name))  # noqa: PTH111  Path.expanduser raises for an unknown user


def is_folder(path: Path) -> bool:
    """Whether there is a folder; no for every name that can't be one."""
    return os.path.isdir(path)  # noqa: PTH112  Path.is_dir raises for names that are too long


def is_file(path: Path) -> bool:
    """Whether there is a regular file; no for every name that can't be one."""
    return os.path.isfile(path)  # noqa: PTH113  as above
