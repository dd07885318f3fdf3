"""The description of a model folder, read from its configuration files alone: no weights are opened.

The folder is diffusers' (`model_index.json` and one folder per component). What has no place there is in an optional
`sanakit.json` beside it: dialect, instruction, size bins, and what a model says of itself. diffusers ignores it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from sanakit.autoencoder import AutoencoderConfig
from sanakit.base.dialect import DIFFUSERS, OFFICIAL, Dialect
from sanakit.base.echo import quoted
from sanakit.base.errors import ConfigError, RequestError
from sanakit.base.sizes import BUCKETS
from sanakit.transformer import TransformerConfig
from sanakit.weights.about import About, read_about
from sanakit.weights.checkpoint import Part, open_checkpoint
from sanakit.weights.description import Description
from sanakit.weights.formats import diffusers_autoencoder, diffusers_scheduler, diffusers_transformer, gemma
from sanakit.weights.formats.diffusers_scheduler import Schedule
from sanakit.weights.formats.fields import (
    DIFFUSERS_VERSION,
    STRICT,
    Fields,
    Reading,
    known_fields,
    read_json,
)
from sanakit.weights.formats.registry import Network, config_format
from sanakit.weights.identify import Hints, describe_file
from sanakit.weights.tensor_files import STEMS, missing_variant

Kind = Literal["sana", "sprint"]
T = TypeVar("T")

EXTRA_FILE = "sanakit.json"
_PAG = "SanaPAGPipeline"
_PIPELINES: dict[str, Kind] = {
    "SanaPipeline": "sana",
    _PAG: "sana",
    "SanaSprintPipeline": "sprint",
    "SanaSprintImg2ImgPipeline": "sprint",
}
_PARTS = ("scheduler", "text_encoder", "tokenizer", "transformer", "vae")
_INDEX = "model_index.json"
_CONFIGS = (
    "transformer/config.json",
    "vae/config.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
)
# Settings of pipelines that change nothing at these values.
_HARMLESS: dict[str, tuple[object, ...]] = {
    "is_distilled": (False,),
    "requires_safety_checker": (False, True),
}
_DIALECTS = {dialect.name: dialect for dialect in (DIFFUSERS, OFFICIAL)}
_EXTRA: dict[str, Any] = {"dialect": DIFFUSERS.name, "instruct": True, "bins": None, "about": None}


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A model on disk.

    folder: holds the components; transformer_source: the transformer's folder, or the file of weights used instead;
    weights: which part of that file, see `open_checkpoint`.
    kind: "sana" (sampled by a flow solver) or "sprint" (by the consistency sampler, guidance as an input).
    instruct: prompts are preceded by the instruction the checkpoint was trained with. bins: sizes are rounded to the
    trained aspect ratios. pag: the folder is one for perturbed attention guidance. text_config: the text encoder's
    config.json as it is. variant: which weights of each component, None for the plain ones or the only ones.
    notes: sentences about ignored fields of the configuration, components without the variant, and assumptions
    about a file of weights.
    about: what the model says of itself.
    other_autoencoder, other_text, other_tokenizer: folders of components in the place of those in `folder`
    (`weights.parts`).
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
    pag: bool = False
    variant: str | None = None
    notes: tuple[str, ...] = field(default=(), compare=False)
    text_config: dict[str, Any] = field(hash=False)
    weights: Part | None = None
    about: About | None = None
    other_autoencoder: Path | None = None
    other_text: Path | None = None
    other_tokenizer: Path | None = None

    def __post_init__(self) -> None:
        _check_agreement(self)

    @property
    def autoencoder_folder(self) -> Path:
        """vae/, or the folder in its place."""
        return self.other_autoencoder or self.folder / "vae"

    @property
    def text_folder(self) -> Path:
        """text_encoder/, or the folder in its place."""
        return self.other_text or self.folder / "text_encoder"

    @property
    def tokenizer_folder(self) -> Path:
        """tokenizer/, or the folder in its place."""
        return self.other_tokenizer or self.folder / "tokenizer"


def read_model_spec(
    path: Path,
    *,
    parts: Path | None = None,
    hints: Hints | None = None,
    cross_heads: int | None = None,
    variant: str | None = None,
    ignore: Collection[str] = (),
) -> ModelSpec:
    """Describe a diffusers folder, or a file of a transformer's weights with the other components from `parts`.

    hints: what the user says about such a file, see `describe_file`. variant: which weights of a folder, such as fp16.
    ignore: fields of configuration files to read as if they were not there. Raises ConfigError for missing, malformed
    or contradictory configuration files, and for a field in `ignore` that no file has; WeightsError for an unreadable
    file, and if no component has the variant; RequestError for hints about a folder.
    """
    hints = hints or Hints(cross_heads=cross_heads)
    if path.is_dir():
        if hints.given:
            raise RequestError(f"{path} is a folder, which says itself what it holds: leave --config, --like-model "
                               "and --weights out")  # fmt: skip
        return _read_folder(path, variant, frozenset(ignore))
    if not path.is_file():
        raise ConfigError(f"{path} isn't a model folder, a .pth or another file of weights")
    if parts is None:
        raise ConfigError(
            f"{path} holds a transformer only: give a whole model for the rest (--parts NAME), or make one of it by "
            f"sanakit convert {path.name} FOLDER --parts NAME"
        )
    return _read_file(path, _read_folder(parts, variant, frozenset(ignore)), hints)


def describe_folder(folder: Path, reading: Reading = STRICT) -> Description:
    """The description of the transformer in a model's folder. Raises ConfigError."""
    found = _read_folder(folder, None, reading.ignore)
    for note in found.notes:
        reading.note(note)
    return Description(
        transformer=found.transformer, source=str(folder), schedule=found.schedule, dialect=found.dialect,
        instruct=found.instruct, bins=found.bins,
    )  # fmt: skip


