"""The configurations of a model's networks without their weights: what estimates of memory and time go by."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from typing import TypeVar

import torch
from torch import nn

from sanakit.autoencoder import DCAE, AutoencoderConfig, LatentEncoder
from sanakit.autoencoder import PRESETS as AUTOENCODERS
from sanakit.base.errors import ModelNotFoundError
from sanakit.text import GEMMA_2_2B, TextConfig
from sanakit.transformer import PRESETS, ControlConfig, ControlNet, SanaTransformer, TransformerConfig
from sanakit.weights import PUBLISHED, ModelSpec, read_model_spec, resolve

Config = TypeVar("Config")


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """The three configurations that memory and time depend on."""

    transformer: TransformerConfig
    autoencoder: AutoencoderConfig
    text: TextConfig

    @classmethod
    def of(cls, spec: ModelSpec) -> Shapes:
        """Return those of a model."""
        return cls(transformer=spec.transformer, autoencoder=spec.autoencoder, text=spec.text_config)

    def parameters(self) -> tuple[int, int, int]:
        """Return the number of parameters of text encoder, transformer and decoder."""
        return (
            gemma_parameters(self.text),
            transformer_parameters(self.transformer),
            decoder_parameters(self.autoencoder),
        )

    def encoder_parameters(self) -> int:
        """Return the number of parameters of the encoding half of the autoencoder, which edits need besides."""
        return encoder_parameters(self.autoencoder)


def shapes_of(
    name: str, *, ignore: Collection[str] = (), note: Callable[[str], object] = warnings.warn
) -> Shapes:
    """Return those of a published model by its short name, else of a model on this machine; nothing is downloaded.

    ignore: fields of configuration files to read as if they weren't there. note: called with a sentence for each field
    that was ignored. Raises ModelNotFoundError if the name is neither, ConfigError as `read_model_spec`.
    """
    if name in PRESETS and name in PUBLISHED:
        return Shapes(transformer=PRESETS[name], autoencoder=AUTOENCODERS["f32c32-sana-1.1"], text=GEMMA_2_2B)

    def refuse(text: str) -> None:
        raise ModelNotFoundError(f"the model is not on this machine, and nothing is downloaded here ({text})")

    found = read_model_spec(resolve(name, announce=refuse), ignore=ignore)
    for text in found.notes:
        note(text)
    return Shapes.of(found)


def _count(build: Callable[[Config], nn.Module], config: Config) -> int:
    with torch.device("meta"):
        module = build(config)
    return sum(prod(parameter.shape) for parameter in module.parameters())


@cache  # here and below: a server counts for every request, which takes 50 ms
def transformer_parameters(config: TransformerConfig) -> int:
    """Return the parameters of a transformer.

    Counted at a depth of one and two, for all blocks are alike: a thousand would take seconds to build.
    """
    one, two = (_count(SanaTransformer, replace(config, depth=depth)) for depth in (1, 2))
    return one + (config.depth - 1) * (two - one)


@cache
def decoder_parameters(config: AutoencoderConfig) -> int:
    """Return the parameters of the decoding half of an autoencoder."""
    return _count(lambda config: DCAE(config).decoder, config)


@cache
def encoder_parameters(config: AutoencoderConfig) -> int:
    """Return the parameters of the encoding half of an autoencoder."""
    return _count(LatentEncoder, config)


@cache
def control_parameters(config: ControlConfig) -> int:
    """Return the parameters of a ControlNet, counted as those of the transformer."""
    one, two = (
        _count(ControlNet, replace(config, backbone=replace(config.backbone, depth=config.lead + copies)))
        for copies in (1, 2)
    )
    return one + (config.copies - 1) * (two - one)


def gemma_parameters(config: TextConfig) -> int:
    """Return the parameters of a Gemma-2 decoder by its configuration; building one would import transformers."""
    width, heads, kv_heads = (
        config["hidden_size"],
        config["num_attention_heads"],
        config["num_key_value_heads"],
    )
    attention = 2 * width * config["head_dim"] * (heads + kv_heads)
    layer = attention + 3 * width * config["intermediate_size"] + 4 * width
    return int(config["vocab_size"] * width + config["num_hidden_layers"] * layer + width)
