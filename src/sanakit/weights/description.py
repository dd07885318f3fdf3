"""What a file of weights doesn't say about its network, as `x.json` beside `x.pth`.

A file holds tensors. Heads, positions, the training size, the scale of time, the schedule and the dialect leave no
trace in them: `x.json` states them, and is written whenever sanakit writes such a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sanakit.autoencoder import AutoencoderConfig
from sanakit.base.dialect import DIFFUSERS, OFFICIAL, Dialect
from sanakit.base.errors import ConfigError, WeightsError
from sanakit.transformer import TransformerConfig
from sanakit.weights.formats import (
    diffusers_autoencoder,
    diffusers_scheduler,
    diffusers_transformer,
    sana_pth,
)
from sanakit.weights.formats.diffusers_scheduler import Schedule
from sanakit.weights.formats.fields import Fields, read_json, to_json

DESCRIPTION_CLASS = "SanakitCheckpoint"
_DIALECTS = {dialect.name: dialect for dialect in (DIFFUSERS, OFFICIAL)}
_FIELDS: dict[str, Any] = {
    "transformer": None,
    "scheduler": None,
    "dialect": OFFICIAL.name,
    "instruct": True,
    "bins": None,
}


@dataclass(frozen=True, kw_only=True)
class Description:
    """A network without its weights. schedule: None if unknown. bins: None to follow the size.

    source: where it comes from, in words.
    """

    transformer: TransformerConfig
    source: str
    schedule: Schedule | None = None
    dialect: Dialect = OFFICIAL
    instruct: bool | None = None
    bins: bool | None = None


def description_file(path: Path) -> Path:
    """`x.json`, beside the file of weights `x.pth`."""
    return path.with_suffix(".json")


def read_description(path: Path) -> Description:
    """Read `x.json` as sanakit writes it, or the config.json of a diffusers transformer (or its folder).

    Raises ConfigError, naming the file and the field.
    """
    file = path / "config.json" if path.is_dir() else path
    data = read_json(file)
    where = str(file)
    if data.get("_class_name") != DESCRIPTION_CLASS:
        if "num_attention_heads" not in data and data.get("_class_name") != diffusers_transformer.CLASS:
            raise ConfigError(
                f"{where} does not describe a transformer: give the config.json of a diffusers transformer, "
                "or a file that sanakit convert wrote"
            )
        return Description(
            transformer=diffusers_transformer.from_config(data, where).with_dialect(OFFICIAL), source=where
        )
    fields = Fields(data, _FIELDS, where)
    dialect = _DIALECTS[str(fields.choice("dialect", _DIALECTS))]
    transformer = diffusers_transformer.from_config(_object(fields, "transformer"), f"{where}: transformer")
    schedule = None
    if fields.values["scheduler"] is not None:
        schedule = diffusers_scheduler.from_config(_object(fields, "scheduler"), f"{where}: scheduler")
    return Description(
        transformer=transformer.with_dialect(dialect),
        source=where,
        schedule=schedule,
        dialect=dialect,
        instruct=fields.flag("instruct"),
        bins=None if fields.values["bins"] is None else fields.flag("bins"),
    )


def _object(fields: Fields, name: str) -> Mapping[str, Any]:
    value = fields.values[name]
    if not isinstance(value, dict):
        raise fields.fail(name, "but must be a JSON object")
    return value


def description_json(description: Description) -> bytes:
    """Return the content of `x.json` for a transformer."""
    schedule = description.schedule
    values = {
        "_class_name": DESCRIPTION_CLASS,
        "bins": description.bins,
        "dialect": description.dialect.name,
        "instruct": True if description.instruct is None else description.instruct,
        "scheduler": None if schedule is None else diffusers_scheduler.to_config(schedule),
        "transformer": diffusers_transformer.to_config(description.transformer),
    }
    return to_json(values)


def read_autoencoder_description(path: Path) -> AutoencoderConfig:
    """Read the config.json of an `AutoencoderDC` (or its folder), or `x.json` as sanakit writes it."""
    file = path / "config.json" if path.is_dir() else path
    data = read_json(file)
    if data.get("_class_name") == DESCRIPTION_CLASS:
        inner = Fields(data, {"autoencoder": None}, str(file)).values["autoencoder"]
        if not isinstance(inner, dict):
            raise WeightsError(f"{file} does not describe an autoencoder")
        data = inner
    return diffusers_autoencoder.from_config(data, str(file))


def autoencoder_description_json(config: AutoencoderConfig) -> bytes:
    """Return the content of `x.json` for an autoencoder."""
    return to_json({"_class_name": DESCRIPTION_CLASS, "autoencoder": diffusers_autoencoder.to_config(config)})


def check_fit(description: Description, facts: sana_pth.TensorFacts, where: str) -> Description:
    """Return the description. Raises ConfigError, naming what differs, if the tensors contradict it."""
    config = description.transformer
    wrong = [
        f"{name} {getattr(config, name)} where the tensors have {value}"
        for name, value in facts.values.items()
        if getattr(config, name) != value
    ]
    if int(config.ffn_ratio * config.width) != facts.hidden and not wrong:
        wrong.append(f"ffn_ratio {config.ffn_ratio:g} where the tensors have {facts.hidden / config.width:g}")
    if facts.side not in (None, config.sample_size):
        wrong.append(f"sample_size {config.sample_size} where pos_embed has {facts.side}")
    if wrong:
        raise ConfigError(f"{description.source} does not describe {where}: it has {', '.join(wrong[:3])}")
    return description
