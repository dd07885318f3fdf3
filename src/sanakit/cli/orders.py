"""From options to requests: prompts from the command line, a file or a picture, and what else was given."""

from __future__ import annotations

import codecs
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sanakit.base.errors import RequestError
from sanakit.cli.options import parse_blocks, parse_interval, parse_size
from sanakit.pipeline.output import Record
from sanakit.pipeline.request import ImageRequest
from sanakit.weights import Hints

_MAX_BYTES = 64 << 20
_MARKS = {  # the longer ones first: that of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@dataclass(frozen=True, kw_only=True)
class Orders:
    """The options of `sanakit generate` as they were given; None and {} where they were not."""

    prompt: str | None
    prompt_file: Path | None
    like: Path | None
    size: str | None
    cfg_interval: str | None
    pag_blocks: str | None
    fields: dict[str, Any]
    model: str | None
    parts: str | None
    variant: str | None
    ignored: tuple[str, ...]
    hints: Hints
    decoder: str | None
    device: str | None
    dtype: str | None
    fast: str | None
    threads: int | None
    out: Path | None
    grid: bool | None
    show_prompt: bool
    as_json: bool


def requests_of(orders: Orders, record: Record | None) -> list[ImageRequest]:
    """One request per prompt; with `--like` those of the picture, changed by what was given explicitly.

    Raises RequestError for anything a request refuses, for no prompt at all and for two sources of prompts.
    """
    given = {name: value for name, value in orders.fields.items() if value is not None}
    if orders.size is not None:
        given["width"], given["height"] = parse_size(orders.size)
    if orders.cfg_interval is not None:
        given["cfg_interval"] = parse_interval(orders.cfg_interval)
    if orders.pag_blocks is not None:
        given["pag_blocks"] = parse_blocks(orders.pag_blocks)
    prompts = _prompts(orders)
    if record is None:
        if not prompts:
            raise RequestError("say what to draw: give a PROMPT, --prompt-file or --like.")
        return [ImageRequest(prompt=prompt, **given) for prompt in prompts]
    if prompts:
        return [record.request.replace(prompt=prompt, **given) for prompt in prompts]
    return [request.replace(**given) for request in (record.request, *record.others)]


def _prompts(orders: Orders) -> list[str]:
    if orders.prompt_file is None:
        return [] if orders.prompt is None else [orders.prompt]
    if orders.prompt is not None:
        raise RequestError("give a PROMPT or --prompt-file, not both.")
    # Only line breaks of files part prompts: str.splitlines would cut at U+2028 and form feeds inside a prompt, too.
    lines = [line.strip() for line in re.split(r"\r\n|\r|\n", _read(orders.prompt_file))]
    if not any(lines):
        raise RequestError(f"{orders.prompt_file} holds no prompt.")
    return [line for line in lines if line]


def _read(path: Path) -> str:
    """The text of a prompt file: UTF-8, or what its byte-order mark says. Raises RequestError."""
    try:
        if str(path) == "-":
            content = sys.stdin.buffer.read(_MAX_BYTES + 1) if sys.stdin is not None else b""
        else:
            with path.open("rb") as file:
                content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise RequestError(f"the prompt file {path} cannot be read: {error.strerror or error}.") from None
    if len(content) > _MAX_BYTES:
        raise RequestError(f"the prompt file {path} holds more than {_MAX_BYTES >> 20} MiB.")
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        raise RequestError(f"the prompt file {path} is not UTF-8 text.") from None
    if "\0" in text:
        raise RequestError(f"the prompt file {path} is not UTF-8 text: it holds zero bytes.")
    return text
