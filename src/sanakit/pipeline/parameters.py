"""The `parameters` text that picture viewers of the A1111 tradition show, written and read.

Three parts: the prompt (any number of lines), an optional line `Negative prompt: ...`, and one last line
`Steps: 20, Sampler: dpm2, CFG scale: 4.5, Seed: 1, Size: 512x512, ...`. Values with a comma, a colon, a quote or a
line break are written as JSON strings, as that tradition does. Reading takes time in proportion to the text, whatever
it holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sanakit.base.echo import quoted
from sanakit.base.errors import RequestError
from sanakit.base.json_text import parse_json
from sanakit.pipeline.foreign import foreign_fields, is_foreign
from sanakit.pipeline.request import ImageRequest

_NEGATIVE = "Negative prompt: "
_NAME = re.compile(r"\s*([A-Za-z][\w \-/]{0,60})$", re.ASCII)
_STRING = re.compile(r'\s*("(?:\\.|[^\\"])*")\s*(?:,|$)')
_MAX_TEXT = 1 << 18  # characters; longer ones are no description of a picture


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What a `parameters` text holds: the request, what sanakit noted beside it, and what was passed over in words.

    extra: the pairs that are no part of the request; empty where another program wrote the text.
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


def read_parameters(text: str) -> tuple[ImageRequest, dict[str, str]]:
    """The request in a `parameters` text and the pairs of ours that are no part of it; raises as `parse_parameters`."""
    found = parse_parameters(text)
    return found.request, dict(found.extra)


def parse_parameters(text: str) -> Parameters:
    """What a `parameters` text holds; raises `RequestError` where it holds no request.

    In a text of our own a value that is wrong is an error. Of texts of other programs everything is taken that means
    something here (see `foreign.py`).
    """
    if len(text) > _MAX_TEXT:
        raise RequestError(f"the parameters text is longer than {_MAX_TEXT} characters.")
    prompt, negative, line = _parts(text)
    pairs = dict(_split_pairs(line))
    if is_foreign(pairs):
        notes: list[str] = []
        fields: dict[str, Any] = foreign_fields(pairs, notes.append)
        return Parameters(
            request=ImageRequest(prompt=_utf8(prompt), negative=_utf8(negative), **fields), notes=tuple(notes)
        )
    ours = "Sampler" in pairs  # without it the line could be anybody's, and so could its model
    width, height = _split_size(pairs.pop("Size", None))
    request = ImageRequest(
        prompt=prompt,
        negative=negative,
        steps=_whole(pairs, "Steps"),
        guidance=_number(pairs, "CFG scale"),
        seed=_whole(pairs, "Seed") or 0,
        width=width,
        height=height,
        solver=pairs.pop("Sampler", None),
        chi=pairs.pop("CHI", "on") != "off",
        cfg_interval=_interval(pairs.pop("CFG interval", "0.0 1.0")),
        pag=_number(pairs, "PAG scale") or 0.0,
        pag_blocks=_blocks(pairs.pop("PAG blocks", None)),
        truncate=pairs.pop("Truncate", "off") == "on",
        bins=pairs.pop("Bins", "on") != "off",
    )
    return Parameters(request=request, extra=pairs if ours else {})


def _parts(text: str) -> tuple[str, str, str]:
    """Prompt, negative prompt and the line of pairs: the last one that begins with Steps."""
    lines = text.replace("\r\n", "\n").rstrip().split("\n")
    at = next((n for n in range(len(lines) - 1, -1, -1) if lines[n].lstrip().startswith("Steps:")), None)
    if at is None:
        raise RequestError("the parameters text has no line that begins with Steps.")
    marks = [n for n in range(at) if lines[n].startswith(_NEGATIVE) or lines[n] == _NEGATIVE.rstrip()]
    mark = marks[-1] if marks else at
    negative = "\n".join(lines[mark:at]).removeprefix(_NEGATIVE.rstrip()).removeprefix(" ")
    return "\n".join(lines[:mark]), negative, lines[at]


def _split_pairs(line: str) -> Iterator[tuple[str, str]]:
    """`name: value, name: "value, in quotes"`, from left to right; what is no pair is passed over."""
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


def _utf8(text: str) -> str:
    """Without lone surrogates, which no request may hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _pairs(request: ImageRequest) -> dict[str, str]:
    pairs = {
        "Steps": request.steps,
        "Sampler": request.solver,
        "CFG scale": request.guidance,
        "Seed": request.seed,
        "Size": f"{request.width}x{request.height}" if request.width and request.height else None,
        "CHI": None if request.chi else "off",
        "CFG interval": " ".join(map(str, request.cfg_interval))
        if request.cfg_interval != (0.0, 1.0)
        else None,
        "PAG scale": request.pag or None,
        "PAG blocks": " ".join(map(str, request.pag_blocks)) if request.pag_blocks else None,
        "Truncate": "on" if request.truncate else None,
        "Bins": None if request.bins else "off",
    }
    return {name: str(value) for name, value in pairs.items() if value is not None}


def _quote(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r'[,:"\n]', value) else value


def _unquote(value: str) -> str:
    value = value.strip()
    try:
        return str(parse_json(value)) if value.startswith('"') else value
    except ValueError:
        return value


def _number(pairs: dict[str, str], name: str) -> float | None:
    text = pairs.pop(name, None)
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        raise RequestError(f"{name} in the parameters text is not a number: {quoted(text)}.") from None


def _whole(pairs: dict[str, str], name: str) -> int | None:
    text = pairs.pop(name, None)
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,20}", text):
        raise RequestError(f"{name} in the parameters text is not a whole number: {quoted(text)}.")
    return int(text)


def _split_size(text: str | None) -> tuple[int | None, int | None]:
    if text is None:
        return None, None
    match = re.fullmatch(r"([0-9]{1,6})x([0-9]{1,6})", text)
    if not match:
        raise RequestError(f"Size in the parameters text must look like 512x512, not {quoted(text)}.")
    return int(match[1]), int(match[2])


def _interval(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split())
    except ValueError:
        raise RequestError(
            f"CFG interval in the parameters text must look like '0.1 0.9', not {quoted(text)}."
        ) from None
    return low, high


def _blocks(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,6}( [0-9]{1,6})*", text):
        raise RequestError(f"PAG blocks in the parameters text must be numbers, not {quoted(text)}.")
    return tuple(int(part) for part in text.split())
