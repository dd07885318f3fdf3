"""The description of a model folder, read from its configuration files alone: no weights are opened.

The folder is diffusers': one folder per component, and at its root the files of `model_index.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from sanakit.autoencoder import AutoencoderConfig
from sanakit.base.dialect import DIFFUSERS, Dialect
from sanakit.base.echo import quoted
from sanakit.base.errors import ConfigError, RequestError
from sanakit.base.sizes import BUCKETS
from sanakit.transformer import TransformerConfig
from sanakit.weights.about import About, read_about
from sanakit.weights.checkpoint import Part, open_checkpoint
from sanakit.weights.description import Description
from sanakit.weights.formats import diffusers_autoencoder, diffusers_scheduler, gemma
from sanakit.weights.formats.diffusers_scheduler import Schedule
from sanakit.weights.formats.fields import STRICT, UnknownFields, read_json
from sanakit.weights.formats.registry import Network, config_format
from sanakit.weights.identify import Hints, describe_file
from sanakit.weights.model_index import (
    EXTRA_FILE,
    INDEX_FILE,
    PAG_PIPELINE,
    PIPELINES,
    Kind,
    check_index,
    pipeline_of,
    read_angles,
    read_extra,
)
from sanakit.weights.tensor_files import STEMS, missing_variant

T = TypeVar("T")

_CONFIGS = (
    "transformer/config.json",
    "vae/config.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
)


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


def describe_folder(folder: Path, unknown: UnknownFields = STRICT) -> Description:
    """Return the description of the transformer in a model's folder. Raises ConfigError."""
    found = _read_folder(folder, None, unknown.ignore)
    for note in found.notes:
        unknown.note(note)
    return Description(
        transformer=found.transformer, source=str(folder), schedule=found.schedule, dialect=found.dialect,
        instruct=found.instruct, bins=found.bins,
    )  # fmt: skip


def _read_folder(folder: Path, variant: str | None, ignore: frozenset[str]) -> ModelSpec:
    notes: list[str] = []
    unknown = UnknownFields(ignore=ignore, note=notes.append)
    index = read_json(folder / INDEX_FILE)
    name = pipeline_of(index, f"{folder}/{INDEX_FILE}")
    files = {INDEX_FILE: index} | {file: read_json(folder / file) for file in _CONFIGS}
    _check_ignored(ignore, files, folder)
    check_index(index, f"{folder}/{INDEX_FILE}", unknown)

    def read(parse: Callable[[Mapping[str, Any], str, UnknownFields], T], file: str) -> T:
        return parse(files[file], f"{folder}/{file}", unknown)

    def read_network(network: Network, file: str) -> Any:
        return read(config_format(files[file], network).read_config, file)

    transformer: TransformerConfig = read_network("transformer", "transformer/config.json")
    autoencoder: AutoencoderConfig = read_network("autoencoder", "vae/config.json")
    schedule = read(diffusers_scheduler.from_config, "scheduler/scheduler_config.json")
    text_config = read(gemma.from_config, "text_encoder/config.json")
    extra = folder / EXTRA_FILE
    settings = read_json(extra) if extra.exists() else {}
    dialect, instruct, bins = read_extra(settings, transformer, str(extra))
    schedule = replace(schedule, angles=read_angles(settings.get("angles", []), str(extra)))
    missing_variant({folder / part: stem for part, stem in STEMS.items()}, variant, notes.append)
    return ModelSpec(
        folder=folder,
        transformer_source=folder / "transformer",
        kind=PIPELINES[name],
        transformer=transformer.with_dialect(dialect),
        autoencoder=autoencoder,
        schedule=schedule,
        dialect=dialect,
        instruct=instruct,
        bins=bins,
        pag=name == PAG_PIPELINE,
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


def read_autoencoder_config(folder: Path) -> AutoencoderConfig:
    """Return the configuration of a diffusers `AutoencoderDC` folder. Raises ConfigError."""
    path = folder / "config.json"
    return diffusers_autoencoder.from_config(read_json(path), str(path))


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
    """Raise ConfigError when components contradict each other."""
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


def extra_config(spec: ModelSpec) -> dict[str, Any] | None:
    """sanakit.json, or None if every value is the default of a folder without it."""
    values: dict[str, Any] = {"dialect": spec.dialect.name, "instruct": spec.instruct, "bins": spec.bins}
    if spec.about is not None:
        values["about"] = spec.about.to_json()
    if spec.schedule.angles:
        values["angles"] = [list(angles) for angles in spec.schedule.angles]
    plain = (spec.dialect, spec.instruct, spec.bins) == read_extra({}, spec.transformer, EXTRA_FILE)
    return None if plain and not {"about", "angles"} & values.keys() else values
