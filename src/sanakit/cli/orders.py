"""From options to requests: prompts from the command line, a file or a picture, and what else was given."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sanakit.base.errors import RequestError
from sanakit.cli.options import parse_interval, parse_size
from sanakit.pipeline.output import Record
from sanakit.pipeline.request import ImageRequest


@dataclass(frozen=True, kw_only=True)
class Orders:
    """The options of `sanakit generate` as they were given; None and {} where they were not."""

    prompt: str | None
    prompt_file: Path | None
    like: Path | None
    size: str | None
    cfg_interval: str | None
    fields: dict[str, Any]
    model: str | None
    parts: str | None
    device: str | None
    dtype: str | None
    fast: str | None
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
    lines = [line.strip() for line in _read(orders.prompt_file).splitlines()]
    if not any(lines):
        raise RequestError(f"{orders.prompt_file} holds no prompt.")
    return [line for line in lines if line]


def _read(path: Path) -> str:
    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise RequestError(f"the prompt file {path} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise RequestError(f"the prompt file {path} is not UTF-8 text.") from None
