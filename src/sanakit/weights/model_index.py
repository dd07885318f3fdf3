"""The two files at the root of a model folder: diffusers' `model_index.json`, and `sanakit.json` beside it.

The first names the pipeline and the classes of its components. The second, which diffusers ignores, holds what has no
place there: dialect, instruction, size bins, what a model says of itself, and angles of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from sanakit.base.bounds import MAX_ANGLE, falls, is_finite
from sanakit.base.dialect import DIFFUSERS, OFFICIAL, Dialect
from sanakit.base.echo import quoted
from sanakit.base.errors import ConfigError
from sanakit.base.sizes import BUCKETS
from sanakit.transformer import TransformerConfig
from sanakit.weights.formats import diffusers_autoencoder, diffusers_scheduler, diffusers_transformer
from sanakit.weights.formats.diffusers_scheduler import Schedule
from sanakit.weights.formats.fields import DIFFUSERS_VERSION, Fields, UnknownFields, known_fields

Kind = Literal["sana", "sprint"]

EXTRA_FILE = "sanakit.json"
PAG_PIPELINE = "SanaPAGPipeline"
PIPELINES: dict[str, Kind] = {
    "SanaPipeline": "sana",
    PAG_PIPELINE: "sana",
    "SanaSprintPipeline": "sprint",
    "SanaSprintImg2ImgPipeline": "sprint",
}
_PARTS = ("scheduler", "text_encoder", "tokenizer", "transformer", "vae")
INDEX_FILE = "model_index.json"
# Settings of pipelines that change nothing at these values.
_HARMLESS: dict[str, tuple[object, ...]] = {
    "is_distilled": (False,),
    "requires_safety_checker": (False, True),
}
_DIALECTS = {dialect.name: dialect for dialect in (DIFFUSERS, OFFICIAL)}
_EXTRA: dict[str, Any] = {
    "dialect": DIFFUSERS.name,
    "instruct": True,
    "bins": None,
    "about": None,
    "angles": [],
}


def pipeline_of(data: Mapping[str, Any], where: str) -> str:
    """Return the class of a model_index.json. Raises ConfigError for another class."""
    name = data.get("_class_name")
    if not isinstance(name, str) or name not in PIPELINES:
        raise ConfigError(
            f"{where}: _class_name is {quoted(name)}, but must be one of {', '.join(PIPELINES)}"
        )
    return name


def check_index(data: Mapping[str, Any], where: str, unknown: UnknownFields) -> None:
    """Raise ConfigError for components that are unknown here, and for anything but a library and a class."""
    # A pair of nulls is a component that the folder does without.
    plain = {key: None if value == [None, None] else value for key, value in data.items()}
    for part, value in known_fields(plain, _PARTS, where, unknown, _HARMLESS).items():
        pair = isinstance(value, list) and len(value) == 2 and all(isinstance(word, str) for word in value)
        if part in _PARTS and not pair and value is not None:
            raise ConfigError(f"{where}: {part} is {quoted(value)}, but must be a library and a class")


def read_extra(
    data: Mapping[str, Any], transformer: TransformerConfig, where: str
) -> tuple[Dialect, bool, bool]:
    """Dialect, instruct, bins; if bins is missing, sizes are binned if diffusers has a table."""
    fields = Fields(data, _EXTRA, where)
    dialect = _DIALECTS[str(fields.choice("dialect", _DIALECTS))]
    instruct = fields.flag("instruct")
    if fields.values["bins"] is None:
        return dialect, instruct, transformer.sample_size * 32 in BUCKETS
    return dialect, instruct, fields.flag("bins")


def read_angles(data: object, where: str) -> tuple[tuple[float, ...], ...]:
    """Read `angles` of sanakit.json: lists of falling angles in radians, each with its own number of steps.

    Raises ConfigError if it is something else.
    """
    rows: list[Any] = data if isinstance(data, list) else [None]
    good = all(
        isinstance(row, list) and row and all(map(is_finite, row)) and falls(row, MAX_ANGLE) for row in rows
    )
    if not good or len({len(row) for row in rows}) < len(rows):
        raise ConfigError(
            f"{where}: angles must be lists of falling numbers above 0 and at most {MAX_ANGLE}, of different lengths"
        )
    return tuple(tuple(float(angle) for angle in row) for row in rows)


def index_config(
    kind: Kind, schedule: Schedule, tokenizer: str | None = "GemmaTokenizer", pag: bool = False
) -> dict[str, Any]:
    """model_index.json for a kind of model, its scheduler and its tokenizer's class."""
    scheduler = next(name for name, known in diffusers_scheduler.CLASSES.items() if known == schedule.kind)
    return {
        "_class_name": "SanaSprintPipeline" if kind == "sprint" else PAG_PIPELINE if pag else "SanaPipeline",
        "_diffusers_version": DIFFUSERS_VERSION,
        "scheduler": ["diffusers", scheduler],
        "text_encoder": ["transformers", "Gemma2Model"],
        "tokenizer": ["transformers", tokenizer] if tokenizer else [None, None],
        "transformer": ["diffusers", diffusers_transformer.CLASS],
        "vae": ["diffusers", diffusers_autoencoder.CLASS],
    }
