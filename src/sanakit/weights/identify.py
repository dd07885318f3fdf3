"""From a file of weights to its description: first from the user, then from `x.json` beside it, then by its tensors.

If several published models have the same tensors, none of them is assumed: the user is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from sanakit.autoencoder import AutoencoderConfig
from sanakit.base.dialect import OFFICIAL
from sanakit.base.errors import ConfigError, RequestError
from sanakit.transformer import ControlConfig, TransformerConfig
from sanakit.weights.checkpoint import Checkpoint, Part
from sanakit.weights.description import (
    Description,
    check_fit,
    description_file,
    read_autoencoder_description,
    read_description,
)
from sanakit.weights.formats import dcae_pth, sana_control_pth, sana_pth
from sanakit.weights.formats.diffusers_scheduler import Schedule
from sanakit.weights.formats.registry import file_format
from sanakit.weights.published import DESIGNS, PUBLISHED

_EPSILONS = ("norm_eps", "text_norm_eps", "attention_eps", "qk_norm_eps", "cross_norm_eps")
# Taken from a similar model of another size.
_BORROWED = ("sample_size", "position_scale", "time_scale", "guidance_scale", "norm_eps", "text_norm_eps")
_HEAD_DIM = 32


@dataclass(frozen=True, kw_only=True)
class Hints:
    """What the user states about a file of weights.

    config: a file (or folder) that describes the network. like_model: a published short name, or a model's folder,
    whose network is like it. weights: which part of a trainer's file. The others are single values of the network.
    """

    config: Path | None = None
    like_model: str | None = None
    weights: Part | None = None
    cross_heads: int | None = None
    sample_size: int | None = None
    position_scale: float | None = None

    def __post_init__(self) -> None:
        if self.config is not None and self.like_model is not None:
            raise RequestError("--config and --like-model say the same thing: give one of them")

    @property
    def given(self) -> bool:
        """Whether there are any hints."""
        return any(getattr(self, field.name) is not None for field in fields(self))

    @property
    def texts(self) -> dict[str, str]:
        """The hints as texts, for the metadata of a picture; `from_texts` reads them."""
        found = {"config": self.config, "like_model": self.like_model, "part": self.weights}
        return {name: str(value) for name, value in found.items() if value is not None}

    @classmethod
    def from_texts(cls, texts: Mapping[str, str]) -> Hints:
        """Read the metadata of a picture. Raises RequestError for values that `texts` never writes."""
        part: Any = texts.get("part")
        if part not in (None, "model", "ema"):
            raise RequestError(f"the picture names weights that no file has: {part[:40]!r}")
        config = texts.get("config")
        return cls(config=None if config is None else Path(config), like_model=texts.get("like_model"),
                   weights=part)  # fmt: skip

    @property
    def numbers(self) -> dict[str, Any]:
        """The single values that were given."""
        named = {name: getattr(self, name) for name in ("cross_heads", "sample_size", "position_scale")}
        return {name: value for name, value in named.items() if value is not None}


def describe_file(
    path: Path,
    shapes: Mapping[str, Sequence[int]],
    hints: Hints,
    read_model: Callable[[Path], Description] = read_description,
) -> tuple[Description, tuple[str, ...]]:
    """Return the description of a file with tensors of these shapes, and notes on what was assumed.

    read_model: describes the folder of a whole model, if `like_model` is one.
    Raises ConfigError if the description contradicts the tensors, if several published models have such tensors, or
    if none has and there are too few hints; WeightsError for other networks.
    """
    facts = file_format(shapes, "transformer").read_shapes(shapes, str(path))
    if hints.like_model is not None:
        found, notes = _like(_named(hints.like_model, read_model), hints.like_model, facts, hints, path)
    elif hints.config is not None:
        found, notes = read_description(hints.config), ()
    elif description_file(path).exists():
        found, notes = read_description(description_file(path)), ()
    else:
        found, notes = _known(path, shapes, facts, hints)
    found = replace(found, transformer=replace(found.transformer, **hints.numbers))
    check_fit(found, replace(facts, side=None) if hints.sample_size else facts, str(path))
    if found.schedule is None:
        found = replace(found, schedule=_schedule_of(found.transformer))
    return found, notes


def describe_autoencoder(opened: Checkpoint, hints: Hints) -> AutoencoderConfig:
    """Return the configuration of an autoencoder's file: from `hints.config`, from beside it, or of a published one.

    Raises RequestError for hints that describe a transformer, ConfigError if the description contradicts the tensors.
    """
    source = opened.path
    if hints.numbers or hints.like_model is not None:
        raise RequestError(f"{source} is an autoencoder: describe it by --config FILE alone")
    file = hints.config or description_file(source)
    row = file_format(opened.shapes, "autoencoder")
    if hints.config is None and not file.exists():
        inferred: AutoencoderConfig = row.infer(opened.shapes, str(source))
        return inferred
    config = read_autoencoder_description(file)
    if not dcae_pth.fits(config, row.read_shapes(opened.shapes, str(source))):
        raise ConfigError(f"{file} does not describe {source}: its stages are not those of the tensors")
    return config


def describe_control(
    opened: Checkpoint, hints: Hints, read_model: Callable[[Path], Description] = read_description
) -> ControlConfig:
    """Return the configuration of an official ControlNet, by the network that hints name, else by SANA's conventions.

    Raises ConfigError if hints name another network or the conventions don't tell, WeightsError.
    """
    where = str(opened.path)
    if hints.like_model is None and hints.config is None:
        inferred: ControlConfig = file_format(opened.shapes, "control").infer(
            opened.shapes, where=where, **hints.numbers
        )
        return inferred
    similar = read_description(hints.config) if hints.config else _named(str(hints.like_model), read_model)
    return sana_control_pth.of_base(opened.shapes, replace(similar.transformer, **hints.numbers), where)


def _known(
    path: Path, shapes: Mapping[str, Sequence[int]], facts: sana_pth.TensorFacts, hints: Hints
) -> tuple[Description, tuple[str, ...]]:
    """Return the one published model with such tensors; if there is none, SANA's conventions and the hints."""
    names = [name for name, design in DESIGNS.items() if _fits(design.transformer, facts, hints)]
    if len(names) > 1:
        raise ConfigError(
            f"{path} has the tensors of {', '.join(names[:-1])} and {names[-1]}, which differ in what no tensor says "
            "(size, positions, time, schedule): say which it is by --like-model NAME, or give --config FILE"
        )
    if names:
        return _of_design(names[0]), (f"{path} is taken for {names[0]}, whose tensors it has.",)
    if facts.side is None and hints.sample_size is None:
        raise ConfigError(
            f"{path} has the tensors of no published model, and nothing says its size, positions and schedule: "
            "give --config FILE or --like-model NAME"
        )
    config: TransformerConfig = file_format(shapes, "transformer").infer(
        shapes, where=str(path), **hints.numbers
    )
    positions = (
        "without positions" if config.position_scale is None else f"positions / {config.position_scale:g}"
    )
    note = (
        f"{path} has the tensors of no published model; taken for granted: {config.heads} heads, a latent of "
        f"{config.sample_size}, {positions}, times up to 1000. --config FILE or --like-model NAME say otherwise."
    )
    return Description(transformer=config, source="what was given"), (note,)


