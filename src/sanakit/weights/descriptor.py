"""What a model folder holds, read from its configuration files alone: no weights are opened.

The folder is diffusers' (`model_index.json` and one folder per component). Three facts about a checkpoint have no
place there and lie in an optional `sanakit.json` beside it: dialect, instruction, size bins. diffusers ignores it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from sanakit.autoencoder import AutoencoderConfig
from sanakit.base.dialect import DIFFUSERS, OFFICIAL, Dialect
from sanakit.base.errors import ConfigError
from sanakit.base.grid import BUCKETS
from sanakit.transformer import TransformerConfig
from sanakit.weights.formats import (
    diffusers_autoencoder,
    diffusers_scheduler,
    diffusers_transformer,
    sana_pth,
)
from sanakit.weights.formats.diffusers_scheduler import Schedule
from sanakit.weights.formats.fields import DIFFUSERS_VERSION, Fields, read_json
from sanakit.weights.read import read_pth

__all__ = [
    "EXTRA_FILE",
    "Descriptor",
    "extra_config",
    "index_config",
    "read_autoencoder_config",
    "read_descriptor",
]

Kind = Literal["sana", "sprint"]
T = TypeVar("T")

EXTRA_FILE = "sanakit.json"
_PIPELINES: dict[str, Kind] = {
    "SanaPipeline": "sana",
    "SanaPAGPipeline": "sana",
    "SanaSprintPipeline": "sprint",
    "SanaSprintImg2ImgPipeline": "sprint",
}
_DIALECTS = {dialect.name: dialect for dialect in (DIFFUSERS, OFFICIAL)}
_EXTRA: dict[str, Any] = {"dialect": DIFFUSERS.name, "instruct": True, "bins": None}


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """A model on disk.

    folder: holds the components; transformer_source: the transformer's folder, or the `.pth` used instead.
    kind: "sana" (sampled by a flow solver) or "sprint" (by the consistency sampler, guidance as an input).
    instruct: prompts are preceded by the instruction the checkpoint was trained with. bins: sizes are rounded to the
    trained aspect ratios. text_config: the text encoder's config.json as it is.
    """

    folder: Path
    transformer_source: Path
    kind: Kind
    transformer: TransformerConfig
    autoencoder: AutoencoderConfig
    schedule: Schedule
    dialect: Dialect = DIFFUSERS
    instruct: bool = True
    bins: bool = True
    text_config: dict[str, Any] = field(hash=False)

    def __post_init__(self) -> None:
        _check_agreement(self)

    @property
    def autoencoder_folder(self) -> Path:
        """vae/."""
        return self.folder / "vae"

    @property
    def text_folder(self) -> Path:
        """text_encoder/."""
        return self.folder / "text_encoder"

    @property
    def tokenizer_folder(self) -> Path:
        """tokenizer/."""
        return self.folder / "tokenizer"


def read_descriptor(path: Path, *, parts: Path | None = None, cross_heads: int | None = None) -> Descriptor:
    """Describe a diffusers folder, or an official `.pth` with the other components from the folder `parts`.

    A `.pth` gives the official dialect, and `cross_heads` where its width does not tell. Raises ConfigError for
    missing, malformed or contradictory configuration files, WeightsError for an unreadable `.pth`.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise ConfigError(f"{path} is no model folder and no .pth file")
    if parts is None:
        raise ConfigError(
            f"{path} holds a transformer only: give the folder of a whole model as parts, or convert it"
        )
    return _read_pth(path, _read_folder(parts), cross_heads)


def _read_folder(folder: Path) -> Descriptor:
    index = read_json(folder / "model_index.json")
    name = index.get("_class_name")
    if not isinstance(name, str) or name not in _PIPELINES:
        raise ConfigError(
            f"{folder}/model_index.json: _class_name is {str(name)[:80]!r}, but must be one of {', '.join(_PIPELINES)}"
        )
    transformer = _read(diffusers_transformer.from_config, folder / "transformer/config.json")
    autoencoder = _read(diffusers_autoencoder.from_config, folder / "vae/config.json")
    schedule = _read(diffusers_scheduler.from_config, folder / "scheduler/scheduler_config.json")
    extra = folder / EXTRA_FILE
    dialect, instruct, bins = _read_extra(read_json(extra) if extra.exists() else {}, transformer, str(extra))
    return Descriptor(
        folder=folder,
        transformer_source=folder / "transformer",
        kind=_PIPELINES[name],
        transformer=transformer.with_dialect(dialect),
        autoencoder=autoencoder,
        schedule=schedule,
        dialect=dialect,
        instruct=instruct,
        bins=bins,
        text_config=read_json(folder / "text_encoder/config.json"),
    )


