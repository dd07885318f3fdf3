"""Sets of prompts to judge models by, in the file formats of GenEval, DPG-Bench and MJHQ, or of one's own.

GenEval (arXiv 2310.11513)    evaluation_metadata.jsonl: {"tag": "two_object", "include": [...], "prompt": "..."} a line
DPG-Bench (arXiv 2403.05135)  a folder of .txt files, a prompt each, whose names are their keys
MJHQ-30K (arXiv 2402.17245)   meta_data.json: {"KEY": {"category": "animals", "prompt": "..."}, ...}
one's own                     a prompt a line, or {"prompt": "...", "category": "...", "key": "..."} a line
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sanakit.base.echo import quoted
from sanakit.base.errors import DataError
from sanakit.base.json_text import parse_json
from sanakit.batch.items import Item, is_key
from sanakit.evaluation.geneval import Asked, read_asked
from sanakit.pipeline.request import ImageRequest

_MOST_BYTES = 256 << 20


@dataclass(frozen=True, kw_only=True)
class SuitePrompt:
    """A prompt of a suite. key: the name of its pictures. category: "" if there are none. asked: GenEval's objects."""

    key: str
    prompt: str
    category: str = ""
    asked: Asked | None = None


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Prompts of one file or folder. format: "geneval", "dpg", "mjhq" or "prompts". sha256: of keys and prompts."""

    name: str
    format: str
    prompts: tuple[SuitePrompt, ...]

    @property
    def sha256(self) -> str:
        """A hash of the prompts: two evaluations with the same one asked the same."""
        rows = "\n".join(f"{one.key}\t{one.category}\t{one.prompt}" for one in self.prompts)
        return hashlib.sha256(rows.encode("utf-8", "surrogatepass")).hexdigest()

    def items(self, per_prompt: int, seed: int, fields: Mapping[str, Any]) -> list[Item]:
        """Return the pictures to draw: `per_prompt` of each, with seeds from `seed` on. Raises RequestError."""
        found = []
        for one in self.prompts:
            request = ImageRequest(**{**fields, "prompt": one.prompt, "seed": seed, "count": per_prompt})
            found += [
                Item(key=picture_key(one.key, k, per_prompt), request=request.picture(k))
                for k in range(per_prompt)
            ]
        return found


def picture_key(key: str, index: int, per_prompt: int) -> str:
    """Return the key of picture `index` of a prompt."""
    return key if per_prompt == 1 else f"{key}-{index}"


def read_suite(path: Path) -> Suite:
    """Read a suite. Raises DataError for a file that is none, a key that comes twice or can't be the name of a file."""
    format, rows = _rows(path)
    prompts: dict[str, SuitePrompt] = {}
    for row in rows:
        if not is_key(row.key):
            raise DataError(f"{path}: {quoted(row.key)} can't be the name of a picture")
        if row.key in prompts:
            raise DataError(f"{path}: the key {quoted(row.key)} comes twice")
        prompts[row.key] = row
    if not prompts:
        raise DataError(f"{path} holds no prompt")
    return Suite(name=path.stem, format=format, prompts=tuple(prompts.values()))


def _rows(path: Path) -> tuple[str, Iterator[SuitePrompt]]:
    if path.is_dir():
        return "dpg", _of_folder(path)
    text = _read(path)
    if path.suffix == ".json":
        return "mjhq", _of_table(path, text)
    lines = [line.strip() for line in re.split(r"\r\n|\r|\n", text)]  # splitlines cuts inside of prompts, too
    first = next((line for line in lines if line), "")
    return "geneval" if first.startswith("{") and '"tag"' in first else "prompts", _of_lines(path, lines)


def _of_folder(path: Path) -> Iterator[SuitePrompt]:
    for file in sorted(path.glob("*.txt")):
        yield SuitePrompt(key=file.stem, prompt=" ".join(_read(file).split()))


def _of_table(path: Path, text: str) -> Iterator[SuitePrompt]:
    table = _parse(path, text)
    for key, row in table.items():
        yield _prompt(path, key, row, "category")


def _of_lines(path: Path, lines: list[str]) -> Iterator[SuitePrompt]:
    for number, line in enumerate(lines):
        if not line:
            continue
        if not line.startswith("{"):
            yield SuitePrompt(key=f"{number:05d}", prompt=line)
            continue
        row = _parse(path, line)
        yield _prompt(path, str(row.get("key", f"{number:05d}")), row, "tag" if "tag" in row else "category")


def _prompt(path: Path, key: str, row: object, category: str) -> SuitePrompt:
    if not isinstance(row, Mapping) or not isinstance(row.get("prompt"), str):
        raise DataError(f"{path}: {quoted(key)} has no prompt")
    try:
        asked = read_asked(row) if category == "tag" else None
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return SuitePrompt(key=key, prompt=row["prompt"], category=str(row.get(category, "")), asked=asked)


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        found = parse_json(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise DataError(f"{path} holds something that isn't a JSON object: {quoted(text)}")
    return found


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{path} has more than {_MOST_BYTES >> 20} MiB")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise DataError(f"the suite {path} can't be read: {error.strerror or error}") from None
