"""Where a server keeps its jobs, pictures and keys unless it is told."""

from __future__ import annotations

import os
from pathlib import Path


def data_folder() -> Path:
    """Return `$XDG_DATA_HOME/sanakit/server`, else that below `~/.local/share`."""
    given = os.environ.get("XDG_DATA_HOME", "")
    base = (
        Path(given) if os.path.isabs(given) else Path.home() / ".local" / "share"
    )  # relative ones are to be ignored
    return base / "sanakit" / "server"
