"""What was measured on this machine, kept so that it is measured once and never decided otherwise by noise.

One small file per question and machine in the user's cache folder. The first process to write it decides for all; where
nothing can be written, each process measures for itself.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

__all__ = ["folder", "remember"]


def folder() -> Path:
    """Where measurements are kept: `$XDG_CACHE_HOME/sanakit/measured`, else below `~/.cache`."""
    told = os.environ.get("XDG_CACHE_HOME", "")
    try:
        base = Path(told) if os.path.isabs(told) else Path.home() / ".cache"
    except RuntimeError:  # no home
        base = Path(tempfile.gettempdir()) / f"cache-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    return base / "sanakit" / "measured"


def remember(question: str, machine: str, measure: Callable[[], float]) -> tuple[float, Path | None]:
    """The number kept for a question on a machine, else what `measure` gives, kept from now on.

    Returns it with the file that holds it, None where none could be written.
    """
    path = folder() / f"{question}-{hashlib.sha256(machine.encode()).hexdigest()[:16]}.json"
    kept = _read(path, machine)
    if kept is not None:
        return kept, path
    with suppress(OSError):  # damaged, if it is there
        path.unlink(missing_ok=True)
    value = measure()
    _write(path, {"question": question, "machine": machine, "value": value})
    kept = _read(path, machine)  # perhaps of another process, which was faster
    return (value, None) if kept is None else (kept, path)


def _read(path: Path, machine: str) -> float | None:
    """The number in a file; None where there is none, or it is damaged or of another machine."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        value = float(found["value"])
        return value if found["machine"] == machine and math.isfinite(value) and value > 0 else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _write(path: Path, content: dict[str, object]) -> None:
    """Give the file its name, unless another process was first or nothing can be written here."""
    draft = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        except (OSError, AttributeError):  # a system without hard links
            os.replace(draft, path)
    with suppress(OSError):
        draft.unlink(missing_ok=True)
