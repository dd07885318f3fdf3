"""What a run trains: the model that it starts from, its network, and its text encoder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from sanakit.base.bounds import Bounds
from sanakit.base.errors import ConfigError

_NAMED = Bounds()
"""Texts and paths that must not be empty."""


@dataclass(frozen=True, kw_only=True)
class GrowthConfig:
    """How a deeper network begins, for `model.start: grow`; see `sanakit grow`.

    Attributes:
        drop: this many of the base model's last blocks are left out first.
        how: what the new blocks are: "partial", "cyclic", "block-expand" or "progressive".
    """

    drop: Annotated[int, Bounds(least=0, most=10_000)] = 2
    how: Literal["partial", "cyclic", "block-expand", "progressive"] = "partial"


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network, and where its weights begin.

    Attributes:
        start: "base" continues the weights of the base model, "grow" adds blocks to them until `changes.depth` is
            reached, "scratch" draws fresh ones.
        preset: shape of a fresh network by its name in `transformer/presets.py`; None for the base model's own.
        changes: fields of `TransformerConfig` that differ from it, e.g. {depth: 4, qk_norm: true}.
        growth: how a network begins that grows.
    """

    start: Literal["base", "grow", "scratch"] = "base"
    preset: str | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    growth: GrowthConfig = field(default_factory=GrowthConfig)


@dataclass(frozen=True, kw_only=True)
class BaseConfig:
    """The model that a run starts from. A plain name in its place stands for `model`.

    Attributes:
        model: a model folder, a published short name, a hub id, or "toybox".
        autoencoder: a folder whose autoencoder takes the place of the model's: RUN/vae or another model; None for none.
    """

    model: Annotated[str, _NAMED] = "toybox"
    autoencoder: Annotated[str, _NAMED] | None = None


@dataclass(frozen=True, kw_only=True)
class TextTraining:
    """The text encoder: whose it is, and whether it is trained together with the transformer.

    Attributes:
        train: its weights are trained, too; otherwise it is frozen, and its states are computed once and cached.
        base: whose text encoder and tokenizer are used: a model, named as in `base`, or a folder that holds a Gemma-2
            and its tokenizer; None for the base model's.
        lr: its learning rate; None for `optimizer.lr`.
        vocabulary: "captions" gives every word of the captions that is read in pieces a token of its own, which is
            then learnt; "base" leaves the tokenizer as it is.
    """

    train: bool = False
    base: Annotated[str, _NAMED] | None = None
    lr: Annotated[float, Bounds(least=0, most=10)] | None = None
    vocabulary: Literal["base", "captions"] = "base"

    def __post_init__(self) -> None:
        if self.train:
            return
        if self.lr is not None:
            raise ConfigError("text.lr is the rate of a text encoder that is trained: add text.train=true")
        if self.vocabulary != "base":
            raise ConfigError("text.vocabulary=captions adds words that must be learnt: add text.train=true")


@dataclass(frozen=True, kw_only=True)
class BaseFile:
    """Everything that a base does not hold if it is a file of weights.

    Attributes:
        parts: the model that gives text encoder and autoencoder.
        config: the JSON file that describes the network, if it does not lie beside the file.
        like_model: the published model (or model folder) that the network is like.
        weights: which weights of a trainer's file; None for its model, or for its average if there is nothing else.
    """

    parts: str
    config: Path | None = None
    like_model: str | None = None
    weights: Literal["model", "ema"] | None = None