def read_autoencoder_config(folder: Path) -> AutoencoderConfig:
    """The configuration of a diffusers `AutoencoderDC` folder. Raises ConfigError."""
    return _read(diffusers_autoencoder.from_config, folder / "config.json")


def _read(parse: Callable[[Mapping[str, Any], str], T], path: Path) -> T:
    return parse(read_json(path), str(path))


def _read_extra(
    data: Mapping[str, Any], transformer: TransformerConfig, where: str
) -> tuple[Dialect, bool, bool]:
    """Dialect, instruct, bins; without a word about bins, sizes are binned where diffusers has a table."""
    fields = Fields(data, _EXTRA, where)
    dialect = _DIALECTS[str(fields.choice("dialect", _DIALECTS))]
    instruct = fields.flag("instruct")
    if fields.values["bins"] is None:
        return dialect, instruct, transformer.sample_size * 32 in BUCKETS
    return dialect, instruct, fields.flag("bins")


def _read_pth(path: Path, parts: Descriptor, cross_heads: int | None) -> Descriptor:
    shapes = {key: tuple(tensor.shape) for key, tensor in read_pth(path).items()}
    transformer = sana_pth.infer_config(shapes, cross_heads=cross_heads, where=str(path))
    return Descriptor(
        folder=parts.folder,
        transformer_source=path,
        kind="sprint" if transformer.guidance_embed else "sana",
        transformer=transformer,
        autoencoder=parts.autoencoder,
        schedule=parts.schedule,
        dialect=OFFICIAL,
        instruct=parts.instruct,
        bins=transformer.sample_size * 32 in BUCKETS,
        text_config=parts.text_config,
    )


def _check_agreement(found: Descriptor) -> None:
    """Raises ConfigError when components contradict each other."""
    transformer, width = found.transformer, found.text_config.get("hidden_size")
    problem = None
    if transformer.latent_channels != found.autoencoder.latent_channels:
        channels = found.autoencoder.latent_channels
        problem = f"the transformer has {transformer.latent_channels} latent channels and the autoencoder {channels}"
    elif width != transformer.text_width:
        problem = f"the text encoder is {width} wide and the transformer expects {transformer.text_width}"
    elif (found.kind == "sprint") != transformer.guidance_embed:
        problem = (
            f"a {found.kind} pipeline has a transformer with guidance_embeds {transformer.guidance_embed}"
        )
    elif (found.kind == "sprint") != (found.schedule.kind == "scm"):
        problem = f"a {found.kind} pipeline has a scheduler of kind {found.schedule.kind}"
    if problem:
        raise ConfigError(f"{found.folder} contradicts itself: {problem}")


def index_config(kind: Kind, schedule: Schedule, tokenizer: str | None = "GemmaTokenizer") -> dict[str, Any]:
    """model_index.json for a kind of model, its scheduler and its tokenizer's class."""
    scheduler = next(name for name, known in diffusers_scheduler.CLASSES.items() if known == schedule.kind)
    return {
        "_class_name": "SanaSprintPipeline" if kind == "sprint" else "SanaPipeline",
        "_diffusers_version": DIFFUSERS_VERSION,
        "scheduler": ["diffusers", scheduler],
        "text_encoder": ["transformers", "Gemma2Model"],
        "tokenizer": ["transformers", tokenizer] if tokenizer else [None, None],
        "transformer": ["diffusers", diffusers_transformer.CLASS],
        "vae": ["diffusers", diffusers_autoencoder.CLASS],
    }


def extra_config(descriptor: Descriptor) -> dict[str, Any] | None:
    """sanakit.json, or None when every value is what a folder without it means."""
    values = {"dialect": descriptor.dialect.name, "instruct": descriptor.instruct, "bins": descriptor.bins}
    default = _read_extra({}, descriptor.transformer, EXTRA_FILE)
    return None if (descriptor.dialect, descriptor.instruct, descriptor.bins) == default else values