def _fits(config: TransformerConfig, facts: sana_pth.TensorFacts, hints: Hints) -> bool:
    return (
        all(getattr(config, name) == value for name, value in (*facts.values.items(), *hints.numbers.items()))
        and int(config.ffn_ratio * config.width) == facts.hidden
        and (hints.sample_size is not None or facts.side in (None, config.sample_size))
    )


def _of_design(name: str) -> Description:
    design = DESIGNS[name]
    return Description(
        transformer=design.transformer.with_dialect(OFFICIAL),
        source=name,
        schedule=design.schedule,
        instruct=design.instruct,
        bins=design.bins,
    )


def _like(
    similar: Description, name: str, facts: sana_pth.TensorFacts, hints: Hints, path: Path
) -> tuple[Description, tuple[str, ...]]:
    """Return the description of a similar model; if its size differs, only what doesn't depend on size."""
    config = similar.transformer
    same = {key: value for key, value in facts.values.items() if getattr(config, key) != value}
    if not same and int(config.ffn_ratio * config.width) == facts.hidden:
        return similar, ()
    kinds = [key for key in ("qk_norm", "guidance_embed", "patch_size") if key in same]
    if kinds:
        raise ConfigError(
            f"{path} is not like {name}: it has {kinds[0]} {facts.values[kinds[0]]}, and {name} has "
            f"{getattr(config, kinds[0])}"
        )
    width = facts.values["width"]
    cross_heads = hints.cross_heads or (
        config.cross_heads if width == config.width else sana_pth.CROSS_HEADS.get(width)
    )
    if cross_heads is None or width % _HEAD_DIM:
        raise ConfigError(
            f"{path} has width {width} and {name} {config.width}, so its heads can't be told: give --config FILE"
            + ("" if width % _HEAD_DIM else ", or --cross-heads where it is converted")
        )
    shape = TransformerConfig(
        **facts.values,
        heads=width // _HEAD_DIM,
        cross_heads=cross_heads,
        ffn_ratio=sana_pth.ffn_ratio(facts.hidden, width),
        **{key: getattr(config, key) for key in _BORROWED},
    )
    differing = ", ".join(f"{key} {value}" for key, value in list(same.items())[:3])
    note = f"{path} differs from {name} in size ({differing}); the rest is as there."
    return replace(similar, transformer=shape.with_dialect(similar.dialect)), (note,)


def _named(name: str, read_model: Callable[[Path], Description]) -> Description:
    """Describe a model by short name, hub id of a published one, or folder (a model's, or a transformer's)."""
    short = next((key for key, entry in PUBLISHED.items() if entry.repo == name), name)
    if short in DESIGNS:
        return _of_design(short)
    folder = Path(name).expanduser()
    if (folder / "model_index.json").is_file():
        return read_model(folder)
    if folder.exists():
        return read_description(folder)
    close = get_close_matches(name, DESIGNS, n=2, cutoff=0.4) or list(DESIGNS)
    raise ConfigError(f"--like-model {name[:80]!r} isn't a known model; there is {', '.join(close)}")


def _schedule_of(config: TransformerConfig) -> Schedule | None:
    """Return the schedule of the published models with this configuration, ignoring their epsilons."""
    plain = {name: getattr(TransformerConfig, name) for name in _EPSILONS}
    similar = [
        design.schedule for design in DESIGNS.values() if design.transformer == replace(config, **plain)
    ]
    return similar[0] if similar else None
