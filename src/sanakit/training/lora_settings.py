"""The settings of the task "lora": adapters beside a frozen model, a subject to teach, and pictures of its class."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from sanakit.base.bounds import Bounds, Positive, Weight
from sanakit.base.errors import ConfigError

_NAMED = Bounds()

Init = Literal["kaiming", "gaussian", "pissa"]
"""How adapters begin."""

Frozen = Literal["auto", "fp32", "bf16", "int8"]
"""What the weights of the base model are kept in."""


PriorTarget = Literal["pictures", "base"]
"""Whose velocity class pictures teach."""


@dataclass(frozen=True, kw_only=True)
class PriorConfig:
    """Prior preservation (DreamBooth, arXiv 2208.12242, equation 2): pictures of the class, learnt beside the subject.

    Attributes:
        weight: of the loss of class pictures, as many of which join each step as the batch has; 0 for none.
        target: what is learnt from them: "pictures", their own velocity, or "base", the base model's answer to them, of
            which least is forgotten; that loss begins at 0, so a weight of 10 suits it, and costs a pass forward.
        prompts: what class pictures show, e.g. [a dog]; of several, they take turns.
        path: a set of class pictures; None lets the base model draw them, to RUN/class.
        count: pictures that it draws.
        steps: solver steps of a picture.
        guidance: classifier-free guidance scale of them.
    """

    weight: Weight = 0.0
    target: PriorTarget = "pictures"
    prompts: tuple[str, ...] = ()
    path: Annotated[Path, _NAMED] | None = None
    count: Positive = 100
    steps: Annotated[int, Bounds(least=1, most=1000)] = 20
    guidance: Annotated[float, Bounds(least=0, most=1000)] = 4.5

    def __post_init__(self) -> None:
        given = "path" if self.path is not None else "prompts" if self.prompts else None
        unread = given or ("target" if self.target != "pictures" else None)
        if unread and not self.weight:
            raise ConfigError(
                f"lora.prior.{unread} is of class pictures, which lora.prior.weight=0 leaves out: "
                "set lora.prior.weight=1, or leave it out"
            )
        if self.weight and given is None:
            raise ConfigError(
                "lora.prior.weight is of class pictures: say what they show, e.g. lora.prior.prompts=[a dog], or where "
                "they are (lora.prior.path)"
            )
        if any(not prompt.strip() for prompt in self.prompts):
            raise ConfigError("lora.prior.prompts: an empty prompt shows no class")


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Settings that only the task "lora" reads (LoRA, arXiv 2106.09685).

    Attributes:
        rank: inner width of every adapter.
        alpha: a change of a weight is multiplied by alpha / rank, with `rslora` by alpha / sqrt(rank); None for rank.
        targets: layers that get an adapter: attention, cross, ffn or a layer of every block (ffn.depthwise), a part of
            the network (text), or a pattern (blocks.1*.cross.q).
        init: "kaiming" and "gaussian" draw one factor and leave the other at 0, "pissa" begins with the largest
            singular values of the weight (arXiv 2404.02948); all begin with what the base model draws.
        dropout: share of an adapter's inputs that is dropped while training.
        rslora: scale by the square root of the rank (arXiv 2312.03732).
        dora: learn the lengths of the rows of a weight apart from their directions (arXiv 2402.09353).
        frozen: what the base model's weights are kept in; "auto" is what is computed in, or int8 if they are so.
        prompt: caption of every picture that has none, e.g. a photo of sks dog.
        prior: pictures of the class that the subject belongs to.
    """

    rank: Annotated[int, Bounds(least=1, most=4096)] = 16
    alpha: Annotated[float, Bounds(above=0, most=10**6)] | None = None
    targets: tuple[str, ...] = ("attention", "cross")
    init: Init = "kaiming"
    dropout: Annotated[float, Bounds(least=0, below=1)] = 0.0
    rslora: bool = False
    dora: bool = False
    frozen: Frozen = "auto"
    prompt: Annotated[str, _NAMED] | None = None
    prior: PriorConfig = field(default_factory=PriorConfig)

    def __post_init__(self) -> None:
        if not self.targets:
            raise ConfigError("lora.targets is empty: name layers to adapt, e.g. [attention, cross]")
        if self.dora and self.init == "pissa":
            raise ConfigError(
                "lora.dora keeps the lengths of rows that lora.init=pissa takes apart: choose one of them"
            )

    @property
    def scale(self) -> float:
        """What a change of a weight is multiplied by."""
        alpha = self.rank if self.alpha is None else self.alpha
        return alpha / math.sqrt(self.rank) if self.rslora else alpha / self.rank