def _read_folder(folder: Path, variant: str | None, ignore: frozenset[str]) -> ModelSpec:
    notes: list[str] = []
    reading = Reading(ignore=ignore, note=notes.append)
    index = read_json(folder / _INDEX)
    name = _pipeline_of(index, f"{folder}/{_INDEX}")
    files = {_INDEX: index} | {file: read_json(folder / file) for file in _CONFIGS}
    _check_ignored(ignore, files, folder)
    _check_index(index, f"{folder}/{_INDEX}", reading)

    def read(parse: Callable[[Mapping[str, Any], str, Reading], T], file: str) -> T:
        return parse(files[file], f"{folder}/{file}", reading)

    def read_network(network: Network, file: str) -> Any:
        return read(config_format(files[file], network).read_config, file)

    transformer: TransformerConfig = read_network("transformer", "transformer/config.json")
    autoencoder: AutoencoderConfig = read_network("autoencoder", "vae/config.json")
    schedule = read(diffusers_scheduler.from_config, "scheduler/scheduler_config.json")
    text_config = read(gemma.from_config, "text_encoder/config.json")
    extra = folder / EXTRA_FILE
    settings = read_json(extra) if extra.exists() else {}
    dialect, instruct, bins = _read_extra(settings, transformer, str(extra))
    missing_variant({folder / part: stem for part, stem in STEMS.items()}, variant, notes.append)
    return ModelSpec(
        folder=folder,
        transformer_source=folder / "transformer",
        kind=_PIPELINES[name],
        transformer=transformer.with_dialect(dialect),
        autoencoder=autoencoder,
        schedule=schedule,
        dialect=dialect,
        instruct=instruct,
        bins=bins,
        pag=name == _PAG,
        variant=variant,
        notes=tuple(notes),
        text_config=text_config,
        about=read_about(settings.get("about"), str(extra)),
    )


