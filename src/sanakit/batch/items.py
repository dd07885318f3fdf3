"""A file of requests: one JSON object a line, or one prompt a line; each picture has a key, the name of its file.

    {"prompt": "a red cube on grass", "seed": 3}
    {"key": "cone", "prompt": "a blue cone on sand", "width": 512, "height": 512, "count": 2}

A line holds the fields of `ImageRequest` by their names. What `sanakit generate` takes as the text of an option is a
text here, too: `"loras": ["style.safetensors:0.8"]`, `"source": "photo.png"`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sanakit.base.echo import quoted
from sanakit.base.errors import InputError, RequestError
from sanakit.base.json_text import parse_json
from sanakit.pipeline.request import ImageRequest, request_fields

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
MOST_ITEMS = 10_000_000


@dataclass(frozen=True, kw_only=True)
class Item:
    """A picture to draw: the request of it alone, and its key."""

    key: str
    request: ImageRequest

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.key}.png"


def read_items(lines: Sequence[str], given: Mapping[str, Any] | None = None) -> list[Item]:
    """Read the lines of a file; empty ones are passed over. Without a key it is the number of the line, from 000001.

    given: fields for every line that doesn't name them. A line with a `count` is so many items, `KEY-0`, `KEY-1`, ...
    Raises RequestError, with the line, for whatever makes no request, and for a key that comes twice.
    """
    items: dict[str, Item] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        for item in _items_of(number, line, given or {}):
            if item.key in items:
                raise RequestError(f"line {number}: the key {quoted(item.key)} comes twice")
            items[item.key] = item
        if len(items) > MOST_ITEMS:
            raise RequestError(f"more than {MOST_ITEMS:,} pictures are asked for: split the file")
    if not items:
        raise RequestError("there is no line with a prompt")
    return list(items.values())


def _items_of(number: int, line: str, given: Mapping[str, Any]) -> Iterator[Item]:
    try:
        fields = dict(given) | _fields(line)
        key = _key(fields.pop("key", f"{number:06d}"))
        request = _request(fields)
    except InputError as error:
        raise RequestError(f"line {number}: {error}") from None
    if request.count == 1:
        yield Item(key=key, request=request)
        return
    for index in range(request.count):
        yield Item(key=f"{key}-{index}", request=request.picture(index))


def _fields(line: str) -> dict[str, Any]:
    """Return the fields of a line: of its JSON object, or the prompt that it is."""
    if not line.lstrip().startswith("{"):
        return {"prompt": line.strip()}
    try:
        data = parse_json(line)
    except ValueError:
        raise RequestError("it begins like a JSON object and isn't one") from None
    return dict(data)


def is_key(value: str) -> bool:
    """Return whether a text can be a key: the name of a file without its ending."""
    return _KEY.fullmatch(value) is not None


def _key(value: object) -> str:
    if not isinstance(value, str) or not is_key(value):
        raise RequestError(
            f"a key names a file: letters, digits, '.', '_' and '-', at most 200, not {quoted(value)}"
        )
    return value


def _request(fields: Mapping[str, Any]) -> ImageRequest:
    """Return the request of a line's fields. Raises RequestError, or PictureError for a file that it names."""
    known = {entry.name: entry for entry in request_fields()}
    for name in fields:
        if name not in known:
            raise RequestError(f"a request has no field {quoted(name)}")
    if "prompt" not in fields:
        raise RequestError("there is no prompt")
    # What is made from the texts of an option is made from them here as well; only records hold names and hashes.
    values = {
        name: value if known[name].take is not None else known[name].from_plain(value)
        for name, value in fields.items()
    }
    return ImageRequest(**values)
