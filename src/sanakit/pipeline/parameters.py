"""The `parameters` text that picture viewers of the A1111 tradition show, written and read.

Three parts: the prompt (any number of lines), an optional line `Negative prompt: ...`, and one last line
`Steps: 20, Sampler: dpm2, CFG scale: 4.5, Seed: 1, Size: 512x512, ...`. Values with a comma, a colon, a quote or a
line break are written as JSON strings, as that tradition does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from sanakit.base.errors import RequestError
from sanakit.pipeline.request import ImageRequest

_NEGATIVE = "Negative prompt: "
_PAIR = re.compile(r'\s*([A-Za-z][\w \-/]*?):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')


def write_parameters(request: ImageRequest, extra: Mapping[str, str] | None = None) -> str:
    """`request` as `parameters` text; `extra` adds pairs such as the model's name after the known ones."""
    lines = [request.prompt]
    if request.negative:
        lines.append(_NEGATIVE + request.negative)
    pairs = _pairs(request) | dict(extra or {})
    lines.append(", ".join(f"{name}: {_quote(value)}" for name, value in pairs.items()))
    return "\n".join(lines)


def read_parameters(text: str) -> tuple[ImageRequest, dict[str, str]]:
    """The request in a `parameters` text and the pairs that are no part of it; raises `RequestError`.

    Also understands text written by other programs, as far as its sampler is one that sanakit knows.
    """
    head, _, tail = text.rpartition("\n")
    pairs = {name: _unquote(value) for name, value in _PAIR.findall(tail)}
    if "Steps" not in pairs:
        raise RequestError("the parameters text has no line that begins with Steps.")
    prompt, mark, negative = head.rpartition("\n" + _NEGATIVE)
    if not mark:
        prompt, negative = head, ""
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
    )
    return request, pairs


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
    }
    return {name: str(value) for name, value in pairs.items() if value is not None}


def _quote(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r'[,:"\n]', value) else value


def _unquote(value: str) -> str:
    value = value.strip()
    try:
        return str(json.loads(value)) if value.startswith('"') else value
    except ValueError:
        return value


def _number(pairs: dict[str, str], name: str) -> float | None:
    text = pairs.pop(name, None)
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        raise RequestError(f"{name} in the parameters text is not a number: {text!r}.") from None


def _whole(pairs: dict[str, str], name: str) -> int | None:
    text = pairs.pop(name, None)
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,20}", text):
        raise RequestError(f"{name} in the parameters text is not a whole number: {text!r}.")
    return int(text)


def _split_size(text: str | None) -> tuple[int | None, int | None]:
    if text is None:
        return None, None
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text)
    if not match:
        raise RequestError(f"Size in the parameters text must look like 512x512, not {text!r}.")
    return int(match[1]), int(match[2])


def _interval(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split())
    except ValueError:
        raise RequestError(
            f"CFG interval in the parameters text must look like '0.1 0.9', not {text!r}."
        ) from None
    return low, high


def _blocks(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,6}( \d{1,6})*", text):
        raise RequestError(f"PAG blocks in the parameters text must be numbers, not {text!r}.")
    return tuple(int(part) for part in text.split())
