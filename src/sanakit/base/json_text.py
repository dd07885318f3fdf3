"""JSON of any origin: whatever is wrong with it is a ValueError, nesting too deep for Python included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def parse_json(text: str | bytes, **options: Any) -> Any:
    """Return the value of a JSON text; options as for `json.loads`. Raises ValueError."""
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def read_object(path: Path, most: int | None = None) -> dict[str, Any]:
    """Return the JSON object in a UTF-8 file of at most so many bytes; None for any size.

    Raises OSError, or ValueError with a sentence that names the file.
    """
    if not path.is_file():
        raise ValueError(f"{path.name} is missing" if not path.exists() else f"{path.name} is not a file")
    size = path.stat().st_size
    if most is not None and size > most:
        raise ValueError(f"{path.name} has {size:,} bytes")
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name} is not JSON: {str(error)[:100]}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} is not a JSON object")
    return found