def _check_ignored(ignore: frozenset[str], files: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    absent = sorted(name for name in ignore if not any(name in data for data in files.values()))
    if absent:
        raise ConfigError(
            f"{quoted(absent[0])} is to be ignored, but no configuration file in {folder} has such a field"
        )


def _pipeline_of(data: Mapping[str, Any], where: str) -> str:
    """The class of a model_index.json. Raises ConfigError for another class."""
    name = data.get("_class_name")
    if not isinstance(name, str) or name not in _PIPELINES:
        raise ConfigError(
            f"{where}: _class_name is {quoted(name)}, but must be one of {', '.join(_PIPELINES)}"
        )
    return name


def _check_index(data: Mapping[str, Any], where: str, reading: Reading) -> None:
    """Raises ConfigError for components that are unknown here, and for anything but a library and a class."""
    # A pair of nulls is a component that the folder does without.
    plain = {key: None if value == [None, None] else value for key, value in data.items()}
    for part, value in known_fields(plain, _PARTS, where, reading, _HARMLESS).items():
        pair = isinstance(value, list) and len(value) == 2 and all(isinstance(word, str) for word in value)
        if part in _PARTS and not pair and value is not None:
            raise ConfigError(f"{where}: {part} is {quoted(value)}, but must be a library and a class")


def read_autoencoder_config(folder: Path) -> AutoencoderConfig:
    """The configuration of a diffusers `AutoencoderDC` folder. Raises ConfigError."""
    path = folder / "config.json"
    return diffusers_autoencoder.from_config(read_json(path), str(path))


def _read_extra(
    data: Mapping[str, Any], transformer: TransformerConfig, where: str
) -> tuple[Dialect, bool, bool]:
    """Dialect, instruct, bins; if bins is missing, sizes are binned if diffusers has a table."""
    fields = Fields(data, _EXTRA, where)
    dialect = _DIALECTS[str(fields.choice("dialect", _DIALECTS))]
    instruct = fields.flag("instruct")
    if fields.values["bins"] is None:
        return dialect, instruct, transformer.sample_size * 32 in BUCKETS
    return dialect, instruct, fields.flag("bins")


def _read_file(path: Path, parts: ModelSpec, hints: Hints) -> ModelSpec:
    opened = open_checkpoint(path, hints.weights)
    found, notes = describe_file(path, opened.shapes, hints, describe_folder)
    schedule = found.schedule
    if schedule is None:
        schedule = parts.schedule
        notes += (
            f"nothing says the schedule of {path}: that of {parts.folder} is used (shift {schedule.shift:g}).",
        )
    transformer = found.transformer
    return ModelSpec(
        folder=parts.folder,
        transformer_source=path,
        kind="sprint" if transformer.guidance_embed else "sana",
        transformer=transformer,
        autoencoder=parts.autoencoder,
        schedule=schedule,
        dialect=found.dialect,
        instruct=parts.instruct if found.instruct is None else found.instruct,
        bins=transformer.sample_size * 32 in BUCKETS if found.bins is None else found.bins,
        variant=parts.variant,
        text_config=parts.text_config,
        about=parts.about,
        weights=hints.weights,
        notes=(*parts.notes, *opened.notes, *notes),
    )


def _check_agreement(found: ModelSpec) -> None:
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
    elif found.kind == "sprint" and transformer.time_scale != 1:  # its sampler gives the noise level as it is
        scale = transformer.time_scale
        problem = f"a sprint pipeline has a transformer with timestep_scale {scale:g}, but only 1 is obeyed"
    if problem:
        raise ConfigError(f"{found.folder} contradicts itself: {problem}")


def index_config(
    kind: Kind, schedule: Schedule, tokenizer: str | None = "GemmaTokenizer", pag: bool = False
) -> dict[str, Any]:
    """model_index.json for a kind of model, its scheduler and its tokenizer's class."""
    scheduler = next(name for name, known in diffusers_scheduler.CLASSES.items() if known == schedule.kind)
    return {
        "_class_name": "SanaSprintPipeline" if kind == "sprint" else _PAG if pag else "SanaPipeline",
        "_diffusers_version": DIFFUSERS_VERSION,
        "scheduler": ["diffusers", scheduler],
        "text_encoder": ["transformers", "Gemma2Model"],
        "tokenizer": ["transformers", tokenizer] if tokenizer else [None, None],
        "transformer": ["diffusers", diffusers_transformer.CLASS],
        "vae": ["diffusers", diffusers_autoencoder.CLASS],
    }


def extra_config(spec: ModelSpec) -> dict[str, Any] | None:
    """sanakit.json, or None if every value is the default of a folder without it."""
    values: dict[str, Any] = {"dialect": spec.dialect.name, "instruct": spec.instruct, "bins": spec.bins}
    if spec.about is not None:
        return values | {"about": spec.about.to_json()}
    default = _read_extra({}, spec.transformer, EXTRA_FILE)
    return None if (spec.dialect, spec.instruct, spec.bins) == default else values
