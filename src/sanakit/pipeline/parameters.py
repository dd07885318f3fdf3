"""The `parameters` text that picture viewers of the A1111 tradition show, written and read.

Three parts: the prompt (any number of lines), an optional line `Negative prompt: ...`, and one last line
`Steps: 20, Sampler: dpm2, CFG scale: 4.5, Seed: 1, Size: 512x512, ...`. Values with a comma, a colon, a quote or a
line break are written as JSON strings, as that tradition does. Reading takes time in proportion to the text, whatever
it holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sanakit.base.echo import as_utf8, quoted
from sanakit.base.errors import RequestError
from sanakit.base.json_text import parse_json
from sanakit.base.sizes import Size
from sanakit.pipeline.fields import RequestField
from sanakit.pipeline.foreign import foreign_fields, is_foreign
from sanakit.pipeline.request import ImageRequest, request_fields

_NEGATIVE = "Negative prompt: "
_NAME = re.compile(r"\s*([A-Za-z][\w \-/]{0,60})$", re.ASCII)
_STRING = re.compile(r'\s*("(?:\\.|[^\\"])*")\s*(?:,|$)')
_FIRST = (
    "steps",
    "solver",
    "guidance",
    "seed",
)  # fields that the tradition knows, in its order; the size follows
_MAX_TEXT = 1 << 18  # characters; a longer text doesn't describe a picture


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What a `parameters` text holds: the request, what sanakit noted beside it, and what was passed over in words.

    extra: the pairs that aren't part of the request; empty if another program wrote the text.
    """

    request: ImageRequest
    extra: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def write_parameters(request: ImageRequest, extra: Mapping[str, str] | None = None) -> str:
    """`request` as `parameters` text; `extra` adds pairs such as the model's name after the known ones."""
    lines = [request.prompt]
    if request.negative or any(line.startswith(_NEGATIVE) for line in request.prompt.split("\n")):
        lines.append(_NEGATIVE + request.negative)
    pairs = _pairs(request) | dict(extra or {})
    lines.append(", ".join(f"{name}: {_quote(value)}" for name, value in pairs.items()))
    return "\n".join(lines)


def parse_parameters(text: str) -> Parameters:
    """Return what a `parameters` text holds; raises `RequestError` if it holds no request.

    In a text of our own a value that is wrong is an error. Of texts of other programs everything is taken that means
    something here (see `foreign.py`).
    """
    if len(text) > _MAX_TEXT:
        raise RequestError(f"the parameters text is longer than {_MAX_TEXT} characters")
    prompt, negative, line = _parts(text)
    pairs = dict(_split_pairs(line))
    if is_foreign(pairs):
        notes: list[str] = []
        theirs: dict[str, Any] = foreign_fields(pairs, notes.append)
        return Parameters(
            request=ImageRequest(prompt=as_utf8(prompt), negative=as_utf8(negative), **theirs),
            notes=tuple(notes),
        )
    ours = "Sampler" in pairs  # without it the line could be anybody's, and so could its model
    fields: dict[str, Any] = asdict(Size.parse(pairs.pop("Size"))) if "Size" in pairs else {}
    fields |= {
        entry.name: _read(entry, pairs.pop(entry.png))
        for entry in request_fields()
        if entry.png is not None and entry.png in pairs
    }
    request = ImageRequest(prompt=as_utf8(prompt), negative=as_utf8(negative), **fields)
    return Parameters(request=request, extra=pairs if ours else {})


def _parts(text: str) -> tuple[str, str, str]:
    """Prompt, negative prompt and the line of pairs: the last one that begins with Steps."""
    lines = text.replace("\r\n", "\n").rstrip().split("\n")
    at = next((n for n in range(len(lines) - 1, -1, -1) if lines[n].lstrip().startswith("Steps:")), None)
    if at is None:
        raise RequestError("the parameters text has no line that begins with Steps")
    marks = [n for n in range(at) if lines[n].startswith(_NEGATIVE) or lines[n] == _NEGATIVE.rstrip()]
    mark = marks[-1] if marks else at
    negative = "\n".join(lines[mark:at]).removeprefix(_NEGATIVE.rstrip()).removeprefix(" ")
    return "\n".join(lines[:mark]), negative, lines[at]


def _split_pairs(line: str) -> Iterator[tuple[str, str]]:
    """`name: value, name: "value, in quotes"`, from left to right; whatever isn't a pair is skipped."""
    position = 0
    while position < len(line):
        comma = line.find(",", position)
        end = len(line) if comma < 0 else comma
        colon = line.find(":", position, end)
        name = _NAME.match(line[position:colon]) if 0 < colon - position < 80 else None
        if name is None:
            position = end + 1
            continue
        quoted_value = (
            _STRING.match(line, colon + 1) if line[colon + 1 : colon + 3].lstrip()[:1] == '"' else None
        )
        if quoted_value is None:
            yield name[1], line[colon + 1 : end].strip()
            position = end + 1
        else:
            yield name[1], _unquote(quoted_value[1])
            position = quoted_value.end()


def _pairs(request: ImageRequest) -> dict[str, str]:
    """Return those of the tradition first and always; ours after them, if they differ from their default."""
    fields = {entry.name: entry for entry in request_fields() if entry.png is not None}
    size = Size(request.width, request.height) if request.width and request.height else None
    first = {fields[name].png: _shown(getattr(request, name)) for name in _FIRST} | {"Size": _shown(size)}
    rest = {
        entry.png: _shown_field(entry, getattr(request, name))
        for name, entry in fields.items()
        if name not in _FIRST and getattr(request, name) != entry.default
    }
    return {name: text for name, text in (first | rest).items() if name is not None and text is not None}


def _shown_field(entry: RequestField, value: object) -> str | None:
    """Return the value of a field as text, in JSON if it is made of parts; None if it is open."""
    if entry.encode is None or value is None:
        return _shown(value)
    return json.dumps(entry.to_plain(value), ensure_ascii=False)


def _shown(value: object) -> str | None:
    """Return a value as text; None if it is open."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "on" if value else "off"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _read(entry: RequestField, text: str) -> Any:
    """Inverse of `_shown_field`. Raises RequestError."""
    if entry.kind is bool:
        return text != "off" if entry.default else text == "on"
    parse, example = (parse_json, "JSON") if entry.decode is not None else _PARSERS[entry.kind]
    try:
        found = parse(text)
    except ValueError:
        raise RequestError(
            f"{entry.png} in the parameters text must be {example}, not {quoted(text)}"
        ) from None
    return found if entry.decode is None else entry.from_plain(found)


def _parse_whole(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,20}", text):
        raise ValueError
    return int(text)


def _parse_interval(text: str) -> tuple[float, float]:
    low, high = map(float, text.split())
    return low, high


_PARSERS: dict[Any, tuple[Callable[[str], Any], str]] = {
    str: (str, "text"),
    int: (_parse_whole, "a whole number"),
    float: (float, "a number"),
    tuple[float, float]: (_parse_interval, "two numbers such as '0.1 0.9'"),
    tuple[float, ...]: (lambda text: tuple(map(float, text.split(" "))), "numbers such as '1.5708 1.3'"),
    tuple[int, ...]: (lambda text: tuple(map(_parse_whole, text.split(" "))), "whole numbers such as '8 14'"),
}
"""Type of a field -> how its text is read, raising ValueError, and what it should be in words."""


def _quote(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r'[,:"\n]', value) else value


def _unquote(value: str) -> str:
    value = value.strip()
    try:
        return str(parse_json(value)) if value.startswith('"') else value
    except ValueError:
        return value
