"""A model with a part of another one: its autoencoder, or its text encoder with the tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sanakit.autoencoder import AutoencoderConfig
from sanakit.base.errors import ConfigError
from sanakit.base.files import is_folder, user_path
from sanakit.weights.formats.fields import read_json
from sanakit.weights.model_index import EXTRA_FILE
from sanakit.weights.model_spec import ModelSpec, read_autoencoder_config
from sanakit.weights.names import resolve_autoencoder
from sanakit.weights.published import AUTOENCODERS

_INDEX = "model_index.json"


def with_autoencoder(spec: ModelSpec, source: Path) -> ModelSpec:
    """Take the autoencoder of `source` into a model: a folder with an `AutoencoderDC`, as RUN/vae, or a whole model.

    Raises ConfigError if there is none, or its latents have another number of channels or pixels.
    """
    folder = _part(source, "vae", "autoencoder (config.json of an AutoencoderDC, as in RUN/vae)")
    found = read_autoencoder_config(folder)
    _check_latents(spec, found, f"the autoencoder in {folder}")
    return replace(spec, autoencoder=found, other_autoencoder=folder)


def with_decoder(
    spec: ModelSpec, name: str | Path, *, announce: Callable[[str], object] = lambda text: None
) -> ModelSpec:
    """Take the autoencoder of a name, see `resolve_autoencoder`; a short one is checked before it is fetched.

    Raises as `with_autoencoder`, ConfigError if a short name's latents are not the model's, ModelNotFoundError.
    """
    known = None if is_folder(user_path(name)) else AUTOENCODERS.get(str(name))
    if known is not None:
        what = f"the decoder {name} ({known.repo})"
        _check_latents(spec, known.config, what)
        if known.config.scaling_factor != spec.autoencoder.scaling_factor:
            raise ConfigError(
                f"{what} reads latents of the scale {known.config.scaling_factor:g}, those of the "
                f"published models, and those of {spec.folder} have {spec.autoencoder.scaling_factor:g}: leave it out"
            )
    return with_autoencoder(spec, resolve_autoencoder(name, announce=announce))


def _check_latents(spec: ModelSpec, found: AutoencoderConfig, what: str) -> None:
    """Raise ConfigError if an autoencoder's latents have another shape than the transformer's."""
    wanted = spec.transformer.latent_channels
    if found.latent_channels != wanted:
        raise ConfigError(
            f"{what} has {found.latent_channels} latent channels, but the transformer of "
            f"{spec.folder} has {wanted}: take an autoencoder that was trained from this model's"
        )
    if found.ratio != spec.autoencoder.ratio:
        raise ConfigError(
            f"{what} makes {found.ratio} pixels of a latent position along each side, and the model in {spec.folder} "
            f"was trained on positions of {spec.autoencoder.ratio}: take one that was trained from this model's"
        )


def with_text_encoder(spec: ModelSpec, source: Path, *, widen: bool = False) -> ModelSpec:
    """Return the model with text encoder, tokenizer and instruction of `source`.

    source: a whole model, or a folder that holds a Gemma-2 (config.json, weights) and its tokenizer; a bare one says
    nothing of the instruction, so the model's stays. widen: describe a transformer that reads the new states' width.
    Raises ConfigError if something is missing, or the states are of another width and `widen` is false.
    """
    folder = _part(source, "text_encoder", "text encoder (config.json of a Gemma-2, or a whole model)")
    tokenizer = source / "tokenizer" if (source / "tokenizer").is_dir() else folder
    if not any(tokenizer.glob("tokenizer*")):
        raise ConfigError(f"{source} holds a text encoder without its tokenizer (tokenizer.json is missing)")
    config = read_json(folder / "config.json")
    width, transformer = config.get("hidden_size"), spec.transformer
    if width != transformer.text_width:
        if not (widen and isinstance(width, int) and width > 0):
            raise ConfigError(
                f"the text encoder in {folder} is {str(width)[:20]} wide, but the transformer of {spec.folder} "
                f"reads states of {transformer.text_width}: say model.start=scratch to train one that fits"
            )
        transformer = replace(transformer, text_width=width)
    extra = source / EXTRA_FILE
    instruct = spec.instruct
    if (source / _INDEX).exists():
        stated = read_json(extra).get("instruct", True) if extra.exists() else True
        instruct = stated if isinstance(stated, bool) else True
    return replace(
        spec, transformer=transformer, text_config=config, instruct=instruct,
        other_text=folder, other_tokenizer=tokenizer,
    )  # fmt: skip


def _part(source: Path, name: str, what: str) -> Path:
    """Return the folder of a component: inside a whole model, or `source` itself. Raises ConfigError."""
    inside = source / name
    if (inside / "config.json").is_file():
        return inside
    if not (source / "config.json").is_file():
        raise ConfigError(f"{source} holds no {what}")
    return source
